"""The rest of the contract for websockets: where tokens go, what is shown, what the client itself can do."""

from __future__ import annotations

import gc
import logging
import os
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from urllib.parse import parse_qsl, urlsplit

import pytest
from websockets.exceptions import InvalidStatus

from tests.clients.contract.crew import BOUND, Caller, outcomes
from tests.clients.contract.fitting import Cell
from tests.clients.contract.listener import Heard
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager
from tests.clients.sockets import REFUSED, WEBSOCKETS, Refusal, Sockets, dialling, echo, only
from tests.clients.tunnel import Tunnel
from unexpired import InCookie, InHeader, InQuery, Scheme, TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

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


@pytest.fixture
def secure() -> Iterator[Sockets]:
    """Give one that is spoken to over TLS."""
    with Sockets(tls=True) as serving:
        yield serving


def trusting() -> ssl.SSLContext:
    """What takes the tests' own certificate."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


def to(target: str) -> Refusal:
    """The answer that sends a handshake elsewhere."""
    return 307, {"location": target}, b""


def said(heard: Heard) -> str:
    """All that a handshake brought, but for its random key, which may read like a token."""
    words = [f"{name}: {value}" for name, value in heard.headers if name.lower() != "sec-websocket-key"]
    return f"{heard.target} {words}"


@pytest.mark.contract(9, row=WEBSOCKETS)
def test_an_open_connection_is_left_alone(sockets: Sockets, cell: Cell) -> None:
    """Scenario 14: messages flow both ways at once while others are refused, refreshed for, and connected."""
    refreshed = threading.Event()

    async def listen(caller: Caller) -> list[str]:
        async with caller.client.open(sockets.url) as websocket:
            first = await websocket.echo("first")
            await caller.blocking(lambda: refreshed.wait(BOUND))
            return [first, await websocket.echo("second")]

    with dialling(cell, counting_manager()) as callers:
        (listening,) = callers.start(listen)
        sockets.wait(1)
        sockets.respond = only("t2")
        assert callers.run(*[echo(sockets.url)] * 5) == ["t2 x"] * 5
        refreshed.set()
        assert outcomes([listening]) == [["t1 first", "t1 second"]]
    assert sockets.closed(6) == [1000] * 6


@pytest.mark.contract(10, row=WEBSOCKETS)
def test_no_connection_leaks(sockets: Sockets, cell: Cell) -> None:
    """Scenario 43: 1,000 refused handshakes leave no connection, descriptor or thread behind."""
    sockets.respond = lambda _heard, _before: (401, {"www-authenticate": 'DPoP error="use_dpop_nonce"'}, b"no" * 50)

    async def insist(caller: Caller) -> int:
        refused = 0
        for _ in range(50):
            try:
                await echo(sockets.url)(caller)
            except InvalidStatus:
                refused += 1
        return refused

    with dialling(cell, counting_manager()) as callers:
        assert callers.run(*[insist] * 2) == [50] * 2
        before = open_now()
        assert callers.run(*[insist] * 8) == [50] * 8
        until = time.monotonic() + BOUND
        while open_now() > before and time.monotonic() < until:
            gc.collect()
            time.sleep(0.01)
        assert open_now() <= before
        sockets.respond = only("t1")
        assert callers.one(echo(sockets.url)) == "t1 x"
    assert len(sockets.heard) == 1001


def open_now() -> int:
    """How many descriptors and threads there are; both ends of each connection are in this process."""
    named = [thread for thread in threading.enumerate() if "recv_events" in thread.name]
    return len(os.listdir("/dev/fd")) + len(named)


@pytest.mark.contract(11, row=WEBSOCKETS)
def test_redirect_within_the_origin(sockets: Sockets, cell: Cell) -> None:
    """Scenario 45: along a redirect within the origin the token goes on, in each of its places."""
    sockets.respond = lambda heard, _: to("/there?b=2") if heard.target.startswith("/here") else None
    with dialling(cell, counting_manager()) as callers:
        assert callers.one(echo(f"{sockets.url}/here?a=1", scheme=EVERYWHERE)) == "t1 x"
    assert [urlsplit(heard.target).path for heard in sockets.heard] == ["/here", "/there"]
    assert [said(heard).count("t1") for heard in sockets.heard] == [4, 4]


@pytest.mark.contract(11, row=WEBSOCKETS)
@pytest.mark.parametrize("by", ["port", "host"])
def test_redirect_to_another_origin(sockets: Sockets, elsewhere: Sockets, cell: Cell, by: str) -> None:
    """Scenario 45: to another port or host no credential goes along, in none of the places."""
    other = elsewhere if by == "port" else sockets
    target = f"{elsewhere.url}/there" if by == "port" else f"ws://localhost:{sockets.port}/there"
    sockets.respond = lambda heard, _: to(target) if heard.target.startswith("/here") else None
    with dialling(cell, counting_manager()) as callers:
        assert callers.one(echo(f"{sockets.url}/here", scheme=EVERYWHERE)) == "None x"
    assert other.heard[-1].target == "/there"
    assert "t1" not in said(other.heard[-1])


@pytest.mark.contract(11, row=WEBSOCKETS)
def test_redirect_to_another_scheme(
    sockets: Sockets, secure: Sockets, cell: Cell, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 45: from ws to wss no credential goes along; the client itself never goes back."""
    sockets.respond = lambda _heard, _before: to(f"{secure.url}/there")
    context = trusting()
    # The client takes `ssl` for a wss address only, and this one begins at ws.
    monkeypatch.setattr(ssl, "create_default_context", lambda *_, **__: context)
    with dialling(cell, counting_manager()) as callers:
        assert callers.one(echo(sockets.url, scheme=EVERYWHERE)) == "None x"
    assert said(sockets.heard[0]).count("t1") == 4
    assert "t1" not in said(secure.heard[0])


@pytest.mark.contract(11, row=WEBSOCKETS)
def test_redirect_that_repeats_the_query(
    sockets: Sockets, elsewhere: Sockets, cell: Cell, caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 45: a redirect that repeats all that it was asked takes no token elsewhere, and shows none at home."""
    sockets.respond = lambda heard, _: (
        to(heard.target.replace("/x", "/home", 1))
        if heard.target.startswith("/x")
        else to(f"{elsewhere.url}{heard.target.replace('/home', '/away', 1)}")
        if heard.target.startswith("/home?b=2&leave=")
        else None
    )
    caplog.set_level(logging.DEBUG)

    async def ask(caller: Caller, query: str) -> str:
        async with caller.client.open(f"{sockets.url}/x?{query}", scheme=EVERYWHERE) as websocket:
            path: str = websocket.connection.request.path
            return path

    with dialling(cell, counting_manager()) as callers:
        assert callers.one(lambda caller: ask(caller, "b=%20&c")) == "/home?b=%20&c"
        assert callers.one(lambda caller: ask(caller, "b=2&leave=1")) == "/away?b=2&leave=1"
    assert [said(heard).count("t1") for heard in sockets.heard] == [4] * 4
    (away,) = elsewhere.heard
    assert "t1" not in said(away)
    assert "< location: /home?b=%20&c" in caplog.messages
    assert "access_token=t1" not in caplog.text


@pytest.mark.contract(11, row=WEBSOCKETS)
def test_refusal_of_another_origin(sockets: Sockets, elsewhere: Sockets, cell: Cell) -> None:
    """Scenario 45: a 401 or a close from where a redirect led to another origin starts no refresh."""
    sockets.respond = lambda _heard, _before: to(f"{elsewhere.url}/there")
    elsewhere.respond = only()
    manager = counting_manager()
    with dialling(cell, manager) as callers:
        with pytest.raises(InvalidStatus, match="401"):
            callers.one(echo(sockets.url))
        elsewhere.respond = lambda _heard, _before: None

        async def wait_for_the_end(caller: Caller) -> None:
            async with caller.client.open(sockets.url) as websocket:
                await websocket.echo("x")
                with pytest.raises(Exception, match="4401"):
                    await websocket.recv()

        waiting = callers.start(wait_for_the_end)
        elsewhere.close(4401, 1)
        assert outcomes(waiting) == [None]
    assert manager.token().access_token == "t1"


@pytest.mark.contract(11, row=WEBSOCKETS)
def test_named_origins(sockets: Sockets, elsewhere: Sockets, cell: Cell) -> None:
    """P12: with a list of origins the token goes to those only; connections elsewhere need no login."""
    scheme = Scheme.bearer(origins=[sockets.url.replace("ws:", "http:")])
    manager = counting_manager()
    with dialling(cell, manager) as callers:
        assert callers.one(echo(sockets.url, scheme=scheme)) == "t1 x"
        manager.logout()
        assert callers.one(echo(elsewhere.url, scheme=scheme)) == "None x"
    with Sockets(tls=True) as secure, dialling(cell, counting_manager()) as callers:
        named = Scheme.bearer(origins=[secure.url.replace("wss:", "https:")])
        assert callers.one(echo(secure.url, scheme=named, ssl=trusting())) == "t1 x"


@pytest.mark.contract(12, row=WEBSOCKETS)
def test_resource(server: ServerHandle, sockets: Sockets, cell: Cell) -> None:
    """A connection that names a resource gets that resource's own token; the client's own `connect` carries none."""
    manager = manager_for(server)
    with dialling(cell, manager) as callers:
        for resource in (None, "https://api.test/b", "https://api.test/b"):
            callers.one(echo(sockets.url, resource=resource))
        assert callers.one(echo(sockets.url, bare=True)) == "None x"
    first, second, third, bare = sockets.tokens
    assert first == manager.token().access_token
    assert second == third == manager.token("https://api.test/b").access_token != first
    assert (bare, server.stats().token_posts) == (None, 1)


@pytest.mark.contract(13, row=WEBSOCKETS)
def test_what_the_caller_wrote_is_kept(sockets: Sockets, cell: Cell) -> None:
    """Scenario 44: own headers, query and cookies are the same at a replay; a stale token is replaced."""
    sockets.respond = only("t2")
    headers = [("X-Own", "1"), ("X-Own", "2"), ("Cookie", "own=yes; access_token=stale"), ("access_token", "stale")]
    headers += [("Authorization", "Bearer stale"), ("User-Agent", "own/1")]
    with dialling(cell, counting_manager()) as callers:
        uri = f"{sockets.url}/x?a=1%202&access_token=stale&b=%C3%BC%26%3D"
        callers.one(echo(uri, scheme=EVERYWHERE, additional_headers=headers, origin="https://own.test"))
    for heard, token in zip(sockets.heard, ("t1", "t2"), strict=True):
        assert (heard.all("x-own"), heard.all("user-agent")) == (["1", "2"], ["own/1"])
        assert heard.all("origin") == ["https://own.test"]
        assert parse_qsl(urlsplit(heard.target).query) == [("a", "1 2"), ("b", "ü&="), ("access_token", token)]
        assert heard.all("cookie") == [f"own=yes; access_token={token}"]
        assert (heard.token, heard.all("access_token")) == (token, [token])
        assert "stale" not in said(heard)


@pytest.mark.contract(14, row=WEBSOCKETS)
def test_timeout_is_the_callers(sockets: Sockets, cell: Cell) -> None:
    """The client's own timeout is its caller's error as ever: no refresh, no replay, and later handshakes work."""
    release = threading.Event()

    def respond(_heard: Heard, _before: int) -> None:
        release.wait(BOUND)

    sockets.respond = respond
    with dialling(cell, counting_manager()) as callers:
        # long enough for the handshake to arrive, connecting included
        (error,) = callers.run(echo(sockets.url, open_timeout=2.0))
        release.set()
        assert type(error) is TimeoutError
        assert callers.one(echo(sockets.url)) == "t1 x"
    assert sockets.tokens == ["t1", "t1"]


@pytest.mark.contract(14, row=WEBSOCKETS)
def test_timeout_is_not_the_refreshs(server: ServerHandle, sockets: Sockets, manager: TokenManager, cell: Cell) -> None:
    """A refresh may take longer than the client lets one handshake take: its caller is connected all the same."""
    # the timeout leaves a slow machine time to answer each handshake
    server.configure(refresh_latency=3.5)
    sockets.respond = lambda _, before: None if before else REFUSED
    with dialling(cell, manager) as callers:
        assert callers.one(echo(sockets.url, open_timeout=3.0)).endswith(" x")
    assert server.stats().token_posts == 1


@pytest.mark.contract(14, row=WEBSOCKETS)
def test_proxy(sockets: Sockets, cell: Cell) -> None:
    """The client's proxy is asked for a tunnel for the refused handshake and for its replay, and hears no token."""
    sockets.respond = only("t2")
    with Tunnel() as tunnel, dialling(cell, counting_manager()) as callers:
        assert callers.one(echo(sockets.url, proxy=tunnel.url)) == "t2 x"
        asked = tunnel.asked
    assert [one.split()[:2] for one in asked] == [["CONNECT", f"127.0.0.1:{sockets.port}"]] * 2
    assert "Bearer" not in "".join(asked)


@pytest.mark.contract(14, row=WEBSOCKETS)
def test_retries_do_not_multiply(sockets: Sockets, cell: Cell) -> None:
    """The client's loop goes on after a 503 by its own delays; what is refused for good is sent twice, and raised."""
    sockets.respond = lambda _, before: (503, {}, b"") if before < 2 else REFUSED
    delays: list[int] = []

    def at_once() -> Iterator[float]:
        for number in range(9):
            delays.append(number)
            yield 0.0

    async def insist(caller: Caller) -> None:
        async with caller.client.each(sockets.url, reconnect_delays=at_once) as connections:
            async for _ in connections:
                raise AssertionError("nobody lets us in")

    with dialling(cell, counting_manager()) as callers, pytest.raises(InvalidStatus, match="401"):
        callers.one(insist)
    assert sockets.tokens == ["t1", "t1", "t1", "t2"]
    assert len(delays) == 2


@pytest.mark.contract(14, row=WEBSOCKETS)
def test_no_connection(sockets: Sockets, cell: Cell) -> None:
    """Scenario 53: where nobody listens, the client's own error comes through, and no refresh is made of it."""
    with socket.socket() as taken, dialling(cell, counting_manager()) as callers:
        taken.bind(("127.0.0.1", 0))
        (error,) = callers.run(echo(f"ws://127.0.0.1:{taken.getsockname()[1]}/x"))
        assert isinstance(error, OSError)
        assert callers.one(echo(sockets.url)) == "t1 x"


@pytest.mark.contract(15, row=WEBSOCKETS)
def test_nothing_shows_a_token(
    sockets: Sockets, cell: Cell, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """P13: what the client logs at its most talkative, its objects and its errors hold no token."""
    sockets.respond = lambda _, before: None if before == 1 else REFUSED
    manager = counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})
    caplog.set_level(logging.DEBUG)

    async def look(caller: Caller) -> str:
        async with caller.client.open(sockets.url, scheme=EVERYWHERE) as websocket:
            inner = websocket.connection
            return f"{inner!r} {inner.request!r} {inner.request.headers} {inner.response!r} {inner.protocol.uri!r}"

    with dialling(cell, manager) as callers:
        shown = callers.one(look)
        (error,) = callers.run(echo(sockets.url, scheme=EVERYWHERE))
    told = caplog.text + "".join(capfd.readouterr()) + shown + repr(error) + str(vars(error))
    assert said(sockets.heard[0]).count(SECRET) == said(sockets.heard[1]).count("t2") == 4
    assert "GET / HTTP/1.1" in told
    assert SECRET not in told
    # In all the ways it can stand there, because the random words of a handshake may have "t2" in them.
    assert not [form for form in ("Bearer t2", "'t2'", "=t2", ": t2") if form in shown]


@pytest.mark.contract(16, row=WEBSOCKETS)
def test_two_managers(sockets: Sockets, elsewhere: Sockets, cell: Cell) -> None:
    """Two managers serve an origin each, refresh for themselves, and never see each other's token."""
    answer = {"access_token": "b2", "refresh_token": "q2"}
    second = TokenManager(FunctionGrant(lambda _: answer), store=MemoryStore(), key="bob")
    second.login({"access_token": "b1", "refresh_token": "q1"})
    sockets.respond, elsewhere.respond = only("t2"), only("b2")
    with dialling(cell, counting_manager()) as callers:
        found = callers.run(*[echo(sockets.url)] * 5, *[echo(elsewhere.url, manager=second)] * 5)
    assert found == ["t2 x"] * 5 + ["b2 x"] * 5
    assert ({*sockets.tokens}, {*elsewhere.tokens}) == ({"t1", "t2"}, {"b1", "b2"})
