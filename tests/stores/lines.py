"""Boards and the lines they hear on, which a test cuts, mends and speaks on."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.stores.redis_server import BOUND
from tests.waiting import until
from unexpired.errors import StoreError
from unexpired.stores._listening import Run
from unexpired.stores._watching import Board

NUMBERS = itertools.count(1)


class Store:
    """Somebody who uses a board."""


class Line:
    """A way to hear of changes that the test cuts, mends and speaks on."""

    def __init__(self) -> None:
        self.stands = self.readable = True
        self.attempts = self.looks = 0
        self.looked_by: set[threading.Thread] = set()
        self.hangs: threading.Event | None = None
        self.messages: queue.SimpleQueue[str] = queue.SimpleQueue()

    def __call__(self, run: Run) -> None:
        """Listen."""
        self.attempts += 1
        if self.hangs is not None:
            assert self.hangs.wait(BOUND)
        self._check()
        run.up()
        while run.is_wanted():
            try:
                run.heard(self.messages.get(timeout=0.005))
            except queue.Empty:
                self._check()

    def _check(self) -> None:
        if not self.stands:
            raise StoreError("the line is cut")

    def reads(self) -> bool:
        """Look."""
        self.looks += 1
        self.looked_by.add(threading.current_thread())
        return self.readable

    def say(self, kind: str, name: str) -> None:
        """What another process tells."""
        self.messages.put(f"{kind} {name} other.{next(NUMBERS)}")


def listeners() -> list[threading.Thread]:
    """The threads that listen."""
    return [one for one in threading.enumerate() if one.name == "unexpired:test"]


@contextmanager
def hearing(line: Line) -> Iterator[Board]:
    """A board that hears on *line*; nobody listens any more afterwards."""
    store, board = Store(), Board(line, "test")
    board.join(store)
    yield board
    board.leave(store)
    until(lambda: not listeners(), "the thread ends")
