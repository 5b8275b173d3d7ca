"""aiohttp's WebSockets: the request that opens one carries the token, and is sent again when it is refused."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from tests.clients.aiohttp_sessions import run, session
from tests.clients.scripted import counting_manager
from unexpired import InCookie, InHeader, InQuery, LoginRequired, Scheme
from unexpired.clients.aiohttp import TokenMiddleware

PLACES: dict[str, Any] = {
    "header": InHeader("Authorization", "Bearer {access_token}"),
    "custom": InHeader("X-Token"),
    "query": InQuery("token"),
    "cookie": InCookie("token"),
}


class Echo:
    """A server of WebSockets that says everything back, to who brings a token that is good."""

    def __init__(self, good: str = "t2") -> None:
        self.good = good
        self.seen: list[list[str]] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """Refuse, or open the WebSocket."""
        found = [
            request.headers.get("Authorization", "").removeprefix("Bearer "),
            request.headers.get("X-Token", ""),
            request.query.get("token", ""),
            request.cookies.get("token", ""),
        ]
        self.seen.append(found)
        if self.good not in found:
            return web.Response(status=401, text="not with this token")
        socket = web.WebSocketResponse(protocols=["chat"])
        await socket.prepare(request)
        async for message in socket:
            await socket.send_str(f"{request.query.get('n', '')}{message.data}")
        return socket

    @asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        """Serve; the address."""
        app = web.Application()
        app.router.add_get("/ws", self.answer)
        app.router.add_get("/away", self.away)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"ws://127.0.0.1:{runner.addresses[0][1]}"
        try:
            yield self.url
        finally:
            await runner.cleanup()

    async def away(self, request: web.Request) -> web.Response:
        """Redirect to where the query says."""
        raise web.HTTPTemporaryRedirect(request.query["to"])


async def said(client: aiohttp.ClientSession, url: str, **options: Any) -> str:
    """What comes back for a word."""
    async with client.ws_connect(url, **options) as socket:
        await socket.send_str("hello")
        return (await socket.receive(timeout=20)).data  # type: ignore[no-any-return]


@pytest.mark.parametrize("place", PLACES)
def test_refused_upgrade(place: str) -> None:
    """Scenario 47: an upgrade that is refused is asked for again with the new token, in each of its places."""
    echo = Echo()

    async def main() -> str:
        async with echo.running() as url, session(counting_manager(), Scheme(PLACES[place])) as client:
            return await said(client, f"{url}/ws?n=1", protocols=["chat"])

    assert run(main()) == "1hello"
    where = list(PLACES).index(place)
    assert [[bool(one) for one in found] for found in echo.seen] == [[at == where for at in range(4)]] * 2
    assert [found[where] for found in echo.seen] == ["t1", "t2"]


def test_burst_of_upgrades() -> None:
    """Scenarios 2 and 47: 30 WebSockets that are refused at once cost one refresh, and each is its caller's own."""
    echo, manager = Echo(), counting_manager()

    async def main() -> list[str]:
        async with echo.running() as url, session(manager) as client:
            return await asyncio.gather(*[said(client, f"{url}/ws?n={number}") for number in range(30)])

    assert run(main()) == [f"{number}hello" for number in range(30)]
    assert {found[0] for found in echo.seen} == {"t1", "t2"}
    assert manager.token().access_token == "t2"


def test_refused_for_good() -> None:
    """What is refused with a fresh token, too, is aiohttp's own error, in which no token stands."""
    echo = Echo("none")
    scheme = Scheme(*PLACES.values())

    async def main() -> aiohttp.WSServerHandshakeError:
        async with echo.running() as url, session(counting_manager(), scheme) as client:
            with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                await said(client, f"{url}/ws?n=1")
            return caught.value

    error = run(main())
    assert error.status == 401
    assert echo.seen == [["t1"] * 4, ["t2"] * 4]
    assert str(error.request_info.url) == str(error.request_info.real_url) == f"{echo.url}/ws?n=1"
    shown = f"{error} {error!r} {list(map(str, error.request_info.headers.values()))}"
    assert "t1" not in shown
    assert "t2" not in shown


def test_login_is_over() -> None:
    """Without a login no WebSocket is asked for: its caller is told to log in."""
    echo, manager = Echo(), counting_manager()
    manager.logout()

    async def main() -> None:
        async with echo.running() as url, session(manager) as client:
            with pytest.raises(LoginRequired):
                await said(client, f"{url}/ws")

    run(main())
    assert echo.seen == []


def test_code_scheme_leaves_frames_alone() -> None:
    """A scheme that looks into bodies does not look at what comes over a WebSocket."""
    echo = Echo("t1")

    async def main() -> str:
        async with (
            echo.running() as url,
            session(counting_manager(), Scheme.bearer(code="code", expired=[1])) as client,
        ):
            return await said(client, f"{url}/ws")

    assert run(main()) == "hello"


def test_origin_of_a_websocket() -> None:
    """P12: ``ws:`` is the origin that ``http:`` with the same host and port is, in a list and along a redirect."""
    echo, other = Echo("t1"), Echo("t1")

    async def main() -> None:
        async with echo.running() as url, other.running() as elsewhere:
            home = url.replace("ws:", "http:")
            limited = TokenMiddleware(counting_manager(), Scheme.bearer(origins=[home]))
            async with aiohttp.ClientSession(middlewares=[limited]) as client:
                assert await said(client, f"{url}/ws") == "hello"
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await said(client, f"{elsewhere}/ws")
            async with session(counting_manager(), Scheme(PLACES["custom"])) as client:
                assert await said(client, f"{url}/away?to={home}/ws") == "hello"
                with pytest.raises(aiohttp.WSServerHandshakeError):
                    await said(client, f"{url}/away?to={elsewhere.replace('ws:', 'http:')}/ws")

    run(main())
    assert [found[:2] for found in echo.seen] == [["t1", ""], ["", "t1"]]
    assert other.seen == [[""] * 4] * 2


def test_second_session_on_the_same_connections() -> None:
    """A WebSocket without a token, or with another's, comes from a second session on the same connector."""
    echo = Echo("t1")

    async def main() -> None:
        async with (
            echo.running() as url,
            session(counting_manager()) as client,
            aiohttp.ClientSession(connector=client.connector, connector_owner=False) as public,
        ):
            with pytest.raises(aiohttp.WSServerHandshakeError):
                await said(public, f"{url}/ws")
            assert await said(client, f"{url}/ws") == "hello"

    run(main())
    assert [found[0] for found in echo.seen] == ["", "t1"]
