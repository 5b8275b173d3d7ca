"""pyreqwest: what becomes of a token, and of a request, along redirects."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pyreqwest.exceptions import RedirectError
from pyreqwest.multipart import FormBuilder

from tests.clients.contract.crew import BOUND
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.pyreqwest_clients import Kind, each_kind, pieces, sent
from tests.clients.scripted import counting_manager
from unexpired import InCookie, InHeader, InQuery, Scheme
from unexpired.clients.pyreqwest import token_client

EVERYWHERE = Scheme(InHeader("X-Token"), InQuery("token"), InCookie("token"))
COMPARED = ("content-type", "content-language", "x-own", "authorization", "cookie")


@pytest.fixture(name="listener")
def _listener() -> Iterator[Listener]:
    with Listener() as listening:
        yield listening


@pytest.fixture(name="other", params=["http", "https"])
def _other(request: pytest.FixtureRequest) -> Iterator[Listener]:
    with Listener(tls=request.param == "https") as listening:
        yield listening


def to(url: str, status: int = 302) -> Any:
    """Redirect what asks for ``/x``."""
    return lambda heard, _: (status, {"location": url}, b"") if heard.target.startswith("/x") else OK


@each_kind
def test_middleware_and_the_clients_own_redirects(listener: Listener, other: Listener, kind: str) -> None:
    """Scenario 45: the token of a middleware goes along pyreqwest's own redirects at home, and not elsewhere."""
    each = Kind(kind)

    async def job() -> list[int]:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            found = []
            for url in ("/y", f"{other.url}/y", f"http://localhost:{listener.port}/y"):
                listener.respond = to(url)
                found.append((await sent(client.get(f"{listener.url}/x")))[0])
            return found

    assert each.run(job) == [200] * 3
    assert listener.tokens == ["t1", "t1", "t1", "t1", None]
    assert other.tokens == [None]


@each_kind
def test_redirects_of_a_client_that_follows_none(listener: Listener, kind: str) -> None:
    """Who follows no redirects gets them: from a middleware, and from `token_client` with ``max_redirects=0``."""
    each = Kind(kind)
    listener.respond = to("/y")

    async def job() -> list[int]:
        plain = each.builder().follow_redirects(False).with_middleware(each.tokens(counting_manager())).build()
        found = []
        for client in (plain, token_client(each.builder(), counting_manager(), max_redirects=0)):
            async with each.opened(client):
                found.append((await sent(client.get(f"{listener.url}/x")))[0])
        return found

    assert each.run(job) == [302, 302]
    assert listener.tokens == ["t1", "t1"]


@each_kind
def test_what_the_builder_said_of_redirects(listener: Listener, other: Listener, kind: str) -> None:
    """P12: `token_client` follows redirects itself, whatever the builder was told: no place shows a token elsewhere."""
    each = Kind(kind)
    listener.respond = to(f"{other.url}/y")

    async def job() -> int:
        builder = each.builder().follow_redirects(True).max_redirects(5).referer(True)
        async with each.opened(token_client(builder, counting_manager(), EVERYWHERE)) as client:
            return (await sent(client.get(f"{listener.url}/x")))[0]

    assert each.run(job) == 200
    assert "t1" in listener.heard[0].target
    assert "t1" not in f"{other.heard[0].target} {other.heard[0].headers}"


@each_kind
@pytest.mark.parametrize("status", [301, 302, 303, 307, 308, 300, 304])
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT"])
def test_redirects_are_followed_as_pyreqwest_does(listener: Listener, kind: str, method: str, status: int) -> None:
    """With `token_client` the redirected request is the one that the client alone would make, at home and elsewhere."""
    each = Kind(kind)

    def asked(client: Any) -> Any:
        request = client.request(method, f"{listener.url}/x").header("content-language", "de").header("x-own", "1")
        request.header("authorization", "Basic own").header("cookie", "own=1").extensions(
            {"unexpired.authenticated": False}
        )
        return request.form({"a": "1"}) if method in ("POST", "PUT") else request

    async def job() -> list[int]:
        found = []
        for client in (each.builder().build(), token_client(each.builder(), counting_manager())):
            async with each.opened(client):
                for url in ("/y?b=1#c", f"http://localhost:{listener.port}/y"):
                    listener.respond = to(url, status)
                    found.append((await sent(asked(client)))[0])
        return found

    def told(heard: Heard) -> Any:
        return heard.method, heard.target, heard.sha256, heard.length, [heard.all(name) for name in COMPARED]

    found = each.run(job)
    half = len(listener.heard) // 2
    assert found[:2] == found[2:]
    assert [told(heard) for heard in listener.heard[:half]] == [told(heard) for heard in listener.heard[half:]]
    assert half == (2 if status in (300, 304) else 4)


@each_kind
@pytest.mark.parametrize("location", [None, "http://[bad", "\xff\xfe"])
def test_redirect_that_leads_nowhere(listener: Listener, kind: str, location: str | None) -> None:
    """A redirect without an address that can be read is the caller's answer, as it is without us."""
    each = Kind(kind)
    listener.respond = lambda _heard, _before: (302, {} if location is None else {"location": location}, b"here")

    async def job() -> list[tuple[int, bytes]]:
        found = []
        for client in (each.builder().build(), token_client(each.builder(), counting_manager())):
            async with each.opened(client):
                found.append(await sent(client.get(f"{listener.url}/x")))
        return found

    assert each.run(job) == [(302, b"here")] * 2


@each_kind
def test_too_many_redirects(listener: Listener, kind: str) -> None:
    """One redirect too many is the client's own error, which shows no token."""
    each = Kind(kind)
    listener.respond = lambda _heard, _before: (302, {"location": "/x"}, b"")

    async def job() -> list[RedirectError]:
        mine = token_client(each.builder(), counting_manager(), EVERYWHERE, max_redirects=3)
        found = []
        for client in (each.builder().max_redirects(3).build(), mine):
            async with each.opened(client):
                with pytest.raises(RedirectError) as caught:
                    await sent(client.get(f"{listener.url}/x"))
                found.append(caught.value)
        return found

    own, ours = each.run(job)
    assert ours.message == own.message
    assert ours.details["causes"][-1] == own.details["causes"][-1]
    assert len(listener.heard) == 8
    assert "t1" not in f"{ours!r}"


@each_kind
@pytest.mark.parametrize(("status", "form", "found"), [(303, False, 200), (307, False, 307), (303, True, 303)])
def test_redirect_of_a_body_that_is_sent_once(
    listener: Listener, kind: str, status: int, form: bool, found: int
) -> None:
    """A body that can be read once is not sent to a second address; a form of pyreqwest's own leads nowhere else."""
    each = Kind(kind)
    listener.respond = to("/y", status)

    async def job() -> int:
        async with each.opened(token_client(each.builder(), counting_manager())) as client:
            request = client.post(f"{listener.url}/x").header("x-own", "1")
            body = (piece for piece in (b"one", b"two"))
            request = request.multipart(FormBuilder().text("a", "1")) if form else request.body_stream(body)
            return (await sent(request))[0]

    assert each.run(job) == found
    assert [heard.method for heard in listener.heard] == (["POST", "GET"] if found == 200 else ["POST"])
    assert listener.heard[-1].all("x-own") == ["1"]
    assert (listener.heard[-1].length == 0) == (found == 200)


@each_kind
def test_redirect_whose_body_does_not_end(listener: Listener, kind: str) -> None:
    """Scenario 43: the answer of a hop is let go, for a stream too: a pool of one goes on to the next hop."""
    each, over = Kind(kind), threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"moved"
        over.wait(BOUND)

    def respond(heard: Heard, before: int) -> Answer:
        answers: list[Answer] = [(302, {"location": "/y"}, endless()), REFUSED]
        return answers[before] if before < 2 else (200, {}, iter([b"first", heard.target.encode()]))

    listener.respond = respond

    async def job() -> bytes:
        builder = each.builder().max_connections(1)
        async with each.opened(token_client(builder, counting_manager())) as client:
            request = client.get(f"{listener.url}/x").streamed_read_buffer_limit(0)
            async with each.streamed(request.with_middleware(each.begins_to_read())) as response:
                return b"".join(await pieces(response))

    try:
        assert each.run(job) == b"/y"
    finally:
        over.set()
    assert listener.tokens == ["t1", "t1", "t2"]


@each_kind
def test_redirect_to_an_origin_with_a_manager_of_its_own(listener: Listener, other: Listener, kind: str) -> None:
    """P12: a redirect to an origin that has a manager of its own carries that one's token; others carry none there."""
    each, second = Kind(kind), counting_manager()
    second.login({"access_token": "b1", "refresh_token": "q1"})
    listener.respond = to(f"{other.url}/x")
    other.respond = to(f"{listener.url}/y")

    async def job() -> int:
        others = [(second, Scheme.bearer(origins=[other.url]))]
        async with each.opened(token_client(each.builder(), counting_manager(), others=others)) as client:
            first = await sent(client.get(f"{listener.url}/x"))
            return first[0] + (await sent(client.get(f"{other.url}/x")))[0]

    assert each.run(job) == 400
    # the second call was asked for at the other origin: the first manager has no list that says it is for this one
    assert listener.tokens == ["t1", "t1", None]
    assert other.tokens == ["b1", "b1"]
