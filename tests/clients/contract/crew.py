"""Callers at work on one client: threads, or tasks of asyncio or trio. A test is written once for all of them."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

import anyio.to_thread
from anyio.from_thread import BlockingPortal, start_blocking_portal

from tests.clients.contract.fitting import Ask, Body, Cell, Reply, Setup, Streaming, at_once
from unexpired import Scheme, TokenManager

BOUND = 25.0
"""Seconds in which every caller must have its answer: nobody hangs."""
CROWD = 50


class Caller:
    """What a job sends with."""

    def __init__(self, cell: Cell, client: Any) -> None:
        self.cell = cell
        self.client = client

    async def send(self, url: str, method: str = "GET", body: Body | None = None, **more: Any) -> Reply:
        """One request, its answer read."""
        return await self.cell.fitting.send(self.client, Ask(url, method, body=body, **more))

    def stream(self, url: str, **more: Any) -> AbstractAsyncContextManager[Streaming]:
        """One request, its answer not read."""
        return self.cell.fitting.stream(self.client, Ask(url, **more))

    async def blocking(self, work: Callable[[], Any]) -> Any:
        """Do something that blocks without holding up the other callers."""
        return work() if self.cell.blocking else await anyio.to_thread.run_sync(work)


Job = Callable[[Caller], Coroutine[Any, Any, Any]]


class Crew:
    """Any number of callers on one open client; what one raises is an outcome like another."""

    def __init__(self, cell: Cell, client: Any, portal: BlockingPortal | None) -> None:
        self.blocking = cell.blocking
        self.caller = Caller(cell, client)
        self._portal = portal
        self._pool = ThreadPoolExecutor(4 * CROWD) if portal is None else None

    def start(self, *jobs: Job) -> list[Future[Any]]:
        """Begin all *jobs* at the same moment. Cancelling a task's future cancels the task."""
        portal = self._portal
        if portal is not None:
            return [portal.start_task_soon(self._task, job) for job in jobs]
        assert self._pool is not None
        gate = threading.Barrier(len(jobs))
        return [self._pool.submit(self._thread, gate, job) for job in jobs]

    def run(self, *jobs: Job) -> list[Any]:
        """Run all *jobs* at the same time; what came of each, in order, within `BOUND`."""
        return outcomes(self.start(*jobs))

    def one(self, job: Job) -> Any:
        """Run one job; its result, or what it raised."""
        (outcome,) = self.run(job)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    def send(self, url: str, method: str = "GET", body: Body | None = None, **more: Any) -> Reply:
        """Send one request; its answer, or what it raised."""
        reply: Reply = self.one(lambda caller: caller.send(url, method, body, **more))
        return reply

    def close(self) -> None:
        """Wait for the threads."""
        if self._pool is not None:
            self._pool.shutdown()

    async def _task(self, job: Job) -> Any:
        try:
            return await job(self.caller)
        except Exception as error:  # noqa: BLE001 - an outcome too
            return error

    def _thread(self, gate: threading.Barrier, job: Job) -> Any:
        gate.wait(BOUND)
        return at_once(self._task(job))


@contextmanager
def crew(cell: Cell, manager: TokenManager, scheme: Scheme | None = None, **wishes: Any) -> Iterator[Crew]:
    """Open a client of *cell* that carries tokens of *manager*."""
    opened = cell.fitting.client(cell, Setup(manager, scheme, **wishes))
    if cell.blocking:
        made = Crew(cell, at_once(opened.__aenter__()), None)
        try:
            yield made
        finally:
            made.close()
            at_once(_leave(opened))
    else:
        with start_blocking_portal(cell.mode) as portal, portal.wrap_async_context_manager(opened) as client:
            yield Crew(cell, client, portal)


async def _leave(opened: AbstractAsyncContextManager[Any]) -> None:
    await opened.__aexit__(None, None, None)


def outcomes(futures: Sequence[Future[Any]]) -> list[Any]:
    """What came of each, in order: a result, an error, or "cancelled"."""
    found: list[Any] = []
    for future in futures:
        try:
            found.append(future.result(BOUND))
        except CancelledError:
            found.append("cancelled")
    return found


def told(events: Sequence[Any], count: int = 1) -> Sequence[Any]:
    """*events* once there are *count* of them: listeners are told after the callers are awake."""
    until = time.monotonic() + BOUND
    while len(events) < count and time.monotonic() < until:
        time.sleep(0.001)
    return events


def statuses(found: Sequence[Any]) -> list[Any]:
    """The status of each reply, or the name of what was raised instead."""
    return [getattr(outcome, "status", type(outcome).__name__) for outcome in found]


def get(url: str, **more: Any) -> Job:
    """The job of one GET."""
    return lambda caller: caller.send(url, **more)


async def gathered(chunks: AsyncIterator[bytes]) -> bytes:
    """A streamed body in one piece."""
    return b"".join([chunk async for chunk in chunks])
