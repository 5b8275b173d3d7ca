"""What the exporters share: subscribing, how keys are shown, and that nothing is told twice."""

from __future__ import annotations

import hashlib
import hmac
import os
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary, WeakSet

from unexpired.errors import ConfigurationError
from unexpired.events import Event

__all__ = ["Keys", "Lock", "Once", "Sinks", "Subject", "missing", "subscribe"]


K = TypeVar("K")
S = TypeVar("S")


class Subject(Protocol):
    """A `TokenManager` or a `TokenManagers`."""

    def on(self, event_type: type[Event], callback: Callable[[Any], object], /) -> Callable[[], None]:
        """Call *callback* with every event of *event_type*; the returned function ends that."""
        ...


class Lock:
    """A lock that a fork leaves free in the child, and that a signal handler may take in the middle of anything."""

    def __init__(self) -> None:
        self.renew()
        _locks.add(self)

    def renew(self) -> None:
        """Be free, whoever held it."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


_locks: WeakSet[Lock] = WeakSet()


class Keys:
    """How the keys of sessions are shown. *hashed*: True, or the secret without which nobody can guess them."""

    def __init__(self, hashed: object) -> None:
        if not isinstance(hashed, bool | bytes) or hashed == b"":
            raise ConfigurationError("hash_keys must be True, False, or bytes that are kept secret")
        self._hashed = hashed

    def __call__(self, key: str) -> str:
        """*key*, or 16 hexadecimal digits in its place."""
        if self._hashed is False:
            return key.encode("utf-8", "backslashreplace").decode()
        secret = b"" if self._hashed is True else self._hashed
        return hmac.new(secret, key.encode("utf-8", "surrogatepass"), hashlib.sha256).hexdigest()[:16]


class Once:
    """Notices an event that comes again: all managers of one session tell each event one after the other."""

    def __init__(self) -> None:
        self._here = _Heard()

    def first(self, event: Event) -> bool:
        """Whether *event* has not been here before."""
        heard = self._here.events
        if any(event is earlier for earlier in heard):
            return False
        heard.append(event)
        return True


class _Heard(threading.local):
    """What was told on this thread: some more than one, because a listener may do what is told of in its turn."""

    def __init__(self) -> None:
        self.events: deque[Event] = deque(maxlen=8)


class Sinks(Generic[K, S]):
    """One sink for each place where things are told, however many managers tell them there."""

    def __init__(self, make: Callable[[K], S]) -> None:
        self._make = make
        self._lock = Lock()
        self._sinks: WeakKeyDictionary[K, S] = WeakKeyDictionary()

    def of(self, place: K) -> S:
        """The sink of *place*, made when it is first asked for."""
        with self._lock:
            sink = self._sinks.get(place)
            if sink is None:
                sink = self._sinks[place] = self._make(place)
            return sink


def subscribe(manager: Subject, hear: Callable[[Event], object]) -> Callable[[], None]:
    """Let *hear* hear of everything; the returned function ends that."""
    if not callable(getattr(manager, "on", None)):
        kind = type(manager).__name__
        raise ConfigurationError(
            f"only a TokenManager or a TokenManagers can be observed, not an object of type {kind}"
        )
    return manager.on(Event, hear)


def missing(package: str, extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """*error*, which importing *package* raised, in a sentence that names the extra."""
    if (error.name or "").partition(".")[0] != package:
        return error
    text = f"unexpired.observe.{extra} needs {package}, which is not installed: pip install 'unexpired[{extra}]'"
    return ModuleNotFoundError(text, name=package)


def _after_fork() -> None:
    for lock in list(_locks):
        lock.renew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
