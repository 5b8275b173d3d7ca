"""How many calls are under way, told in order to those who show it."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Generator
from contextlib import contextmanager

from unexpired.api._showing import Spinner
from unexpired.errors import place_of

__all__ = ["Loading"]

Watcher = Callable[[int], object]
_log = logging.getLogger("unexpired")


class Loading:
    """Counts the calls that are inside ``with loading:`` blocks. Thread-safe.

    A watcher hears every count, in the order of the counts and never two at once: threads that end together could
    otherwise tell it 0 before 1, and it would show a call for ever. It is called without a lock, so it may make calls
    itself; what it raises is logged, because a call must not fail because of how it is shown.
    """

    def __init__(self, watcher: Watcher | None) -> None:
        self._watchers: list[Watcher] = [] if watcher is None else [watcher]
        self._active = 0
        self._lock = threading.Lock()
        self._untold: deque[tuple[int, tuple[Watcher, ...]]] = deque()
        self._telling = False

    def __enter__(self) -> None:
        try:
            self._count(1)
        except BaseException:  # Ctrl-C while a watcher was running
            self._count(-1)
            raise

    def __exit__(self, *_: object) -> None:
        self._count(-1)

    @contextmanager
    def spinner(self, text: str) -> Generator[None]:
        """Show a spinner while calls are under way, until the block ends."""
        spinner = Spinner(text)
        with self._lock:
            self._watchers.append(spinner)
            self._untold.append((self._active, (spinner,)))
        try:
            self._tell()
            yield
        finally:
            with self._lock:
                self._watchers.remove(spinner)
            spinner.close()

    def _count(self, step: int) -> None:
        with self._lock:
            self._active += step
            if not self._watchers:
                return
            self._untold.append((self._active, tuple(self._watchers)))
        self._tell()

    def _tell(self) -> None:
        """Tell what is untold, unless another thread (or this one, further up) is at it and will see the rest."""
        while True:
            with self._lock:
                if self._telling or not self._untold:
                    return
                self._telling = True
                active, watchers = self._untold.popleft()
            try:
                for watcher in watchers:
                    try:
                        watcher(active)
                    except Exception as error:  # noqa: BLE001 - see the class
                        _log.warning("on_loading raised %s", place_of(error))
            finally:
                self._telling = False
