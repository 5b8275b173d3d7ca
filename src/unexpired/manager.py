"""`TokenManager`: gives out tokens for one session, and sees to it that there is one refresh for everybody."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any, Self, TypeVar

from unexpired._core import changes
from unexpired._core.effects import Flow, Need
from unexpired._core.flight import Plan
from unexpired._core.obtain import gone, obtain
from unexpired._core.policy import Policy
from unexpired._core.ports import Grant, GrantFunction, Store
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired._engine import arguments, driving
from unexpired._engine.cell import cell_for
from unexpired._engine.clock import boot
from unexpired._engine.desk import Desk
from unexpired._engine.exchange import Exchange
from unexpired._engine.flying import Flying
from unexpired._engine.login_page import LoginPage
from unexpired._engine.tally import lasting
from unexpired._engine.telling import Listener
from unexpired.errors import LoginRequired
from unexpired.events import Event, LoggedIn, LoggedOut
from unexpired.seeds import fingerprint, first_token

__all__ = ["TokenManager"]

_E = TypeVar("_E", bound=Event)


def _as_grant(grant: Grant | GrantFunction) -> Grant:
    from unexpired.grants import as_grant  # noqa: PLC0415 - `import unexpired` is quicker without it

    return as_grant(grant)


class TokenManager:
    """Gives out tokens for the session stored under *key*, refreshing them before anybody meets an expired one.

    One refresh serves all threads, tasks, event loops and processes that share the store; everybody else waits for it
    and gets its result. Any number of threads and event loops (asyncio, trio) may use one manager at the same time,
    through sync and async methods alike; any number of managers for one store and key act as one. Creating one does
    no I/O and is cheap. Works without being closed.

    *grant* says how a new token is obtained: a `unexpired.grants` object or your own function from `Session` to a
    token answer, sync or async. *store* keeps the session; by default a `FileStore` in the user's data directory.

    All durations are seconds. *leeway*: a token this close to its expiry counts as expired (10 % of its lifetime at
    most). *refresh_ahead*: refreshing begins in the background this long before expiry (25 % of the lifetime at most,
    shortened by up to half per key; 0 turns it off). *deadline* bounds one refresh, *lease_wait* the wait for
    another process, *wait* one caller's wait in all, *patience* how long a caller sits out a passing failure (0 fails
    at once). *default_lifetime* is assumed when the server names none; None: refresh only when refused.

    *login_url* is a template such as ``/login?redirect={return_to}`` for `LoginRequired.login_url`; *login_fields*
    supplies ``return_to`` (a path of this site; anything else becomes ``/``) and fields of your own, as strings or
    as functions that are asked when needed. While *on_login_page* returns true nothing is refreshed, and a call that
    would need it raises `LoginRequired` at once.
    """

    def __init__(
        self,
        grant: Grant | GrantFunction,
        *,
        store: Store | None = None,
        key: str = "default",
        leeway: float = 30.0,
        refresh_ahead: float = 300.0,
        deadline: float = 10.0,
        lease_wait: float = 15.0,
        wait: float = 30.0,
        patience: float = 30.0,
        default_lifetime: float | None = None,
        login_url: str | None = None,
        login_fields: Mapping[str, str | Callable[[], str]] | None = None,
        on_login_page: Callable[[], bool] | None = None,
    ) -> None:
        if store is None:
            from unexpired.stores.file import FileStore  # noqa: PLC0415 - not needed with another store

            store = FileStore()
        durations: dict[str, Any] = {
            "leeway": leeway,
            "refresh_ahead": refresh_ahead,
            "deadline": deadline,
            "lease_wait": lease_wait,
            "wait": wait,
            "patience": patience,
            "default_lifetime": default_lifetime,
        }
        arguments.check_key(key)
        arguments.check_store(store)
        arguments.check_durations(**durations)
        self.key = key
        self._grant = _as_grant(grant)
        self._policy = Policy(
            **durations,
            reuse_grace=self._grant.reuse_grace,
            spends_refresh_token=self._grant.spends_refresh_token,
        )
        self._page = LoginPage(login_url, login_fields, on_login_page)
        self._cell = cell_for(store, key)
        self._owner = os.urandom(8).hex()
        self._desk = Desk(self._cell, self._policy, self._refresh_ahead)
        self._stamp = self._cell.stamp
        self.exchange = Exchange(
            self._cell, self._desk, self._grant, self._page, obtain=self._settle, aobtain=self._asettle
        )

    def __repr__(self) -> str:
        return f"TokenManager({self._grant!r}, store={self._cell.store!r}, key={self.key!r})"

    # -- tokens -------------------------------------------------------------------------------------------------

    def token(self, resource: str | None = None, *, wait: float | None = None) -> Token:
        """A token that is not expired, refreshed if need be, for *resource* (RFC 8707; None: the default one).

        Waits at most *wait* seconds (default: the manager's). Takes no lock and does no network call while the token
        is fresh. Raises LoginRequired, TemporarilyUnavailable, ConfigurationError or StoreError.
        """
        found = self.warm(resource) or self._current(resource)
        return found if isinstance(found, Token) else self._obtain(found, wait)

    async def atoken(self, resource: str | None = None, *, wait: float | None = None) -> Token:
        """`token`, for asyncio and trio. Cancelling it changes nothing for anybody else."""
        found = self.warm(resource) or self._current(resource)
        return found if isinstance(found, Token) else await self._aobtain(found, wait)

    def warm(self, resource: str | None = None) -> Token | None:
        """The token if it is fresh and nothing has to be waited for, else None. For adapters; never raises."""
        warm = self._desk.warm
        if (
            warm is not None
            and resource is None
            and boot() < warm.until
            and warm.view is self._cell.view
            and warm.view.stamp == self._stamp()
        ):
            return warm.token
        return None

    def refresh(
        self, rejected: Token | str | None = None, *, resource: str | None = None, wait: float | None = None
    ) -> Token:
        """A newer token than *rejected* (None: than the one that is current at the call).

        When a newer one exists already it is returned and nothing is refreshed. A token that this manager never gave
        out counts as older than the current one. Raises like `token`.
        """
        arguments.check_resource(resource)
        found = self._desk.after(rejected, resource) or self._desk.after_all(rejected, resource)
        return found if isinstance(found, Token) else self._obtain(found, wait)

    async def arefresh(
        self, rejected: Token | str | None = None, *, resource: str | None = None, wait: float | None = None
    ) -> Token:
        """`refresh`, for asyncio and trio."""
        arguments.check_resource(resource)
        found = self._desk.after(rejected, resource)
        if found is None:
            found = await driving.in_thread(lambda: self._desk.after_all(rejected, resource))
        return found if isinstance(found, Token) else await self._aobtain(found, wait)

    def session(self) -> Session | None:
        """The stored session as it is now, None when there never was one. Raises StoreError."""
        return self._cell.look().session

    @property
    def logged_in(self) -> bool:
        """Whether there is a login that has not ended, as stored now. Raises StoreError."""
        session = self.session()
        return session is not None and session.ended is None

    # -- login and logout ---------------------------------------------------------------------------------------

    def login(self, token: Token | Mapping[str, Any]) -> Session:
        """Store a new login: a token answer (RFC 6749 §5.1), or a mapping with at least a ``refresh_token``.

        Replaces whatever was stored; a refresh under way cannot overwrite it, and who waits for one gets this login's
        token. Raises ConfigurationError when there is no token in it, StoreError when it cannot be stored.
        """
        return self._begin(token, once=False)

    def seed(self, token: Token | Mapping[str, Any]) -> Session:
        """Store a first token, once: to be called at every start of a program that is given one.

        Like `login`, but the very answer that began the stored session changes nothing, whatever has become of that
        session since: its refresh token is spent. Safe in any number of processes at once. Raises like `login`.
        """
        return self._begin(token, once=True)

    async def alogin(self, token: Token | Mapping[str, Any]) -> Session:
        """`login`, for asyncio and trio: the store is written on a worker thread."""
        return await driving.in_thread(lambda: self.login(token))

    def logout(self) -> None:
        """End the login: an ended record is stored, then the tokens are revoked at the server (RFC 7009).

        A refresh under way cannot undo it; other processes see it before their next request (local disk). Does
        nothing when nobody is logged in. A failed revocation is reported in the `LoggedOut` event only. Raises
        StoreError when the end cannot be stored.
        """
        done = driving.change(changes.logout(self.key), self._cell, self._grant)
        if done is not None:
            over, revoked = done
            self._cell.adopt(over)
            self.exchange.tell(LoggedOut(self.key, revoked))

    async def alogout(self) -> None:
        """`logout`, for asyncio and trio."""
        await driving.in_thread(self.logout)

    def login_page(self) -> AbstractContextManager[None]:
        """Inside this ``with`` block the program is on its login page: nothing is refreshed.

        A call that would need a refresh raises `LoginRequired` (reason ``login_page``) at once, in every thread and
        task that uses this manager.
        """
        return self._page.visit()

    # -- telling ------------------------------------------------------------------------------------------------

    def on(self, event_type: type[_E], callback: Callable[[_E], object]) -> Callable[[], None]:
        """Call *callback* with every event of *event_type*; the returned function ends that.

        Callbacks run after the waiting callers were woken, on the flight's thread; their exceptions are logged.
        """
        arguments.check_listener(event_type, callback)
        listener = Listener(event_type, callback, self._owner)
        self._cell.listeners.add(listener)
        return lambda: self._cell.listeners.remove(listener)

    def close(self) -> None:
        """End this manager's subscriptions. A refresh under way goes on; the store stays open."""
        self._cell.listeners.drop(self._owner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- obtaining ----------------------------------------------------------------------------------------------

    def _begin(self, token: Token | Mapping[str, Any], *, once: bool) -> Session:
        arguments.check_token(token)
        first, login_id = first_token(token, self._policy.default_lifetime), os.urandom(16).hex()
        flow = changes.login(self.key, login_id, first, fingerprint(first), once=once)
        session = driving.change(flow, self._cell, self._grant)
        if session.login == login_id:
            self._cell.adopt(session)
            self._cell.suspicions.clear()
            self.exchange.tell(LoggedIn(self.key, lasting(session)))
        else:
            self._cell.notice(session)
        return session

    def _current(self, resource: str | None) -> Token | Need:
        arguments.check_resource(resource)
        found = self._desk.current(resource)
        if isinstance(found, Session) or found is None:
            raise self._page.address(gone(self.key, found))
        return found

    def _join(self, need: Need, *, waits: bool = True) -> Flying:
        plan = Plan(self.key, self._policy, f"{self._owner}:{os.getpid()}")
        return self._cell.join(need, plan, self._grant, waits=waits)

    def _refresh_ahead(self, need: Need) -> None:
        if not self._page.is_here():
            self._join(need, waits=False)

    def _flow(self, need: Need, wait: float | None) -> Flow[Token]:
        if self._page.is_here():
            message = f"the token of {self.key!r} is no longer good, and the program is on its login page"
            raise self._page.address(LoginRequired(message, key=self.key, reason="login_page"))
        return obtain(self.key, need, self._policy, self._policy.wait if wait is None else wait)

    def _settle(self, found: Need | Token | None) -> Token | None:
        return self._obtain(found, None) if isinstance(found, Need) else found

    async def _asettle(self, found: Need | Token | None) -> Token | None:
        return await self._aobtain(found, None) if isinstance(found, Need) else found

    def _obtain(self, need: Need, wait: float | None) -> Token:
        try:
            return driving.drive(self._flow(need, wait), self._join)
        except LoginRequired as error:
            raise self._page.address(error) from None

    async def _aobtain(self, need: Need, wait: float | None) -> Token:
        try:
            return await driving.adrive(self._flow(need, wait), self._join)
        except LoginRequired as error:
            raise self._page.address(error) from None
