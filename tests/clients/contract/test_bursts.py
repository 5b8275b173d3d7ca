"""Many callers when the token expires: one refresh, and everybody gets the answer to its own request."""

from __future__ import annotations

import json
import math
import time
from contextlib import ExitStack
from typing import Any

import pytest

from tests.clients.contract.crew import CROWD, Caller, Job, crew, gathered, get, outcomes, statuses, told
from tests.clients.contract.fitting import Body, Cell, Reply
from tests.clients.modes import grant_for, manager_for
from unexpired import LoginRequired, TemporarilyUnavailable, Token, TokenManager
from unexpired.events import RefreshFailed, RequestReplayed, SessionEnded
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle


def own(found: list[Any]) -> list[str]:
    """Whose request each reply answers."""
    return [said(outcome)["n"] for outcome in found]


def said(reply: Reply) -> dict[str, Any]:
    """The JSON of a reply."""
    assert isinstance(reply, Reply), reply
    answer: dict[str, Any] = json.loads(reply.body)
    return answer


def crowd(server: ServerHandle, count: int = CROWD, path: str = "/api/x") -> list[Job]:
    """GETs that the server's answers can be told apart by."""
    return [get(f"{server.url}{path}?n={number}") for number in range(count)]


def names(count: int = CROWD) -> list[str]:
    """What `own` gives when everybody got its own."""
    return [str(number) for number in range(count)]


@pytest.mark.contract(1)
def test_expiry_known_to_the_client(server: ServerHandle, cell: Cell) -> None:
    """Scenarios 1 and 2: 50 callers with a token past its time cost one refresh and no refused call."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1})
    with crew(cell, manager) as callers:
        assert own(callers.run(*crowd(server))) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, 0)


@pytest.mark.contract(1)
@pytest.mark.parametrize("lifetime", [15, 30])
def test_short_lived_tokens(server: ServerHandle, cell: Cell, lifetime: int) -> None:
    """Scenario 66: a token that lives shorter than the leeway is used, not refreshed at every call."""
    server.configure(access_lifetime=lifetime)
    with crew(cell, manager_for(server)) as callers:
        assert statuses(callers.run(*crowd(server, 20))) == [200] * 20
    assert server.stats().token_posts == 0


@pytest.mark.contract(2)
def test_expiry_only_the_server_knows(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 1, 2, 36, 41: 50 callers are refused at once; one refresh, and each gets its own replayed answer."""
    replays: list[RequestReplayed] = []
    manager.on(RequestReplayed, replays.append)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with crew(cell, manager) as callers:
        batch = callers.start(*crowd(server))
        server.wait("api_call_held", CROWD)
        server.release("all")
        found = outcomes(batch)
    assert statuses(found) == [200] * CROWD
    assert own(found) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, CROWD)
    assert [event.replays for event in told(replays, CROWD)] == [1] * CROWD


@pytest.mark.contract(2)
def test_calls_during_the_refresh(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 10: calls refused during the refresh, and calls begun during it, wait and are replayed."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with crew(cell, manager) as callers:
        first = callers.start(*crowd(server, 10))
        server.wait("token_request_held")
        second = callers.start(*crowd(server, 10))
        server.wait("api_call_refused", 20)
        server.release("refresh")
        assert own(outcomes(first)) == own(outcomes(second)) == names(10)
    assert server.stats().token_posts == 1


@pytest.mark.contract(2)
def test_client_and_manager_per_call(server: ServerHandle, cell: Cell) -> None:
    """Scenario 6: 10 clients with managers of their own, on one store and key, cost one refresh."""
    store = MemoryStore()
    manager_for(server, store=store)
    server.expire()
    managers = [TokenManager(grant_for(server), store=store, key="alice") for _ in range(10)]
    with ExitStack() as stack:
        crews = [stack.enter_context(crew(cell, manager)) for manager in managers]
        found = outcomes([future for one in crews for future in one.start(get(f"{server.url}/api/x"))])
    assert statuses(found) == [200] * 10
    assert server.stats().token_posts == 1


@pytest.mark.contract(2)
def test_an_api_that_refuses_everything(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 36: a refused fresh token is the caller's answer: no loop of refreshes, other APIs unharmed."""
    server.api_faults([{"kind": "refuse", "prefix": "/api/broken"}])
    began = time.monotonic()

    async def insist(caller: Caller) -> list[Reply]:
        return [await caller.send(f"{server.url}/api/broken") for _ in range(15)]

    with crew(cell, manager) as callers:
        for answers in callers.run(*[insist] * 4):
            assert statuses(answers) == [401] * 15
            assert said(answers[-1]) == {"ok": False}
        # each further refresh needs a token twice as old as the one before it, jittered
        bound = 2 + math.log2(1 + 2 * (time.monotonic() - began))
        before = server.stats().token_posts
        assert 1 <= before <= bound
        assert callers.send(f"{server.url}/api/fine").status == 200
    assert server.stats().token_posts == before


@pytest.mark.contract(3)
def test_late_refusals(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 9: refusals of the old token that arrive after the refresh are replayed without another one."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late", "prefix": "/api/late"}])
    with crew(cell, manager) as callers:
        late = callers.start(*crowd(server, 10, "/api/late"))
        server.wait("api_call_held", 10)
        assert callers.send(f"{server.url}/api/x").status == 200
        assert server.stats().refreshes == 1
        server.release("late")
        assert own(outcomes(late)) == names(10)
    assert server.stats().token_posts == 1


@pytest.mark.contract(3)
def test_refusals_spread_over_a_second(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 9: refusals that trickle in over a second, before, during and after the refresh, cost one."""
    server.expire()
    server.api_faults([{"kind": "delay_refusals", "seconds": 1.0}])
    with crew(cell, manager) as callers:
        assert own(callers.run(*crowd(server))) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


@pytest.mark.contract(3)
def test_replica_lag(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """A replica that has not heard of the new token yet costs one refresh, and is asked again later."""
    server.expire()
    server.api_faults([{"kind": "lag", "seconds": 3600.0}])
    with crew(cell, manager) as callers:
        assert callers.send(f"{server.url}/api/x").status == 401
        server.api_faults([])
        assert callers.send(f"{server.url}/api/x").status == 200
    assert server.stats().token_posts == 1


@pytest.mark.contract(6)
def test_refused_refresh(server: ServerHandle, cell: Cell) -> None:
    """Scenarios 48 and 49: all waiters get LoginRequired with the way back, one end is told, later calls ask nobody."""
    manager = manager_for(server, login_url="/login?redirect={return_to}", login_fields={"return_to": "/list?a=1"})
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    server.revoke_family()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    way = ("refused", "/login?redirect=%2Flist%3Fa%3D1")
    with crew(cell, manager) as callers:
        batch = callers.start(*crowd(server))
        server.wait("api_call_held", CROWD)
        server.release("all")
        found = outcomes(batch)
        later = callers.run(*crowd(server))
    assert {type(error) for error in found} == {LoginRequired}
    assert {(error.reason, error.login_url) for error in found} == {way}
    assert [event.reason for event in told(ended)] == ["refused"]
    assert {(type(error), error.login_url) for error in later} == {(LoginRequired, way[1])}
    stats = server.stats()
    assert (stats.token_posts, stats.api_calls) == (1, CROWD)


@pytest.mark.contract(6)
def test_failure_is_one_for_the_group(server: ServerHandle, cell: Cell) -> None:
    """Scenarios 48 and 50: a busy token endpoint is asked once for 50 callers, who are told for how long."""
    manager = manager_for(server, patience=0.0)
    server.expire()
    server.faults([{"kind": "503", "retry_after": 60, "times": 9}])
    with crew(cell, manager) as callers:
        found = callers.run(*crowd(server))
    assert {type(error) for error in found} == {TemporarilyUnavailable}
    assert all(50 < error.retry_after <= 60 for error in found)
    assert server.stats().token_posts == 1


@pytest.mark.contract(6)
def test_hiccup_is_sat_out(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 50: after a passing failure the group waits and asks once more, and all 50 callers are served."""
    server.expire()
    server.faults([{"kind": "429", "retry_after": 0}])
    with crew(cell, manager) as callers:
        assert own(callers.run(*crowd(server))) == names()
    assert server.stats().token_posts == 2


@pytest.mark.contract(6)
def test_failure_while_the_token_is_good(server: ServerHandle, cell: Cell) -> None:
    """Scenario 52: when refreshing ahead fails, calls go on with the token that is still good."""
    manager = manager_for(server)
    failures: list[RefreshFailed] = []
    manager.on(RefreshFailed, failures.append)
    answer = server.login()
    half_spent = Token(
        answer["access_token"], expires_at=time.time() + 60, lifetime=1000.0, refresh_token=answer["refresh_token"]
    )
    manager.login(half_spent)
    server.faults([{"kind": "503", "retry_after": 60, "times": 9}])
    with crew(cell, manager) as callers:
        assert callers.send(f"{server.url}/api/x").status == 200
        server.wait("token_request_answered")
        assert statuses(callers.run(*crowd(server, 10))) == [200] * 10
    assert server.stats().token_posts == 1
    assert [failure.kind for failure in told(failures)] == ["unreachable"]


@pytest.mark.contract(6)
def test_nobody_is_logged_in(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Without a login nothing is sent: the caller is told to log in."""
    manager.logout()
    with crew(cell, manager) as callers:
        (error,) = callers.run(get(f"{server.url}/api/x"))
    assert (type(error), error.reason) == (LoginRequired, "logout")
    assert server.stats().api_calls == 0


@pytest.mark.contract(7, modes=("asyncio", "trio"))
def test_cancelled_callers(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 57 and 58: cancelling the first caller, and another, changes nothing for the rest nor the refresh."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with crew(cell, manager) as callers:
        leader = callers.start(*crowd(server, 1))
        server.wait("token_request_held")
        others = callers.start(*crowd(server, 3))
        server.wait("api_call_refused", 4)
        assert leader[0].cancel()
        assert others[0].cancel()
        server.release("refresh")
        found = outcomes([*leader, *others])
        assert found[:2] == ["cancelled"] * 2
        assert own(found[2:]) == ["1", "2"]
    assert server.stats().token_posts == 1


@pytest.mark.contract(7, modes=("asyncio", "trio"))
def test_all_cancelled(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 57 and 58: when every caller is cancelled, the refresh is finished and stored all the same."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with crew(cell, manager) as callers:
        gone = callers.start(*crowd(server, 3))
        server.wait("token_request_held")
        assert all(future.cancel() for future in gone)
        assert outcomes(gone) == ["cancelled"] * 3
        server.release("refresh")
        assert callers.send(f"{server.url}/api/x").status == 200
    assert server.stats().token_posts == 1


@pytest.mark.contract(7)
def test_impatient_caller(server: ServerHandle, cell: Cell) -> None:
    """Scenario 57: callers whose time is over get an error that says so; the refresh they began serves the next."""
    store = MemoryStore()
    manager = manager_for(server, store=store)
    hasty = TokenManager(grant_for(server), store=store, key="alice", wait=0.2)
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with crew(cell, hasty) as callers, crew(cell, manager) as patient:
        found = callers.run(*crowd(server, 3))
        assert [type(outcome) for outcome in found] == [TemporarilyUnavailable] * 3
        server.release("refresh")
        assert patient.send(f"{server.url}/api/x").status == 200
    assert server.stats().token_posts == 1


@pytest.mark.contract(9)
def test_open_stream_blocks_nobody(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 14: while an event stream is open, POSTs are refused, refreshed for and served."""

    async def listen(caller: Caller) -> bytes:
        async with caller.stream(f"{server.url}/api/events?name=end") as response:
            return await gathered(response.chunks)

    def post(number: int) -> Job:
        return lambda caller: caller.send(f"{server.url}/api/x?n={number}", "POST", Body("json", {}))

    with crew(cell, manager) as callers:
        (listener,) = callers.start(listen)
        server.wait("api_call_held")
        server.expire()
        assert own(callers.run(*map(post, range(5)))) == names(5)
        assert not listener.done()
        server.release("end")
        assert outcomes([listener]) == [b"data: first\n\ndata: second\n\n"]
    assert server.stats().token_posts == 1
