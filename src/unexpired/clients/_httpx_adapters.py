"""What the adapters of httpx-like clients are made of: each names its client's module and adds that client's bases.

Knows neither httpx2 nor httpx by name.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any, ClassVar, Generic, Never, TypeVar, cast

from unexpired._core.scheme import Scheme
from unexpired.clients._bodies import Factory
from unexpired.clients._dressing import header_scheme
from unexpired.clients._exchange import kind_of
from unexpired.clients._httpx_bodies import stays
from unexpired.clients._httpx_flow import HttpxFlow, sibling, wrong_library
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

__all__ = ["AsyncFlowTransport", "FlowAuth", "FlowTransport"]

Request = TypeVar("Request")
Response = TypeVar("Response")
Transport = TypeVar("Transport")


class FlowAuth(Generic[Request, Response]):
    """For ``auth=``: the client sends what the flow yields."""

    _module: ClassVar[Any]

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None) -> None:
        self._flow = HttpxFlow(
            self._module,
            Factory,
            manager,
            header_scheme(scheme, "TokenAuth", "TokenTransport or AsyncTokenTransport"),
            by_copy=False,
        )

    def sync_auth_flow(self, request: Request) -> Generator[Request, Response, None]:
        """One request, and its replay; called by the blocking client."""
        return self._flow.sync(request)

    def async_auth_flow(self, request: Request) -> AsyncGenerator[Request, Response]:
        """One request, and its replay; called by the asynchronous client."""
        return self._flow.tasks(request)

    def __call__(self, request: object) -> Never:
        """Raise ConfigurationError: only another library's client takes this for a function to be called."""
        raise wrong_library("TokenAuth", self._module, request)


class FlowTransport(Generic[Request, Response, Transport]):
    """A transport around the one that sends."""

    _module: ClassVar[Any]

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, transport: Transport | None = None) -> None:
        module = self._module
        self._flow = HttpxFlow(module, Factory, manager, scheme, by_copy=True)
        _check_transport(module, transport, module.BaseTransport, module.AsyncBaseTransport, "AsyncTokenTransport")
        self._transport: Any = module.HTTPTransport() if transport is None else transport

    def handle_request(self, request: Request) -> Response:
        """Send it with a token; again, silently, if the token is refused."""
        flow, ready = self._flow, self._flow.ready(request)
        if ready is None:
            return self._drive(flow.sync(request), None)
        response = self._transport.handle_request(ready[0])
        if flow.is_fine(response.status_code):
            if flow.in_query:
                flow.hush(ready[0], response)
            return cast("Response", response)
        return self._drive(flow.go_on(request, *ready, response, stays), response)

    def _drive(self, steps: Generator[Any, Any, None], response: Any) -> Response:
        """Send what the flow says; its last answer. *response* is the one it goes on from."""
        told = outgoing = None
        while True:
            try:
                outgoing = steps.send(told)
            except StopIteration:
                if self._flow.in_query and outgoing is not None:
                    self._flow.hush(outgoing, response)
                return cast("Response", response)
            except BaseException:
                if response is not None:
                    response.close()
                raise
            if response is not None:
                response.close()
            response = told = self._transport.handle_request(outgoing)

    def close(self) -> None:
        """Close the transport that sends. The manager stays open."""
        self._transport.close()

    def __aenter__(self) -> Never:
        raise _wrong_client(self._module, "AsyncClient", "AsyncTokenTransport")

    def handle_async_request(self, _: Request) -> Never:
        """Raise ConfigurationError: an asynchronous client takes an `AsyncTokenTransport`."""
        raise _wrong_client(self._module, "AsyncClient", "AsyncTokenTransport")

    async def aclose(self) -> None:
        """Close it all the same: a client that was refused above is still to be closed."""
        self.close()


class AsyncFlowTransport(Generic[Request, Response, Transport]):
    """The same for tasks."""

    _module: ClassVar[Any]

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, transport: Transport | None = None) -> None:
        module = self._module
        self._flow = HttpxFlow(module, Factory, manager, scheme, by_copy=True)
        _check_transport(module, transport, module.AsyncBaseTransport, module.BaseTransport, "TokenTransport")
        self._transport: Any = module.AsyncHTTPTransport() if transport is None else transport

    async def handle_async_request(self, request: Request) -> Response:
        """Send it with a token; again, silently, if the token is refused."""
        flow, ready = self._flow, self._flow.ready(request)
        if ready is None:
            return await self._drive(flow.tasks(request), None)
        response = await self._transport.handle_async_request(ready[0])
        if flow.is_fine(response.status_code):
            if flow.in_query:
                flow.hush(ready[0], response)
            return cast("Response", response)
        return await self._drive(flow.ago_on(request, *ready, response, stays), response)

    async def _drive(self, steps: AsyncGenerator[Any, Any], response: Any) -> Response:
        told = outgoing = None
        try:
            while True:
                try:
                    outgoing = await steps.asend(told)
                except StopAsyncIteration:
                    if self._flow.in_query and outgoing is not None:
                        self._flow.hush(outgoing, response)
                    return cast("Response", response)
                except BaseException:
                    if response is not None:
                        await response.aclose()
                    raise
                if response is not None:
                    await response.aclose()
                response = told = await self._transport.handle_async_request(outgoing)
        finally:
            # Left to the garbage collector, an abandoned flow would be a warning under trio.
            await steps.aclose()

    async def aclose(self) -> None:
        """Close the transport that sends. The manager stays open."""
        await self._transport.aclose()

    def __enter__(self) -> Never:
        raise _wrong_client(self._module, "Client", "TokenTransport")

    def handle_request(self, _: Request) -> Never:
        """Raise ConfigurationError: a blocking client takes a `TokenTransport`."""
        raise _wrong_client(self._module, "Client", "TokenTransport")

    def close(self) -> None:
        """Nothing was opened for a client that was refused above, and it is still to be closed."""


def _check_transport(module: Any, transport: object, kind: type[Any], other_kind: type[Any], other: str) -> None:
    """Raise ConfigurationError unless *transport* is a *kind*, or None; *other* is for those of *other_kind*."""
    if transport is None or isinstance(transport, kind):
        return
    hint = f": use {other} for it" if isinstance(transport, other_kind) else sibling(module, transport)
    raise ConfigurationError(f"transport must be an {module.__name__}.{kind.__name__}, not {kind_of(transport)}{hint}")


def _wrong_client(module: Any, client: str, right: str) -> ConfigurationError:
    return ConfigurationError(f"an {module.__name__}.{client} needs {right}(manager, scheme) as its transport")
