"""Many callers of httpx2 when the token expires: one refresh, and everybody gets the answer to its own request."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest

from tests.clients.modes import Mode, Via, get, manager_for, send, statuses
from unexpired import LoginRequired, TemporarilyUnavailable, Token, TokenManager
from unexpired.events import RefreshFailed, RequestReplayed, SessionEnded
from unexpired.testing import ServerHandle

CROWD = 50


def own(outcomes: list[Any]) -> list[str]:
    """Whose request each response answers."""
    return [outcome.json()["n"] for outcome in outcomes]


def crowd(count: int = CROWD, path: str = "/api/x") -> list[Any]:
    """GETs that the server's answers can be told apart by."""
    return [get(f"{path}?n={number}") for number in range(count)]


def names(count: int = CROWD) -> list[str]:
    """What `own` gives when everybody got its own."""
    return [str(number) for number in range(count)]


def test_expiry_known_to_the_client(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenarios 1 and 2: 50 callers with a token past its time cost one refresh and no refused call."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1})
    outcomes = mode.run(mode.options(manager, via, base_url=server.url), crowd())
    assert own(outcomes) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, 0)


def test_expiry_only_the_server_knows(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenarios 1, 2, 36, 41: 50 callers are refused at once; one refresh, and each gets its own replayed answer."""
    replays: list[RequestReplayed] = []
    manager.on(RequestReplayed, replays.append)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    batch = mode.start(mode.options(manager, via, base_url=server.url), crowd())
    server.wait("api_call_held", CROWD)
    server.release("all")
    outcomes = batch.result(25)
    assert statuses(outcomes) == [200] * CROWD
    assert own(outcomes) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, CROWD)
    assert [event.replays for event in replays] == [1] * CROWD


def test_late_refusals(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 9: refusals of the old token that arrive after the refresh are replayed without another one."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late", "prefix": "/api/late"}])
    options = mode.options(manager, via, base_url=server.url)
    late = mode.start(options, crowd(10, "/api/late"))
    server.wait("api_call_held", 10)
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().refreshes == 1
    server.release("late")
    assert own(late.result(25)) == names(10)
    assert server.stats().token_posts == 1


def test_calls_during_the_refresh(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 10: calls refused during the refresh, and calls begun during it, wait and are replayed."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    first = mode.start(mode.options(manager, via, base_url=server.url), crowd(10))
    server.wait("token_request_held")
    second = mode.start(mode.options(manager, via, base_url=server.url), crowd(10))
    server.wait("api_call_refused", 20)
    server.release("refresh")
    assert own(first.result(25)) == own(second.result(25)) == names(10)
    assert server.stats().token_posts == 1


def test_open_stream_blocks_nobody(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 14: while an event stream is open, POSTs are refused, refreshed for and served."""

    async def listen(api: Any) -> bytes:
        async with api.stream("GET", "/api/events?name=end") as response:
            return b"".join([chunk async for chunk in api.chunks(response)])

    options = mode.options(manager, via, base_url=server.url)
    listener = mode.start(options, [listen])
    server.wait("api_call_held")
    server.expire()
    posts = [send("POST", f"/api/x?n={number}", json={}) for number in range(5)]
    assert own(mode.run(mode.options(manager, via, base_url=server.url), posts)) == names(5)
    assert not listener.done()
    server.release("end")
    assert listener.result(25) == [b"data: first\n\ndata: second\n\n"]
    assert server.stats().token_posts == 1


def test_an_api_that_refuses_everything(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 36: a refused fresh token is the caller's answer: no loop of refreshes, other APIs unharmed."""
    server.api_faults([{"kind": "refuse", "prefix": "/api/broken"}])
    options = mode.options(manager, via, base_url=server.url)
    began = time.monotonic()

    async def insist(api: Any) -> list[Any]:
        return [await api.get("/api/broken") for _ in range(15)]

    for answers in mode.run(options, [insist] * 4):
        assert statuses(answers) == [401] * 15
        assert answers[-1].json() == {"ok": False}
    # each further refresh needs a token twice as old as the one before it, jittered
    bound = 2 + math.log2(1 + 2 * (time.monotonic() - began))
    before = server.stats().token_posts
    assert 1 <= before <= bound
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/fine")).status_code == 200
    assert server.stats().token_posts == before


def test_replica_lag(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """A replica that has not heard of the new token yet costs one refresh, and is asked again later."""
    server.expire()
    server.api_faults([{"kind": "lag", "seconds": 3600.0}])
    options = mode.options(manager, via, base_url=server.url)

    async def twice(api: Any) -> list[int]:
        lagging = await api.get("/api/x")
        await api.blocking(lambda: server.api_faults([]))
        return [lagging.status_code, (await api.get("/api/x")).status_code]

    assert mode.one(options, twice) == [401, 200]
    assert server.stats().token_posts == 1


def test_refused_refresh(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenarios 48 and 49: all waiters get LoginRequired with the way back, one end is told, later calls ask nobody."""
    manager = manager_for(server, login_url="/login?redirect={return_to}", login_fields={"return_to": "/list?a=1"})
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    server.revoke_family()
    outcomes = mode.run(mode.options(manager, via, base_url=server.url), crowd())
    assert {type(error) for error in outcomes} == {LoginRequired}
    assert {(error.reason, error.login_url) for error in outcomes} == {("refused", "/login?redirect=%2Flist%3Fa%3D1")}
    assert [event.reason for event in ended] == ["refused"]
    later = mode.run(mode.options(manager, via, base_url=server.url), crowd())
    assert {(type(error), error.login_url) for error in later} == {(LoginRequired, "/login?redirect=%2Flist%3Fa%3D1")}
    stats = server.stats()
    assert (stats.token_posts, stats.api_calls) == (1, CROWD)


def test_failure_is_one_for_the_group(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenarios 48 and 50: a busy token endpoint is asked once for 50 callers, who are told for how long."""
    manager = manager_for(server, patience=0.0)
    server.expire()
    server.faults([{"kind": "503", "retry_after": 60, "times": 9}])
    outcomes = mode.run(mode.options(manager, via, base_url=server.url), crowd())
    assert {type(error) for error in outcomes} == {TemporarilyUnavailable}
    assert all(50 < error.retry_after <= 60 for error in outcomes)
    assert server.stats().token_posts == 1


def test_hiccup_is_sat_out(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 50: after a passing failure the group waits and asks once more, and all 50 callers are served."""
    server.expire()
    server.faults([{"kind": "429", "retry_after": 0}])
    assert own(mode.run(mode.options(manager, via, base_url=server.url), crowd())) == names()
    assert server.stats().token_posts == 2


def test_failure_while_the_token_is_good(server: ServerHandle, mode: Mode, via: Via) -> None:
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
    options = mode.options(manager, via, base_url=server.url)

    async def on_and_on(api: Any) -> list[int]:
        first = await api.get("/api/x")
        await api.blocking(lambda: server.wait("token_request_answered"))
        return [first.status_code, *[(await api.get("/api/x")).status_code for _ in range(10)]]

    assert mode.one(options, on_and_on) == [200] * 11
    assert server.stats().token_posts == 1
    assert [failure.kind for failure in failures] == ["unreachable"]


@pytest.mark.parametrize("lifetime", [15, 30])
def test_short_lived_tokens(server: ServerHandle, mode: Mode, via: Via, lifetime: int) -> None:
    """Scenario 66: a token that lives shorter than the leeway is used, not refreshed at every call."""
    server.configure(access_lifetime=lifetime)
    manager = manager_for(server)
    assert statuses(mode.run(mode.options(manager, via, base_url=server.url), crowd(20))) == [200] * 20
    assert server.stats().token_posts == 0
