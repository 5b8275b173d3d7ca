"""Locks between processes: one empty file each, never removed; the system frees it when the holder dies."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from weakref import WeakValueDictionary

from filelock import BaseFileLock, FileLock, Timeout

from unexpired.errors import StoreError
from unexpired.stores._private import trouble

__all__ = ["FileLease", "exclusive", "take_lease"]

_POLL = 0.002
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


class _Mutexes:
    """One mutex per lock file, so that the threads of a process queue up instead of polling each other."""

    def __init__(self) -> None:
        self.start_anew()

    def start_anew(self) -> None:
        self._guard = threading.Lock()
        self._by_path: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()

    def of(self, path: str) -> threading.Lock:
        with self._guard:
            mutex = self._by_path.get(path)
            if mutex is None:
                mutex = self._by_path[path] = threading.Lock()
            return mutex


_mutexes = _Mutexes()
if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    # The threads that held a mutex do not exist in the child and would never release it there.
    os.register_at_fork(after_in_child=_mutexes.start_anew)


class FileLease:
    """A lease that lasts until `release` or the end of this process. A forked child does not hold it."""

    timed = False

    def __init__(self, lock: BaseFileLock, key: str, since: float) -> None:
        self.granted_at = time.time()
        self._lock = lock
        self._key = key
        self._since = since

    def age(self) -> float:
        """Seconds since just before it was granted. The clock runs during suspend where one can."""
        return _now() - self._since

    def renew(self) -> None:
        """Nothing to start anew. Raises StoreError when it was released, or was inherited by `fork`."""
        if not self._lock.is_locked:
            raise StoreError("this process does not hold the lease any more", key=self._key)

    def release(self) -> None:
        """Let the next one have it. Does nothing the second time, and nothing in a forked child."""
        try:
            self._lock.release()
        except OSError as error:
            raise trouble("unlock", self._lock.lock_file, error, self._key) from error


def take_lease(path: str, key: str, wait: float, stop: Callable[[], bool]) -> FileLease | None:
    """Wait up to *wait* seconds for the lock in *path*, or until *stop* is true. Raises StoreError."""
    since = _now()

    def give_up() -> bool:
        nonlocal since
        since = _now()
        return stop()

    # Below zero means "for ever" to filelock, and for ever is where it takes a second holder in one thread
    # for a mistake. Its fallback, where the file system cannot lock, is a lock that outlives its holder.
    timeout = min(max(wait, 0.0), threading.TIMEOUT_MAX)
    lock = FileLock(path, mode=0o600, thread_local=False, fallback_to_soft=False, preserve_lock_file=True)
    try:
        lock.acquire(timeout=timeout, poll_interval=_POLL, cancel_check=give_up)
    except Timeout:
        return None
    except OSError as error:
        raise trouble("lock", path, error, key) from error
    return FileLease(lock, key, since)


@contextmanager
def exclusive(path: str, key: str, wait: float) -> Generator[None]:
    """Hold the lock in *path* against all threads and processes. Raises StoreError after *wait* seconds."""
    until = time.monotonic() + wait
    mutex = _mutexes.of(path)
    lease = None
    if mutex.acquire(timeout=wait):
        try:
            lease = take_lease(path, key, until - time.monotonic(), lambda: False)
            if lease is not None:
                try:
                    yield
                finally:
                    lease.release()
        finally:
            mutex.release()
    if lease is None:
        raise StoreError(
            f"somebody has held {path} for {wait:g} s, which should take milliseconds: look for a process "
            "that is stopped, or for a file system that hangs",
            key=key,
        )


def _now() -> float:
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)
