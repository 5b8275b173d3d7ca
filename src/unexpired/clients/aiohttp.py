"""aiohttp: `TokenMiddleware` for ``middlewares=``, of a session or of a single request.

A request that is given middlewares of its own is not seen by the session's: ``middlewares=()`` means no token, and
``middlewares=[tokens.for_resource(…)]`` that resource's token (RFC 8707). What a session opens with ``ws_connect``
carries the token too. Everything here is safe for any number of threads, tasks and event loops.

Needs the extra ``unexpired[aiohttp]``.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable
from copy import copy
from typing import Never, Self, cast
from weakref import ref

from unexpired._core.scheme import Scheme
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, not_installed
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

try:
    from aiohttp import ClientHandlerType, ClientRequest, ClientResponse
    from aiohttp.helpers import BaseTimerContext
except ModuleNotFoundError as error:
    raise not_installed("aiohttp", error) from None

from unexpired.clients._aiohttp_bodies import Remade
from unexpired.clients._aiohttp_calls import Sending, url_origin

__all__ = ["BodyFactory", "TokenMiddleware"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})


class BodyFactory(Remade):
    """A request body that can be sent any number of times: *factory* makes a new iterable, or async iterable, of bytes.

    ``session.post(url, data=BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed. When the
    factory makes something else, aiohttp's ``ClientConnectionError`` says so.
    """

    def __init__(self, factory: Callable[[], Iterable[bytes] | AsyncIterable[bytes]]) -> None:
        super().__init__(factory)


class TokenMiddleware:
    """``aiohttp.ClientSession(middlewares=[TokenMiddleware(manager, scheme)])``: any scheme, on every hop.

    A refused request is sent again, silently, with a newer token; the refused answer is read if it is short, so that
    its connection is used again. The token goes to the origin that the caller asked for (or the scheme's *origins*)
    and along no redirect to another one; responses, their history and request information, errors and traces never
    hold it. *resource*: whose token it is (RFC 8707).

    Raises ConfigurationError for an argument of another kind; requests raise what `TokenManager.token` raises, and
    ReplayRefused for a body that cannot be sent again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, resource: str | None = None) -> None:
        self._calls = Calls(manager, scheme)
        self._limited = self._calls.scheme.origins is not None
        self._resource = resource
        self._redirected: dict[int, tuple[BaseTimerContext, ref[ClientResponse]]] = {}
        """The first answer of each call that is being redirected, by the timer that all its requests share."""

    def for_resource(self, resource: str | None) -> Self:
        """The same for the token of another resource, to be given to single requests."""
        other = copy(self)
        other._resource = resource
        other._redirected = {}
        return other

    def __call__(
        self, request: ClientRequest, handler: ClientHandlerType | None = None, *_: object
    ) -> Awaitable[ClientResponse]:
        """Send *request* by *handler*; called by the session, for each hop of a redirect."""
        if handler is None or not isinstance(cast("object", request), ClientRequest):
            raise ConfigurationError(
                f"TokenMiddleware of unexpired.clients.aiohttp takes requests of aiohttp, not {kind_of(request)}: "
                "give it to a session, as in aiohttp.ClientSession(middlewares=[TokenMiddleware(manager)])"
            )
        return self._send(request, handler)

    async def _send(self, request: ClientRequest, handler: ClientHandlerType) -> ClientResponse:
        calls = self._calls
        if (self._redirected or self._limited) and not self._applies(request):
            return await handler(request)
        sending = Sending(calls.scheme, request, handler, self._resource)
        await calls.arun(sending)
        response = sending.response
        if response.status in _REDIRECTS:
            self._remember(request, response)
        return response

    def _applies(self, request: ClientRequest) -> bool:
        """Whether this request is to carry a token: to an allowed origin, and no redirect to another one."""
        here = url_origin(request.url)
        _, first = self._redirected.get(id(request._timer), (None, None))
        answer = None if first is None else first()
        return self._calls.carries(here, here if answer is None else url_origin(answer.request_info.url))

    def _remember(self, request: ClientRequest, response: ClientResponse) -> None:
        """Note where a call began, for as long as the session keeps the answer in the call's history."""
        redirected, timer = self._redirected, request._timer
        key = id(timer)
        if key not in redirected:
            redirected[key] = (timer, ref(response, lambda _: redirected.pop(key, None)))

    def __bool__(self) -> bool:
        return True

    def __len__(self) -> Never:
        raise ConfigurationError("middlewares= takes a list, even of one: middlewares=[TokenMiddleware(manager)]")
