"""Many sessions in one SQLite file, shared by all processes of one user on one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Hashable

from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import _private
from unexpired.stores._closing import Closing
from unexpired.stores._lockfile import FileLease, take_lease
from unexpired.stores._sqlite_database import Database

__all__ = ["SQLiteStore"]

_LOOK = "SELECT change FROM sessions WHERE key = ?"
_LOAD = "SELECT record FROM sessions WHERE key = ?"
# A record that takes the place of a removed one must not look like it: its changes are counted from anywhere.
_SAVE = (
    "INSERT INTO sessions (key, change, record) VALUES (?1, random() / 2, ?2) "
    "ON CONFLICT (key) DO UPDATE SET change = change + 1, record = ?2"
)


class SQLiteStore(Closing):
    """Keeps any number of sessions in the SQLite database at *path*: for a gateway or a web back end on one machine.

    Creating the store reads and writes nothing; the database is made (0600) when something is first stored.

    * Its journal is write-ahead (WAL) and synced at every commit: what `swap` reported as stored survives a crash of
      the process and of the machine. A swap holds the database for the milliseconds of its own transaction; readers
      never wait. No transaction is open while a token request is under way.
    * Leases are lock files in the directory ``<path>-leases``, as `FileStore` has them: the operating system frees
      them when their holder dies; a forked child does not hold what its parent holds.
    * A database of another program, of a newer version, damaged, open to others or of another user is refused with a
      StoreError that says what to do, and is left as it is.

    All methods can be called from any thread, block (for milliseconds, except `lease`) and raise StoreError only.
    The file must lie on a local disk: SQLite's journal does not work across a network.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(os.path.expanduser(os.fspath(path)))
        self._database = Database(self._path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    @property
    def identity(self) -> Hashable:
        """Equal for all stores in this file, by whatever path it was named."""
        return ("sqlite", os.path.realpath(self._path))

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none."""
        data = self._read(key)
        return None if data is None else decode(data, key, self._path)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* durably if what is stored is *expected* (None: nothing), as `Session.replaces` has it."""
        record = encode(new)
        with self._database.written(key) as writing:
            row = writing.execute(_LOAD, (_blob(key),)).fetchone()
            current = None if row is None else decode(row[0], key, self._path)
            if not new.replaces(current, expected):
                return False
            writing.execute(_SAVE, (_blob(key), record))
        return True

    def stamp(self, key: str) -> Callable[[], object]:
        """A function that asks the database for one number, which each swap by any process makes larger."""
        name, database = (_blob(key),), self._database

        def now() -> object:
            reading = database.reading
            if reading is None:
                return self._first_look(key)
            try:
                return reading.execute(_LOOK, name).fetchone()
            except sqlite3.Error:
                return None

        return now

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> FileLease | None:
        """Wait for the session's lease among all threads and processes of this machine.

        It ends when its holder releases it or dies, not after *seconds*. *stop* is asked every 2 ms. The
        answer is None when *wait* seconds have passed or *stop* said so.
        """
        del owner, seconds
        directory = f"{self._path}-leases"
        _private.lock_down(directory, key, create=True)
        return take_lease(os.path.join(directory, f"{_private.file_name(key)}.lease"), key, wait, stop)

    def set_aside(self, key: str) -> None:
        """Move a record that cannot be read to the table ``aside``. Does nothing when there is none, or it is good."""
        with self._database.written(key) as writing:
            row = writing.execute(_LOAD, (_blob(key),)).fetchone()
            if row is None:
                return
            try:
                decode(row[0], key, self._path)
            except StoreError:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                writing.execute("INSERT INTO aside (key, record, at) VALUES (?, ?, ?)", (_blob(key), row[0], moment))
                writing.execute("DELETE FROM sessions WHERE key = ?", (_blob(key),))

    def close(self) -> None:
        """Close the connections. Using the store again opens them again."""
        self._database.close()

    def _read(self, key: str) -> bytes | None:
        reading = self._database.read(key)
        if reading is None:
            return None
        with self._database.in_our_words("read", key):
            row = reading.execute(_LOAD, (_blob(key),)).fetchone()
        return None if row is None else bytes(row[0])

    def _first_look(self, key: str) -> object:
        try:
            reading = self._database.read(key)
            return None if reading is None else reading.execute(_LOOK, (_blob(key),)).fetchone()
        except (StoreError, sqlite3.Error):
            return None


def _blob(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")
