"""aiohttp shows its caller addresses, headers and errors in many places: no token stands in any of them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import aiohttp
import pytest

from tests.clients.aiohttp_sessions import Wire, get, run, serving, session
from tests.clients.contract.listener import OK, REFUSED, Heard, Listener
from tests.clients.scripted import counting_manager
from unexpired import InCookie, InHeader, InQuery, Scheme, TokenManager

SECRET = "a-very-marked-token"
EVERYWHERE = Scheme(
    InHeader("Authorization", "Bearer {access_token}"), InHeader("X-Token"), InQuery("token"), InCookie("token")
)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told, and tells what it heard."""
    with Listener() as listening:
        yield listening


@pytest.fixture
def manager() -> TokenManager:
    """Give a manager with a token that is easily found."""
    manager = counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})
    return manager


def shown(error: BaseException) -> str:
    """All that can be seen of an error, and of those behind it."""
    found, seen = "", [error]
    while seen:
        one = seen.pop()
        found += f"{one} {one!r} {one.args} {vars(one)}"
        info = getattr(one, "request_info", None)
        if info is not None:
            found += f"{info.url} {info.real_url} {list(map(str, info.headers.values()))}"
        seen += [behind for behind in (one.__cause__, one.__context__) if behind is not None]
    return found


def carried(heard: Heard) -> list[int]:
    """How often the token came in each place."""
    places = (heard.all("authorization"), heard.all("x-token"), heard.all("cookie"), heard.target)
    return [str(place).count(SECRET) for place in places]


def test_raise_for_status(listener: Listener, manager: TokenManager) -> None:
    """The error of `raise_for_status` knows the request as its caller made it."""
    listener.respond = lambda _heard, _before: (404, {}, b"")

    async def main() -> aiohttp.ClientResponseError:
        async with session(manager, EVERYWHERE, raise_for_status=True) as client:
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await get(client, f"{listener.url}/x?a=1")
            return caught.value

    error = run(main())
    assert [carried(heard) for heard in listener.heard] == [[1, 1, 1, 1]]
    assert str(error.request_info.url) == f"{listener.url}/x?a=1"
    assert SECRET not in shown(error)


def test_too_many_redirects(listener: Listener, manager: TokenManager) -> None:
    """So does the error of a call that is redirected for ever, and each answer in its history."""
    listener.respond = lambda _heard, _before: (307, {"location": "/x"}, b"")

    async def main() -> aiohttp.TooManyRedirects:
        async with session(manager, EVERYWHERE) as client:
            with pytest.raises(aiohttp.TooManyRedirects) as caught:
                await get(client, f"{listener.url}/x", max_redirects=3)
            return caught.value

    error = run(main())
    assert [carried(heard) for heard in listener.heard] == [[1, 1, 1, 1]] * 3
    assert SECRET not in shown(error)
    for answer in error.history:
        assert str(answer.request_info.url) == str(answer.url) == f"{listener.url}/x"
        assert SECRET not in str(list(map(str, answer.request_info.headers.values())))


REPEATED = f"/y?a=%2B&token={SECRET}&b="


@pytest.mark.parametrize("name", ["location", "Location", "URI"])
def test_redirect_that_repeats_the_query(listener: Listener, manager: TokenManager, name: str) -> None:
    """Where an answer leads to, redirect or not, is told without the token, in each way to look at its headers."""
    listener.respond = lambda heard, _: OK if heard.target[1] == "y" else (302, {name: REPEATED, "x-own": "1"}, b"")

    async def main() -> tuple[aiohttp.ClientResponse, ...]:
        async with session(manager, EVERYWHERE) as client:
            answer = await get(client, f"{listener.url}/x")
            return (*answer.history, answer)

    first, last = run(main())
    assert str(last.request_info.url) == str(last.real_url) == f"{listener.url}/y?a=%2B&b="
    assert (first.headers[name], first.headers["x-own"]) == ("/y?a=%2B&b=", "1")
    assert (name.encode(), b"/y?a=%2B&b=") in first.raw_headers
    assert SECRET not in f"{first.headers} {first.raw_headers!r} {vars(first)}"
    assert [carried(heard) for heard in listener.heard] == [[1, 1, 1, 1]] * 2


def test_websocket_along_a_redirect_that_repeats_the_query(listener: Listener, manager: TokenManager) -> None:
    """Scenario 45: a WebSocket's redirect to another origin takes no token along either."""
    with Listener() as there:
        listener.respond = lambda heard, _: (307, {"location": f"{there.url}{heard.target}"}, b"")

        async def main() -> None:
            async with session(manager, EVERYWHERE) as client:
                with pytest.raises(aiohttp.WSServerHandshakeError) as caught:
                    await client.ws_connect(f"{listener.url}/x?a=1")
                assert SECRET not in shown(caught.value)

        run(main())
        (away,) = there.heard
    assert away.target == "/x?a=1"
    assert carried(listener.heard[0]) == [1, 1, 1, 1]
    assert carried(away) == [0, 0, 0, 0]


def test_an_answer_that_is_none(manager: TokenManager) -> None:
    """So does the error for an answer that is not HTTP."""

    async def talk(wire: Wire) -> None:
        assert SECRET in (await wire.head()).splitlines()[0]
        await wire.say(b"what?\r\n\r\n")

    async def main() -> aiohttp.ClientResponseError:
        async with serving(talk) as url, session(manager, EVERYWHERE) as client:
            with pytest.raises(aiohttp.ClientResponseError) as caught:
                await client.post(url)
            return caught.value

    assert SECRET not in shown(run(main()))


def test_no_connection_in_time(listener: Listener, manager: TokenManager) -> None:
    """The error for a connection that does not come about in time names the address without the token."""

    async def main() -> aiohttp.ConnectionTimeoutError:
        # for the second call only: the first may take its time to connect
        timeout = aiohttp.ClientTimeout(connect=0.2)
        async with session(manager, EVERYWHERE, connector=aiohttp.TCPConnector(limit=1)) as client:
            # an answer that is not read keeps the only connection
            listener.respond = lambda _heard, _before: (200, {"content-length": "9"}, b"x")
            held = await client.get(listener.url)
            with pytest.raises(aiohttp.ConnectionTimeoutError) as caught:
                await get(client, f"{listener.url}/x", timeout=timeout)
            held.close()
            return caught.value

    error = run(main())
    assert f"{listener.url}/x" in str(error)
    assert SECRET not in shown(error)


def test_upload_that_breaks_off(manager: TokenManager) -> None:
    """So does the error of the system that ends an upload."""

    async def breaking(request: aiohttp.ClientRequest, _: Any) -> Any:
        raise aiohttp.ClientOSError(32, f"Can not write request body for {request.url}")

    async def main() -> aiohttp.ClientOSError:
        async with session(manager, EVERYWHERE) as client:
            middlewares = [*client._middlewares, breaking]
            with pytest.raises(aiohttp.ClientOSError) as caught:
                await client.post("http://127.0.0.1:9/x?a=1", data=b"x", middlewares=middlewares)
            return caught.value

    error = run(main())
    assert str(error) == "[Errno 32] Can not write request body for http://127.0.0.1:9/x?a=1"
    assert SECRET not in shown(error)


def test_an_error_without_an_address(manager: TokenManager) -> None:
    """An error that says nothing of the request comes through as it is."""

    async def failing(_request: Any, _handler: Any) -> Any:
        raise OSError

    async def main() -> BaseException:
        async with session(manager, EVERYWHERE) as client:
            middlewares = [*client._middlewares, failing]
            with pytest.raises(aiohttp.ClientOSError) as caught:
                await client.post("http://127.0.0.1:9/x", data=b"x", middlewares=middlewares)
            assert isinstance(caught.value.__cause__, OSError)
            return caught.value

    assert SECRET not in shown(run(main()))


def test_traces(listener: Listener, manager: TokenManager) -> None:
    """A trace is told of each sending, with the headers and the address that the caller gave, while it goes on."""
    noted: list[tuple[str, str, dict[str, str]]] = []
    listener.respond = lambda _, before: OK if before else REFUSED
    trace = aiohttp.TraceConfig()

    async def note(_session: Any, _context: Any, one: Any) -> None:
        headers = {name: str(value) for name, value in getattr(one, "headers", {}).items()}
        noted.append((type(one).__name__.removeprefix("TraceRe"), str(one.url), headers))

    for signal in (
        trace.on_request_start,
        trace.on_request_headers_sent,
        trace.on_request_chunk_sent,
        trace.on_response_chunk_received,
        trace.on_request_end,
    ):
        signal.append(note)

    async def main() -> None:
        async with session(manager, EVERYWHERE, trace_configs=[trace]) as client:
            await get(client, f"{listener.url}/x?a=1", "POST", data=b"body", headers={"Authorization": "own"})

    run(main())
    assert [name for name, _, _ in noted] == [
        "questStartParams",
        *["questHeadersSentParams", "questChunkSentParams"] * 2,
        "questEndParams",
        "sponseChunkReceivedParams",
    ]
    assert {url for _, url, _ in noted} == {f"{listener.url}/x?a=1"}
    sent = [headers for name, _, headers in noted if name == "questHeadersSentParams"]
    assert [headers["Authorization"] for headers in sent] == ["own", "own"]
    assert all("X-Token" not in headers and "Cookie" not in headers and "Host" in headers for headers in sent)
    assert SECRET not in str(noted)
    assert [carried(heard) for heard in listener.heard] == [[1, 1, 1, 1], [0, 0, 0, 0]]


@pytest.mark.parametrize("look", ["before", "not"])
def test_an_answer_that_was_looked_at(listener: Listener, manager: TokenManager, look: str) -> None:
    """What a middleware further in was shown of an answer's request is not what the caller is shown."""
    inside: list[str] = []

    async def looking(request: aiohttp.ClientRequest, handler: Any) -> Any:
        answer = await handler(request)
        if look == "before":
            inside.append(str(answer.request_info.url))
        return answer

    async def main() -> aiohttp.ClientResponse:
        async with session(manager, EVERYWHERE) as client:
            return await get(client, f"{listener.url}/x", middlewares=[*client._middlewares, looking])

    answer = run(main())
    assert all(SECRET in url for url in inside)
    assert len(inside) == (look == "before")
    assert str(answer.request_info.url) == f"{listener.url}/x"


def test_the_answer_of_another(listener: Listener, manager: TokenManager) -> None:
    """An answer that a middleware further in has kept of another request is left as it is."""
    kept: list[Any] = []

    async def keeping(request: aiohttp.ClientRequest, handler: Any) -> Any:
        if not kept:
            kept.append(await handler(request))
            await kept[0].read()
        return kept[0]

    async def main() -> list[str]:
        async with session(manager, EVERYWHERE) as client:
            middlewares = [*client._middlewares, keeping]
            return [
                str((await client.get(f"{listener.url}{path}", middlewares=middlewares)).request_info.url)
                for path in ("/x", "/y")
            ]

    assert run(main()) == [f"{listener.url}/x"] * 2
    assert len(listener.heard) == 1


def test_a_cancelled_call(manager: TokenManager) -> None:
    """When a call is cancelled while it is sent, its request is without the token again."""
    requests: list[aiohttp.ClientRequest] = []

    async def stuck(request: aiohttp.ClientRequest, _: Any) -> Any:
        requests.append(request)
        await asyncio.Event().wait()

    async def main() -> None:
        async with session(manager, EVERYWHERE) as client:
            call = client.get("http://127.0.0.1:9/x", middlewares=[*client._middlewares, stuck])
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(call, 0.2)

    run(main())
    (request,) = requests
    assert str(request.url) == "http://127.0.0.1:9/x"
    assert not {"Authorization", "X-Token", "Cookie"} & set(request.headers)
