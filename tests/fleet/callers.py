"""Callers that make their calls at once, for as long as a process lives: threads, or tasks of asyncio or trio."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Protocol

import aiohttp
import anyio
import httpx2
import urllib3
from anyio.from_thread import start_blocking_portal

from tests.fleet.patience import LONG
from unexpired import TokenManager
from unexpired.clients.aiohttp import TokenMiddleware
from unexpired.clients.httpx2 import TokenAuth
from unexpired.clients.urllib3 import TokenPool
from unexpired.errors import LoginRequired, UnexpiredError

# Answers to a whole fleet may be held back until the last one has asked, so all clients have the same patience.


def word(error: Exception) -> str:
    """What went wrong: why the login is over, or the kind of error."""
    return error.reason if isinstance(error, LoginRequired) else type(error).__name__


def answer(status: int, document: Any) -> Any:
    """The number that an answer repeats, or its status."""
    return document["n"] if status == 200 else status


class Callers(Protocol):
    """A crowd with one client."""

    def get(self, urls: Sequence[str]) -> list[Any]:
        """Call all *urls* at once; what came of each, in order."""
        ...

    def close(self) -> None:
        """End the crowd."""
        ...


class Threads:
    """Threads that share a pool of urllib3."""

    def __init__(self, manager: TokenManager, count: int) -> None:
        self._crowd = ThreadPoolExecutor(count)
        self._client = TokenPool(manager, None, urllib3.PoolManager(maxsize=count, timeout=LONG))

    def get(self, urls: Sequence[str]) -> list[Any]:
        """One call by each thread."""
        return list(self._crowd.map(self._one, urls))

    def close(self) -> None:
        """End the threads, close the connections."""
        self._crowd.shutdown()
        self._client.clear()

    def _one(self, url: str) -> Any:
        try:
            response = self._client.request("GET", url)
            return answer(response.status, response.json())
        except UnexpiredError as error:
            return word(error)


class _Tasks:
    """Tasks of one event loop, which runs on a thread of its own."""

    def __init__(self, backend: str) -> None:
        self._stack = ExitStack()
        self._portal = self._stack.enter_context(start_blocking_portal(backend))

    def get(self, urls: Sequence[str]) -> list[Any]:
        """One call by each task."""
        return self._portal.call(self._all, urls)

    def close(self) -> None:
        """Close the client, end the loop."""
        self._stack.close()

    async def _all(self, urls: Sequence[str]) -> list[Any]:
        outcomes: dict[int, Any] = {}

        async def one(place: int, url: str) -> None:
            try:
                outcomes[place] = await self._one(url)
            except UnexpiredError as error:
                outcomes[place] = word(error)

        async with anyio.create_task_group() as group:
            for place, url in enumerate(urls):
                group.start_soon(one, place, url)
        return [outcomes[place] for place in range(len(urls))]

    async def _one(self, url: str) -> Any:
        raise AssertionError(url)


class AsyncioTasks(_Tasks):
    """Tasks of asyncio that share a session of aiohttp."""

    def __init__(self, manager: TokenManager, count: int) -> None:
        super().__init__("asyncio")

        async def client() -> aiohttp.ClientSession:
            return aiohttp.ClientSession(
                middlewares=(TokenMiddleware(manager),),
                connector=aiohttp.TCPConnector(limit=count),
                timeout=aiohttp.ClientTimeout(LONG),
            )

        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(self._portal.call(client)))

    async def _one(self, url: str) -> Any:
        async with self._client.get(url) as response:
            return answer(response.status, await response.json())


class TrioTasks(_Tasks):
    """Tasks of trio that share a client of httpx2."""

    def __init__(self, manager: TokenManager, count: int) -> None:
        super().__init__("trio")
        limits = httpx2.Limits(max_connections=count)
        client = httpx2.AsyncClient(auth=TokenAuth(manager), timeout=LONG, limits=limits, verify=False)
        self._client = self._stack.enter_context(self._portal.wrap_async_context_manager(client))

    async def _one(self, url: str) -> Any:
        response = await self._client.get(url)
        return answer(response.status_code, response.json())


KINDS: dict[str, Callable[[TokenManager, int], Callers]] = {
    "threads": Threads,
    "asyncio": AsyncioTasks,
    "trio": TrioTasks,
}
