"""Sessions in the memory of one process: for tests, scripts and servers that log in anew at each start."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterator
from functools import partial

from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores._closing import Closing

__all__ = ["MemoryLease", "MemoryStore"]

_STEP = 0.005


class MemoryLease:
    """Held by this process until `release`; see `HeldLease`. Any thread may release it."""

    timed = False

    def __init__(self, lock: threading.Lock, key: str, since: float) -> None:
        self.granted_at = time.time()
        self._since = since
        self._key = key
        self._lock: threading.Lock | None = lock

    def age(self) -> float:
        """Seconds since just before it was granted."""
        return time.monotonic() - self._since

    def renew(self) -> None:
        """Nothing to start anew. Raises StoreError when it was released."""
        if self._lock is None:
            raise StoreError("the lease is not held any more", key=self._key)

    def release(self) -> None:
        """Let the next one have it. Does nothing the second time."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.release()


class MemoryStore(Closing):
    """Keeps sessions in this object. Thread-safe. Nothing survives the process, and no other process sees it.

    After `fork` the child has a copy of its own: two processes that go on with one refresh token log each
    other out, so give forked workers a `FileStore`.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._leases: dict[str, threading.Lock] = {}
        self._identity = object()
        _stores.add(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} at {id(self):#x}, sessions: {len(self._sessions)}>"

    @property
    def identity(self) -> Hashable:
        """Equal for this very object only, even after its end."""
        return self._identity

    def load(self, key: str) -> Session | None:
        """The session stored under *key*."""
        return self._sessions.get(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Compare as `Session.replaces` has it, and store."""
        with self._lock:
            current = self._sessions.get(key)
            if not new.replaces(current, expected):
                return False
            self._sessions[key] = new
            return True

    def stamp(self, key: str) -> Callable[[], object]:
        """The stored record itself serves: a swap puts another object in its place."""
        return partial(self._sessions.get, key)

    def lease(
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> MemoryLease | None:
        """Wait for the key's lease among the threads of this process.

        It ends when it is released, not after *seconds*. *stop* is asked every 5 ms. The answer is None when
        *wait* seconds have passed or *stop* said so.
        """
        del owner, seconds
        with self._lock:
            lock = self._leases.setdefault(key, threading.Lock())
        since = time.monotonic()
        until = since + wait
        while not lock.acquire(timeout=min(_STEP, max(until - since, 0.0))):
            since = time.monotonic()
            if since >= until or stop():
                return None
        return MemoryLease(lock, key, since)

    def set_aside(self, key: str) -> None:
        """Nothing to do: what is kept as an object can always be read."""

    def keys(self) -> Iterator[str]:
        """The keys of all sessions, ended ones too."""
        return iter(list(self._sessions))


_stores: weakref.WeakSet[MemoryStore] = weakref.WeakSet()


def _after_fork() -> None:
    """In a forked child: locks that threads of the parent hold would stay locked for ever."""
    for store in list(_stores):
        store._lock = threading.Lock()
        store._leases.clear()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
