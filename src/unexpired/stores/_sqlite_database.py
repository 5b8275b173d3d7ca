"""One SQLite database of sessions: its file, its connections and its schema."""

from __future__ import annotations

import os
import sqlite3
import threading
import weakref
from collections.abc import Generator
from contextlib import contextmanager
from typing import cast

from unexpired.errors import StoreError
from unexpired.stores import _private

__all__ = ["Database"]

_APPLICATION = 0x756E6578  # "unex": what `file` shows, and what keeps us off other people's databases
_BUSY = 10.0
_MIGRATIONS = (
    (
        "CREATE TABLE sessions (key BLOB PRIMARY KEY, change INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE aside (key BLOB NOT NULL, record BLOB NOT NULL, at TEXT NOT NULL)",
    ),
)
"""What leads from each version of the schema to the next. Only ever added to."""


class Database:
    """The connections of one process to one file: one that reads, for all threads, and one that writes.

    Nothing is opened before it is needed. A forked child opens its own and leaves its parent's alone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.reading: sqlite3.Connection | None = None
        self._writing: sqlite3.Connection | None = None
        self._lock = threading.Lock()
        self._inode = 0
        _databases.add(self)

    def read(self, key: str) -> sqlite3.Connection | None:
        """The connection that reads; None when there is no database yet. Raises StoreError."""
        if self.reading is None or self._moved():
            with self._lock:
                if not os.path.exists(self.path):
                    self._forget()
                    return None
                self._open(key)
        return self.reading

    @contextmanager
    def written(self, key: str) -> Generator[sqlite3.Connection]:
        """A transaction that nobody else writes in, committed durably at the end. Raises StoreError."""
        _private.lock_down(os.path.dirname(self.path), key, create=True)
        with self._lock, self.in_our_words("write", key):
            if self._writing is None or self._moved():
                _private.create(self.path, key)
                self._open(key)
            writing = cast("sqlite3.Connection", self._writing)
            with _transaction(writing):
                yield writing

    @contextmanager
    def in_our_words(self, doing: str, key: str) -> Generator[None]:
        """StoreError, saying what to do, for what SQLite raises."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {doing} {self.path}: {_why(error)}", key=key) from error

    def close(self) -> None:
        """Close the connections. The next use opens them again."""
        with self._lock:
            for connection in (self.reading, self._writing):
                if connection is not None:
                    connection.close()
            self._forget()

    def _forget(self) -> None:
        self.reading = self._writing = None
        self._inode = 0

    def _moved(self) -> bool:
        """Whether the file is another one than the one that was opened: somebody removed or replaced it."""
        try:
            return os.stat(self.path).st_ino != self._inode
        except OSError:
            return True

    def _open(self, key: str) -> None:
        _private.lock_down(os.path.dirname(self.path), key, create=False)
        try:
            found = os.lstat(self.path)
        except OSError as error:
            raise _private.trouble("open", self.path, error, key) from error
        _private.check(found, self.path, key)
        with self.in_our_words("open", key):
            writing = self._connect()
            try:
                self._migrate(writing, key)
                reading = self._connect()
                reading.execute("PRAGMA query_only = 1")
            except BaseException:
                writing.close()
                raise
        self._forget()
        self.reading, self._writing, self._inode = reading, writing, found.st_ino

    def _connect(self) -> sqlite3.Connection:
        # One connection serves all threads: SQLite itself lets them in one by one.
        connection = sqlite3.connect(self.path, timeout=_BUSY, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA synchronous = FULL")
        return connection

    def _migrate(self, writing: sqlite3.Connection, key: str) -> None:
        writing.execute("PRAGMA journal_mode = WAL")
        with _transaction(writing):
            (version,) = writing.execute("PRAGMA user_version").fetchone()
            (application,) = writing.execute("PRAGMA application_id").fetchone()
            (tables,) = writing.execute("SELECT count(*) FROM sqlite_master").fetchone()
            if application != _APPLICATION and (application, version, tables) != (0, 0, 0):
                raise StoreError(
                    f"refused to use {self.path}: it is a database of another program; name another file", key=key
                )
            if version > len(_MIGRATIONS):
                raise StoreError(
                    f"cannot read {self.path}: it was written by a newer unexpired (this one knows layouts up to "
                    f"{len(_MIGRATIONS)}); update this program",
                    key=key,
                )
            for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
                for statement in statements:
                    writing.execute(statement)
                writing.execute(f"PRAGMA user_version = {number}")
            writing.execute(f"PRAGMA application_id = {_APPLICATION}")


@contextmanager
def _transaction(connection: sqlite3.Connection) -> Generator[None]:
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
        connection.execute("COMMIT")
    except BaseException:
        # Some errors have ended it already.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _why(error: sqlite3.Error) -> str:
    """What SQLite said, which never holds a value, and what to do about it."""
    name = getattr(error, "sqlite_errorname", "") or type(error).__name__
    advice = {
        "SQLITE_NOTADB": "it is no database, or damaged: move it away, and log in again",
        "SQLITE_CORRUPT": "it is damaged: move it away, and log in again",
        "SQLITE_FULL": "free some space there, or name another file",
        "SQLITE_READONLY": "let this user write there, or name another file",
        "SQLITE_CANTOPEN": "let this user write there, or name another file",
        "SQLITE_BUSY": f"somebody has held it for {_BUSY:g} s: look for a process that is stopped",
    }
    known = next((text for prefix, text in advice.items() if name.startswith(prefix)), "check the file system")
    return f"{name}; {known}"


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """In a forked child: SQLite forbids to use, or even to close, what the parent opened."""
    for database in list(_databases):
        _inherited.append((database.reading, database._writing))
        database._lock = threading.Lock()
        database._forget()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
