"""aiohttp: what its middlewares, redirects, timeouts and own ways of authentication have to do with tokens."""

from __future__ import annotations

import asyncio
import gc
import importlib
import sys
import threading
from typing import Any

import aiohttp
import httpx2
import pytest
import requests
from pyreqwest.client import SyncClientBuilder

from tests.clients.aiohttp_sessions import BOUND, Wire, get, response, run, serving, session, token_of
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InCookie, InHeader, Scheme, TokenManager
from unexpired.clients.aiohttp import TokenMiddleware
from unexpired.testing import ServerHandle


def refuse_first(_: Heard, before: int) -> Answer:
    """The first request is refused."""
    return OK if before else REFUSED


@pytest.fixture
def listener() -> Any:
    """Give a server that answers as it is told, and tells what it heard."""
    with Listener() as listening:
        yield listening


def test_wrong_arguments() -> None:
    """What is no manager or no scheme is refused at once, in a sentence that says what is wanted."""
    manager: Any = "t1"
    with pytest.raises(ConfigurationError, match="manager must be a TokenManager, not str"):
        TokenMiddleware(manager)
    scheme: Any = "bearer"
    with pytest.raises(ConfigurationError, match="scheme must be a Scheme"):
        TokenMiddleware(counting_manager(), scheme)


def test_not_in_a_list() -> None:
    """A middleware that is given without a list is told to come in one; it is true like any object."""
    tokens: Any = TokenMiddleware(counting_manager())
    assert tokens

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=tokens) as client:
            await get(client, "http://127.0.0.1:9/")

    with pytest.raises(ConfigurationError, match=r"takes a list, even of one: middlewares=\[TokenMiddleware"):
        run(main())


def test_in_another_client() -> None:
    """In a client that is not aiohttp's it sends nothing, and says where it belongs."""
    tokens: Any = TokenMiddleware(counting_manager())
    with httpx2.Client(auth=tokens) as client, pytest.raises(ConfigurationError, match=r"not httpx2\.Request: give it"):
        client.get("http://127.0.0.1:9/")
    with pytest.raises(ConfigurationError, match="takes requests of aiohttp, not str"):
        tokens("a request", lambda request: request)


def test_in_pyreqwest_and_requests() -> None:
    """The same where another client gives it one argument more, or one less."""
    tokens: Any = TokenMiddleware(counting_manager())
    sentence = r"^TokenMiddleware of unexpired\.clients\.aiohttp takes requests of aiohttp, not {}: give it"
    with (
        SyncClientBuilder().with_middleware(tokens).build() as client,
        pytest.raises(ConfigurationError, match=sentence.format(r"pyreqwest\.SyncConsumedRequest")),
    ):
        client.get("http://127.0.0.1:9/").build().send()
    with pytest.raises(ConfigurationError, match=sentence.format(r"requests\.PreparedRequest")):
        requests.get("http://127.0.0.1:9/", auth=tokens, timeout=BOUND)
    with pytest.raises(ConfigurationError, match="not str"):
        tokens("a request", None, "more")


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without aiohttp the import fails with one sentence that names the extra."""
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    monkeypatch.delitem(sys.modules, "unexpired.clients.aiohttp")
    sentence = (
        r"^unexpired\.clients\.aiohttp needs aiohttp, which is not installed: pip install 'unexpired\[aiohttp\]'$"
    )
    with pytest.raises(ModuleNotFoundError, match=sentence):
        importlib.import_module("unexpired.clients.aiohttp")


def test_names() -> None:
    """The module has its middleware, and a factory of bodies."""
    module: Any = importlib.import_module("unexpired.clients.aiohttp")
    assert sorted(module.__all__) == ["BodyFactory", "TokenMiddleware"]


def test_for_a_resource_keeps_its_kind(listener: Listener, manager: TokenManager) -> None:
    """What is made for another resource is of the same class, and leaves the one that it was made of as it was."""

    class Own(TokenMiddleware):
        pass

    default = manager.token().access_token
    tokens = Own(manager)
    other = tokens.for_resource("https://files.example.com")

    async def main() -> None:
        async with session(manager, middlewares=[tokens]) as client:
            await get(client, listener.url, middlewares=[other])
            await get(client, listener.url)

    run(main())
    assert type(other) is Own
    assert listener.tokens == [manager.token("https://files.example.com").access_token, default]
    assert len(set(listener.tokens)) == 2


def test_among_other_middlewares(listener: Listener) -> None:
    """A middleware outside sees a call once and without a token; one inside sees each sending, the token masked."""
    seen: list[tuple[str, str | None, str]] = []
    listener.respond = refuse_first

    def noting(name: str) -> Any:
        async def note(request: aiohttp.ClientRequest, handler: Any) -> Any:
            seen.append((name, request.headers.get("authorization"), repr(request.headers)))
            answer = await handler(request)
            seen.append((name, answer.request_info.headers.get("authorization"), ""))
            return answer

        return note

    async def main() -> None:
        places = Scheme(InHeader("Authorization", "Bearer {access_token}"), InCookie("token"))
        tokens = TokenMiddleware(counting_manager(), places)
        async with aiohttp.ClientSession(middlewares=[noting("out"), tokens, noting("in")]) as client:
            assert (await get(client, listener.url)).status == 200

    run(main())
    assert [name for name, _, _ in seen] == ["out", "in", "in", "in", "in", "out"]
    assert {token for name, token, _ in seen if name == "out"} == {None}
    assert seen[1][1] == "Bearer t1"
    assert not any("Bearer t" in shown or "token=" in shown for _, _, shown in seen)


def test_own_credentials_give_way(listener: Listener) -> None:
    """Scenario 44: what the caller wrote, or aiohttp for the user in the address, gives way; afterwards it is back."""

    async def main() -> list[str]:
        async with session(counting_manager()) as client:
            basic = await get(client, listener.url.replace("http://", "http://alice:wonderland@"))
            own = await get(client, listener.url, headers=[("Authorization", "Own 1"), ("X-Own", "2")])
            return [answer.request_info.headers["Authorization"] for answer in (basic, own)]

    assert run(main()) == ["Basic YWxpY2U6d29uZGVybGFuZA==", "Own 1"]
    assert listener.tokens == ["t1", "t1"]
    assert listener.heard[1].all("x-own") == ["2"]


def test_several_challenges(listener: Listener) -> None:
    """What expired means may stand in the second of two WWW-Authenticate lines."""
    lines = {"WWW-Authenticate": 'Basic realm="x"', "www-authenticate": 'Bearer error="invalid_token"'}
    listener.respond = lambda _, before: OK if before else (403, lines, b"")

    async def main() -> int:
        async with session(counting_manager()) as client:
            return (await get(client, listener.url)).status

    assert run(main()) == 200
    assert listener.tokens == ["t1", "t2"]


def test_cookies_of_the_jar(listener: Listener) -> None:
    """The session's cookies go along with a token in a cookie, which never gets into the jar."""
    listener.respond = lambda _, before: (200, {"set-cookie": "seen=1"}, b"") if before == 0 else OK

    async def main() -> list[str]:
        jar = aiohttp.CookieJar(unsafe=True)
        async with session(counting_manager(), Scheme(InCookie("token")), cookie_jar=jar) as client:
            for _ in range(2):
                await get(client, listener.url)
        return [cookie.key for cookie in jar]

    assert run(main()) == ["seen"]
    assert [heard.all("cookie") for heard in listener.heard] == [["token=t1"], ["seen=1; token=t1"]]


def test_head(listener: Listener) -> None:
    """A refused answer that has no body is replayed like another, and so is one with a code that cannot be there."""
    listener.respond = lambda _, before: (200 if before else 401, {"content-type": "application/json"}, b"")

    async def main() -> int:
        async with session(counting_manager(), Scheme.bearer(code="code", expired=[1])) as client:
            return (await get(client, listener.url, "HEAD")).status

    assert run(main()) == 200
    assert listener.tokens == ["t1", "t2"]


def test_total_is_for_the_refresh_too(server: ServerHandle, manager: TokenManager) -> None:
    """Aiohttp's `total` is for all that a call takes; when it is over, the refresh goes on for the next caller."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])

    async def main() -> int:
        async with session(manager) as client:
            with pytest.raises(TimeoutError):
                await get(client, f"{server.url}/api/x", timeout=aiohttp.ClientTimeout(total=0.5))
            server.release("refresh")
            return (await get(client, f"{server.url}/api/x")).status

    assert run(main()) == 200
    assert server.stats().token_posts == 1


def test_session_in_each_thread(server: ServerHandle, manager: TokenManager) -> None:
    """Scenario 3: one middleware in sessions of five loops, each in a thread of its own, costs one refresh."""
    tokens = TokenMiddleware(manager)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    found: list[int] = []

    async def main() -> None:
        async with aiohttp.ClientSession(middlewares=[tokens]) as client:
            found.append((await get(client, f"{server.url}/api/x")).status)

    threads = [threading.Thread(target=lambda: run(main())) for _ in range(5)]
    for thread in threads:
        thread.start()
    server.wait("api_call_held", 5)
    server.release("all")
    for thread in threads:
        thread.join(BOUND)
    assert found == [200] * 5
    assert server.stats().token_posts == 1


def test_lost_connections_do_not_multiply() -> None:
    """The client's own second try of a kept connection that died brings the new token, and is one try."""
    heard: list[str | None] = []

    async def talk(wire: Wire) -> None:
        while head := await wire.head():
            heard.append(token_of(head))
            if heard[-1] == "t1":
                await wire.say(response(401))
            elif heard.count("t2") == 1:
                return  # hangs up when the replay has arrived
            else:
                await wire.say(response(200))

    async def main() -> int:
        async with serving(talk) as url, session(counting_manager()) as client:
            return (await get(client, url)).status

    assert run(main()) == 200
    assert heard == ["t1", "t2", "t2"]


@pytest.mark.parametrize("outside", ["plain", "task"])
def test_own_header_along_redirects(listener: Listener, outside: str) -> None:
    """Scenario 45: a call knows where it began, also when a middleware outside sends each hop in a task of its own."""

    async def around(request: aiohttp.ClientRequest, handler: Any) -> Any:
        return await (asyncio.ensure_future(handler(request)) if outside == "task" else handler(request))

    with Listener() as there:
        listener.respond = lambda heard, _: OK if heard.target == "/b" else (307, {"location": f"{there.url}/y"}, b"")
        there.respond = lambda heard, _: (307, {"location": "/z" if heard.target == "/y" else f"{listener.url}/b"}, b"")
        tokens = TokenMiddleware(counting_manager(), Scheme(InHeader("X-Token")))

        async def main() -> list[int]:
            async with aiohttp.ClientSession(middlewares=[around, tokens]) as client:
                answer = await get(client, f"{listener.url}/a")
                # whoever asks for the other origin itself is another matter
                direct = await get(client, f"{there.url}/y", allow_redirects=False)
                return [answer.status, len(answer.history), direct.status]

        assert run(main()) == [200, 3, 307]
        assert [heard.all("x-token") for heard in listener.heard] == [["t1"], ["t1"]]
        assert [heard.all("x-token") for heard in there.heard] == [[], [], ["t1"]]
    gc.collect()
    assert tokens._redirected == {}


def test_redirect_to_a_listed_origin(listener: Listener) -> None:
    """P12: with a list of origins a redirect from elsewhere to one of them gets the token there, and only there."""
    with Listener() as there:
        there.respond = lambda _heard, _before: (307, {"location": f"{listener.url}/x"}, b"")

        async def main() -> int:
            async with session(counting_manager(), Scheme.bearer(origins=[listener.url])) as client:
                return (await get(client, there.url)).status

        assert run(main()) == 200
        assert there.tokens == [None]
    assert listener.tokens == ["t1"]


def test_cancelled_during_the_replay(listener: Listener) -> None:
    """Scenario 58: a caller that is cancelled while its replay is under way leaves its connection closed, no other."""
    held, go = threading.Event(), threading.Event()

    def respond(_: Heard, before: int) -> Answer:
        if before == 1:
            held.set()
            go.wait(BOUND)
        return refuse_first(_, before)

    listener.respond = respond

    async def main() -> int:
        async with session(counting_manager(), connector=aiohttp.TCPConnector(limit=1)) as client:
            task = asyncio.ensure_future(get(client, listener.url))
            await asyncio.to_thread(held.wait, BOUND)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            go.set()
            return (await get(client, listener.url)).status

    assert run(main()) == 200
    assert listener.tokens == ["t1", "t2", "t2"]
