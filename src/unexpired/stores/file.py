"""Sessions in files, shared by all processes of one user on one machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Iterator
from contextlib import AbstractContextManager

from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import _private
from unexpired.stores._closing import Closing
from unexpired.stores._lockfile import FileLease, exclusive, take_lease

__all__ = ["FileStore"]

_SWAP_WAIT = 10.0


class FileStore(Closing):
    """Keeps each session in a file of its own in *directory*, for all threads and processes of one user.

    Without *directory* it is the one that the environment variable ``UNEXPIRED_HOME`` names at first use,
    else this user's data directory. Creating the store reads and writes nothing; the directory is made
    (0700) when something is first stored or leased.

    * A session file is 0600 from its first byte and is replaced as a whole: a reader sees the record before a
      swap or after it. What `swap` reported as stored survives a crash of the process and of the machine.
    * Beside it lie two empty lock files, ``.lease`` and ``.swap``, which are never removed. The operating
      system frees them when their holder dies; a forked child does not hold what its parent holds.
    * A file that is a symbolic link, belongs to somebody else, is open to others, is damaged or was written
      by a newer version is refused with a StoreError that says what to do, and is left as it is. So is a
      directory that is a symbolic link, belongs to somebody else but root, or can be written by others.

    All methods can be called from any thread, block (for milliseconds, except `lease`) and raise StoreError
    only.

    Prefer a local disk. Over NFS the locks hold where the server supports them (NFSv4), but a change made on
    another machine is seen only when the attribute cache lets it, 3 seconds later by default (``acregmin``).
    Windows takes the same paths without the checks that need POSIX owners and modes; it is not tested there.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        if directory is not None and "\0" in os.fsdecode(directory):
            raise ConfigurationError("FileStore takes the path of a directory, and no path holds a NUL character")
        self._given = None if directory is None else _absolute(os.fspath(directory))
        self._found: str | None = None
        self._same: Hashable = None

    def __repr__(self) -> str:
        # not by way of the cached one: a glance is not the first use
        return f"{type(self).__name__}({self._found or self._find()!r})"

    @property
    def _directory(self) -> str:
        # No cached_property: up to 3.11 it holds a lock meanwhile, which a fork in another thread would leave locked.
        if self._found is None:
            self._found = self._find()
        return self._found

    def _find(self) -> str:
        if self._given is not None:
            return self._given
        if home := os.environ.get("UNEXPIRED_HOME"):
            return _absolute(home)
        from platformdirs import user_data_dir  # noqa: PLC0415 - not needed where the directory is named

        return user_data_dir("unexpired", appauthor=False)

    @property
    def identity(self) -> Hashable:
        """Equal for all stores in this directory, by whatever path it was named."""
        if self._same is None:
            self._same = ("file", os.path.realpath(self._directory))
        return self._same

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none. Takes no lock."""
        _private.lock_down(self._directory, key, create=False)
        return self._read(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* durably if what is stored is *expected* (None: nothing), as `Session.replaces` has it.

        Raises StoreError, also when another process holds this session's ``.swap`` file for 10 s. The old
        session is then still stored, except where only the last step, syncing the directory, failed.
        """
        data = encode(new)
        with self._exclusive(key):
            current = self._read(key)
            if not new.replaces(current, expected):
                return False
            _private.replace(self._path(key), data, key)
        return True

    def stamp(self, key: str) -> Callable[[], object]:
        """A function that makes one `os.stat`; its value differs after each swap by any process."""
        path = os.fsencode(self._path(key))
        look = os.stat

        def now() -> object:
            try:
                found = look(path)
            except OSError:
                return None
            return found.st_mtime_ns, found.st_ino, found.st_size

        return now

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> FileLease | None:
        """Wait for the session's lease among all threads and processes of this machine.

        It ends when its holder releases it or dies, not after *seconds*. *stop* is asked every 2 ms. The
        answer is None when *wait* seconds have passed or *stop* said so.
        """
        del owner, seconds
        _private.lock_down(self._directory, key, create=True)
        return take_lease(self._path(key, ".lease"), key, wait, stop)

    def set_aside(self, key: str) -> None:
        """Rename a session file whose content cannot be read to ``….json.set-aside-<UTC time>-<n>``.

        Does nothing when there is no such file, or when it can be read. Raises StoreError when the file is
        refused for its owner, its mode or its kind: what to do then is for a person to decide.
        """
        with self._exclusive(key):
            path = self._path(key)
            data = _private.read(path, key)
            if data is None:
                return
            try:
                decode(data, key, path)
            except StoreError:
                _private.put_aside(path, key)

    def keys(self) -> Iterator[str]:
        """The keys of all session files, ended ones too. Raises StoreError, at its end, for what cannot be read."""
        _private.lock_down(self._directory, "", create=False)
        try:
            names = sorted(os.listdir(self._directory))
        except FileNotFoundError:
            return
        except OSError as error:
            raise _private.trouble("list", self._directory, error, None) from error
        unread = 0
        for name in names:
            if name.endswith(".json"):
                key = self._key_in(name)
                if key is None:
                    unread += 1
                else:
                    yield key
        if unread:
            raise StoreError(
                f"{unread} session files in {self._directory} cannot be read: loading the session of each says why"
            )

    def _key_in(self, name: str) -> str | None:
        try:
            data = _private.read(os.path.join(self._directory, name), "")
            key: object = json.loads(data or b"")["key"]
        except (StoreError, ValueError, LookupError, TypeError, RecursionError):
            return None
        return key if isinstance(key, str) and name == f"{_private.file_name(key)}.json" else None

    def _exclusive(self, key: str) -> AbstractContextManager[None]:
        _private.lock_down(self._directory, key, create=True)
        return exclusive(self._path(key, ".swap"), key, _SWAP_WAIT)

    def _read(self, key: str) -> Session | None:
        path = self._path(key)
        data = _private.read(path, key)
        return None if data is None else decode(data, key, path)

    def _path(self, key: str, suffix: str = ".json") -> str:
        return os.path.join(self._directory, _private.file_name(key) + suffix)


def _absolute(directory: str) -> str:
    return os.path.abspath(os.path.expanduser(directory))
