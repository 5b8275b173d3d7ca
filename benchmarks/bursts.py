"""Fifty callers at the moment of expiry, on real sockets, beside what the same calls cost with a good token."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

import httpx2

from benchmarks.measure import Row, interleave, median, timed
from unexpired import TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerConfig, ServerHandle, server_process

CALLERS = 50
LIMITS = httpx2.Limits(max_connections=100, max_keepalive_connections=100)


class _Threads:
    """Fifty threads that wait at a barrier and then each make one call."""

    def __init__(self, url: str, auth: httpx2.Auth) -> None:
        self._client = httpx2.Client(base_url=url, auth=auth, limits=LIMITS, timeout=30)

    def burst(self) -> float:
        barrier = threading.Barrier(CALLERS + 1)
        statuses: list[int] = []

        def call(n: int) -> None:
            barrier.wait()
            statuses.append(self._client.get("/api/bench", params={"n": n}).status_code)

        threads = [threading.Thread(target=call, args=(n,)) for n in range(CALLERS)]
        for thread in threads:
            thread.start()

        def run() -> None:
            barrier.wait()
            for thread in threads:
                thread.join()

        seconds = timed(run)
        if statuses != [200] * CALLERS:
            raise RuntimeError(f"not every caller was served: {statuses}")
        return seconds

    def close(self) -> None:
        self._client.close()


class _Tasks:
    """Fifty asyncio tasks."""

    def __init__(self, url: str, auth: httpx2.Auth) -> None:
        self._runner = asyncio.Runner()
        self._client = httpx2.AsyncClient(base_url=url, auth=auth, limits=LIMITS, timeout=30)

    def burst(self) -> float:
        async def calls() -> list[httpx2.Response]:
            return await asyncio.gather(*(self._client.get("/api/bench", params={"n": n}) for n in range(CALLERS)))

        responses: list[httpx2.Response] = []
        seconds = timed(lambda: responses.extend(self._runner.run(calls())))
        if [response.status_code for response in responses] != [200] * CALLERS:
            raise RuntimeError("not every caller was served")
        return seconds

    def close(self) -> None:
        self._runner.run(self._client.aclose())
        self._runner.close()


def rows() -> list[Row]:
    """Bursts with the expiry known to the client, and known only to the server; threads and tasks."""
    with server_process(ServerConfig(refresh_latency=0.1)) as server:
        return [
            row
            for mode, kind in (("threads", _Threads), ("tasks", _Tasks))
            for row in (_row(server, mode, kind, known=True), _row(server, mode, kind, known=False))
        ]


def _row(server: ServerHandle, mode: str, kind: type[_Threads | _Tasks], *, known: bool) -> Row:
    grant = RefreshTokenGrant(f"{server.url}/oauth/token", client_id="public")
    manager = TokenManager(grant, store=MemoryStore(), key="bench")
    manager.login(server.login())
    callers = kind(server.url, TokenAuth(manager))
    callers.burst()
    refreshes: list[int] = []

    def refresh() -> float:
        return timed(manager.refresh)

    def expiry() -> float:
        before = server.stats().refreshes
        if known:
            manager.login({**server.login(), "expires_in": -1})
        else:
            server.expire()
        seconds = callers.burst()
        refreshes.append(server.stats().refreshes - before)
        return seconds

    parts: dict[str, Callable[[], float]] = {"burst": callers.burst, "refresh": refresh, "expiry": expiry}
    results = interleave(parts, 9)
    callers.close()
    bursts = 1 if known else 2
    floors = [bursts * burst + one for burst, one in zip(results["burst"], results["refresh"], strict=True)]
    floor = median(floors)
    wall = median(results["expiry"])
    ratio = wall / floor
    once = set(refreshes) == {1}
    name = f"{CALLERS} {mode}, expiry known to {'the client' if known else 'the server only'}"
    note = f"{wall * 1e3:.0f} ms beside {floor * 1e3:.0f} ms; refreshes per expiry: {sorted(set(refreshes))}"
    return Row(name, ratio, "x floor", floor, "≤ 1.10, 1 refresh", ratio <= 1.10 and once, note)
