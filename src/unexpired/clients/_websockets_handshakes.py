"""Handshakes of websockets as the flow asks for them, and what the end of a connection says of its token."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import partial
from typing import Any, cast

from websockets.asyncio import client
from websockets.client import ClientProtocol
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.protocol import State
from websockets.uri import parse_uri

from unexpired._core.scheme import ACCEPTED, Answer, Judgement, Rendered, Scheme
from unexpired._core.suspicion import endpoint_of
from unexpired._core.token import Token
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of
from unexpired.clients._peeking import is_encoded
from unexpired.clients._websockets_requests import Lines, discreet, hush, uri_origin
from unexpired.errors import ConfigurationError, ReplayRefused, TemporarilyUnavailable
from unexpired.manager import TokenManager

__all__ = ["EXPIRED_CLOSE", "Handshakes", "transient"]

EXPIRED_CLOSE = (3000, 4401)
"""The close codes that mean an expired token: IANA's "Unauthorized", and HTTP's 401 as many servers put it."""

# One for all, because a scheme remembers how it rendered the last token.
_BEARER = Scheme.bearer()

_TAKEN_AFTER = 10.0
"""Seconds after which a connection shows that its server took the token, however it ends."""

_process_exception: Callable[[Exception], Exception | None] = cast("Any", client).process_exception


def transient(error: Exception) -> Exception | None:
    """What the client does about an error between two connections; no token for the moment is worth waiting, too."""
    return None if isinstance(error, TemporarilyUnavailable) else _process_exception(error)


class Handshakes:
    """The handshakes of one ``connect``, one after another, and the connection that the last one brought."""

    loops = False
    """Whether the caller asks for a connection after each other."""

    def __init__(
        self,
        manager: TokenManager,
        uri: str,
        scheme: Scheme | None,
        resource: str | None,
        expired_close: Iterable[int],
        *,
        options: Mapping[str, Any],
    ) -> None:
        self._calls = Calls(manager, _BEARER if scheme is None else scheme)
        self._expired_close = _close_codes(expired_close)
        self._resource = resource
        self._asked = uri_origin(parse_uri(uri))
        self._applies = self._calls.carries(self._asked, self._asked)
        self._once = any(options.get(name) is not None for name in ("sock", "stream"))
        self._connection: Any | None = None
        self._since = 0.0
        self._rendered = Rendered((), (), ())
        self.token: Token | None = None
        self.carried = False
        self.where, self.path = self._asked, "/"

    def wrap(self, kind: Callable[..., Any] | None, default: Callable[..., Any]) -> Callable[..., Any]:
        """What makes the client's connections: *kind*, whose handshakes then carry a token where one may go."""

        def create(*parts: Any, **settings: Any) -> Any:
            (protocol,) = (part for part in parts if isinstance(part, ClientProtocol))
            self._dress(protocol)
            return (kind or default)(*parts, **settings)

        return create

    def bring(self, token: Token) -> None:
        """Let the next handshake carry *token*. Raises ConfigurationError for one that does not fit the scheme."""
        # Not at the handshake: what is raised while asyncio opens a connection leaves its socket behind.
        self.token, self._rendered = token, self._calls.scheme.render(token)

    def again(self) -> None:
        """Raise ReplayRefused if there is no connecting a second time."""
        if self._once:
            key = self._calls.manager.key
            raise ReplayRefused(
                "the handshake was refused with an expired token, and a connection of your own serves for one "
                f"handshake. The token of {key!r} is fresh now: connect again, with another one",
                key=key,
            )

    def _dress(self, protocol: ClientProtocol) -> None:
        self.where, self.path = uri_origin(protocol.uri), protocol.uri.path or "/"
        self.carried = self.token is not None and self._calls.carries(self.where, self._asked)
        if self.carried:
            # On the protocol, because the client's connection and its log take their request from there.
            cast("Any", protocol).connect = partial(discreet, protocol.connect, self._rendered)
            if self._rendered.query:
                hush(protocol, self._rendered.query)

    def run(self, attempt: Callable[[], Any]) -> Any:
        """Connect by *attempt*; again, silently, if the token is refused. Raises the client's own errors."""
        if not self._applies:
            return attempt()
        opening = _Opening(self, attempt, self._resource)
        self._calls.run(opening)
        return self._opened(opening)

    async def arun(self, attempt: Callable[[], Awaitable[Any]]) -> Any:
        """`run`, for tasks."""
        if not self._applies:
            return await attempt()
        opening = _AsyncOpening(self, attempt, self._resource)
        await self._calls.arun(opening)
        return self._opened(opening)

    def _opened(self, opening: _Asked) -> Any:
        if opening.refusal is not None:
            raise opening.given_up()
        self._connection, self._since = opening.connection, time.monotonic()
        return opening.connection

    def leave(self, leaving: Callable[[], Any], error: BaseException | None) -> Any:
        """End the connection by *leaving*; if its server ended it because the token expired, get a newer one.

        *error* is what the caller's block raised; one that has nothing to do with the connection goes first.
        """
        try:
            suppressed = leaving()
        finally:
            refused = self._report_end(error)
        if refused is not None:
            self._end_loop_unless(self._calls.manager.exchange.replacement(*refused[1]), refused[0])
        return suppressed

    async def aleave(self, leaving: Awaitable[Any], error: BaseException | None) -> Any:
        """`leave`, for tasks."""
        exchange = self._calls.manager.exchange
        try:
            suppressed = await leaving
        except ConnectionClosed as closed:
            # trio's way out of the block raises anew what the block raised.
            refused = self._report_end(closed)
            if refused is not None:
                self._end_loop_unless(await exchange.areplacement(*refused[1]), refused[0])
            raise
        refused = self._report_end(error)
        if refused is not None:
            self._end_loop_unless(await exchange.areplacement(*refused[1]), refused[0])
        return suppressed

    def _report_end(self, error: BaseException | None) -> tuple[ConnectionClosed, tuple[Token, str, str]] | None:
        """Report that the server took the token, if the connection's end shows it.

        Returns the close and which token, of where, it was about, if the server closed because it no longer took that.
        """
        connection, self._connection = self._connection, None
        if connection is None or connection.protocol.state is not State.CLOSED:
            return None
        if not self.carried or not isinstance(error, ConnectionClosed | None):
            return None
        closed: ConnectionClosed = connection.protocol.close_exc
        code = None if closed.rcvd is None or closed.rcvd_then_sent is False else closed.rcvd.code
        # A server that opens every connection and then closes it must not seem cured by the next handshake.
        about = cast("Token", self.token), self.where, endpoint_of("CLOSE", self.path)
        expired = code in self._expired_close
        if time.monotonic() - self._since >= _TAKEN_AFTER or (closed.rcvd is not None and not expired):
            self._calls.manager.exchange.accepted(*about)
        return (closed, about) if expired else None

    def _end_loop_unless(self, newer: Token | None, closed: ConnectionClosed) -> None:
        """Raise *closed* in a loop that would connect with the refused token again: there is no newer one."""
        if newer is None and self.loops:
            raise closed


class _Asked:
    """One connecting: its handshakes are sent until one is not refused."""

    connection: Any = None
    refusal: InvalidStatus | None = None

    def __init__(self, handshakes: Handshakes, attempt: Callable[[], Any], resource: str | None) -> None:
        self._handshakes = handshakes
        self._attempt = attempt
        self.resource = resource

    def origin(self) -> str:
        """Where the last handshake went."""
        return self._handshakes.where

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        return "GET", self._handshakes.path

    def rewind(self) -> bool:
        """A handshake has no body; only the caller's own connection is spent."""
        self._handshakes.again()
        return True

    def given_up(self) -> InvalidStatus:
        """The refusal, to be raised: kept here, it would hold its own traceback in a circle."""
        refusal, self.refusal = cast("InvalidStatus", self.refusal), None
        return refusal

    def _judgement(self, scheme: Scheme) -> Judgement:
        # Said where a redirect led to without the token, it means nothing.
        if self.refusal is None or not self._handshakes.carried:
            return ACCEPTED
        response = self.refusal.response
        status, headers, body = response.status_code, Lines(response.headers), bytes(response.body or b"")
        seen = scheme.wants_body(status, headers.get("content-type"), len(body), "GET") and not is_encoded(headers)
        return scheme.judge(Answer(status, headers, body if seen else None))


class _Opening(_Asked):
    """A `Call` of threads."""

    def send(self, token: Token) -> int:
        """Shake hands."""
        self._handshakes.bring(token)
        self.refusal = None
        try:
            self.connection = self._attempt()
        except InvalidStatus as error:
            self.refusal = error
            return error.response.status_code
        return 101

    def judge(self, scheme: Scheme) -> Judgement:
        """Judge the refusal, if it is one."""
        return self._judgement(scheme)

    def take_in(self) -> None:
        """Nothing: the client has read it."""

    def discard(self) -> None:
        """Nothing: the client has closed its connection."""


class _AsyncOpening(_Asked):
    """The same for tasks."""

    async def send(self, token: Token) -> int:
        """Shake hands."""
        self._handshakes.bring(token)
        self.refusal = None
        try:
            self.connection = await self._attempt()
        except InvalidStatus as error:
            self.refusal = error
            return error.response.status_code
        return 101

    async def judge(self, scheme: Scheme) -> Judgement:
        """Judge the refusal, if it is one."""
        return self._judgement(scheme)

    async def take_in(self) -> None:
        """Nothing: the client has read it."""

    async def discard(self) -> None:
        """Nothing: the client has closed its connection."""


def _close_codes(codes: Iterable[int]) -> frozenset[int]:
    if isinstance(codes, str | bytes) or not isinstance(cast("object", codes), Iterable):
        raise ConfigurationError(f"expired_close= must be a list of close codes such as (4401,), not {kind_of(codes)}")
    found = frozenset(codes)
    if not all(type(code) is int and 1000 <= code <= 4999 for code in found):
        raise ConfigurationError("expired_close= must hold close codes from 1000 to 4999, such as 4401")
    return found
