"""Ten thousand tasks on one flight, and calls while a token is refreshed in the background."""

from __future__ import annotations

import asyncio
import threading
import time
import tracemalloc

import httpx2

from benchmarks.measure import Row, median
from unexpired import Token, TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.stores import MemoryStore

TASKS = 10_000
CALLS = 20_000
ANSWER = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}


def rows() -> list[Row]:
    """Time and memory of many waiters, and the tail of latencies."""
    return [*_crowd(), _tail()]


def _crowd() -> list[Row]:
    seconds = [_crowd_once()[0] for _ in range(7)]
    tracemalloc.start()
    memory = [_crowd_once()[1] for _ in range(3)]
    tracemalloc.stop()
    over, size = median(seconds), median(memory)
    return [
        Row(f"{TASKS} tasks on one flight, over the refresh", over, "s", None, "≤ 0.5, 1 refresh", over <= 0.5),
        Row("memory per waiting task, the task included", size / 1024, "KiB", None, "≤ 3", size <= 3 * 1024),
    ]


def _crowd_once() -> tuple[float, float]:
    everybody_waits, calls = threading.Event(), []

    def grant(session: object) -> dict[str, object]:
        calls.append(session)
        everybody_waits.wait()
        return ANSWER

    manager = TokenManager(grant, store=MemoryStore(), key="crowd", wait=120, deadline=120)
    manager.login({"refresh_token": "r"})

    async def crowd() -> tuple[float, float]:
        before = tracemalloc.get_traced_memory()[0]
        start = time.perf_counter()
        tasks = [asyncio.create_task(manager.atoken()) for _ in range(TASKS)]
        await asyncio.sleep(0)
        size = (tracemalloc.get_traced_memory()[0] - before) / TASKS
        everybody_waits.set()
        await asyncio.gather(*tasks)
        return time.perf_counter() - start, size

    result = asyncio.run(crowd())
    if len(calls) != 1:
        raise RuntimeError(f"{len(calls)} refreshes instead of one")
    return result


def _tail() -> Row:
    """p99 of calls made while a flight is under way, beside calls made while none is."""
    quiet, busy = [], []
    for _ in range(7):
        quiet.append(_p99(background=False))
        busy.append(_p99(background=True))
    ratios = [with_refresh / without for with_refresh, without in zip(busy, quiet, strict=True)]
    ratio = median(ratios)
    note = f"p99 {median(busy) * 1e6:.0f} µs beside {median(quiet) * 1e6:.0f} µs, {CALLS // 7 * 7} calls each"
    return Row("p99 during a refresh-ahead", ratio, "x without", median(quiet), "≤ 1.25", ratio <= 1.25, note)


def _p99(*, background: bool) -> float:
    enough, entered, left = threading.Event(), threading.Event(), threading.Event()

    def grant(_: object) -> dict[str, object]:
        entered.set()
        enough.wait()
        left.set()
        return ANSWER

    manager = TokenManager(grant, store=MemoryStore(), key="tail", deadline=60)
    manager.login({**ANSWER, "expires_in": 3600})
    if background:
        manager.login(Token("b", expires_at=time.time() + 100, lifetime=3600, refresh_token="r"))
        manager.token()
        if not entered.wait(10):
            raise RuntimeError("no refresh began in the background")
    latencies = []
    with httpx2.Client(transport=httpx2.MockTransport(_respond), auth=TokenAuth(manager)) as client:
        for _ in range(CALLS // 7):
            start = time.perf_counter()
            client.get("http://api.test/")
            latencies.append(time.perf_counter() - start)
    if background and left.is_set():
        raise RuntimeError("the refresh ended before the calls did")
    enough.set()
    return sorted(latencies)[int(len(latencies) * 0.99)]


def _respond(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=b"{}")
