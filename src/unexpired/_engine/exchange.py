"""What adapters ask of a manager beside tokens: what to do about a refused one."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from unexpired._core import changes
from unexpired._core.effects import Need
from unexpired._core.suspicion import Suspicion
from unexpired._core.token import Token
from unexpired._engine import driving
from unexpired.errors import LoginRequired
from unexpired.events import Event, SessionEnded

if TYPE_CHECKING:
    from unexpired._core.ports import Grant
    from unexpired._engine.cell import Cell
    from unexpired._engine.desk import Desk
    from unexpired._engine.login_page import LoginPage

__all__ = ["Exchange"]


class Exchange:
    """One manager, as its adapters see it. Thread-safe and task-safe.

    *origin* is where a request went, *endpoint* what it asked for there (`unexpired._core.suspicion.endpoint_of`).
    """

    def __init__(
        self,
        cell: Cell,
        desk: Desk,
        grant: Grant,
        page: LoginPage,
        *,
        obtain: Callable[[Need | Token | None], Token | None],
        aobtain: Callable[[Need | Token | None], Awaitable[Token | None]],
    ) -> None:
        self.key = cell.key
        self._cell = cell
        self._desk = desk
        self._grant = grant
        self._page = page
        self._obtain = obtain
        self._aobtain = aobtain

    @property
    def suspicions(self) -> dict[tuple[str | None, str], Suspicion]:
        """The origins and endpoints that refused fresh tokens. While there is any, accepted answers have to be told."""
        return self._cell.suspicions

    def replacement(self, carried: Token, origin: str, endpoint: str = "") -> Token | None:
        """A newer token than *carried*, which the API refused; None when it should not be replaced.

        Raises what `TokenManager.token` raises.
        """
        token = self._obtain(self._desk.replacement(carried, origin, endpoint))
        return None if token is None or token.access_token == carried.access_token else token

    async def areplacement(self, carried: Token, origin: str, endpoint: str = "") -> Token | None:
        """`replacement`, for asyncio and trio."""
        token = await self._aobtain(self._desk.replacement(carried, origin, endpoint))
        return None if token is None or token.access_token == carried.access_token else token

    def newer(self, carried: Token) -> Token | None:
        """A newer token than *carried*, if there already is one."""
        return self._desk.newer(carried)

    def accepted(self, token: Token, origin: str, endpoint: str = "") -> None:
        """The API took *token*."""
        self._desk.accepted(token, origin, endpoint)

    def end(self, carried: Token) -> bool:
        """The API said *carried*'s login is over: end it, unless a newer token exists. Whether this ended it."""
        flow = changes.end(self.key, carried, "login_required")
        session, ended = driving.change(flow, self._cell, self._grant)
        self._cell.adopt(session)
        if ended and session is not None:
            self.tell(SessionEnded(self.key, session.version, "login_required"))
        return ended

    async def aend(self, carried: Token) -> bool:
        """`end`, for asyncio and trio."""
        return await driving.in_thread(lambda: self.end(carried))

    def tell(self, event: Event) -> None:
        """Tell the listeners and the log."""
        self._cell.listeners.tell(event)

    def address(self, error: LoginRequired) -> LoginRequired:
        """*error* with the address of the login page, if the manager knows one."""
        return self._page.address(error)
