"""What answers mean, and what becomes of their bodies: codes are found, streams stay streams, connections are freed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest

from tests.clients.contract.crew import BOUND, CROWD, Caller, crew, gathered, get, outcomes, statuses, told
from tests.clients.contract.fitting import Body, Cell, Reply
from tests.clients.contract.listener import OK, Answer, Heard, Listener
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager, left_behind
from unexpired import LoginRequired, Scheme, TokenManager
from unexpired.events import SessionEnded
from unexpired.testing import ServerHandle, _connection

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], login_required=[40005, 40003], ok=[0])


@pytest.mark.contract(4)
@pytest.mark.parametrize("code", ["40009", '"40009"'])
def test_expired_by_code(server: ServerHandle, manager: TokenManager, cell: Cell, code: str) -> None:
    """Scenario 37: a code in a 200 body, as number or string, refreshes and replays."""
    body = f'{{"code": {code}, "msg": "expired"}}'
    server.api_faults([{"kind": "status", "code": 200, "headers": JSON, "body": body, "times": 1}])
    with crew(cell, manager, CODES) as callers:
        assert json.loads(callers.send(f"{server.url}/api/x?n=4").body)["n"] == "4"
    assert server.stats().token_posts == 1


@pytest.mark.contract(4)
def test_burst_of_codes(listener: Listener, cell: Cell) -> None:
    """Scenario 37: 50 callers whose 200 says "expired" cost one refresh, and each is served."""

    def respond(heard: Heard, _: int) -> Answer:
        return 200, JSON, b'{"code": 40009}' if heard.token == "t1" else b'{"code": 0, "data": 7}'

    listener.respond = respond
    with crew(cell, counting_manager(), CODES) as callers:
        found = callers.run(*[get(f"{listener.url}/x")] * CROWD)
    assert {reply.body for reply in found} == {b'{"code": 0, "data": 7}'}
    assert set(listener.tokens) == {"t1", "t2"}


@pytest.mark.contract(4)
@pytest.mark.parametrize("body", ['{"code": 7, "x": {"code": 40009}}', '{"code": 40009', "40009", ""])
def test_codes_that_are_none(server: ServerHandle, manager: TokenManager, cell: Cell, body: str) -> None:
    """Scenarios 38 and 54: other codes, broken JSON and no JSON start no refresh and come on as they are."""
    server.api_faults([{"kind": "status", "code": 200, "body": body, "headers": JSON}])
    with crew(cell, manager, CODES) as callers:
        assert callers.send(f"{server.url}/api/x").body == body.encode()
    assert server.stats().token_posts == 0


@pytest.mark.contract(5)
@pytest.mark.parametrize("code", [40005, 40003])
def test_login_is_over_by_code(server: ServerHandle, cell: Cell, code: int) -> None:
    """Scenarios 37 and 48: a code for an invalid login ends the session once, for all, without a refresh."""
    manager = manager_for(server, login_url="/")
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    server.api_faults([{"kind": "status", "code": 200, "headers": JSON, "body": f'{{"code": {code}}}'}])
    with crew(cell, manager, CODES) as callers:
        found = callers.run(*[get(f"{server.url}/api/x")] * 10)
    assert {type(error) for error in found} == {LoginRequired}
    assert {error.login_url for error in found} == {"/"}
    assert [event.reason for event in told(ended)] == ["login_required"]
    assert server.stats().token_posts == 0


@pytest.mark.contract(5)
def test_over_for_an_old_token(listener: Listener, cell: Cell) -> None:
    """P2: an invalid login said of an older token is no end: the call is replayed with the newer one."""
    manager = counting_manager()

    def respond(_: Heard, before: int) -> Answer:
        if before == 0:
            manager.refresh("t1")
        return 200, JSON, b'{"code": 0}' if before else b'{"code": 40005}'

    listener.respond = respond
    with crew(cell, manager, CODES) as callers:
        assert callers.send(f"{listener.url}/x").body == b'{"code": 0}'
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.contract(9)
@pytest.mark.parametrize("kind", ["application/octet-stream", "application/json"])
def test_download(server: ServerHandle, manager: TokenManager, cell: Cell, kind: str) -> None:
    """A streamed download is whole after a refusal, whether or not its type makes it worth a look."""
    server.expire()

    async def job(caller: Caller) -> bytes:
        async with caller.stream(f"{server.url}/api/stream?chunks=300&size=1000&type={kind}") as response:
            return await gathered(response.chunks)

    with crew(cell, manager, CODES) as callers:
        assert callers.one(job) == b"".join(bytes([number % 256]) * 1000 for number in range(300))
    assert server.stats().token_posts == 1


@pytest.mark.contract(9)
def test_events_stay_a_stream(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """An event stream is not sniffed: its first event is here before the second is sent."""

    async def job(caller: Caller) -> list[bytes]:
        events = []
        async with caller.stream(f"{server.url}/api/events?name=second") as response:
            async for chunk in response.chunks:
                events.append(chunk)
                await caller.blocking(lambda: server.release("second"))
        return events

    with crew(cell, manager, CODES) as callers:
        assert callers.one(job) == [b"data: first\n\n", b"data: second\n\n"]


@pytest.mark.contract(9)
def test_first_piece_is_not_held_back(listener: Listener, cell: Cell) -> None:
    """A body that shows its code at the start is handed on at once, before the rest of it exists."""
    first, second, got = b'{"code": 0, "data": [1', b",2]}", threading.Event()
    in_time: list[bool] = []

    def pieces() -> Iterator[bytes]:
        yield first
        in_time.append(got.wait(BOUND))
        yield second

    listener.respond = lambda _heard, _before: (200, JSON, pieces())

    async def job(caller: Caller) -> bytes:
        whole = b""
        async with caller.stream(f"{listener.url}/x") as response:
            async for chunk in response.chunks:
                whole += chunk
                got.set()
        return whole

    with crew(cell, counting_manager(), CODES) as callers:
        assert callers.one(job) == first + second
    assert in_time == [True]


@pytest.mark.contract(10)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_a_refusal_without_a_body(cell: Cell, method: str) -> None:
    """Nothing comes after its head, so nobody waits for it: the replay goes out at once, over the same connection."""
    refusal: Answer = (401, {"content-length": "5"} if method == "HEAD" else {}, b"")
    with (
        Listener(respond=lambda heard, _: refusal if heard.token == "t1" else (204, {}, b"")) as there,
        crew(cell, counting_manager()) as callers,
    ):
        began = time.monotonic()
        assert callers.send(f"{there.url}/x", method).status == 204
        # Where there is something to wait for, that is 25 s here.
        assert time.monotonic() - began < 15.0
    assert (there.tokens, there.connections) == (["t1", "t2"], 1)


@pytest.mark.contract(10)
def test_connection_is_used_again(
    server: ServerHandle, manager: TokenManager, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 43: a refused answer is read to its end, so the replay goes over the same connection."""
    made: list[object] = []
    real = _connection._Protocol.connection_made

    def count(self: Any, transport: Any) -> None:
        made.append(transport)
        real(self, transport)

    server.expire()
    monkeypatch.setattr(_connection._Protocol, "connection_made", count)
    with crew(cell, manager) as callers:

        async def twice(caller: Caller) -> list[int]:
            body = Body("bytes", b"x" * 5000)
            return [(await caller.send(f"{server.url}/api/echo", "POST", body)).status for _ in range(2)]

        assert callers.one(twice) == [200, 200]
    # one for the API calls, one for the token call
    assert len(made) == 2


@pytest.mark.contract(10)
def test_no_connection_leaks(listener: Listener, cell: Cell) -> None:
    """Scenario 43: 1,000 refused calls through a pool of five connections leave none of them behind."""

    def respond(heard: Heard, before: int) -> Answer:
        # each call is refused once, a tenth of them as expired, and its replay is served
        nonce = {} if before % 20 == 0 else {"www-authenticate": 'DPoP error="use_dpop_nonce"'}
        return (200, JSON, heard.target.encode()) if before % 2 else (401, nonce, b"no" * 50)

    listener.respond = respond

    async def one_by_one(caller: Caller, numbers: range) -> int:
        served = 0
        for number in numbers:
            reply = await caller.send(f"{listener.url}/{number}")
            served += reply.status == 200 and reply.body == f"/{number}".encode()
        return served

    with crew(cell, counting_manager(), connections=5) as callers:
        # in parts, so that each has `BOUND` for itself: a slow machine may need longer for them all
        parts = [range(first, first + 100) for first in range(0, 1000, 100)]
        assert sum(callers.one(partial(one_by_one, numbers=part)) for part in parts) == 1000
        assert len(listener.heard) == 2000
        assert listener.connections == 1
        assert len(set(listener.tokens)) == 101
        # all of the pool is still there for five callers at once
        listener.respond = lambda _heard, _before: OK
        assert statuses(callers.run(*[get(f"{listener.url}/late")] * 5)) == [200] * 5
    assert listener.connections <= 5


@pytest.mark.contract(10)
def test_refused_burst_through_a_small_pool(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 14 and 43: callers that wait for a refresh hold no connection, so a full pool lets others through."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with crew(cell, manager, connections=1) as callers:
        refused = callers.start(lambda caller: caller.send(f"{server.url}/api/x", "POST", Body("json", {})))
        server.wait("token_request_held")
        passed: Reply = callers.send(f"{server.url}/open/x", authenticated=False)
        server.release("refresh")
        assert statuses([passed, *outcomes(refused)]) == [200, 200]
    assert server.stats().token_posts == 1


@left_behind
@pytest.mark.contract(10)
def test_the_last_answer_is_whole(listener: Listener, cell: Cell) -> None:
    """Scenarios 36 and 43: a refusal that is the last answer reaches its caller whole, however long it is."""
    body = b"no" * 100_000
    listener.respond = lambda _heard, _before: (401, {}, body)
    with crew(cell, counting_manager()) as callers:
        reply = callers.send(f"{listener.url}/x")
    assert (reply.status, reply.body) == (401, body)
    assert len(listener.heard) == 2


@left_behind
@pytest.mark.contract(10)
def test_a_refusal_that_breaks_off(listener: Listener, cell: Cell) -> None:
    """A refusal whose body never arrives whole is a refusal all the same: one refresh, and the replay is served."""
    broken = {"content-length": "9", "connection": "close"}
    listener.respond = lambda heard, _: (401, broken, b"no") if heard.token == "t1" else OK
    with crew(cell, counting_manager()) as callers:
        assert statuses(callers.run(*[get(f"{listener.url}/x")] * 5)) == [200] * 5
    assert set(listener.tokens) == {"t1", "t2"}
