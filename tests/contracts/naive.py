"""Stores of several processes that forget the other ones, each in one way: what authors of a first store do."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable

from unexpired import StoreError
from unexpired._core.session import Session
from unexpired.stores import FileStore, HeldLease, MemoryStore, encode_session
from unexpired.stores._private import lock_down


class LeaseOfThisProcess(FileStore):
    """Its lease is a lock of this process."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._beside = MemoryStore()

    def lease(  # type: ignore[override]
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> HeldLease | None:
        """Of this object."""
        return self._beside.lease(key, owner=owner, seconds=seconds, wait=wait, stop=stop)


class SwapOfThisProcess(FileStore):
    """Its swap compares and stores under a lock of this process; what it stores is whole."""

    _one = threading.Lock()

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Of this process."""
        lock_down(self._directory, key, create=True)
        with self._one:
            if not new.replaces(self.load(key), expected):
                return False
            time.sleep(0.02)  # long enough for another process to come between, however they take turns
            path = self._path(key)
            part = f"{path}.{os.getpid()}"
            with open(part, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(encode_session(new))
            os.utime(part, ns=(time.time_ns(), time.time_ns()))
            os.replace(part, path)
        return True


class Buffering(FileStore):
    """What it reports as stored it keeps in memory, until a later that may not come."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._last: Session | None = None

    def load(self, key: str) -> Session | None:
        """What is waiting, else what is stored."""
        return self._last or super().load(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """The first one is stored."""
        if expected is None:
            return super().swap(key, None, new)
        if not new.replaces(self.load(key), expected):
            return False
        self._last = new
        return True


class Remembering(FileStore):
    """It loads a session once."""

    def __init__(self, directory: str) -> None:
        super().__init__(directory)
        self._known: dict[str, Session] = {}

    def load(self, key: str) -> Session | None:
        """What was loaded or stored here before."""
        if key not in self._known and (found := super().load(key)) is not None:
            self._known[key] = found
        return self._known.get(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """As it should be."""
        stored = super().swap(key, expected, new)
        if stored:
            self._known[key] = new
        return stored


class Counting(FileStore):
    """Its stamp counts the swaps of this process."""

    swaps = 0

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """And counts."""
        self.swaps += 1
        return super().swap(key, expected, new)

    def stamp(self, key: str) -> Callable[[], object]:
        """The count."""
        del key
        return lambda: self.swaps


class LeaseFile:
    """A file that is there while the lease is held."""

    timed = False

    def __init__(self, path: str) -> None:
        self.granted_at = time.time()
        self._since = time.monotonic()
        self._path: str | None = path

    def age(self) -> float:
        """Since it was granted."""
        return time.monotonic() - self._since

    def renew(self) -> None:
        """Nothing to do, if it is held."""
        if self._path is None:
            raise StoreError("gone")

    def release(self) -> None:
        """Remove the file."""
        if self._path is not None:
            os.unlink(self._path)
            self._path = None


class LeaseForEver(FileStore):
    """Its lease is a file that nobody removes when its holder is killed."""

    def lease(  # type: ignore[override]
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> HeldLease | None:
        """Whoever can make the file."""
        del owner, seconds
        lock_down(self._directory, key, create=True)
        end = time.monotonic() + wait
        while True:
            try:
                os.close(os.open(f"{self._path(key)}.held", os.O_CREAT | os.O_EXCL, 0o600))
            except FileExistsError:
                if time.monotonic() >= end or stop():
                    return None
                time.sleep(0.002)
            else:
                return LeaseFile(f"{self._path(key)}.held")
