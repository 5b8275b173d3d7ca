"""Where a token goes, and where it does not: redirects, the caller's own words, other managers, what is shown."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import pytest

from tests.clients.contract.crew import Caller, crew
from tests.clients.contract.fitting import Body, Cell
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager
from unexpired import InCookie, InHeader, InQuery, Scheme, TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

PLACES: dict[str, Any] = {
    "header": InHeader("Authorization", "Bearer {access_token}"),
    "custom": InHeader("access_token"),
    "query": InQuery("access_token"),
    "cookie": InCookie("access_token"),
}
SECRET = "a-very-marked-token"


def everywhere(cell: Cell) -> Scheme:
    """The token in each place that the idiom can put it."""
    return Scheme(*(PLACES[name] for name in cell.fitting.places[cell.idiom]))


def redirect(server: ServerHandle, target: str, status: int = 307) -> str:
    """An address that redirects to *target*."""
    return f"{server.url}/api/redirect?{urlencode({'to': target, 'status': status})}"


def credentials(body: bytes) -> list[str]:
    """The places in which the server saw a credential."""
    found: list[str] = json.loads(body)["credentials"]
    return found


@pytest.fixture
def secure() -> Iterator[Listener]:
    """Give a listener that is spoken to over TLS."""
    with Listener(tls=True) as listening:
        yield listening


@pytest.mark.contract(11)
def test_redirect_within_the_origin(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 45: along a redirect within the origin the token goes on, in each of its places."""
    with crew(cell, manager, everywhere(cell), follow_redirects=True) as callers:
        reply = callers.send(redirect(server, "/open/x"))
    assert credentials(reply.body) == list(cell.fitting.places[cell.idiom])


@pytest.mark.contract(11)
@pytest.mark.parametrize("by", ["port", "host"])
def test_redirect_to_another_origin(
    server: ServerHandle, other: ServerHandle, manager: TokenManager, cell: Cell, by: str
) -> None:
    """Scenario 45: to another port or host no credential goes along, in none of the places."""
    elsewhere = other.url if by == "port" else server.url.replace("127.0.0.1", "localhost")
    with crew(cell, manager, everywhere(cell), follow_redirects=True) as callers:
        reply = callers.send(redirect(server, f"{elsewhere}/open/x"))
    assert reply.url == f"{elsewhere}/open/x"
    assert credentials(reply.body) == []


@pytest.mark.contract(11)
def test_redirect_to_another_scheme(listener: Listener, secure: Listener, cell: Cell) -> None:
    """Scenario 45: from http to https no credential goes along, and none back."""
    listener.respond = lambda heard, _: (
        OK if heard.target.startswith("/back") else (307, {"location": f"{secure.url}/y"}, b"")
    )
    secure.respond = lambda _heard, _before: (307, {"location": f"{listener.url}/back"}, b"")
    with crew(cell, counting_manager(), everywhere(cell), follow_redirects=True) as callers:
        assert callers.send(f"{listener.url}/x").status == 200
    first, back = listener.heard
    (second,) = secure.heard
    assert "t1" in f"{first.target} {first.headers}"
    assert "t1" not in f"{second.target} {second.headers}"
    # who began at http is at home there: a transport may put the token on again, a header that was taken off stays off
    assert ("t1" in str(back.headers)) == (cell.idiom in cell.fitting.discreet)


@pytest.mark.contract(11)
def test_redirect_that_repeats_the_query(listener: Listener, cell: Cell) -> None:
    """Scenario 45: a redirect that repeats all that it was asked takes no token elsewhere, and shows none at home."""
    with Listener() as there:

        def respond(heard: Heard, _: int) -> Answer:
            target = heard.target.replace("/x", "/home", 1) if heard.target.startswith("/x") else f"{there.url}/away"
            query = heard.target.partition("?")[2]
            return 307, {"location": target if "/home" in target else f"{target}?{query}"}, b""

        listener.respond = respond
        with crew(cell, counting_manager(), everywhere(cell), follow_redirects=True) as callers:
            reply = callers.send(f"{listener.url}/x", params={"a": "1"})
    assert [heard.target.partition("?")[0] for heard in listener.heard] == ["/x", "/home"]
    (away,) = there.heard
    assert away.target == "/away?a=1"
    assert "t1" not in f"{away.target} {away.headers} {reply.url}"
    assert cell.idiom not in cell.fitting.discreet or "t1" not in reply.held


@pytest.mark.contract(11)
def test_refusal_of_another_origin(
    server: ServerHandle, other: ServerHandle, manager: TokenManager, cell: Cell
) -> None:
    """Scenario 45: a 401 from where a redirect led to another origin is the caller's answer and costs no refresh."""
    with crew(cell, manager, follow_redirects=True) as callers:
        assert callers.send(redirect(server, f"{other.url}/api/x")).status == 401
        assert server.stats().token_posts == 0
        assert callers.send(f"{server.url}/api/x").status == 200


@pytest.mark.contract(11)
@pytest.mark.parametrize(("status", "methods"), [(303, ["POST", "GET", "GET"]), (307, ["POST", "POST", "POST"])])
def test_only_the_refused_hop_is_replayed(listener: Listener, cell: Cell, status: int, methods: list[str]) -> None:
    """Scenario 36: after a redirect only the hop that was refused is sent again: what was done is not done twice."""
    answers: list[Answer] = [(status, {"location": "/y"}, b""), REFUSED, OK]
    listener.respond = lambda _, before: answers[before]
    with crew(cell, counting_manager(), follow_redirects=True) as callers:
        assert callers.send(f"{listener.url}/x", "POST", Body("bytes", b"once")).status == 200
    assert [(heard.method, heard.target) for heard in listener.heard] == list(
        zip(methods, ["/x", "/y", "/y"], strict=True)
    )
    assert [heard.length for heard in listener.heard] == ([4, 4, 4] if status == 307 else [4, 0, 0])
    assert listener.tokens == ["t1", "t1", "t2"]


@pytest.mark.contract(11)
def test_named_origins(server: ServerHandle, other: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """P12: with a list of origins the token goes to those only; calls elsewhere go out without it."""
    with crew(cell, manager, Scheme.bearer(origins=[server.url])) as callers:
        found = [credentials(callers.send(f"{url}/open/x").body) for url in (server.url, other.url)]
    assert found == [["header"], []]


@pytest.mark.contract(12)
def test_not_authenticated(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """A request marked as not to be authenticated carries no token, and its refusal is the caller's."""
    with crew(cell, manager) as callers:
        assert credentials(callers.send(f"{server.url}/open/x", authenticated=False).body) == []
        assert callers.send(f"{server.url}/api/x", authenticated=False).status == 401
        assert credentials(callers.send(f"{server.url}/open/x").body) == ["header"]
    assert server.stats().token_posts == 0


@pytest.mark.contract(12)
def test_resource(server: ServerHandle, listener: Listener, cell: Cell) -> None:
    """A request that names a resource gets that resource's own token."""
    manager = manager_for(server)
    before = manager.token().access_token
    with crew(cell, manager) as callers:
        for resource in (None, "https://api.test/b", "https://api.test/b", None):
            callers.send(f"{listener.url}/x", resource=resource)
    first, second, third, fourth = listener.tokens
    assert first == fourth == before
    assert second == third == manager.token("https://api.test/b").access_token != before
    assert server.stats().token_posts == 1


@pytest.mark.contract(13)
def test_what_the_caller_wrote_is_kept(listener: Listener, cell: Cell) -> None:
    """Scenario 44: headers, query and cookies of the caller's own are the same at a replay; the token is there once."""
    listener.respond = lambda _, before: OK if before else REFUSED
    with crew(cell, counting_manager(), everywhere(cell)) as callers:
        callers.send(
            f"{listener.url}/x",
            headers={"X-Own": "1", "Accept": "text/x-own", "User-Agent": "own/1"},
            params={"a": "1 2", "b": "ü&="},
            cookies={"own": "yes", "second": "2"},
        )
    places = cell.fitting.places[cell.idiom]
    for heard, token in zip(listener.heard, ("t1", "t2"), strict=True):
        assert (heard.all("x-own"), heard.all("accept"), heard.all("user-agent")) == (["1"], ["text/x-own"], ["own/1"])
        token_pairs = [("access_token", token)] if "query" in places else []
        assert parse_qsl(urlsplit(heard.target).query) == [("a", "1 2"), ("b", "ü&="), *token_pairs]
        token_cookies = [f"access_token={token}"] if "cookie" in places else []
        assert "; ".join(heard.all("cookie")).split("; ") == ["own=yes", "second=2", *token_cookies]
        assert heard.token == token
        assert heard.all("access_token") == ([token] if "custom" in places else [])


@pytest.mark.contract(13)
def test_a_stale_token_is_replaced(listener: Listener, cell: Cell) -> None:
    """Scenario 44: a token that the caller put there itself, in any place, gives way to ours."""
    with crew(cell, counting_manager(), everywhere(cell)) as callers:
        callers.send(
            f"{listener.url}/x",
            headers={"Authorization": "Bearer stale"},
            params={"access_token": "stale"} if "query" in cell.fitting.places[cell.idiom] else {},
            cookies={"access_token": "stale"} if "cookie" in cell.fitting.places[cell.idiom] else {},
        )
    (heard,) = listener.heard
    assert heard.token == "t1"
    assert "stale" not in f"{heard.target} {heard.headers}"


@pytest.mark.contract(15)
def test_nothing_shows_a_token(
    listener: Listener, cell: Cell, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """P13: what the client logs at its most talkative, and all that it hands out, show no token in their `repr`."""
    noted: list[Any] = []
    listener.respond = lambda _, before: OK if before else REFUSED
    manager = counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})
    caplog.set_level(logging.DEBUG)
    with crew(cell, manager, everywhere(cell), noted=noted) as callers:
        reply = callers.send(f"{listener.url}/x")
    told = caplog.text + "".join(capfd.readouterr())
    shown = "".join(repr(one) + repr(getattr(one, "headers", "")) + str(one) for one in [*noted, *reply.shown])
    assert reply.status == 200
    assert listener.tokens == [SECRET, "t2"]
    assert len(noted) >= 2
    assert SECRET not in told + shown
    if cell.idiom in cell.fitting.discreet:
        held = reply.held + "".join(
            f"{getattr(one, 'url', '')} {one.headers if hasattr(one, 'headers') else vars(one)}" for one in noted
        )
        assert SECRET not in held
        assert "t2" not in held


@pytest.mark.contract(15)
def test_token_call_stays_out_of_sight(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """P13: the token call is none of the client's: neither its hooks nor its history know of it."""
    noted: list[Any] = []
    server.expire()
    with crew(cell, manager, noted=noted) as callers:
        reply = callers.send(f"{server.url}/api/x")
    assert server.stats().token_posts == 1
    assert len(noted) >= 2
    assert not [one for one in [*noted, *reply.shown] if "/oauth" in str(getattr(one, "url", ""))]


@pytest.mark.contract(16)
def test_two_managers(cell: Cell, listener: Listener) -> None:
    """Two managers on one client serve an origin each, refresh for themselves, and never see each other's token."""
    answer = {"access_token": "b2", "refresh_token": "q2"}
    second = TokenManager(FunctionGrant(lambda _: answer), store=MemoryStore(), key="bob")
    second.login({"access_token": "b1", "refresh_token": "q1"})
    with Listener() as there:
        listener.respond = lambda _, before: REFUSED if before == 0 else OK
        there.respond = lambda _, before: REFUSED if before == 1 else OK
        with crew(cell, counting_manager(), others={there.url: second}) as callers:

            async def both(caller: Caller) -> list[int]:
                urls = [f"{listener.url}/x", f"{there.url}/x"] * 2
                return [(await caller.send(url)).status for url in urls]

            assert callers.one(both) == [200] * 4
        assert listener.tokens == ["t1", "t2", "t2"]
        assert there.tokens == ["b1", "b1", "b2"]
