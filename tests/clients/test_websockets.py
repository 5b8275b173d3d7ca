"""What the contract does not see of websockets: close codes, the ends of blocks and loops, misuse, own connections."""

from __future__ import annotations

import asyncio
import importlib
import socket
from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import trio
from websockets.exceptions import ConnectionClosed, ConnectionClosedError, InvalidStatus

from tests.clients.contract.crew import Caller, outcomes, told
from tests.clients.contract.fitting import Cell
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager
from tests.clients.sockets import WEBSOCKETS, Sockets, dialling, echo, only
from unexpired import (
    ConfigurationError,
    InHeader,
    LoginRequired,
    ReplayRefused,
    Scheme,
    TemporarilyUnavailable,
    TokenManager,
)
from unexpired.clients import _websockets_handshakes
from unexpired.clients.websockets import connect, sync_connect
from unexpired.events import FreshTokenRefused, RefreshSucceeded
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle


@pytest.fixture
def sockets() -> Iterator[Sockets]:
    """Give a websocket server."""
    with Sockets() as serving:
        yield serving


@pytest.fixture(params=["threads", "asyncio", "trio"])
def cell(request: pytest.FixtureRequest) -> Cell:
    """Give each kind of `connect`."""
    return Cell(WEBSOCKETS, "connect", request.param)


def refreshes(manager: TokenManager) -> list[RefreshSucceeded]:
    """All refreshes from now on."""
    found: list[RefreshSucceeded] = []
    manager.on(RefreshSucceeded, found.append)
    return found


async def until_closed(caller: Caller, uri: str, **options: Any) -> int:
    """Connect, and stay until the server has closed: the code."""
    async with caller.client.open(uri, **options) as websocket:
        await websocket.echo("x")
        with pytest.raises(ConnectionClosed) as closed:
            await websocket.recv()
    code: int = closed.value.rcvd.code  # type: ignore[union-attr]
    return code


@pytest.mark.parametrize(
    ("code", "options", "expired"),
    [
        (3000, {}, True),
        (4401, {}, True),
        (1008, {}, False),
        (1008, {"expired_close": (1008,)}, True),
        (4401, {"expired_close": ()}, False),
        (1000, {}, False),
        (1011, {}, False),
    ],
)
def test_close_codes(sockets: Sockets, cell: Cell, code: int, options: dict[str, Any], expired: bool) -> None:
    """Closed as expired, a block is left with a newer token; 1008 says "policy", so it means that only if told to."""
    manager = counting_manager()
    with dialling(cell, manager) as callers:
        batch = callers.start(lambda caller: until_closed(caller, sockets.url, **options))
        sockets.close(code, 1)
        assert outcomes(batch) == [code]
    assert manager.token().access_token == ("t2" if expired else "t1")


@pytest.mark.parametrize(("code", "token"), [(4401, "t2"), (1011, "t1")])
def test_what_the_block_raises_comes_through(sockets: Sockets, cell: Cell, code: int, token: str) -> None:
    """The client's `ConnectionClosedError` leaves the block as ever; after an expiry the next token is a newer one."""
    manager = counting_manager()

    async def job(caller: Caller) -> None:
        async with caller.client.open(sockets.url) as websocket:
            await websocket.echo("x")
            await websocket.recv()

    with dialling(cell, manager) as callers:
        batch = callers.start(job)
        sockets.close(code, 1)
        (error,) = outcomes(batch)
        assert type(error) is ConnectionClosedError
        assert str(code) in str(error)
        assert callers.one(echo(sockets.url)) == f"{token} x"


def test_an_error_of_the_block_goes_first(sockets: Sockets, cell: Cell) -> None:
    """What has nothing to do with the connection leaves the block at once: nothing is refreshed before it."""
    manager = counting_manager()
    found = refreshes(manager)

    async def job(caller: Caller) -> None:
        async with caller.client.open(sockets.url) as websocket:
            await websocket.echo("x")
            with pytest.raises(ConnectionClosed):
                await websocket.recv()
            raise KeyError("own")

    with dialling(cell, manager) as callers:
        batch = callers.start(job)
        sockets.close(4401, 1)
        (error,) = outcomes(batch)
    assert type(error) is KeyError
    assert found == []


def test_a_close_of_our_own_is_no_refusal(sockets: Sockets, cell: Cell) -> None:
    """Who closes with such a code itself has not been refused."""
    manager = counting_manager()

    async def job(caller: Caller) -> None:
        async with caller.client.open(sockets.url) as websocket:
            await websocket.close(4401)

    with dialling(cell, manager) as callers:
        callers.one(job)
    assert manager.token().access_token == "t1"


@pytest.mark.usefixtures("no_pause_passes")
def test_a_server_that_closes_fresh_tokens(sockets: Sockets, cell: Cell) -> None:
    """P6: opened and closed as expired each time, the loop raises the client's error after one refresh: no loop."""
    manager = counting_manager()
    refused: list[FreshTokenRefused] = []
    manager.on(FreshTokenRefused, refused.append)
    opened: list[str] = []

    async def job(caller: Caller) -> None:
        async with caller.client.each(sockets.url) as connections:
            async for websocket in connections:
                opened.append(await websocket.echo("x"))
                with pytest.raises(ConnectionClosed):
                    await websocket.recv()

    with dialling(cell, manager) as callers:
        batch = callers.start(job)
        for token in ("t1", "t2"):
            sockets.close(4401, 1, token=token)
        (error,) = outcomes(batch)
        assert (type(error), error.rcvd.code) == (ConnectionClosedError, 4401)
        assert opened == ["t1 x", "t2 x"]
        # in a block it is left as it is: its caller has heard of the close
        batch = callers.start(lambda caller: until_closed(caller, sockets.url))
        sockets.close(4401, 1)
        assert outcomes(batch) == [4401]
    assert manager.token().access_token == "t2"
    assert len(told(refused)) == 1


@pytest.mark.parametrize("how", ["it stood for a while", "it ended well"])
def test_a_connection_that_was_taken_clears_its_server(
    sockets: Sockets, cell: Cell, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that took a token, by ending well or by time, may say "expired" of it later as if for the first time."""
    manager = counting_manager()
    with dialling(cell, manager) as callers:

        def closed(code: int) -> None:
            batch = callers.start(lambda caller: until_closed(caller, sockets.url))
            sockets.close(code, 1)
            assert outcomes(batch) == [code]

        closed(4401)
        if how == "it ended well":
            closed(1000)
        else:
            monkeypatch.setattr(_websockets_handshakes, "_TAKEN_AFTER", 0.0)
        closed(4401)
    assert manager.token().access_token == "t3"


def test_login_is_over_when_the_server_closes(server: ServerHandle, sockets: Sockets, cell: Cell) -> None:
    """Scenario 48: a block whose connection was closed as expired is left with LoginRequired when the login is over."""
    manager = manager_for(server, login_url="/login")
    server.revoke_family()
    with dialling(cell, manager) as callers:
        batch = callers.start(lambda caller: until_closed(caller, sockets.url))
        sockets.close(4401, 1)
        (error,) = outcomes(batch)
    assert (type(error), error.login_url) == (LoginRequired, "/login")
    assert server.stats().token_posts == 1


def test_the_loop_sits_out_what_passes(sockets: Sockets, cell: Cell) -> None:
    """Scenario 50: while no token can be had the loop tries again by the client's delays, as without a network."""
    tries: list[int] = []

    def refresh(_: object) -> dict[str, Any]:
        tries.append(1)
        if len(tries) < 3:
            raise TemporarilyUnavailable("busy", retry_after=0.01)
        return {"access_token": "t2", "refresh_token": "r2"}

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice", patience=0.0)
    manager.login({"access_token": "t1", "refresh_token": "r1"})
    sockets.respond = only("t2")

    def delays() -> Iterator[float]:
        while True:
            yield 0.02

    async def job(caller: Caller, **options: Any) -> str:
        async with caller.client.each(sockets.url, **options) as connections:
            async for websocket in connections:
                answer: str = await websocket.echo("x")
                return answer
        raise AssertionError("no connection")

    with dialling(cell, manager) as callers:
        (error,) = callers.run(lambda caller: job(caller, process_exception=lambda error: error))
        assert type(error) is TemporarilyUnavailable
        assert callers.one(lambda caller: job(caller, reconnect_delays=delays)) == "t2 x"
    assert len(tries) == 3


def test_the_loop_raises_what_the_caller_makes_of_it(sockets: Sockets, cell: Cell) -> None:
    """`process_exception` of the caller's own decides, and may name another error."""
    sockets.respond = only()

    def rename(error: Exception) -> Exception:
        return KeyError(type(error).__name__)

    async def job(caller: Caller) -> None:
        async with caller.client.each(sockets.url, process_exception=rename) as connections:
            async for _ in connections:
                raise AssertionError("nobody lets us in")

    with dialling(cell, counting_manager()) as callers:
        (error,) = callers.run(job)
    assert repr(error) == "KeyError('InvalidStatus')"
    assert isinstance(error.__cause__, InvalidStatus)


def test_delays_that_end(sockets: Sockets) -> None:
    """In threads the loop ends with its delays, by the error of the last attempt."""
    sockets.respond = lambda _, before: (503, {}, str(before).encode())
    dialled = sync_connect(counting_manager(), sockets.url, proxy=None, reconnect_delays=lambda: iter([0.0, 0.0]))
    with pytest.raises(InvalidStatus, match="503") as raised:
        next(iter(dialled))
    assert raised.value.response.body == b"2"
    assert len(sockets.heard) == 3


def test_leaving_the_loop_ends_the_connection(sockets: Sockets, cell: Cell) -> None:
    """Broken off and closed, a loop leaves nothing behind, and an expired close that nobody saw is left to the next."""
    manager = counting_manager()

    async def job(caller: Caller) -> str:
        async with caller.client.each(sockets.url) as connections:
            async for websocket in connections:
                answer: str = await websocket.echo("x")
                await caller.blocking(lambda: sockets.close(4401, 1))
                return answer
        raise AssertionError("no connection")

    with dialling(cell, manager) as callers:
        assert callers.one(job) == "t1 x"
    assert manager.token().access_token == "t1"


def test_own_connections(sockets: Sockets, cell: Cell) -> None:
    """The caller's own `create_connection`, class or function, makes the connections, and they carry the token."""
    made: list[Any] = []
    homes = {"threads": "sync", "asyncio": "asyncio", "trio": "trio"}
    base: Any = importlib.import_module(f"websockets.{homes[cell.mode]}.client").ClientConnection

    class Own(base):  # type: ignore[misc]  # one of three
        def __init__(self, *parts: Any, **settings: Any) -> None:
            made.append(self)
            super().__init__(*parts, **settings)

    with dialling(cell, counting_manager()) as callers:
        assert callers.one(echo(sockets.url, create_connection=Own)) == "t1 x"
        assert callers.one(echo(sockets.url, create_connection=partial(Own))) == "t1 x"
    assert [type(one) for one in made] == [Own, Own]


def test_a_socket_of_the_callers_own(sockets: Sockets, cell: Cell) -> None:
    """P11: the caller's own socket serves for one handshake: a replay is refused, clearly, and the token is fresh."""
    sockets.respond = only("t2")
    manager = counting_manager()

    async def job(caller: Caller) -> str:
        if cell.mode == "trio":
            own: dict[str, Any] = {"stream": await trio.open_tcp_stream("127.0.0.1", sockets.port)}
        else:
            own = {"sock": socket.create_connection(("127.0.0.1", sockets.port))}
        answer: str = await echo(sockets.url, **own)(caller)
        return answer

    with dialling(cell, manager) as callers:
        (error,) = callers.run(job)
        assert type(error) is ReplayRefused
        assert (error.key, "connect again" in str(error)) == ("alice", True)
        assert callers.one(job) == "t2 x"
    assert sockets.tokens == ["t1", "t2"]


def test_awaited(sockets: Sockets) -> None:
    """`await connect(…)` connects, with a replay; the connection is then its caller's to close."""
    sockets.respond = only("t2")

    async def main() -> str:
        websocket = await connect(counting_manager(), sockets.url, proxy=None)
        await websocket.send("x")
        answer = str(await websocket.recv())
        await websocket.close()
        return answer

    assert asyncio.run(main()) == "t2 x"


def test_one_connection_at_a_time(sockets: Sockets) -> None:
    """A `sync_connect` is for one connection, then for the next: entered twice it says so."""
    dialled = sync_connect(counting_manager(), sockets.url, proxy=None)
    with dialled as first:
        with pytest.raises(ConfigurationError, match="one connection at a time"):
            dialled.__enter__()
        first.send("x")
        assert first.recv() == "t1 x"
    with dialled as second:
        assert second is not first


def test_a_token_that_does_not_fit_the_scheme(sockets: Sockets, cell: Cell) -> None:
    """What the token lacks for its place is said before the handshake, without the token."""
    scheme = Scheme(InHeader("x-id", "{id_token}"))
    with dialling(cell, counting_manager()) as callers:
        (error,) = callers.run(echo(sockets.url, scheme=scheme))
    assert type(error) is ConfigurationError
    assert "id_token" in str(error)
    assert sockets.heard == []
