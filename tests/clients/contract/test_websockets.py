"""websockets is held to the contract: what a request is to other clients, a handshake is here."""

from __future__ import annotations

import ssl
import threading
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus

from tests.clients.contract.crew import BOUND, CROWD, Caller, Job, outcomes, told
from tests.clients.contract.fitting import Cell
from tests.clients.contract.listener import Heard
from tests.clients.modes import grant_for, manager_for
from tests.clients.scripted import counting_manager
from tests.clients.sockets import REFUSED, WEBSOCKETS, Refusal, Sockets, dialling, echo, only
from unexpired import (
    InCookie,
    InHeader,
    InQuery,
    LoginRequired,
    Scheme,
    TemporarilyUnavailable,
    TokenManager,
)
from unexpired.events import RequestReplayed, SessionEnded
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], login_required=[40005, 40003], ok=[0])
EVERYWHERE = Scheme(
    InHeader("Authorization", "Bearer {access_token}"),
    InHeader("access_token"),
    InQuery("access_token"),
    InCookie("access_token"),
)
SECRET = "a-very-marked-token"


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Give a websocket server."""
    with Sockets() as serving:
        yield serving


@pytest.fixture
def elsewhere() -> Iterator[Sockets]:
    """Give another one, which is another origin by its port."""
    with Sockets() as serving:
        yield serving


def judged_by(server: ServerHandle) -> Any:
    """What refuses a handshake whose token the authorization server's own API refuses."""
    known = ssl.create_default_context()  # making one takes longer than all the rest

    def respond(heard: Heard, _: int) -> Refusal | None:
        bearer = {"authorization": f"Bearer {heard.token}"}
        answer = httpx2.get(f"{server.url}/api/x", headers=bearer, timeout=40, verify=known)
        return None if answer.status_code == 200 else (answer.status_code, {}, b"no")

    return respond


def crowd(sockets: Sockets, count: int = CROWD) -> list[Job]:
    """Connections whose echoes can be told apart."""
    return [echo(f"{sockets.url}/{number}", str(number)) for number in range(count)]


def own(found: list[Any]) -> list[str]:
    """Whose message each got back."""
    return [outcome.partition(" ")[2] if isinstance(outcome, str) else repr(outcome) for outcome in found]


def names(count: int = CROWD) -> list[str]:
    """What `own` gives when everybody got its own."""
    return [str(number) for number in range(count)]


def reconnecting(uri: str, wanted: int, **options: Any) -> Job:
    """The job to keep connected until that was so *wanted* times; which token each connection carried."""

    async def job(caller: Caller) -> list[str]:
        tokens: list[str] = []
        async with caller.client.each(uri, **options) as connections:
            async for websocket in connections:
                tokens.append((await websocket.echo("x")).partition(" ")[0])
                if len(tokens) == wanted:
                    break
                try:
                    await websocket.recv()
                except ConnectionClosed:
                    continue
        return tokens

    return job


@pytest.mark.contract(1, row=WEBSOCKETS)
def test_expiry_known_to_the_client(server: ServerHandle, sockets: Sockets, cell: Cell) -> None:
    """Scenarios 1 and 2: 50 callers with a token past its time cost one refresh and no refused handshake."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1})
    with dialling(cell, manager) as callers:
        assert own(callers.run(*crowd(sockets))) == names()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, len(sockets.heard)) == (1, 0, CROWD)


@pytest.mark.contract(2, row=WEBSOCKETS)
def test_expiry_only_the_server_knows(
    server: ServerHandle, sockets: Sockets, manager: TokenManager, cell: Cell
) -> None:
    """Scenarios 1, 2 and 36: 50 refused handshakes cost one refresh, and each caller gets its own connection."""
    replays: list[RequestReplayed] = []
    manager.on(RequestReplayed, replays.append)
    sockets.respond = judged_by(server)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with dialling(cell, manager) as callers:
        batch = callers.start(*crowd(sockets, 20))
        server.wait("api_call_held", 5)
        sockets.asked(20)
        server.release("all")
        assert own(outcomes(batch)) == names(20)
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)
    assert {event.origin for event in told(replays)} == {sockets.url.replace("ws", "http")}


@pytest.mark.contract(2, row=WEBSOCKETS)
def test_connections_that_the_server_closes(
    server: ServerHandle, sockets: Sockets, manager: TokenManager, cell: Cell
) -> None:
    """Scenario 1: 50 connections that are closed because the token expired cost one refresh, and are all back then."""
    old = manager.token().access_token
    with dialling(cell, manager) as callers:
        batch = callers.start(*[reconnecting(sockets.url, 2)] * CROWD)
        sockets.wait(CROWD)
        server.expire()
        sockets.close(4401, CROWD, token=old)
        found = outcomes(batch)
    new = manager.token().access_token
    assert new != old
    assert found == [[old, new]] * CROWD
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


@pytest.mark.contract(2, row=WEBSOCKETS)
@pytest.mark.usefixtures("no_pause_passes")
def test_a_server_that_refuses_everything(sockets: Sockets, cell: Cell) -> None:
    """Scenario 36: a refused fresh token is the caller's error, and further refusals of it cost no refresh."""
    sockets.respond = only()

    async def insist(caller: Caller) -> list[int]:
        found = []
        for _ in range(3):
            with pytest.raises(InvalidStatus) as refusal:
                await echo(sockets.url)(caller)
            found.append(refusal.value.response.status_code)
        return found

    manager = counting_manager()
    with dialling(cell, manager) as callers:
        assert callers.run(insist, insist) == [[401] * 3] * 2
    assert len({*sockets.tokens}) == 2


@pytest.mark.contract(3, row=WEBSOCKETS)
def test_late_refusals(sockets: Sockets, cell: Cell) -> None:
    """Scenario 9: handshakes with the old token that are refused after the refresh cost no other one."""
    late = threading.Event()

    def respond(heard: Heard, _: int) -> Refusal | None:
        if heard.token != "t1":
            return None
        if heard.target.startswith("/late"):
            late.wait(BOUND)
        return REFUSED

    sockets.respond = respond
    with dialling(cell, counting_manager()) as callers:
        batch = callers.start(*[echo(f"{sockets.url}/late")] * 4)
        sockets.asked(4)
        assert callers.one(echo(sockets.url)) == "t2 x"
        late.set()
        assert outcomes(batch) == ["t2 x"] * 4


@pytest.mark.contract(3, row=WEBSOCKETS)
def test_late_closes(sockets: Sockets, cell: Cell) -> None:
    """Scenario 9: connections of the old token that are closed after the refresh, one by one, cost no other one."""
    manager = counting_manager()
    with dialling(cell, manager) as callers:
        batch = callers.start(*[reconnecting(f"{sockets.url}/{number}", 2) for number in range(4)])
        sockets.wait(4)
        manager.refresh()
        for left in (4, 3, 2, 1):
            (one, *_) = sockets.wait(left, lambda heard: heard.token == "t1")
            sockets.close_one(3000, one)
            sockets.asked(4 + 5 - left)
        assert outcomes(batch) == [["t1", "t2"]] * 4


@pytest.mark.contract(4, row=WEBSOCKETS)
def test_expired_by_code(sockets: Sockets, cell: Cell) -> None:
    """Scenario 37: a handshake that is answered with 200 and a code for "expired" is sent again, after one refresh."""
    sockets.respond = lambda heard, _: (200, JSON, b'{"code": 40009}') if heard.token == "t1" else None
    with dialling(cell, counting_manager()) as callers:
        found = callers.run(*[echo(sockets.url, scheme=CODES)] * 10)
    assert found == ["t2 x"] * 10


@pytest.mark.contract(4, row=WEBSOCKETS)
@pytest.mark.parametrize("body", [b'{"code": 7}', b'{"code": 40009', b""])
def test_codes_that_are_none(sockets: Sockets, cell: Cell, body: bytes) -> None:
    """Scenarios 38 and 54: other codes and broken JSON are the caller's error, as the client tells it."""
    sockets.respond = lambda _heard, _before: (200, JSON, body)
    with dialling(cell, counting_manager()) as callers:
        with pytest.raises(InvalidStatus) as caught:
            callers.one(echo(sockets.url, scheme=CODES))
        assert (caught.value.response.status_code, bytes(caught.value.response.body or b"")) == (200, body)
    assert sockets.tokens == ["t1"]


@pytest.mark.contract(5, row=WEBSOCKETS)
def test_login_is_over_by_code(sockets: Sockets, cell: Cell) -> None:
    """Scenarios 37 and 48: a code for an invalid login ends the session once, for all, without a refresh."""
    manager = counting_manager(login_url="/")
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    sockets.respond = lambda _heard, _before: (200, JSON, b'{"code": 40005}')
    with dialling(cell, manager) as callers:
        found = callers.run(*[echo(sockets.url, scheme=CODES)] * 10)
    assert {(type(error), error.login_url) for error in found} == {(LoginRequired, "/")}
    assert [event.reason for event in told(ended)] == ["login_required"]
    assert {*sockets.tokens} == {"t1"}


@pytest.mark.contract(6, row=WEBSOCKETS)
def test_refused_refresh(server: ServerHandle, sockets: Sockets, cell: Cell) -> None:
    """Scenarios 48 and 49: when the login is over, refused and ended connections say so, with the way back."""
    manager = manager_for(server, login_url="/login")
    with dialling(cell, manager) as callers:
        batch = callers.start(*[reconnecting(sockets.url, 2)] * 10)
        sockets.wait(10)
        server.revoke_family()
        sockets.respond = only()
        refused = callers.start(*[echo(sockets.url)] * 10)
        sockets.close(4401, 10)
        found = outcomes([*batch, *refused])
    assert {(type(error), error.reason, error.login_url) for error in found} == {(LoginRequired, "refused", "/login")}
    assert server.stats().token_posts == 1


@pytest.mark.contract(6, row=WEBSOCKETS)
def test_hiccup_is_sat_out(server: ServerHandle, sockets: Sockets, manager: TokenManager, cell: Cell) -> None:
    """Scenario 50: after a passing failure the group waits and asks once more, and all 20 callers are connected."""
    manager.login({**server.login(), "expires_in": -1})
    server.faults([{"kind": "429", "retry_after": 0}])
    with dialling(cell, manager) as callers:
        assert own(callers.run(*crowd(sockets, 20))) == names(20)
    assert server.stats().token_posts == 2


@pytest.mark.contract(6, row=WEBSOCKETS)
def test_nobody_is_logged_in(sockets: Sockets, cell: Cell) -> None:
    """Without a login there is no handshake: the caller is told to log in."""
    manager = counting_manager()
    manager.logout()
    with dialling(cell, manager) as callers:
        (error,) = callers.run(echo(sockets.url))
    assert (type(error), error.reason, sockets.heard) == (LoginRequired, "logout", [])


@pytest.mark.contract(7, modes=("asyncio", "trio"), row=WEBSOCKETS)
def test_cancelled_callers(server: ServerHandle, sockets: Sockets, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 57 and 58: cancelling the first caller, and another, changes nothing for the rest nor the refresh."""
    sockets.respond = only()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with dialling(cell, manager) as callers:
        leader = callers.start(*crowd(sockets, 1))
        server.wait("token_request_held")
        others = callers.start(*crowd(sockets, 3))
        sockets.asked(4)
        assert leader[0].cancel()
        assert others[0].cancel()
        sockets.respond = lambda _heard, _before: None
        server.release("refresh")
        found = outcomes([*leader, *others])
        assert found[:2] == ["cancelled"] * 2
        assert own(found[2:]) == ["1", "2"]
    assert server.stats().token_posts == 1


@pytest.mark.contract(7, row=WEBSOCKETS)
def test_impatient_caller(server: ServerHandle, sockets: Sockets, cell: Cell) -> None:
    """Scenario 57: a caller whose time is over gets an error that says so; the refresh it began serves the next."""
    store = MemoryStore()
    manager = manager_for(server, store=store)
    hasty = TokenManager(grant_for(server), store=store, key="alice", wait=0.2)
    sockets.respond = only()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with dialling(cell, hasty) as callers:
        (error,) = callers.run(echo(sockets.url))
        assert type(error) is TemporarilyUnavailable
        server.release("refresh")
        sockets.respond = lambda _heard, _before: None
        assert callers.one(echo(sockets.url, manager=manager)).endswith(" x")
    assert server.stats().token_posts == 1
