"""httpx2 and httpx: `TokenAuth`, and the transports, which send copies."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Generator
from functools import partial
from typing import Any

import httpx
import httpx2

import unexpired.clients.httpx
import unexpired.clients.httpx2
from benchmarks.rig import CONNECTIONS, HEADER, NOWHERE, Adapter, Opened, Tokens
from unexpired import TokenManager

__all__ = ["ADAPTERS"]


def _constant_auth(library: Any) -> Any:
    class Constant(library.Auth):  # type: ignore[misc]  # whichever library's
        def sync_auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            request.headers["Authorization"] = HEADER
            yield request

        async def async_auth_flow(self, request: Any) -> AsyncGenerator[Any, Any]:
            request.headers["Authorization"] = HEADER
            yield request

    return Constant()


def _constant_transport(library: Any, inner: Any) -> Any:
    def dressed(request: Any) -> Any:
        headers = request.headers.copy()
        headers["Authorization"] = HEADER
        stream, extensions = request.stream, request.extensions
        return library.Request(request.method, request.url, headers=headers, stream=stream, extensions=extensions)

    class Constant(library.BaseTransport, library.AsyncBaseTransport):  # type: ignore[misc]  # whichever library's
        def handle_request(self, request: Any) -> Any:
            return inner.handle_request(dressed(request))

        async def handle_async_request(self, request: Any) -> Any:
            return await inner.handle_async_request(dressed(request))

        def close(self) -> None:
            inner.close()

        async def aclose(self) -> None:
            await inner.aclose()

    return Constant()


def _open(modules: Any, idiom: str, blocking: bool, tokens: Tokens, address: str | None) -> Opened:
    library, ours = modules
    prefix = "" if blocking else "Async"

    def respond(_: Any) -> Any:
        return library.Response(200, content=b"{}")

    def client(manager: TokenManager | None) -> Any:
        auth, transport = None, wire
        if idiom == "auth":
            auth = ours.TokenAuth(manager) if manager else _constant_auth(library)
        elif manager:
            transport = getattr(ours, f"{prefix}TokenTransport")(manager, None, wire)
        else:
            transport = _constant_transport(library, wire)
        return getattr(library, f"{prefix}Client")(transport=transport, auth=auth, timeout=30)

    # Idle connections cost these clients much at each call: those that a crowd leaves behind are soon closed.
    limits = library.Limits(max_connections=CONNECTIONS, max_keepalive_connections=CONNECTIONS, keepalive_expiry=1)
    kind = getattr(library, f"{prefix}HTTPTransport")
    wire = kind(limits=limits, verify=False) if address else library.MockTransport(respond)
    calls = {name: (_call if blocking else _acall)(client(tokens[name]), address or NOWHERE) for name in tokens}
    return Opened(calls, getattr(wire, "close" if blocking else "aclose"))


def _call(client: Any, url: str) -> Callable[[], Any]:
    return lambda: client.get(url).status_code


def _acall(client: Any, url: str) -> Callable[[], Any]:
    async def call() -> Any:
        response = await client.get(url)
        return response.status_code

    return call


ADAPTERS = [
    Adapter(f"{modules[0].__name__} {idiom}", blocking, partial(_open, modules, idiom, blocking), floor)
    for modules in ((httpx2, unexpired.clients.httpx2), (httpx, unexpired.clients.httpx))
    for idiom, floor in (("auth", "an auth object"), ("transport", "a transport that sends copies"))
    for blocking in (True, False)
]
