"""One way to write a test of pyreqwest for threads and for asyncio: the awaits of a blocking client never wait."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from pyreqwest.client import ClientBuilder, SyncClientBuilder

from tests.clients.contract.fitting import at_once
from unexpired import TokenManager
from unexpired.clients.pyreqwest import AsyncBodyFactory, BodyFactory, SyncTokenMiddleware, TokenMiddleware

each_kind = pytest.mark.parametrize("kind", ["threads", "asyncio"])
"""A test that runs with a blocking client, and with an asynchronous one."""


class Kind:
    """Blocking clients, or asynchronous ones."""

    def __init__(self, name: str) -> None:
        self.blocking = name == "threads"
        self.factory: Any = BodyFactory if self.blocking else AsyncBodyFactory

    def run(self, job: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
        """What a job returns."""
        return at_once(job()) if self.blocking else asyncio.run(job())

    def builder(self) -> Any:
        """A new builder; what waits for something in a test does so for ten seconds at most."""
        made: Any = SyncClientBuilder() if self.blocking else ClientBuilder()
        patience = timedelta(seconds=10)
        return made.danger_accept_invalid_certs(True).timeout(patience).pool_timeout(patience).no_proxy()

    def tokens(self, manager: TokenManager, *scheme: Any) -> Any:
        """Our middleware."""
        return (SyncTokenMiddleware if self.blocking else TokenMiddleware)(manager, *scheme)

    def middleware(self, look: Callable[[Any, Any], Any]) -> Any:
        """A middleware of the caller's own: *look* is given the request, and what comes of it, which it may replace."""

        def sync(request: Any, following: Any) -> Any:
            return look(request, None) or look(request, following.run(request))

        async def tasks(request: Any, following: Any) -> Any:
            return look(request, None) or look(request, await following.run(request))

        return sync if self.blocking else tasks

    def begins_to_read(self) -> Any:
        """A middleware that waits for the first piece of each answer: nothing of it is on its way then."""

        def sync(request: Any, following: Any) -> Any:
            response = following.run(request)
            response.body_reader.read_chunk()
            return response

        async def tasks(request: Any, following: Any) -> Any:
            response = await following.run(request)
            await response.body_reader.read_chunk()
            return response

        return sync if self.blocking else tasks

    @asynccontextmanager
    async def opened(self, client: Any) -> AsyncIterator[Any]:
        """A client, closed at the end."""
        try:
            yield client
        finally:
            await done(client.close())

    @asynccontextmanager
    async def streamed(self, request: Any) -> AsyncIterator[Any]:
        """The answer to a request, unread."""
        built = request.build_streamed()
        if self.blocking:
            with built as response:
                yield response
        else:
            async with built as response:
                yield response


async def done(value: Any) -> Any:
    """What a call gave, in either kind of client."""
    return await value if inspect.isawaitable(value) else value


async def sent(request: Any) -> tuple[int, bytes]:
    """The status and the body of the answer to a request that is not built yet."""
    response = await done(request.build().send())
    return response.status, (await done(response.bytes())).to_bytes()


async def pieces(response: Any) -> list[bytes]:
    """A streamed body, in the pieces in which it comes."""
    found: list[bytes] = []
    while (piece := await done(response.body_reader.read_chunk())) is not None:
        found.append(piece.to_bytes())
    return found
