"""`TokenManagers`: a manager for each of many sessions, for programs that serve many people."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Self, TypeVar, cast

from unexpired._core.ports import Grant, GrantFunction, Store
from unexpired._engine import arguments
from unexpired._engine.telling import Listener, Listeners
from unexpired.errors import ConfigurationError
from unexpired.events import Event
from unexpired.manager import TokenManager

__all__ = ["TokenManagers"]

_E = TypeVar("_E", bound=Event)


class TokenManagers:
    """Managers by session key, on one store and one grant: ``managers.manager(user_id).token()``.

    Made when they are first asked for, and remembered: the *limit* that were used last (a manager and its session
    take 4 KiB or so). One that was forgotten is made anew when it is asked for again; whoever still holds the old one
    can go on with it. Sessions are independent: each has its own flights, and the times of their refreshes ahead are
    spread. *settings* are `TokenManager`'s. Thread-safe and task-safe.

    Raises ConfigurationError for a setting that `TokenManager` would refuse.
    """

    def __init__(self, grant: Grant | GrantFunction, *, store: Store, limit: int = 100_000, **settings: Any) -> None:
        if not isinstance(cast("object", limit), int) or limit < 1:
            raise ConfigurationError(f"limit must be a number of managers, at least 1, not {limit!r}")
        if "key" in settings:
            raise ConfigurationError("TokenManagers takes no key: manager(key) gives the manager of one")
        self._make: Callable[[str], TokenManager] = lambda key: TokenManager(grant, store=store, key=key, **settings)
        self._limit = limit
        self._lock = threading.Lock()
        self._managers: OrderedDict[str, TokenManager] = OrderedDict()
        self._listeners = Listeners()
        self._make("default")

    def __len__(self) -> int:
        return len(self._managers)

    def manager(self, key: str) -> TokenManager:
        """The manager of the session *key*. Does no I/O. Raises ConfigurationError for what is no key."""
        with self._lock:
            manager = self._managers.get(key)
            if manager is not None:
                self._managers.move_to_end(key)
                return manager
            manager = self._managers[key] = self._make(key)
            manager.on(Event, self._listeners.inform)
            if len(self._managers) > self._limit:
                _, forgotten = self._managers.popitem(last=False)
                forgotten.close()
            return manager

    def on(self, event_type: type[_E], callback: Callable[[_E], object]) -> Callable[[], None]:
        """Call *callback* with every event of *event_type* of all remembered sessions; the returned function ends that.

        The event names its session. As `TokenManager.on` otherwise.
        """
        arguments.check_listener(event_type, callback)
        listener = Listener(event_type, callback, "")
        self._listeners.add(listener)
        return lambda: self._listeners.remove(listener)

    def close(self) -> None:
        """Forget all managers and end their subscriptions. Refreshes under way go on; the store stays open."""
        with self._lock:
            while self._managers:
                self._managers.popitem()[1].close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
