"""Many callers at one instant: threads, or tasks of one event loop. All wait at a gate, then each makes one call."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import httpx2

from unexpired import TokenManager
from unexpired.cli._demo.dialects import Dialect, Dress
from unexpired.cli._demo.results import SERVED, WRONG, Attempt, Call, clock
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport

__all__ = ["Burst", "Crew", "TaskCrew", "ThreadCrew"]

_CALL = "demo.call"
_LIMITS = httpx2.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=60)


@dataclass(frozen=True, slots=True)
class Burst:
    """What became of one call each by many callers, when they were let go, and when there was no more waiting."""

    released: float
    given_up: float
    calls: Sequence[Call]

    @property
    def seconds(self) -> float:
        """From the release to the last end; a caller that hangs counts until it was given up."""
        return max(self.given_up if call.ended is None else call.ended for call in self.calls) - self.released


class Crew(Protocol):
    """Callers that stand ready, with warm connections after their first burst."""

    def burst(self, numbers: Sequence[int], bound: float, dress: Dress | None = None) -> Burst:
        """Let one caller per number call at the same instant; who has not ended after *bound* seconds hangs.

        With *dress* the calls carry that constant token and meet no unexpired at all.
        """
        ...

    def close(self) -> None:
        """Close the connections."""
        ...


class _Recorder(httpx2.BaseTransport):
    """Writes each request on the wire into its call."""

    def __init__(self) -> None:
        self._inner = httpx2.HTTPTransport(limits=_LIMITS, trust_env=False)

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = clock()
        try:
            return self._inner.handle_request(request)
        finally:
            request.extensions[_CALL].attempts.append(Attempt(sent, clock()))

    def close(self) -> None:
        self._inner.close()


class _AsyncRecorder(httpx2.AsyncBaseTransport):
    """The same for tasks."""

    def __init__(self) -> None:
        self._inner = httpx2.AsyncHTTPTransport(limits=_LIMITS, trust_env=False)

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        sent = clock()
        try:
            return await self._inner.handle_async_request(request)
        finally:
            request.extensions[_CALL].attempts.append(Attempt(sent, clock()))

    async def aclose(self) -> None:
        await self._inner.aclose()


def _asked(dialect: Dialect, call: Call, dress: Dress | None) -> dict[str, Any]:
    asked = dialect.ask(call.number)
    if dress is not None:
        asked["params"] = {**asked["params"], **dress.params}
        asked["headers"] = dress.headers
    return {**asked, "extensions": {_CALL: call}}


def _outcome(dialect: Dialect, call: Call, response: httpx2.Response) -> str:
    return SERVED if dialect.own(response.json(), call.number) else WRONG


class ThreadCrew:
    """Threads that share one `httpx2.Client`."""

    def __init__(self, dialect: Dialect, manager: TokenManager, url: str) -> None:
        self._dialect = dialect
        self._plain = httpx2.Client(base_url=url, transport=_Recorder(), timeout=30, trust_env=False)
        carried = _Recorder()
        self._managed = httpx2.Client(
            base_url=url,
            auth=None if dialect.needs_transport else TokenAuth(manager, dialect.scheme),
            transport=TokenTransport(manager, dialect.scheme, carried) if dialect.needs_transport else carried,
            timeout=30,
            trust_env=False,
        )

    def burst(self, numbers: Sequence[int], bound: float, dress: Dress | None = None) -> Burst:
        """See `Crew`."""
        calls = [Call(number) for number in numbers]
        gate, ready = threading.Event(), threading.Semaphore(0)

        def one(call: Call) -> None:
            ready.release()
            gate.wait()
            self._call(call, dress)

        threads = [threading.Thread(target=one, args=(call,), daemon=True) for call in calls]
        for thread in threads:
            thread.start()
        for _ in threads:
            ready.acquire()
        released = clock()
        gate.set()
        for thread in threads:
            thread.join(max(0.0, released + bound - clock()))
        return Burst(released, clock(), [call.snapshot() for call in calls])

    def _call(self, call: Call, dress: Dress | None) -> None:
        call.began = clock()
        client = self._managed if dress is None else self._plain
        try:
            response = client.request(**_asked(self._dialect, call, dress))
            call.outcome = _outcome(self._dialect, call, response)
        except Exception as error:  # noqa: BLE001 - whatever a caller met is its outcome
            call.outcome = type(error).__name__
        call.ended = clock()

    def close(self) -> None:
        """See `Crew`."""
        self._plain.close()
        self._managed.close()


class TaskCrew:
    """Tasks of one asyncio event loop that share one `httpx2.AsyncClient`; the loop runs during a burst only."""

    def __init__(self, dialect: Dialect, manager: TokenManager, url: str) -> None:
        self._dialect = dialect
        self._runner = asyncio.Runner()
        self._plain = httpx2.AsyncClient(base_url=url, transport=_AsyncRecorder(), timeout=30, trust_env=False)
        carried = _AsyncRecorder()
        self._managed = httpx2.AsyncClient(
            base_url=url,
            auth=None if dialect.needs_transport else TokenAuth(manager, dialect.scheme),
            transport=AsyncTokenTransport(manager, dialect.scheme, carried) if dialect.needs_transport else carried,
            timeout=30,
            trust_env=False,
        )

    def burst(self, numbers: Sequence[int], bound: float, dress: Dress | None = None) -> Burst:
        """See `Crew`."""
        return self._runner.run(self._burst(numbers, bound, dress))

    async def _burst(self, numbers: Sequence[int], bound: float, dress: Dress | None) -> Burst:
        calls = [Call(number) for number in numbers]
        gate = asyncio.Event()

        async def one(call: Call) -> None:
            await gate.wait()
            await self._call(call, dress)

        tasks = [asyncio.create_task(one(call)) for call in calls]
        await asyncio.sleep(0)  # every task has reached the gate
        released = clock()
        gate.set()
        _, hanging = await asyncio.wait(tasks, timeout=bound)
        burst = Burst(released, clock(), [call.snapshot() for call in calls])
        for task in hanging:
            task.cancel()
        return burst

    async def _call(self, call: Call, dress: Dress | None) -> None:
        call.began = clock()
        client = self._managed if dress is None else self._plain
        try:
            response = await client.request(**_asked(self._dialect, call, dress))
            call.outcome = _outcome(self._dialect, call, response)
        except Exception as error:  # noqa: BLE001 - whatever a caller met is its outcome
            call.outcome = type(error).__name__
        call.ended = clock()

    def close(self) -> None:
        """See `Crew`."""
        with self._runner:
            self._runner.run(self._plain.aclose())
            self._runner.run(self._managed.aclose())
