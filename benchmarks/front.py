"""What the front adds to a call: `ApiClient.get` beside the plain adapter's `client.get` and `response.json()`."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import httpx2

from benchmarks.measure import Row, interleave, median, timed
from unexpired import ApiClient, AsyncApiClient, Scheme, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenTransport
from unexpired.stores import MemoryStore

CALLS = 200
ROUNDS = 61
LIMIT = 15.0
ANSWER = {"access_token": "a" * 40, "refresh_token": "r" * 40, "expires_in": 86400}
BODY = b'{"code": 0, "msg": "", "data": {"rows": [1, 2, 3]}}'
SCHEME = Scheme.bearer(code="code", expired=[40009], ok=[0])


def _respond(_: httpx2.Request) -> httpx2.Response:
    return httpx2.Response(200, headers={"content-type": "application/json"}, content=BODY)


def _front_settings(manager: TokenManager) -> dict[str, Any]:
    transport = httpx2.MockTransport(_respond)
    loading = {"on_loading": lambda _: None}
    return {"manager": manager, "scheme": SCHEME, "transport": transport, "unwrap": True, **loading}


def _plain(manager: TokenManager) -> float:
    carrier = TokenTransport(manager, SCHEME, httpx2.MockTransport(_respond))
    with httpx2.Client(base_url="http://api.test", transport=carrier) as client:
        client.get("/list").json()
        return timed(lambda: [client.get("/list").json() for _ in range(CALLS)]) / CALLS * 1e6


def _front(manager: TokenManager) -> float:
    with ApiClient("http://api.test", **_front_settings(manager)) as api:
        api.get("/list")
        return timed(lambda: [api.get("/list") for _ in range(CALLS)]) / CALLS * 1e6


def _aplain(manager: TokenManager) -> float:
    async def calls(client: httpx2.AsyncClient) -> None:
        for _ in range(CALLS):
            (await client.get("/list")).json()

    carrier = AsyncTokenTransport(manager, SCHEME, httpx2.MockTransport(_respond))
    with asyncio.Runner() as runner:
        client = httpx2.AsyncClient(base_url="http://api.test", transport=carrier)
        runner.run(calls(client))
        seconds = timed(lambda: runner.run(calls(client)))
        runner.run(client.aclose())
        return seconds / CALLS * 1e6


def _afront(manager: TokenManager) -> float:
    async def calls(api: AsyncApiClient) -> None:
        for _ in range(CALLS):
            await api.get("/list")

    with asyncio.Runner() as runner:
        api = AsyncApiClient("http://api.test", **_front_settings(manager))
        runner.run(calls(api))
        seconds = timed(lambda: runner.run(calls(api)))
        runner.run(api.aclose())
        return seconds / CALLS * 1e6


def rows() -> list[Row]:
    """Added cost per call, with an envelope to unwrap and a loading hook to call."""
    manager = TokenManager(lambda _: ANSWER, store=MemoryStore(), key="bench")
    manager.login(ANSWER)
    works = {"sync floor": _plain, "sync": _front, "async floor": _aplain, "async": _afront}
    results = interleave({name: partial(work, manager) for name, work in works.items()}, ROUNDS)
    found: list[Row] = []
    for mode in ("sync", "async"):
        pairs = zip(results[mode], results[f"{mode} floor"], strict=True)
        cost = median([front - plain for front, plain in pairs])
        floor = median(results[f"{mode} floor"])
        found.append(Row(f"ApiClient, added per call, {mode}", cost, "µs", floor, f"≤ {LIMIT:g}", cost <= LIMIT))
    return found
