"""pyreqwest: the middlewares, which send copies; alone in the process and in a client outside of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any

from pyreqwest.client import ClientBuilder, SyncClientBuilder
from pyreqwest.response import ResponseBuilder

from benchmarks.rig import HEADER, NOWHERE, Adapter, Opened, Tokens
from unexpired.clients.pyreqwest import SyncTokenMiddleware, TokenMiddleware

__all__ = ["ADAPTERS"]

_PATIENCE = timedelta(seconds=30)


def _dressed(request: Any) -> Any:
    copy = request.copy()
    copy.headers["Authorization"] = HEADER
    return copy


def _constant(request: Any, following: Any) -> Any:
    return following.run(_dressed(request))


async def _aconstant(request: Any, following: Any) -> Any:
    return await following.run(_dressed(request))


class _Next:
    """Answers at once."""

    def __init__(self, response: Any) -> None:
        self._response = response

    def run(self, _: Any) -> Any:
        return self._response


class _AsyncNext(_Next):
    async def run(self, _: Any) -> Any:
        return self._response


def _open(blocking: bool, tokens: Tokens, address: str | None) -> Opened | Awaitable[Opened]:
    if blocking:
        return _open_sync(
            {name: SyncTokenMiddleware(one) if one else _constant for name, one in tokens.items()}, address
        )
    return _open_async({name: TokenMiddleware(one) if one else _aconstant for name, one in tokens.items()}, address)


def _open_sync(middlewares: Mapping[str, Any], address: str | None) -> Opened:
    def call(middleware: Any) -> Callable[[], int]:
        if address:
            return lambda: client.get(address).with_middleware(middleware).build().send().status
        return lambda: int(middleware(request, following).status)

    client = SyncClientBuilder().timeout(_PATIENCE).build()
    request, following = client.get(NOWHERE).build(), _Next(ResponseBuilder().build_sync())
    return Opened({name: call(one) for name, one in middlewares.items()}, client.close)


async def _open_async(middlewares: Mapping[str, Any], address: str | None) -> Opened:
    async def call(middleware: Any) -> int:
        response = await client.get(address or NOWHERE).with_middleware(middleware).build().send()
        return response.status

    async def alone(middleware: Any) -> Any:
        response = await middleware(request, following)
        return response.status

    client = ClientBuilder().timeout(_PATIENCE).build()
    request, following = client.get(NOWHERE).build(), _AsyncNext(await ResponseBuilder().build())
    return Opened({name: partial(call if address else alone, one) for name, one in middlewares.items()}, client.close)


ADAPTERS = [
    Adapter(
        "pyreqwest middleware", blocking, partial(_open, blocking), "a middleware that sends copies", throughput=0.9
    )
    for blocking in (True, False)
]
