"""What a benchmark needs of an adapter, and its callers at work."""

from __future__ import annotations

import asyncio
import itertools
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from benchmarks.measure import timed
from unexpired import TokenManager

__all__ = ["CONNECTIONS", "HEADER", "NOWHERE", "Adapter", "Opened", "Rig", "Tokens"]

HEADER = "Bearer " + "a" * 40
"""The constant one."""
CONNECTIONS = 100
NOWHERE = "http://api.test/"
"""The address of calls that stay in the process."""
_AT_A_TIME = 120
"""So many rounds without a collection of garbage."""


Tokens = Mapping[str, TokenManager | None]
"""Where the tokens of each client come from; None stands for a constant header."""


@dataclass(frozen=True)
class Opened:
    """Open clients, which share their connections as far as the library lets them."""

    calls: Mapping[str, Callable[[], Any]]
    """What makes one call with each of the tokens, and gives its HTTP status; an asynchronous client's is awaited."""
    close: Callable[[], Any]


@dataclass(frozen=True)
class Adapter:
    """One way to give a client tokens."""

    name: str
    blocking: bool
    open: Callable[[Tokens, str | None], Opened | Awaitable[Opened]]
    """Opens a client for each of the tokens, all to one address. None stays in the process, where each call is answered
    at once."""
    floor: str
    """What puts the constant header on."""
    speaks: str = "http"
    """``http``, or ``grpc``: what its address is then."""
    throughput: float = 0.95
    """How much of the constant header's throughput there must be."""

    def __str__(self) -> str:
        return f"{self.name}, {'sync' if self.blocking else 'async'}"


class Rig:
    """The open clients of one adapter, and callers."""

    def __init__(self, adapter: Adapter, tokens: Tokens, address: str | None) -> None:
        self._blocking = adapter.blocking
        self._runner = asyncio.Runner()
        self._opened: Opened = self._do(partial(adapter.open, tokens, address))

    def in_turn(self, rounds: int) -> dict[str, list[float]]:
        """Microseconds of single calls of one caller: in each round one with each of the tokens, in changing order.

        So whatever else the machine does, and whatever a call finds in the processor's caches, is alike for all.
        """
        calls = self._opened.calls
        found: dict[str, list[float]] = {name: [] for name in calls}
        orders = itertools.cycle(itertools.permutations(calls))

        def note(name: str, status: int, seconds: float) -> None:
            if status != 200:
                raise RuntimeError(f"a call was answered with {status}")
            found[name].append(seconds * 1e6)

        def some() -> None:
            for name in itertools.chain.from_iterable(itertools.islice(orders, _AT_A_TIME)):
                start = time.perf_counter()
                status = calls[name]()
                note(name, status, time.perf_counter() - start)

        async def asome() -> None:
            for name in itertools.chain.from_iterable(itertools.islice(orders, _AT_A_TIME)):
                start = time.perf_counter()
                status = await calls[name]()
                note(name, status, time.perf_counter() - start)

        for _ in range(rounds // _AT_A_TIME):
            timed(some if self._blocking else lambda: self._runner.run(asome()))
        return found

    def together(self, tokens: str, callers: int, each: int = 1) -> float:
        """Seconds until as many callers, threads or tasks, have made so many calls each."""
        caller = self._caller(tokens, each)
        if not self._blocking:

            async def crowd(statuses: list[int]) -> None:
                await asyncio.gather(*(caller(statuses) for _ in range(callers)))

            return self._timed(crowd, callers * each)
        barrier = threading.Barrier(callers + 1)

        def wait_and_call() -> None:
            barrier.wait()
            caller(served)

        served: list[int] = []
        threads = [threading.Thread(target=wait_and_call) for _ in range(callers)]
        for thread in threads:
            thread.start()

        def run(statuses: list[int]) -> None:
            barrier.wait()
            for thread in threads:
                thread.join()
            statuses += served

        return self._timed(run, callers * each)

    def close(self) -> None:
        """Close the clients. The managers stay open."""
        self._do(self._opened.close)
        self._runner.close()

    def _caller(self, tokens: str, calls: int) -> Callable[[list[int]], Any]:
        call = self._opened.calls[tokens]

        def serve(statuses: list[int]) -> None:
            statuses.extend([call() for _ in range(calls)])

        async def aserve(statuses: list[int]) -> None:
            statuses.extend([await call() for _ in range(calls)])

        return serve if self._blocking else aserve

    def _timed(self, work: Callable[[list[int]], Any], expected: int) -> float:
        statuses: list[int] = []
        once = partial(work, statuses)
        seconds = timed(once if self._blocking else lambda: self._runner.run(once()))
        if statuses != [200] * expected:
            raise RuntimeError(f"not every caller was served: {statuses}")
        return seconds

    def _do(self, work: Callable[[], Any]) -> Any:
        """Call *work* where the client lives, and await what it returns."""

        async def on_the_loop() -> Any:
            result = work()
            return await result if asyncio.iscoroutine(result) else result

        return work() if self._blocking else self._runner.run(on_the_loop())
