"""One SQLite database of sessions: its file, its connections and its schema."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from typing import Any, NamedTuple

from unexpired.errors import StoreError
from unexpired.stores import _private
from unexpired.stores._changes import Changes
from unexpired.stores._sqlite_talk import BUSY, Turn, Writing, patiently, transaction, why

__all__ = ["Database"]

_APPLICATION = 0x756E6578  # "unex": what `file` shows, and what keeps us off other people's databases
_HAS_PREAD = hasattr(os, "pread")
_SURE = 1.0
"""Seconds for which the files are taken to be the ones that were opened."""
_FORK_WAIT = 1.0
_READER_BUSY = 0.5
"""Seconds a reader waits: in WAL mode only for who opens, recovers or holds the whole database."""
_MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE sessions (key BLOB PRIMARY KEY, change INTEGER NOT NULL, record BLOB NOT NULL) WITHOUT ROWID",
        "CREATE TABLE aside (key BLOB NOT NULL, record BLOB NOT NULL, at TEXT NOT NULL)",
    ),
)
"""What leads from each version of the schema to the next. Only ever added to."""


class _Link(NamedTuple):
    connection: sqlite3.Connection
    file: tuple[int, int]
    changes: Changes | None


class Database:
    """The connections of one process to one file: one that reads, for all threads, and one that writes.

    Nothing is opened before it is needed. A forked child opens its own and leaves its parent's alone.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.changes: Changes | None = None  # those of the reader
        self.sure_until = 0.0
        self._reader: _Link | None = None
        self._writer: _Link | None = None
        self._is_still = True
        self.start_anew()
        _databases.add(self)

    def __del__(self) -> None:
        for link in (self._reader, self._writer):
            if link is not None:
                with suppress(sqlite3.Error):
                    link.connection.close()

    def start_anew(self) -> None:
        """Let go of connections and locks: at the beginning, and in a forked child, where they are the parent's.

        SQLite forbids to use there, or even to close, what the parent opened. It even takes the locks of the parent
        for the child's own, for good: a file that was open at the fork cannot be used there at all.
        """
        for link in (self._reader, self._writer):
            if link is not None:
                _inherited.append(link)
                _spoilt.add(link.file)
        if not self._is_still:
            with suppress(OSError):
                _spoilt.add(_file(os.stat(self.path)))
        self._reader = self._writer = self.changes = None
        self.sure_until = 0.0
        # Reentrant, because a signal handler may use the store in the middle of anything. Where both are taken, this
        # one is the first.
        self._write_turn = Turn()
        self._read_turn = Turn()

    def find(self, statement: str, name: bytes, key: str) -> Any:
        """The first row for *name*; None when there is none, or no database yet. Raises StoreError."""
        with self._read_turn:
            reader = self._reader
            if reader is None or self._moved(reader):
                self._let_go_of_reader()
                if _look(self.path, key) is None:
                    return None
                with self.in_our_words("open", key):
                    reader = self._open(key, _READER_BUSY)
                    reader.connection.execute("PRAGMA query_only = 1")
                self._reader, self.changes = reader, reader.changes
            with self.in_our_words("read", key):
                return reader.connection.execute(statement, (name,)).fetchone()

    def all(self, statement: str, name: bytes) -> list[Any]:
        """The rows of a statement that takes one name. Raises StoreError."""
        self.find(statement, name, "")
        with self._read_turn, self.in_our_words("read", ""):
            return [] if self._reader is None else self._reader.connection.execute(statement, (name,)).fetchall()

    def look_again(self) -> Changes | None:
        """The numbers that tell of changes, after seeing to it that the files are still the ones that were opened."""
        until = time.monotonic() + _SURE
        try:
            self.find("SELECT 1 WHERE ? IS NOT NULL", b"", "")
        except StoreError:
            return None
        self.sure_until = until
        return self.changes

    @contextmanager
    def written(self, key: str) -> Generator[Writing]:
        """A transaction that nobody else writes in, committed durably at the end. Raises StoreError."""
        _private.lock_down(os.path.dirname(self.path), key, create=True, alone=True)
        if not self._write_turn.take(BUSY):
            raise StoreError(f"another thread has been writing {self.path} for {BUSY:g} s", key=key)
        try:
            with self.in_our_words("write", key):
                writer = self._writer
                if writer is None or self._moved(writer):
                    self._let_go_of_writer()
                    _private.create(self.path, key)
                    writer = self._writer = self._open(key, BUSY)
                with transaction(writer.connection):
                    writing = Writing(writer.connection, writer.changes)
                    yield writing
                writing.committed()
        finally:
            self._write_turn.give()

    @contextmanager
    def in_our_words(self, doing: str, key: str) -> Generator[None]:
        """StoreError, saying what to do, for what SQLite raises."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(f"cannot {doing} {self.path}: {why(error)}", key=key or None) from error

    def close(self) -> None:
        """Close the connections, when nobody is using them. The next use opens them again."""
        with self._write_turn, self._read_turn:
            self._let_go_of_writer()
            self._let_go_of_reader()

    def hold_still(self) -> list[Callable[[], None]]:
        """Before a fork: keep all other threads from using SQLite, and close the connections.

        Not where somebody is in the middle of something: another thread for longer than a second, or this one, which
        then forks in a signal handler.
        """
        held = [turn for turn in (self._write_turn, self._read_turn) if turn.take(_FORK_WAIT)]
        self._is_still = len(held) == 2 and all(turn.depth == 1 for turn in held)
        if self._is_still:
            with suppress(sqlite3.Error):
                self._let_go_of_writer()
            with suppress(sqlite3.Error):
                self._let_go_of_reader()
        return [turn.give for turn in held]

    def _let_go_of_reader(self) -> None:
        link, self._reader = self._reader, None
        self.changes = None
        if link is not None:
            link.connection.close()

    def _let_go_of_writer(self) -> None:
        link, self._writer = self._writer, None
        if link is not None:
            link.connection.close()

    def _moved(self, link: _Link) -> bool:
        """Whether the files are others than those that were opened: somebody removed or replaced them."""
        changes = link.changes
        try:
            return _file(os.stat(self.path)) != link.file or (
                changes is not None and os.stat(f"{self.path}-changes").st_ino != changes.inode
            )
        except OSError:
            return True

    def _open(self, key: str, patience: float) -> _Link:
        _private.lock_down(os.path.dirname(self.path), key, create=False, alone=True)
        for suffix in ("-journal", "-wal", "-shm", "-changes"):
            beside = _look(self.path + suffix, key)
            if beside is not None:
                _private.check(beside, self.path + suffix, key)
        found = _look(self.path, key)
        if found is None:
            raise StoreError(f"cannot open {self.path}: somebody removed it just now; try again", key=key)
        _private.check(found, self.path, key)
        file = _file(found)
        if file in _spoilt:
            raise StoreError(
                f"cannot use {self.path} here: this process was forked while another thread used it; fork before the "
                "store is used, or start processes anew (multiprocessing's 'spawn')",
                key=key,
            )
        # One connection serves all threads, one after another.
        connection = sqlite3.connect(self.path, timeout=patience, isolation_level=None, check_same_thread=False)
        try:
            connection.execute("PRAGMA synchronous = FULL")
            return _Link(connection, file, self._prepare(connection, key, patience))
        except BaseException:
            connection.close()
            raise

    def _prepare(self, connection: sqlite3.Connection, key: str, patience: float) -> Changes | None:
        """See that it is ours and up to date, before anything is changed in it; and have the numbers beside it."""
        numbers = f"{self.path}-changes"
        if self._version(connection, key) < len(_MIGRATIONS) or (_HAS_PREAD and not os.path.lexists(numbers)):
            patiently(connection, "PRAGMA journal_mode = WAL", patience)
            with transaction(connection):
                version = self._version(connection, key)
                for number, statements in enumerate(_MIGRATIONS[version:], version + 1):
                    for statement in statements:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {number}")
                    connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                if _HAS_PREAD and not os.path.lexists(numbers):
                    Changes.make(numbers, key)
        return Changes(numbers, key) if _HAS_PREAD else None

    def _version(self, connection: sqlite3.Connection, key: str) -> int:
        """The version of its schema, 0 for an empty one. Raises StoreError for what is not ours, or newer."""
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        (tables,) = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
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
        return version


def _look(path: str, key: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _private.trouble("look at", path, error, key) from error


def _file(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


_databases: weakref.WeakSet[Database] = weakref.WeakSet()
_inherited: list[object] = []
_spoilt: set[tuple[int, int]] = set()
"""Files that were in use in a parent when it forked."""
_stilled = threading.local()


def _before_fork() -> None:
    _stilled.releases = [release for database in list(_databases) for release in database.hold_still()]


def _after_fork_here() -> None:
    for release in reversed(_stilled.releases):
        release()
    _stilled.releases = []


def _after_fork_there() -> None:
    for database in list(_databases):
        database.start_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_here, after_in_child=_after_fork_there)
