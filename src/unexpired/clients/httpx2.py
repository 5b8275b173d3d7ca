"""httpx2: `TokenAuth` for ``auth=``, and transports for what ``auth=`` cannot do.

`TokenAuth` carries schemes that put the token into the ``Authorization`` header, business codes in bodies included.
Tokens in headers of their own, in the query or in cookies need `TokenTransport` or `AsyncTokenTransport`: the client
would carry such a header along redirects, and show such a query in its log and history.

A request made with ``extensions={"unexpired.authenticated": False}`` carries no token; ``"unexpired.resource"`` names
the resource whose token it wants (RFC 8707). Everything here is safe for any number of threads, tasks and event loops.
"""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    AsyncIterator,
    Callable,
    Generator,
    Iterable,
    Iterator,
)
from typing import Any, Never, cast

import httpx2

from unexpired._core.scheme import Scheme
from unexpired.clients._exchange import kind_of
from unexpired.clients._httpx_flow import HttpxFlow, auth_scheme, dress_copy, dress_headers
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

__all__ = ["AsyncBodyFactory", "AsyncTokenTransport", "BodyFactory", "TokenAuth", "TokenTransport"]


class _Factory:
    """What both kinds of body factories are."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory


class BodyFactory(_Factory, httpx2.SyncByteStream):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``client.post(url, content=BodyFactory(lambda: open(path, "rb")))``. An `httpx2.AsyncClient` wants an
    `AsyncBodyFactory`. Sending raises ConfigurationError when the factory makes something else.
    """

    def __init__(self, factory: Callable[[], Iterable[bytes]]) -> None:
        super().__init__(factory)

    def __iter__(self) -> Iterator[bytes]:
        body = self._factory()
        if not isinstance(body, Iterable):
            raise ConfigurationError("the factory of a BodyFactory must return an iterable of bytes")
        yield from body


class AsyncBodyFactory(_Factory, httpx2.AsyncByteStream):
    """`BodyFactory` for `httpx2.AsyncClient`: *factory* makes a new iterable, or async iterable, of bytes each time."""

    def __init__(self, factory: Callable[[], Iterable[bytes] | AsyncIterable[bytes]]) -> None:
        super().__init__(factory)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._factory()
        if isinstance(body, AsyncIterable):
            async for chunk in cast("AsyncIterable[bytes]", body):
                yield chunk
        elif isinstance(body, Iterable):
            for chunk in cast("Iterable[bytes]", body):
                yield chunk
        else:
            raise ConfigurationError("the factory of an AsyncBodyFactory must return an iterable of bytes")


class TokenAuth(httpx2.Auth):
    """``httpx2.Client(auth=TokenAuth(manager))``: the token on every request, and a silent replay when it is refused.

    For `httpx2.Client` and `httpx2.AsyncClient`, on asyncio and trio. A refused response is read, so that its
    connection is used again; it stays in ``response.history``, as with httpx2's own authentication schemes. httpx2
    keeps ``Authorization`` when ``http`` redirects to ``https`` on the same host; where that is too much, use the
    transport. Raises ConfigurationError for a scheme that it cannot carry safely; requests raise what
    `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None) -> None:
        self._flow = HttpxFlow(httpx2, _Factory, manager, auth_scheme(scheme), dress_headers)

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """One request, and its replay; called by `httpx2.Client`."""
        return self._flow.sync(request)

    def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """One request, and its replay; called by `httpx2.AsyncClient`."""
        return self._flow.tasks(request)


class TokenTransport(httpx2.BaseTransport):
    """``httpx2.Client(transport=TokenTransport(manager, scheme))``: any scheme, on every hop of a redirect.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to
    another one; the client's own requests, hooks, log and history never hold it. *transport* is what sends
    (default: a new `httpx2.HTTPTransport`). Requests raise what `TokenManager.token` raises, and ReplayRefused.
    Raises ConfigurationError for an argument of another kind, and when an `httpx2.AsyncClient` begins to use it.
    """

    def __init__(
        self,
        manager: TokenManager,
        scheme: Scheme | None = None,
        transport: httpx2.BaseTransport | None = None,
    ) -> None:
        self._flow = HttpxFlow(httpx2, _Factory, manager, scheme, dress_copy)
        _check_transport(transport, httpx2.BaseTransport, httpx2.AsyncBaseTransport, "AsyncTokenTransport")
        self._transport = httpx2.HTTPTransport() if transport is None else transport

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it with a token; again, silently, if the token is refused."""
        flow = self._flow.sync(request)
        outgoing = next(flow)
        while True:
            response = self._transport.handle_request(outgoing)
            try:
                outgoing = flow.send(response)
            except StopIteration:
                return response
            except BaseException:
                response.close()
                raise
            response.close()

    def close(self) -> None:
        """Close the transport that sends. The manager stays open."""
        self._transport.close()

    def __aenter__(self) -> Never:
        raise _wrong_client("AsyncClient", "AsyncTokenTransport")

    def handle_async_request(self, _: httpx2.Request) -> Never:
        """Raise ConfigurationError: an `httpx2.AsyncClient` takes an `AsyncTokenTransport`."""
        raise _wrong_client("AsyncClient", "AsyncTokenTransport")

    async def aclose(self) -> None:
        """Close it all the same: a client that was refused above is still to be closed."""
        self.close()


class AsyncTokenTransport(httpx2.AsyncBaseTransport):
    """`TokenTransport` for `httpx2.AsyncClient`, on asyncio and trio; an `httpx2.Client` is refused."""

    def __init__(
        self,
        manager: TokenManager,
        scheme: Scheme | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
    ) -> None:
        self._flow = HttpxFlow(httpx2, _Factory, manager, scheme, dress_copy)
        _check_transport(transport, httpx2.AsyncBaseTransport, httpx2.BaseTransport, "TokenTransport")
        self._transport = httpx2.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        """Send it with a token; again, silently, if the token is refused."""
        flow = self._flow.tasks(request)
        try:
            outgoing = await anext(flow)
            while True:
                response = await self._transport.handle_async_request(outgoing)
                try:
                    outgoing = await flow.asend(response)
                except StopAsyncIteration:
                    return response
                except BaseException:
                    await response.aclose()
                    raise
                await response.aclose()
        except BaseException:
            # Left to the garbage collector, an abandoned flow would be a warning under trio.
            await flow.aclose()
            raise

    async def aclose(self) -> None:
        """Close the transport that sends. The manager stays open."""
        await self._transport.aclose()

    def __enter__(self) -> Never:
        raise _wrong_client("Client", "TokenTransport")

    def handle_request(self, _: httpx2.Request) -> Never:
        """Raise ConfigurationError: an `httpx2.Client` takes a `TokenTransport`."""
        raise _wrong_client("Client", "TokenTransport")

    def close(self) -> None:
        """Nothing was opened for a client that was refused above, and it is still to be closed."""


def _check_transport(transport: object, kind: type[Any], other_kind: type[Any], other: str) -> None:
    """Raise ConfigurationError unless *transport* is a *kind*, or None; *other* is for those of *other_kind*."""
    if transport is None or isinstance(transport, kind):
        return
    hint = f": use {other} for it" if isinstance(transport, other_kind) else ""
    raise ConfigurationError(f"transport must be an httpx2.{kind.__name__}, not {kind_of(transport)}{hint}")


def _wrong_client(client: str, right: str) -> ConfigurationError:
    return ConfigurationError(f"an httpx2.{client} needs {right}(manager, scheme) as its transport")
