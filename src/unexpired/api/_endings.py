"""The end of a login, told to a program once, however many calls, clients and event loops it was waiting in."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from inspect import isawaitable
from typing import Any
from weakref import WeakKeyDictionary

from unexpired.errors import LoginRequired, StoreError, place_of
from unexpired.manager import TokenManager

__all__ = ["Endings"]

Hook = Callable[[LoginRequired], Any]
News = tuple[str, tuple[tuple[str, str], ...] | None]

_log = logging.getLogger("unexpired")
_lock = threading.Lock()
# By what the managers of one session share in this process, and so do the clients of these managers.
_told: WeakKeyDictionary[object, News] = WeakKeyDictionary()


class Endings:
    """The hooks of one client. Thread-safe.

    What a hook raises is logged: every caller gets its LoginRequired. A hook that is cancelled or interrupted has not
    told anybody, so the next caller's runs anew.
    """

    def __init__(
        self, manager: TokenManager, clear_user: Callable[[], Any] | None, on_login_required: Hook | None
    ) -> None:
        self._manager = manager
        self._hooks: list[Hook] = []
        if clear_user is not None:
            self._hooks.append(lambda _: clear_user())
        if on_login_required is not None:
            self._hooks.append(on_login_required)

    def tell(self, error: LoginRequired) -> None:
        """Run the hooks, here and now, if this caller is the first to hear that this login is over."""
        with self._first(error) as hooks:
            for hook in hooks:
                try:
                    hook(error)
                except Exception as mistake:  # noqa: BLE001 - see the class
                    _log.warning("a hook for the end of a login raised %s", place_of(mistake))

    async def atell(self, error: LoginRequired) -> None:
        """`tell`, for hooks that may be async functions."""
        with self._first(error) as hooks:
            for hook in hooks:
                try:
                    said = hook(error)
                    if isawaitable(said):
                        await said
                except Exception as mistake:  # noqa: BLE001 - see the class
                    _log.warning("a hook for the end of a login raised %s", place_of(mistake))

    @contextmanager
    def _first(self, error: LoginRequired) -> Generator[list[Hook]]:
        """The hooks that are this caller's to run."""
        news = self._news(error)
        cell = self._manager._cell
        with _lock:
            mine = news is not None and _told.get(cell) != news
            if mine and news is not None:
                _told[cell] = news
        try:
            yield self._hooks if mine else []
        except BaseException:
            with _lock:
                _told.pop(cell, None)
            raise

    def _news(self, error: LoginRequired) -> News | None:
        """What *error* says of which login; None when there is nothing to tell."""
        if not self._hooks or self._manager._page.is_here():
            return None
        try:
            session = self._manager.session()
        except StoreError:
            session = None
        login = "" if session is None else session.login
        if error.reason == "step_up":
            return login, tuple(sorted(error.challenge.items()))
        # A caller that is late finds the next login already there, which is not over.
        alive = session is not None and session.ended is None
        return None if alive else (login, None)
