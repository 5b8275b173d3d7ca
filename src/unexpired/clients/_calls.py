"""The way of a call through clients that let an adapter send: once for threads, once for tasks.

An adapter describes one request of its client as a `Call` or an `AsyncCall`; `Calls` sends it with a token, and again,
silently, when the token is refused. What httpx-like clients do is in `_httpx_flow`: there the client sends.
"""

from __future__ import annotations

from typing import Protocol

from unexpired._core.replay import Send, replay
from unexpired._core.scheme import Judgement, Scheme, Verdict
from unexpired._core.suspicion import endpoint_of
from unexpired._core.token import Token
from unexpired._engine.clock import boot
from unexpired.clients._exchange import aanswer, answer, body_refused, check_manager, chosen_scheme, replayed, step
from unexpired.errors import LoginRequired
from unexpired.manager import TokenManager

__all__ = ["AsyncCall", "Call", "Calls"]


class Asked(Protocol):
    """What a request asks for."""

    resource: str | None
    """The resource whose token it wants (RFC 8707)."""

    def origin(self) -> str:
        """Where it goes, as `unexpired._core.scheme.origin_of` spells it."""
        ...

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        ...

    def rewind(self) -> bool:
        """Make the body ready to be sent once more, as it was. False: it cannot be had again."""
        ...


class Call(Asked, Protocol):
    """One request of a blocking client, and the last answer to it. Made anew for each request."""

    def send(self, token: Token) -> int:
        """Send it with *token*, keep the answer, return its status."""
        ...

    def judge(self, scheme: Scheme) -> Judgement:
        """Judge the answer by as much of its body as that takes; the body stays whole for the caller."""
        ...

    def take_in(self) -> None:
        """Read a refused answer if it is short: its connection is free while its caller waits for a token."""
        ...

    def discard(self) -> None:
        """Let go of the answer and its connection: nobody will read it."""
        ...


class AsyncCall(Asked, Protocol):
    """The same of an asynchronous client."""

    async def send(self, token: Token) -> int:
        """As `Call.send`."""
        ...

    async def judge(self, scheme: Scheme) -> Judgement:
        """As `Call.judge`."""
        ...

    async def take_in(self) -> None:
        """As `Call.take_in`."""
        ...

    async def discard(self) -> None:
        """As `Call.discard`."""
        ...


class Calls:
    """One manager and one scheme, for one kind of client. Safe for any number of threads and tasks."""

    def __init__(self, manager: TokenManager, scheme: Scheme | None) -> None:
        check_manager(manager)
        self.scheme = chosen_scheme(scheme)
        self.manager = manager
        self._exchange = manager.exchange
        self._suspicions = manager.exchange.suspicions
        self._plain = self.scheme.plain
        self._closer_look = self.scheme.suspicious_status

    def carries(self, here: str, asked: str) -> bool:
        """Whether a request to the origin *here* gets the token, when its caller asked for one to *asked*."""
        return here == asked if self.scheme.origins is None else self.scheme.allows(here)

    def run(self, call: Call) -> None:
        """Send *call*, whose last answer is then its caller's. Raises as `TokenManager.token`, and ReplayRefused."""
        manager, resource = self.manager, call.resource
        token = manager.warm(resource) or manager.token(resource)
        self.go_on(call, token, call.send(token))

    async def arun(self, call: AsyncCall) -> None:
        """`run`, for tasks."""
        manager, resource = self.manager, call.resource
        token = manager.warm(resource) or await manager.atoken(resource)
        status = await call.send(token)
        # Asked here, because a coroutine more costs what all the rest does.
        if not self.is_fine(status):
            await self.ago_on(call, token, status)

    def is_fine(self, status: int) -> bool:
        """Whether *status* alone says that the token was taken, and nobody waits to hear of it."""
        return self._plain and not self._suspicions and status not in self._closer_look

    def go_on(self, call: Call, token: Token, status: int) -> None:
        """Go on from the answer with *status*, which *call* got with *token*."""
        if self.is_fine(status):
            return
        where, exchange, times, since = call.origin(), self._exchange, 0, boot()
        try:
            flow = replay(self.manager.key, token, self._judge(call), where, endpoint_of(*call.target()))
            told: object = None
            while (effect := step(flow, told)) is not None:
                if isinstance(effect, Send):
                    times += 1
                    self._rewind(call, where)
                    call.discard()
                    status = call.send(effect.token)
                    told = self._judge(call)
                else:
                    told = answer(exchange, effect, status)
            replayed(exchange, where, times, since)
        except LoginRequired as error:
            call.discard()
            raise exchange.address(error) from None
        except BaseException:
            call.discard()
            raise

    async def ago_on(self, call: AsyncCall, token: Token, status: int) -> None:
        """`go_on`, for tasks."""
        if self.is_fine(status):
            return
        where, exchange, times, since = call.origin(), self._exchange, 0, boot()
        try:
            flow = replay(self.manager.key, token, await self._ajudge(call), where, endpoint_of(*call.target()))
            told: object = None
            while (effect := step(flow, told)) is not None:
                if isinstance(effect, Send):
                    times += 1
                    self._rewind(call, where)
                    await call.discard()
                    status = await call.send(effect.token)
                    told = await self._ajudge(call)
                else:
                    told = await aanswer(exchange, effect, status)
            replayed(exchange, where, times, since)
        except LoginRequired as error:
            await call.discard()
            raise exchange.address(error) from None
        except BaseException:
            await call.discard()
            raise

    def _rewind(self, call: Asked, where: str) -> None:
        if not call.rewind():
            raise body_refused(self.manager.key, call.target()[0], where)

    def _judge(self, call: Call) -> Judgement:
        judgement = call.judge(self.scheme)
        if judgement.verdict is not Verdict.ACCEPTED:
            call.take_in()
        return judgement

    async def _ajudge(self, call: AsyncCall) -> Judgement:
        judgement = await call.judge(self.scheme)
        if judgement.verdict is not Verdict.ACCEPTED:
            await call.take_in()
        return judgement
