"""aiohttp: the middleware, alone in the process and in a session outside of it."""

from __future__ import annotations

import asyncio
from functools import partial
from types import SimpleNamespace
from typing import Any

import aiohttp
from yarl import URL

from benchmarks.rig import CONNECTIONS, HEADER, NOWHERE, Adapter, Opened, Tokens
from unexpired.clients.aiohttp import TokenMiddleware

__all__ = ["ADAPTERS"]


async def _constant(request: aiohttp.ClientRequest, handler: Any) -> Any:
    request.headers["Authorization"] = HEADER
    return await handler(request)


async def _answering(_: aiohttp.ClientRequest) -> Any:
    return _ANSWER


_ANSWER = SimpleNamespace(status=200)


def _open(tokens: Tokens, address: str | None) -> Opened:
    middlewares = {name: TokenMiddleware(manager) if manager else _constant for name, manager in tokens.items()}
    if address is None:
        request = aiohttp.ClientRequest("GET", URL(NOWHERE), loop=asyncio.get_running_loop())
        return Opened({name: partial(_alone, one, request) for name, one in middlewares.items()}, lambda: None)
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=CONNECTIONS), timeout=aiohttp.ClientTimeout(30)
    )
    calls = {name: partial(_call, session, (one,), address) for name, one in middlewares.items()}
    return Opened(calls, session.close)


async def _alone(middleware: Any, request: aiohttp.ClientRequest) -> Any:
    response = await middleware(request, _answering)
    return response.status


async def _call(session: aiohttp.ClientSession, middlewares: Any, address: str) -> int:
    async with session.get(address, middlewares=middlewares) as response:
        await response.read()
        return response.status


ADAPTERS = [Adapter("aiohttp middleware", False, _open, "a middleware")]
