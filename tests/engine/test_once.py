from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.engine.staging import (
    EXPIRED,
    FRESH,
    KINDS,
    Attempt,
    Crowd,
    Kind,
    Server,
    aboard,
    manager_for,
    nearly_expired,
)
from tests.waiting import until
from unexpired import Session, TokenManager
from unexpired._core.ports import Store
from unexpired._engine.flying import Flying
from unexpired.events import RefreshSucceeded
from unexpired.stores import FileStore, MemoryStore


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store that needs no server."""
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "sessions")


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_callers_cause_one_refresh(kind: Kind, store: Store) -> None:
    """50 callers that meet an expired token send 1 token request and are all served (scenarios 1 and 2)."""
    server = Server(gated=True)
    manager = manager_for(server, store=store)
    crowd = Crowd(kind, 50, manager)
    until(lambda: aboard(manager) == 50)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 50
    assert (server.calls, server.reused) == (1, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_fifty_rejections_cause_one_refresh(kind: Kind) -> None:
    """50 callers whose token only the API knew to be over send 1 token request (scenarios 1 and 2)."""
    server = Server(gated=True)
    manager = manager_for(server, FRESH)
    crowd = Crowd(kind, 50, manager, "refresh", rejected=manager.token())
    until(lambda: aboard(manager) == 50)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 50
    assert (server.calls, server.reused) == (1, 0)


def test_threads_and_several_event_loops_share_one_manager() -> None:
    """Threads, two asyncio loops and two trio runs on one manager at once: 1 request, all served (scenario 3)."""
    server = Server(gated=True)
    manager = manager_for(server)
    kinds: tuple[Kind, ...] = ("threads", "asyncio", "trio", "asyncio", "trio")
    crowds = [Crowd(kind, 10, manager) for kind in kinds]
    until(lambda: aboard(manager) == 50)
    server.gate.set()
    for crowd in crowds:
        assert crowd.tokens() == ["access 1"] * 10
    assert server.calls == 1


def test_a_manager_for_each_call_is_still_one_refresh(tmp_path: Path) -> None:
    """Managers made for one call each, with stores of their own on one directory, join one flight (scenario 6)."""
    server = Server(gated=True)
    manager_for(server, store=FileStore(tmp_path))
    barrier = threading.Barrier(20)

    def call() -> str:
        barrier.wait(20)
        return TokenManager(server, store=FileStore(tmp_path)).token().access_token

    attempts = [Attempt(call) for _ in range(20)]
    witness = TokenManager(server, store=FileStore(tmp_path))
    until(lambda: aboard(witness) == 20)
    server.gate.set()
    assert [attempt.result() for attempt in attempts] == ["access 1"] * 20
    assert server.calls == 1


def test_two_keys_are_independent() -> None:
    """A refresh that hangs for one key keeps nobody of another waiting, and each gets its own (scenario 8)."""
    store, stuck, free = MemoryStore(), Server(gated=True), Server()
    alice = manager_for(stuck, store=store, key="alice")
    bob = manager_for(free, {**EXPIRED, "access_token": "bob's", "refresh_token": "refresh 0"}, store=store, key="bob")
    waiting = Attempt(alice.token)
    assert stuck.arrived.wait(20)
    assert bob.token().access_token == "access 1"
    stuck.gate.set()
    assert waiting.result().access_token == "access 1"
    assert (stuck.calls, free.calls) == (1, 1)
    assert alice.token().login != bob.token().login


@pytest.mark.parametrize("form", ["token", "text"])
def test_a_late_rejection_of_an_old_token_refreshes_nothing(form: str) -> None:
    """A refusal of an older token is answered with the current one and 0 requests (scenario 9)."""
    server = Server()
    manager = manager_for(server, FRESH)
    old = manager.token()
    assert manager.refresh(rejected=old).access_token == "access 1"
    late = Crowd("threads", 20, manager, "refresh", rejected=old if form == "token" else old.access_token)
    assert late.tokens() == ["access 1"] * 20
    assert asyncio.run(manager.arefresh(rejected=old)).access_token == "access 1"
    assert server.calls == 1


def test_a_token_that_was_never_given_out_is_an_old_one() -> None:
    """The rejection of a token nobody here knows is answered with the current one."""
    server = Server()
    assert manager_for(server, FRESH).refresh(rejected="from elsewhere").access_token == "access 0"
    assert server.calls == 0


def test_tasks_that_pause_between_looking_and_asking_cause_one_refresh() -> None:
    """Tasks that yield to each other after they saw the token expired still send 1 request (scenario 11)."""
    server = Server()
    manager = manager_for(server, FRESH)

    async def call(barrier: asyncio.Barrier) -> str:
        seen = await manager.atoken()
        await barrier.wait()
        return (await manager.arefresh(rejected=seen)).access_token

    async def main() -> list[str]:
        barrier = asyncio.Barrier(50)
        return await asyncio.gather(*(call(barrier) for _ in range(50)))

    assert asyncio.run(main()) == ["access 1"] * 50
    assert server.calls == 1


def test_refresh_ahead_and_a_rejection_at_once_are_one_refresh() -> None:
    """A refusal that comes while the token is refreshed ahead joins that flight (scenario 12)."""
    server = Server(gated=True)
    manager = manager_for(server, nearly_expired())
    news: list[RefreshSucceeded] = []
    manager.on(RefreshSucceeded, news.append)
    old = manager.token()
    assert old.access_token == "access 0"
    assert server.arrived.wait(20)
    crowd = Crowd("threads", 10, manager, "refresh", rejected=old)
    until(lambda: aboard(manager) == 10)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 10
    assert server.calls == 1
    until(lambda: news)
    assert news[0].callers == 10, "nobody waits for a refresh in the background"


def test_refresh_ahead_keeps_nobody_waiting() -> None:
    """Inside the window callers get the current token while 1 refresh runs in the background."""
    server = Server(gated=True)
    manager = manager_for(server, nearly_expired())
    assert [manager.token().access_token for _ in range(100)] == ["access 0"] * 100
    server.gate.set()
    until(lambda: manager.token().access_token == "access 1")
    assert server.calls == 1


def test_refresh_ahead_holds_back_where_many_flights_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With 16 flights under way no other one is started in the background."""
    server = Server(gated=True)
    manager = manager_for(server, nearly_expired())
    monkeypatch.setattr(Flying, "in_air", [None] * 16)
    assert manager.token().access_token == "access 0"
    assert manager._cell.flying is None
    monkeypatch.undo()
    manager.token()
    assert server.arrived.wait(20)
    server.gate.set()


def test_the_warm_path_takes_no_lock() -> None:
    """A fresh token is handed out while other threads hold every lock there is (scenario 13, P14)."""
    manager = manager_for(Server(), FRESH)
    manager.token()
    cell = manager._cell
    store = cell.store
    assert isinstance(store, MemoryStore)
    held = store.lease("default", owner="me", seconds=1, wait=0, stop=lambda: False)
    assert held is not None
    with cell._lock, store._lock:
        assert Attempt(manager.token).result().access_token == "access 0"
        assert Crowd("asyncio", 2, manager).tokens() == ["access 0"] * 2
    held.release()


def test_the_warm_path_does_not_read_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a fresh token a file is only looked at, never read, until it changes (P14)."""
    store = FileStore(tmp_path)
    manager = manager_for(Server(), FRESH, store=store)
    manager.token()
    monkeypatch.setattr(store, "load", lambda _: pytest.fail("the store was read"))
    assert [manager.token().access_token for _ in range(3)] == ["access 0"] * 3


def test_a_call_on_the_wire_blocks_no_refresh() -> None:
    """A caller that keeps its token for a long call keeps nobody else from refreshing (scenario 14)."""
    server = Server()
    manager = manager_for(server, FRESH)
    done = threading.Event()
    streaming = Attempt(lambda: (manager.token(), done.wait(20))[0])
    assert manager.refresh().access_token == "access 1"
    done.set()
    assert streaming.result().access_token in {"access 0", "access 1"}


def test_whoever_needs_more_than_a_flight_brings_starts_the_next() -> None:
    """Two resources asked for at once are redeemed one after another, each from the newest session."""
    seen: list[tuple[str | None, str | None]] = []
    gate = threading.Event()

    def grant(session: Session, resource: str | None = None) -> Mapping[str, Any]:
        seen.append((session.refresh_token, resource))
        assert gate.wait(20)
        number = len(seen)
        return {"access_token": f"{resource} {number}", "refresh_token": f"r{number}", "expires_in": 60}

    manager = manager_for(grant, {"refresh_token": "r0"})
    mail, disk = Attempt(lambda: manager.token("mail")), Attempt(lambda: manager.token("disk"))
    until(lambda: aboard(manager) == 2)
    gate.set()
    assert mail.result().access_token.startswith("mail")
    assert disk.result().access_token.startswith("disk")
    assert [refresh for refresh, _ in seen] == ["r0", "r1"]
    assert {resource for _, resource in seen} == {"mail", "disk"}
