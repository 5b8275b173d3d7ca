"""`TokenManagers`: a manager for each of many sessions, for programs that serve many people."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Self, TypedDict, TypeVar, Unpack, cast
from weakref import WeakSet

from unexpired._core.effects import Need
from unexpired._core.ports import Grant, GrantFunction, Store
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired._engine import arguments
from unexpired._engine.keeping import KeptAlive, keep_alive
from unexpired._engine.telling import Listener, Listeners
from unexpired.errors import ConfigurationError, TemporarilyUnavailable
from unexpired.events import Event
from unexpired.manager import TokenManager

__all__ = ["KeptAlive", "ManagerSettings", "TokenManagers"]

_E = TypeVar("_E", bound=Event)


class ManagerSettings(TypedDict, total=False):
    """What every manager of a `TokenManagers` is made with: see `TokenManager`."""

    leeway: float
    refresh_ahead: float
    deadline: float
    lease_wait: float
    wait: float
    patience: float
    default_lifetime: float | None
    login_url: str | None
    login_fields: Mapping[str, str | Callable[[], str]] | None
    on_login_page: Callable[[], bool] | None


class TokenManagers:
    """Managers by session key, on one store: ``managers.manager(user_id).token()``.

    All have one *grant*, or each gets what ``grant_for(key)`` returns when it is made (a client of its tenant's, for
    example; return the same object again where it is the same client). *settings* are `TokenManager`'s.

    Managers are made when they are first asked for, and the *limit* that were used last are remembered, with their
    sessions. Each takes some 4 KiB, and the length of its tokens. One that was forgotten is made anew when it is
    asked for again, and reads its session again. Nothing is lost by it: a refresh under way goes on, who waits for a
    token gets it, listeners go on to hear, and whoever still holds the old manager can go on with it.

    Sessions are independent: each has its own flights, and the times of their refreshes ahead are spread.
    Thread-safe and task-safe; a forked child may go on with it. Making one, or a manager, does no I/O.

    Raises ConfigurationError for a setting that `TokenManager` would refuse.
    """

    def __init__(
        self,
        grant: Grant | GrantFunction | None = None,
        *,
        store: Store,
        grant_for: Callable[[str], Grant | GrantFunction] | None = None,
        limit: int = 100_000,
        **settings: Unpack[ManagerSettings],
    ) -> None:
        _check_count("limit", limit)
        if "key" in settings:
            raise ConfigurationError("TokenManagers takes no key: manager(key) gives the manager of one")
        if (grant is None) == (grant_for is None):
            raise ConfigurationError("TokenManagers takes a grant for all, or grant_for=, a function of the key")
        if grant_for is not None:
            arguments.check_callable("grant_for", grant_for)
        self._grant_for = grant_for
        self._store = store
        self._settings = settings
        self._limit = limit
        self._listened_to: dict[object, _One] = {}
        # Reentrant: a signal handler or a finalizer may ask for a token in the middle of anything.
        self._lock = threading.RLock()
        self._start_anew()
        # Refuses now what would be refused at the first use. A function becomes one grant for all.
        trial = _One(_nobody if grant is None else grant, store=store, listened_to={}, **settings)
        self._grant: Grant = trial.grant
        _all.add(self)

    def _start_anew(self) -> None:
        """No manager is remembered, and nobody listens."""
        self._managers: OrderedDict[str, _One] = OrderedDict()
        self._listeners = Listeners()
        self._relay = Listener(Event, self._listeners.inform, "")
        self._relayed: WeakSet[Listeners] = WeakSet()

    def __repr__(self) -> str:
        grant = repr(self._grant) if self._grant_for is None else f"grant_for={self._grant_for!r}"
        return f"TokenManagers({grant}, store={self._store!r}, limit={self._limit})"

    def __len__(self) -> int:
        """How many managers are remembered."""
        return len(self._managers)

    def manager(self, key: str) -> TokenManager:
        """The manager of the session *key*. Does no I/O. Raises ConfigurationError for what is no key."""
        arguments.check_key(key)
        with self._lock:
            known = self._managers.get(key)
            if known is not None:
                self._managers.move_to_end(key)
                return known
        # Without the lock: `grant_for` is not ours.
        made = self._make(key, self._settings)
        with self._lock:
            known = self._managers.setdefault(key, made)
            self._managers.move_to_end(key)
            if len(self._managers) > self._limit:
                self._managers.popitem(last=False)
            return known

    def on(self, event_type: type[_E], callback: Callable[[_E], object]) -> Callable[[], None]:
        """Call *callback* with every event of *event_type* of all sessions here; the returned function ends that.

        The event names its session. Any number of callbacks may be set, before or after managers are made. As
        `TokenManager.on` otherwise.
        """
        arguments.check_listener(event_type, callback)
        listener = Listener(event_type, callback, "")
        listeners = self._listeners
        listeners.add(listener)
        return lambda: listeners.remove(listener)

    def keep_alive(
        self, older_than: float | None = None, *, keys: Iterable[str] | None = None, at_once: int = 4
    ) -> KeptAlive:
        """Refresh, once, every idle session whose login would lapse otherwise; to be called now and then, as by cron.

        Due is a session whose last token answer is more than *older_than* seconds old, or whose refresh token has
        lived half of its life, where the server tells its lifetime (``refresh_token_expires_in``,
        ``refresh_expires_in``). A session in use is refreshed anyway, so it is not due. Choose *older_than*, and how
        often to call this, so that together they are less than the life of an unused refresh token.

        Looks at all sessions of the store, or those of *keys*, in a random order, *at_once* at a time. May run in
        several processes at once: each session is refreshed once. One that has ended is left alone, and the trouble
        of one stops no other: see `KeptAlive`. Blocks until all are done; in a task, call it on a worker thread.

        Raises ConfigurationError for a store without ``keys()``, and StoreError when that fails.
        """
        _check_count("at_once", at_once)
        if older_than is not None:
            arguments.check_durations(older_than=older_than)
        listing = getattr(self._store, "keys", None) if keys is None else lambda: keys
        if listing is None:
            raise ConfigurationError(f"{self._store!r} has no keys(): name the sessions with keys=")
        names = cast("Iterable[str]", listing())
        return keep_alive(names, self._store.load, self._refresh_idle, older_than=older_than, at_once=at_once)

    def close(self) -> None:
        """Forget all managers and end all subscriptions. Refreshes under way go on; the store stays open.

        Using it again begins anew.
        """
        with self._lock:
            managers, relay, relayed = self._managers, self._relay, self._relayed
            listened_to = list(self._listened_to.values())
            self._start_anew()
        for listeners in list(relayed):
            listeners.remove(relay)
        for manager in (*managers.values(), *listened_to):
            manager.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _make(self, key: str, settings: ManagerSettings) -> _One:
        grant = self._grant if self._grant_for is None else self._grant_for(key)
        made = _One(grant, store=self._store, key=key, listened_to=self._listened_to, **settings)
        with self._lock:
            # Managers of one session share its listeners, also one that was forgotten and is still in use.
            if made.listeners not in self._relayed:
                self._relayed.add(made.listeners)
                made.listeners.add(self._relay)
        return made

    def _refresh_idle(self, key: str, token: Token) -> None:
        # Nobody waits for it here: what fails now is tried again in the next round.
        self._make(key, {**self._settings, "patience": 0.0}).renew(token)


class _One(TokenManager):
    """One of many. *listened_to* holds it for as long as it has listeners: without it they would hear nothing."""

    def __init__(
        self,
        grant: Grant | GrantFunction,
        *,
        store: Store,
        listened_to: dict[object, _One],
        key: str = "default",
        **settings: Unpack[ManagerSettings],
    ) -> None:
        super().__init__(grant, store=store, key=key, **settings)
        self._listened_to = listened_to

    @property
    def grant(self) -> Grant:
        """How it gets tokens."""
        return self._grant

    @property
    def listeners(self) -> Listeners:
        """Who hears of its session."""
        return self._cell.listeners

    def renew(self, token: Token) -> None:
        """See that a later one than *token* is stored. Raises as `TokenManager.token` does."""
        if not self._obtain(Need(token.resource, token), None).later_than(token):
            session = self.session()
            cause = f" ({session.failure.message})" if session is not None and session.failure is not None else ""
            message = f"{self.key!r} could not be refreshed this time{cause}; its token is good all the same"
            raise TemporarilyUnavailable(message, key=self.key)

    def on(self, event_type: type[_E], callback: Callable[[_E], object]) -> Callable[[], None]:
        """See `TokenManager.on`."""
        end, place = super().on(event_type, callback), object()
        self._listened_to[place] = self

        def end_all() -> None:
            self._listened_to.pop(place, None)
            end()

        return end_all

    def close(self) -> None:
        """See `TokenManager.close`."""
        super().close()
        for place, manager in list(self._listened_to.items()):
            if manager is self:
                self._listened_to.pop(place, None)


def _nobody(session: Session) -> Mapping[str, Any]:
    raise ConfigurationError(f"no grant was made for {session.key!r}")


def _check_count(name: str, count: object) -> None:
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise ConfigurationError(f"{name} must be a whole number, at least 1, not {count!r}")


_all: WeakSet[TokenManagers] = WeakSet()


def _after_fork() -> None:
    """In a forked child: no thread is there that could give the locks back."""
    for managers in list(_all):
        managers._lock = threading.RLock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
