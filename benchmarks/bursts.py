"""Fifty callers at the moment of expiry, on real sockets, beside what the same calls cost with a good token."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing
from functools import partial

from benchmarks.adapters import ADAPTERS
from benchmarks.measure import Row, interleave, median, timed
from benchmarks.rig import Adapter, Rig
from tests.clients.contract.grpc_like import beside
from unexpired import TokenManager
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerConfig, ServerHandle, server_process

CALLERS = 50
ROUNDS = 7


def rows() -> Iterator[Row]:
    """Bursts with the expiry known to the client, and known only to the server; threads and tasks."""
    with server_process(ServerConfig(refresh_latency=0.1)) as server, beside(server) as grpc:
        addresses = {"http": f"{server.url}/api/bench", "grpc": grpc.address}
        for adapter in ADAPTERS:
            for known in (True, False):
                yield _row(server, adapter, addresses[adapter.speaks], known=known)


def _row(server: ServerHandle, adapter: Adapter, address: str, *, known: bool) -> Row:
    grant = RefreshTokenGrant(f"{server.url}/oauth/token", client_id="public")
    manager = TokenManager(grant, store=MemoryStore(), key="bench")
    manager.login(server.login())
    refreshes: list[int] = []
    with closing(Rig(adapter, {"token": manager}, address)) as callers:
        burst = partial(callers.together, "token", CALLERS)

        def expiry() -> float:
            before = server.stats().refreshes
            if known:
                manager.login({**server.login(), "expires_in": -1})
            else:
                server.expire()
            seconds = burst()
            refreshes.append(server.stats().refreshes - before)
            return seconds

        burst()
        parts: dict[str, Callable[[], float]] = {
            "burst": burst,
            "refresh": lambda: timed(manager.refresh),
            "expiry": expiry,
        }
        results = interleave(parts, ROUNDS)
    bursts = 1 if known else 2
    floors = [bursts * good + one for good, one in zip(results["burst"], results["refresh"], strict=True)]
    floor, wall = median(floors), median(results["expiry"])
    ratio = wall / floor
    title = f"{CALLERS} callers, {adapter}, expiry known to {'the client' if known else 'the server only'}"
    note = f"{wall * 1e3:.0f} ms beside {floor * 1e3:.0f} ms; refreshes per expiry: {sorted(set(refreshes))}"
    met = ratio <= 1.10 and set(refreshes) == {1}
    return Row(title, ratio, "x floor", floor, "≤ 1.10, 1 refresh", met, note)
