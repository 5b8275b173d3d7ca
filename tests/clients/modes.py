"""One way to write a test of httpx2 or httpx for threads, asyncio and trio: the same jobs, run by N callers at once."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Literal

import anyio
import anyio.to_thread
import httpx2

import unexpired.clients.httpx2
from unexpired import Scheme, TokenManager
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

Via = Literal["auth", "transport"]
Outcome = Any
BOUND = 25.0
"""Seconds in which every caller must have its answer: nobody hangs."""


@dataclass(frozen=True)
class Library:
    """httpx2 or httpx: the client's module, and ours for it. They have the same names."""

    client: Any
    adapter: Any


HTTPX2 = Library(httpx2, unexpired.clients.httpx2)


class Api:
    """One client in the words of both kinds; the awaits of a blocking client never wait."""

    def __init__(self, client: Any, *, blocks: bool) -> None:
        self.client = client
        self.blocks = blocks

    async def send(self, method: str, url: str | httpx2.URL, **options: Any) -> httpx2.Response:
        """One request, its response read."""
        sent: Any = self.client.request(method, url, **options)
        response: httpx2.Response = sent if self.blocks else await sent
        return response

    async def get(self, url: str, **options: Any) -> httpx2.Response:
        """One GET."""
        return await self.send("GET", url, **options)

    @asynccontextmanager
    async def stream(self, method: str, url: str, **options: Any) -> AsyncGenerator[httpx2.Response, None]:
        """One request, its response not read."""
        if self.blocks:
            with self.client.stream(method, url, **options) as response:
                yield response
        else:
            async with self.client.stream(method, url, **options) as response:
                yield response

    async def chunks(self, response: httpx2.Response) -> AsyncGenerator[bytes, None]:
        """The raw body, piece by piece as it arrives."""
        if self.blocks:
            for chunk in response.iter_raw():
                yield chunk
        else:
            async for chunk in response.aiter_raw():
                yield chunk

    async def blocking(self, work: Callable[[], Any]) -> Any:
        """Do something that blocks without holding up the other callers."""
        if self.blocks:
            return work()
        return await anyio.to_thread.run_sync(work)


Job = Callable[[Api], Coroutine[Any, Any, Any]]


def get(url: str | httpx2.URL, **options: Any) -> Job:
    """The job of one GET."""
    return send("GET", url, **options)


def send(method: str, url: str | httpx2.URL, **options: Any) -> Job:
    """The job of one request."""
    return lambda api: api.send(method, url, **options)


class Mode:
    """How callers run: ``threads`` share a `Client` of the library; tasks of ``asyncio`` or ``trio`` an async one."""

    def __init__(self, name: str, library: Library = HTTPX2) -> None:
        self.name = name
        self.library = library
        self.blocking = name == "threads"

    def options(
        self, manager: TokenManager, via: Via, scheme: Scheme | None = None, *, inner: Any = None, **more: Any
    ) -> dict[str, Any]:
        """What to give a client so that it carries the token; *inner* is the transport that sends."""
        adapter = self.library.adapter
        inner = inner or self.transport()
        if via == "auth":
            return {"auth": adapter.TokenAuth(manager, scheme), "transport": inner, **more}
        kind = adapter.TokenTransport if self.blocking else adapter.AsyncTokenTransport
        return {"transport": kind(manager, scheme, inner), **more}

    def transport(self, **options: Any) -> Any:
        """A plain transport of the kind that this mode's client takes."""
        options = {"verify": False} | options  # loading the certificates of the world takes longer than a test
        client = self.library.client
        return client.HTTPTransport(**options) if self.blocking else client.AsyncHTTPTransport(**options)

    def hook(self, function: Callable[[Any], Any]) -> Callable[[Any], Any]:
        """An event hook of the kind that this mode's client takes."""

        async def hook(subject: Any) -> None:
            function(subject)

        return function if self.blocking else hook

    def start(self, options: dict[str, Any], jobs: Sequence[Job]) -> Future[list[Outcome]]:
        """Begin all *jobs* at the same moment on one client; exceptions are outcomes too."""
        done: Future[list[Outcome]] = Future()

        def work() -> None:
            try:
                done.set_result(self._threads(options, jobs) if self.blocking else self._tasks(options, jobs))
            except BaseException as error:  # noqa: BLE001 - the test's to see
                done.set_exception(error)

        threading.Thread(target=work, name=f"crowd of {self.name}").start()
        return done

    def run(self, options: dict[str, Any], jobs: Sequence[Job]) -> list[Outcome]:
        """Run all *jobs* at the same time; what came of each, in order, within `BOUND`."""
        return self.start(options, jobs).result(BOUND)

    def one(self, options: dict[str, Any], job: Job) -> Any:
        """Run one job; its result, or what it raised."""
        (outcome,) = self.run(options, [job])
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def _threads(self, options: dict[str, Any], jobs: Sequence[Job]) -> list[Outcome]:
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

        with self.library.client.Client(**options) as client, ThreadPoolExecutor(len(jobs)) as pool:
            api = Api(client, blocks=True)
            return list(pool.map(lambda job: caller(api, job), jobs))

    def _tasks(self, options: dict[str, Any], jobs: Sequence[Job]) -> list[Outcome]:
        outcomes: dict[int, Outcome] = {}

        async def caller(api: Api, place: int, job: Job) -> None:
            try:
                outcomes[place] = await job(api)
            except Exception as error:  # noqa: BLE001 - an outcome too
                outcomes[place] = error

        async def main() -> None:
            async with self.library.client.AsyncClient(**options) as client, anyio.create_task_group() as group:
                api = Api(client, blocks=False)
                for place, job in enumerate(jobs):
                    group.start_soon(caller, api, place, job)

        anyio.run(main, backend=self.name)
        return [outcomes[place] for place in range(len(jobs))]


def grant_for(server: ServerHandle, **options: Any) -> RefreshTokenGrant:
    """The grant of the server's client `crm`."""
    settings: dict[str, Any] = {"client_id": "crm", "client_secret": "crm-secret"} | options
    return RefreshTokenGrant(server.token_url, **settings)


def manager_for(server: ServerHandle, **options: Any) -> TokenManager:
    """A manager in memory that is logged in at *server*."""
    settings: dict[str, Any] = {"store": MemoryStore(), "key": "alice"} | options
    manager = TokenManager(grant_for(server), **settings)
    manager.login(server.login())
    return manager


def statuses(outcomes: Sequence[Outcome]) -> list[Any]:
    """The status of each response, or the name of what was raised instead."""
    return [getattr(outcome, "status_code", type(outcome).__name__) for outcome in outcomes]
