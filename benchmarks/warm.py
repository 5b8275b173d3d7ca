"""The warm path: a fresh token, nothing to wait for."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Generator, Mapping
from functools import partial

import httpx2

from benchmarks.measure import Row, interleave, median, timed
from unexpired import TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.stores import FileStore, MemoryStore, Store

CALLS = 200
LOOKUPS = 2000
ROUNDS = 61
"""Short rounds, many of them: what else the machine does then falls on all alike."""
ANSWER = {"access_token": "a" * 40, "refresh_token": "r" * 40, "expires_in": 86400}


class ConstantHeader(httpx2.Auth):
    """The floor: an auth object that only sets a header."""

    def sync_auth_flow(self, request: httpx2.Request) -> Generator[httpx2.Request, httpx2.Response, None]:
        """For `httpx2.Client`."""
        request.headers["Authorization"] = "Bearer " + "a" * 40
        yield request

    async def async_auth_flow(self, request: httpx2.Request) -> AsyncGenerator[httpx2.Request, httpx2.Response]:
        """For `httpx2.AsyncClient`."""
        request.headers["Authorization"] = "Bearer " + "a" * 40
        yield request


def _manager(store: Store) -> TokenManager:
    manager = TokenManager(lambda _: ANSWER, store=store, key="bench")
    manager.login(ANSWER)
    return manager


def _respond(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, content=b"{}")


def _sync(auth: httpx2.Auth) -> float:
    with httpx2.Client(transport=httpx2.MockTransport(_respond), auth=auth) as client:
        client.get("http://api.test/")
        return timed(lambda: [client.get("http://api.test/") for _ in range(CALLS)]) / CALLS * 1e6


def _asynchronous(auth: httpx2.Auth) -> float:
    async def calls(client: httpx2.AsyncClient) -> None:
        for _ in range(CALLS):
            await client.get("http://api.test/")

    with asyncio.Runner() as runner:
        client = httpx2.AsyncClient(transport=httpx2.MockTransport(_respond), auth=auth)
        runner.run(calls(client))
        seconds = timed(lambda: runner.run(calls(client)))
        runner.run(client.aclose())
        return seconds / CALLS * 1e6


def rows() -> list[Row]:
    """Added cost per request, and the manager's own lookup."""
    with tempfile.TemporaryDirectory() as directory:
        managers = {"memory": _manager(MemoryStore()), "file": _manager(FileStore(directory))}
        added = [row for mode in ("sync", "async") for row in _added(mode, managers)]
        return [*added, *_lookups(managers)]


def _added(mode: str, managers: Mapping[str, TokenManager]) -> list[Row]:
    run = _sync if mode == "sync" else _asynchronous
    auths: dict[str, httpx2.Auth] = {"floor": ConstantHeader()}
    auths |= {name: TokenAuth(manager) for name, manager in managers.items()}
    results = interleave({name: partial(run, auth) for name, auth in auths.items()}, ROUNDS)
    found: list[Row] = []
    for name, limit in (("memory", 2.5), ("file", 4.0)):
        pairs = zip(results[name], results["floor"], strict=True)
        cost = median([with_token - without for with_token, without in pairs])
        title = f"added per request, {mode}, {name}"
        found.append(Row(title, cost, "µs", median(results["floor"]), f"≤ {limit}", cost <= limit))
    return found


def _lookups(managers: Mapping[str, TokenManager]) -> list[Row]:
    results = interleave({name: partial(_lookup, manager) for name, manager in managers.items()}, ROUNDS)
    limits = {"memory": 0.5, "file": 2.0}
    costs = {name: median(values) for name, values in results.items()}
    return [
        Row(f"warm token(), {name}", cost, "µs", None, f"≤ {limits[name]}", cost <= limits[name])
        for name, cost in costs.items()
    ]


def _lookup(manager: TokenManager) -> float:
    token = manager.token
    return timed(lambda: [token() for _ in range(LOOKUPS)]) / LOOKUPS * 1e6
