"""How SQLite is spoken to: transactions, patience, and its errors in our words."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager

from unexpired.errors import StoreError
from unexpired.stores._changes import Changes, place_of_key

__all__ = ["BUSY", "Turn", "Writing", "patiently", "transaction", "why"]

BUSY = 10.0
"""Seconds to wait for who is writing."""


class Turn:
    """A lock that its thread may take again, as in a signal handler, and that knows how often it was taken."""

    def __init__(self) -> None:
        self.depth = 0
        self._lock = threading.RLock()

    def take(self, wait: float = -1) -> bool:
        """Wait for it; whether it was taken."""
        taken = self._lock.acquire(timeout=wait)
        self.depth += taken
        return taken

    def give(self) -> None:
        """Give it back."""
        self.depth -= 1
        self._lock.release()

    def __enter__(self) -> None:
        self.take()

    def __exit__(self, *_: object) -> None:
        self.give()


class Writing:
    """A transaction under way."""

    def __init__(self, connection: sqlite3.Connection, changes: Changes | None) -> None:
        self.execute = connection.execute
        self._changes = changes
        self._begun: list[tuple[int, bytes]] = []

    def change(self, name: bytes, key: str) -> None:
        """Announce that the record of *name* is changed in this transaction. Raises StoreError."""
        if self._changes is not None:
            place = place_of_key(name)
            self._begun.append((place, self._changes.begin(place, key)))

    def committed(self) -> None:
        """Say so to all processes."""
        for place, number in self._begun:
            if self._changes is not None:
                self._changes.end(place, number)


def patiently(connection: sqlite3.Connection, statement: str, patience: float) -> None:
    """Execute what does not wait by itself while another process does the same."""
    until = time.monotonic() + patience
    while True:
        try:
            connection.execute(statement)
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= until:
                raise
            time.sleep(0.005)


@contextmanager
def transaction(connection: sqlite3.Connection) -> Generator[None]:
    nested = connection.in_transaction
    if nested:
        raise StoreError("a signal handler cannot store anything in the middle of a swap: let it only note what to do")
    # Inside: Ctrl-C while it waits is raised when it has begun.
    try:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


_ADVICE = {
    "SQLITE_NOTADB": "it is no database, or damaged: move it away, and log in again",
    "SQLITE_CORRUPT": "it is damaged: move it away, and log in again",
    "SQLITE_ERROR": "it is not as unexpired made it: move it away, and log in again",
    "SQLITE_FULL": "free some space there, or name another file",
    "SQLITE_IOERR": "free some space there, or check the file system",
    "SQLITE_READONLY": "let this user write there, or name another file",
    "SQLITE_CANTOPEN": "let this user write there, or name another file",
    "SQLITE_BUSY": "somebody holds it: look for a process that is stopped",
}


def why(error: sqlite3.Error) -> str:
    """What SQLite said, which never holds a value, and what to do about it."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    advice = next((text for prefix, text in _ADVICE.items() if name.startswith(prefix)), "check the file system")
    return f"{name}; {advice}"
