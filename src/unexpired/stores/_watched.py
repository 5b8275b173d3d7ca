"""What one process knows of one session that others may change; see `_watching`."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Protocol

from unexpired._core.session import Session

__all__ = ["Entry", "Watcher"]


class Watcher(Protocol):
    """What an entry needs of its board."""

    live: bool

    def first_mark(self, entry: Entry) -> object:
        """The stamp before anything is heard."""
        ...


class Entry:
    """What is known of one session. Calling it gives its stamp, which differs after each change that was heard of.

    *mark* is None until changes are heard of at all. *waiting* holds one event for each thread that waits for the
    lease. *known* is the session as it was last loaded, with the mark it had just before.
    """

    __slots__ = ("__weakref__", "board", "known", "loading", "mark", "waiting")

    def __init__(self, board: Watcher, mark: int | None) -> None:
        self.board = board
        self.mark = mark
        self._forget()

    def start_anew(self) -> None:
        """Nothing is known, and nobody waits."""
        self.mark = None
        self._forget()

    def _forget(self) -> None:
        self.known: tuple[int, Session | None] | None = None
        self.waiting: frozenset[threading.Event] = frozenset()
        self.loading = threading.Lock()

    def __call__(self) -> object:
        mark = self.mark
        return self.board.first_mark(self) if mark is None else mark

    def load(self, load: Callable[[], Session | None], patience: float) -> Session | None:
        """What *load* gives, or gave since the last change, if everything is heard.

        Of many who ask after a change one loads and the others wait for it, *patience* seconds at most.
        """
        loading = self.loading
        mine = not self._is_known() and loading.acquire(timeout=patience)
        try:
            known, mark = self.known, self.mark
            if known is not None and known[0] == mark and self.board.live:
                return known[1]
            session = load()
            if mark is not None and self.board.live:
                self.known = (mark, session)
            return session
        finally:
            if mine:
                loading.release()

    def _is_known(self) -> bool:
        known = self.known
        return known is not None and known[0] == self.mark
