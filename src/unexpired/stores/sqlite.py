"""Many sessions in one SQLite file, shared by all processes of one user on one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator

from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import _private
from unexpired.stores._changes import place_of_key
from unexpired.stores._closing import Closing
from unexpired.stores._lockfile import FileLease, take_lease
from unexpired.stores._sqlite_database import Database

__all__ = ["SQLiteStore"]

_LOOK = "SELECT change FROM sessions WHERE key = ?"
_LOAD = "SELECT record FROM sessions WHERE key = ?"
_NEXT = "SELECT key FROM sessions WHERE key > ? ORDER BY key LIMIT 1000"
# A record that takes the place of a removed one must not look like it: its changes are counted from anywhere.
_SAVE = (
    "INSERT INTO sessions (key, change, record) VALUES (?, random() / 2, ?) "
    "ON CONFLICT (key) DO UPDATE SET change = change + 1, record = excluded.record"
)


class SQLiteStore(Closing):
    """Keeps any number of sessions in the SQLite database at *path*: for a gateway or a web back end on one machine.

    Creating the store reads and writes nothing; the database is made (0600) when something is first stored.

    * Its journal is write-ahead (WAL) and synced at every commit: what `swap` reported as stored survives a crash of
      the process and of the machine. A swap holds the database for the milliseconds of its own transaction; readers
      never wait. No transaction is open while a token request is under way.
    * What a process remembers of a session it trusts only while the file ``<path>-changes`` says that nobody changed
      it: one small read, with no lock. That file holds nothing of a session, and is made anew when it is missing.
    * Leases are lock files in the directory ``<path>-leases``, as `FileStore` has them: the operating system frees
      them when their holder dies; a forked child does not hold what its parent holds.
    * A database of another program, of a newer version, damaged, open to others or of another user is refused with a
      StoreError that says what to do, and is left as it is. So is any directory that others can write in: SQLite keeps
      files of its own beside the database, and whoever could put one there could change what is read.

    All methods can be called from any thread, block (for milliseconds, except `lease`) and raise StoreError only.
    Reading needs the right to write as well. The file must lie on a local disk: SQLite's journal does not work across a
    network.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        given = os.fsdecode(path)
        if given in ("", ":memory:") or "\0" in given:
            raise ConfigurationError(f"SQLiteStore takes the path of a file, not {given!r}; MemoryStore() needs none")
        self._path = os.path.abspath(os.path.expanduser(given))
        self._database = Database(self._path)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    @property
    def identity(self) -> Hashable:
        """Equal for all stores in this file, by whatever path it was named."""
        return ("sqlite", os.path.realpath(self._path))

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none."""
        row = self._database.find(_LOAD, _blob(key), key)
        return None if row is None else self._decoded(row[0], key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* durably if what is stored is *expected* (None: nothing), as `Session.replaces` has it."""
        record, name = encode(new), _blob(key)
        with self._database.written(key) as writing:
            row = writing.execute(_LOAD, (name,)).fetchone()
            current = None if row is None else self._decoded(row[0], key)
            if not new.replaces(current, expected):
                return False
            writing.change(name, key)
            writing.execute(_SAVE, (name, record))
        return True

    def stamp(self, key: str) -> Callable[[], object]:
        """A function that reads 16 bytes of the file ``<path>-changes``; they differ after each swap by any process.

        While a swap is being committed, and after one that was killed while it was, it asks the database instead. A
        database that was removed, or replaced by another one, is noticed within a second.
        """
        name, database, clock = _blob(key), self._database, time.monotonic
        place = place_of_key(name)
        read: Callable[[int, int, int], bytes] = getattr(os, "pread", _nothing)

        def now() -> object:
            changes = database.changes
            if changes is None or clock() >= database.sure_until:
                changes = database.look_again()
            try:
                if changes is not None:
                    numbers = read(changes.descriptor, 16, place)
                    if numbers and numbers[:8] == numbers[8:]:
                        return numbers
                return database.find(_LOOK, name, key)
            except (OSError, StoreError):
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
        name = _blob(key)
        with self._database.written(key) as writing:
            row = writing.execute(_LOAD, (name,)).fetchone()
            if row is None:
                return
            try:
                self._decoded(row[0], key)
            except StoreError:
                moment = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
                writing.change(name, key)
                writing.execute("INSERT INTO aside (key, record, at) VALUES (?, ?, ?)", (name, row[0], moment))
                writing.execute("DELETE FROM sessions WHERE key = ?", (name,))

    def keys(self) -> Iterator[str]:
        """The keys of all records, ended ones too, as they are while it goes on. Raises StoreError."""
        last = b""
        while names := [bytes(name) for (name,) in self._database.all(_NEXT, last)]:
            yield from (name.decode("utf-8", "surrogatepass") for name in names)
            last = names[-1]

    def close(self) -> None:
        """Close the connections. Using the store again opens them again."""
        self._database.close()

    def _decoded(self, record: object, key: str) -> Session:
        # SQLite keeps what it is given, whatever the column's type.
        return decode(record if isinstance(record, bytes | str) else b"", key, self._path)


def _blob(key: str) -> bytes:
    return key.encode("utf-8", "surrogatepass")


def _nothing(*_: int) -> bytes:
    return b""
