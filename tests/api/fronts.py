"""One way to write a test of both clients: the same jobs, run by N callers at once on threads, asyncio or trio."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from inspect import isawaitable
from typing import Any

import anyio
import httpx2

from tests.clients.modes import BOUND, Mode, Outcome
from tests.dialects.dialects import Dialect
from unexpired import ApiClient, AsyncApiClient, TokenManager
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

ANSWER = {"access_token": "at", "refresh_token": "rt", "expires_in": 3600}


class Api:
    """One client in the words of both kinds; the awaits of a blocking client never wait."""

    def __init__(self, client: ApiClient | AsyncApiClient) -> None:
        self.client: Any = client

    async def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        """One method of the client, by its name."""
        result = getattr(self.client, name)(*arguments, **options)
        return await result if isawaitable(result) else result

    async def get(self, path: str, **options: Any) -> Any:
        """One GET."""
        return await self.call("get", path, **options)

    async def post(self, path: str, body: Any = None, **options: Any) -> Any:
        """One POST."""
        return await self.call("post", path, body, **options)

    @asynccontextmanager
    async def stream(self, method: str, path: str, **options: Any) -> AsyncGenerator[httpx2.Response, None]:
        """One response, not read."""
        if isinstance(self.client, ApiClient):
            with self.client.stream(method, path, **options) as response:
                yield response
        else:
            async with self.client.stream(method, path, **options) as response:
                yield response

    async def chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """The body, piece by piece as it arrives."""
        if isinstance(self.client, ApiClient):
            for chunk in response.iter_bytes():
                yield chunk
        else:
            async for chunk in response.aiter_bytes():
                yield chunk


Job = Callable[[Api], Coroutine[Any, Any, Any]]


def get(path: str, **options: Any) -> Job:
    """The job of one GET."""
    return lambda api: api.get(path, **options)


def post(path: str, body: Any = None, **options: Any) -> Job:
    """The job of one POST."""
    return lambda api: api.post(path, body, **options)


class Front(Mode):
    """How callers run: ``threads`` share an `ApiClient`; tasks of ``asyncio`` or ``trio`` an `AsyncApiClient`."""

    def start(self, options: dict[str, Any], jobs: Sequence[Any]) -> Future[list[Outcome]]:
        """Begin all *jobs*, which take an `Api` of this module."""
        return super().start(options, jobs)

    def run(self, options: dict[str, Any], jobs: Sequence[Any]) -> list[Outcome]:
        """Run them."""
        return super().run(options, jobs)

    def one(self, options: dict[str, Any], job: Any) -> Any:
        """Run one."""
        return super().one(options, job)

    def settings(self, server: ServerHandle, manager: TokenManager, dialect: Dialect, **more: Any) -> dict[str, Any]:
        """What a client of *dialect* is made of."""
        encoding = "form" if dialect.name == "A" else "json"
        base = {"base_url": server.url + dialect.base, "manager": manager, "scheme": dialect.scheme}
        return {**base, "encoding": encoding, "timeout": 300, "transport": self.transport(), **more}

    def answering(self, respond: Callable[[httpx2.Request], httpx2.Response], **more: Any) -> dict[str, Any]:
        """What a client of an API in this process is made of."""
        manager = TokenManager(lambda _: {**ANSWER, "access_token": "newer"}, store=MemoryStore())
        manager.login(ANSWER)
        return {"base_url": "http://api.test", "manager": manager, "transport": httpx2.MockTransport(respond), **more}

    def _threads(self, options: dict[str, Any], jobs: Sequence[Any]) -> list[Outcome]:
        gate = threading.Barrier(len(jobs))

        def caller(api: Api, job: Job) -> Outcome:
            gate.wait(BOUND)
            try:
                job(api).send(None)
            except StopIteration as stop:
                return stop.value
            except Exception as error:  # noqa: BLE001 - an outcome too
                return error
            raise AssertionError("a blocking client made its caller await something")

        with ApiClient(**options) as client, ThreadPoolExecutor(len(jobs)) as pool:
            api = Api(client)
            return list(pool.map(lambda job: caller(api, job), jobs))

    def _tasks(self, options: dict[str, Any], jobs: Sequence[Any]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}

        async def caller(api: Api, place: int, job: Job) -> None:
            try:
                outcomes[place] = await job(api)
            except Exception as error:  # noqa: BLE001 - an outcome too
                outcomes[place] = error

        async def main() -> None:
            async with AsyncApiClient(**options) as client, anyio.create_task_group() as group:
                api = Api(client)
                for place, job in enumerate(jobs):
                    group.start_soon(caller, api, place, job)

        anyio.run(main, backend=self.name)
        return [outcomes[place] for place in range(len(jobs))]
