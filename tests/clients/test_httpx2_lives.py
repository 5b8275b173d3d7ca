"""Callers that come and go: cancelled ones, several clients, and the connections they hold."""

from __future__ import annotations

import threading
from concurrent.futures import Future
from typing import Any

import anyio
import httpx2
import pytest

from tests.clients.modes import Mode, Via, get, grant_for, manager_for, send, statuses
from unexpired import TemporarilyUnavailable, TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle, _connection


class Cancellable:
    """Three GETs as tasks, each of which can be cancelled from outside."""

    def __init__(self, backend: str, options: dict[str, Any], count: int = 3) -> None:
        self.options = options
        self.scopes: list[anyio.CancelScope] = []
        self.count = count
        self.outcomes: list[Any] = [None] * count
        self.portal: Future[Any] = Future()
        self.thread = threading.Thread(target=anyio.run, args=(self.main,), kwargs={"backend": backend})
        self.thread.start()

    async def main(self) -> None:
        """Call, and wait for the order to cancel."""
        async with httpx2.AsyncClient(**self.options) as client, anyio.create_task_group() as group:
            self.scopes = [anyio.CancelScope() for _ in range(self.count)]
            for place in range(self.count):
                group.start_soon(self.call, client, place)
            async with anyio.from_thread.BlockingPortal() as portal:
                self.portal.set_result(portal)
                await portal.sleep_until_stopped()

    async def call(self, client: httpx2.AsyncClient, place: int) -> None:
        """One caller."""
        self.outcomes[place] = "cancelled"
        with self.scopes[place]:
            self.outcomes[place] = (await client.get(f"/api/x?n={place}")).json()["n"]

    def cancel(self, place: int) -> None:
        """Cancel one caller."""
        self.portal.result(10).call(self.scopes[place].cancel)

    def end(self) -> list[Any]:
        """What became of each caller."""
        portal = self.portal.result(10)
        portal.call(portal.stop)
        self.thread.join(25)
        assert not self.thread.is_alive()
        return self.outcomes


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_callers(server: ServerHandle, manager: TokenManager, via: Via, backend: str) -> None:
    """Scenarios 57 and 58: cancelling the first caller, and another, changes nothing for the rest nor the refresh."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    options = Mode(backend).options(manager, via, base_url=server.url)
    callers = Cancellable(backend, options)
    server.wait("token_request_held")
    server.wait("api_call_refused", 3)
    callers.cancel(0)
    callers.cancel(1)
    server.release("refresh")
    assert callers.end() == ["cancelled", "cancelled", "2"]
    assert server.stats().token_posts == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_all_cancelled(server: ServerHandle, manager: TokenManager, via: Via, backend: str) -> None:
    """Scenarios 57 and 58: when every caller is cancelled, the refresh is finished and stored all the same."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    callers = Cancellable(backend, Mode(backend).options(manager, via, base_url=server.url))
    server.wait("token_request_held")
    for place in range(3):
        callers.cancel(place)
    assert callers.end() == ["cancelled"] * 3
    server.release("refresh")
    mode = Mode(backend)
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().token_posts == 1


def test_impatient_caller(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenario 57: callers whose time is over get an error that says so; the refresh they began serves the next."""
    store = MemoryStore()
    manager = manager_for(server, store=store)
    hasty = TokenManager(grant_for(server), store=store, key="alice", wait=0.2)
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    outcomes = mode.run(mode.options(hasty, via, base_url=server.url), [get("/api/x")] * 3)
    assert [type(outcome) for outcome in outcomes] == [TemporarilyUnavailable] * 3
    server.release("refresh")
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().token_posts == 1


def test_client_and_manager_per_call(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenario 6: 10 clients with managers of their own, on one store and key, cost one refresh."""
    store = MemoryStore()
    manager_for(server, store=store)
    server.expire()
    managers = [TokenManager(grant_for(server), store=store, key="alice") for _ in range(10)]
    batches = [mode.start(mode.options(manager, via, base_url=server.url), [get("/api/x")]) for manager in managers]
    assert [statuses(batch.result(25)) for batch in batches] == [[200]] * 10
    assert server.stats().token_posts == 1


def test_connection_is_used_again(
    server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 43: a refused answer is read to its end, so the replay goes over the same connection."""
    made: list[object] = []
    real = _connection._Protocol.connection_made

    def count(self: Any, transport: Any) -> None:
        made.append(transport)
        real(self, transport)

    server.expire()
    monkeypatch.setattr(_connection._Protocol, "connection_made", count)

    async def twice(api: Any) -> list[int]:
        return [(await api.send("POST", "/api/echo", content=b"x" * 5000)).status_code for _ in range(2)]

    assert mode.one(mode.options(manager, via, base_url=server.url), twice) == [200, 200]
    # one for the API calls, one for the token call
    assert len(made) == 2


def test_no_connection_is_held_while_waiting(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenarios 14 and 43: callers that wait for a refresh hold no connection, so a full pool lets others through."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    inner = mode.transport(limits=httpx2.Limits(max_connections=1))

    async def pass_by(api: Any) -> int:
        await api.blocking(lambda: server.wait("token_request_held"))
        bare = {"extensions": {"unexpired.authenticated": False}}
        response = await api.get("/open/x", **bare)
        await api.blocking(lambda: server.release("refresh"))
        return int(response.status_code)

    options = mode.options(manager, via, inner=inner, base_url=server.url)
    refused, passed = mode.run(options, [send("POST", "/api/x", json={}), pass_by])
    assert (refused.status_code, passed) == (200, 200)
    assert server.stats().token_posts == 1


def test_refresh_over_the_same_pool(server: ServerHandle) -> None:
    """Scenario 43: a refresh function that uses the very client gets its connection, though there is only one."""
    client = httpx2.Client(base_url=server.url, limits=httpx2.Limits(max_connections=1), verify=False)

    def refresh(session: Any) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": session.refresh_token, "client_id": "public"}
        answer = client.post("/oauth/token", data=form, extensions={"unexpired.authenticated": False})
        found: dict[str, Any] = answer.json()
        return found

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login(server.login())
    server.expire()
    client.auth = TokenAuth(manager)
    with client:
        assert client.get("/api/x").status_code == 200
    assert server.stats().refreshes == 1
