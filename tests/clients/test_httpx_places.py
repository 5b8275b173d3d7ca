"""Where httpx2 and httpx carry a token, and where it does not: placements, redirects, origins, hooks and history."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.clients.modes import Api, Mode, Via, get, send
from tests.clients.scripted import Script, counting_manager
from unexpired import (
    ConfigurationError,
    InCookie,
    InHeader,
    InQuery,
    ReplayRefused,
    Scheme,
    TokenManager,
)
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport
from unexpired.testing import ServerHandle, running_server

BEARER = InHeader("Authorization", "Bearer {access_token}")
EVERYWHERE = Scheme(BEARER, InHeader("access_token"), InQuery("access_token"), InCookie("access_token"))
ALL = ["header", "custom", "query", "cookie"]


@pytest.fixture(scope="module")
def other() -> Iterator[ServerHandle]:
    """Give a second server, which is another origin by its port."""
    with running_server() as server:
        yield server


@pytest.mark.parametrize(
    "places",
    [[InQuery("token")], [InCookie("token")], [InHeader("access_token")], [BEARER, InHeader("x-token")]],
)
def test_auth_refuses_other_places(manager: TokenManager, places: list[Any]) -> None:
    """P12: a scheme that `auth=` would carry along redirects or show in logs is refused, and the way out is named."""
    with pytest.raises(ConfigurationError, match="Use TokenTransport or AsyncTokenTransport"):
        TokenAuth(manager, Scheme(*places))


@pytest.mark.parametrize(
    ("path", "place"),
    [("/api/query", InQuery("access_token")), ("/api/cookie", InCookie("access_token")), ("/api/x", BEARER)],
)
def test_old_value_is_replaced(server: ServerHandle, manager: TokenManager, mode: Mode, path: str, place: Any) -> None:
    """Scenario 44: at a replay the token takes the old one's place, also that of a stale one of the caller's own."""
    server.expire()
    options = mode.options(manager, "transport", Scheme(place), base_url=server.url)
    stale: dict[str, Any] = {"headers": {"cookie": "a=1; access_token=stale; b=2"}}
    if path == "/api/query":
        stale["params"] = {"access_token": "stale", "n": "7"}
    response = mode.one(options, get(path, **stale))
    # the server refuses a request with two credentials
    assert response.status_code == 200
    assert server.stats().token_posts == 1
    assert "access_token=stale" in str(response.request.url) or path != "/api/query"


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        (b"", b"t=t1"),
        (b"b=%E9&a=1&b=2%2f+x", b"b=%E9&a=1&b=2%2f+x&t=t1"),
        (b"flag&t=stale&empty=&&%74=x", b"flag&empty=&&t=t1"),
    ],
)
def test_query_is_left_as_written(mode: Mode, written: bytes, sent: bytes) -> None:
    """Scenario 44: the caller's other parameters keep their order and spelling, which a signature may cover."""
    script = Script((200, {}, []))
    options = mode.options(counting_manager(), "transport", Scheme(InQuery("t")), inner=script.transport(mode))
    mode.one(options, get(mode.library.client.URL("http://api/x").copy_with(query=written or None)))
    assert script.requests[0].url.query == sent


def test_cookies_are_left_as_written(mode: Mode) -> None:
    """Scenario 44: the caller's other cookies stay, and the token's cookie is there once."""
    script = Script((200, {}, []))
    options = mode.options(counting_manager(), "transport", Scheme(InCookie("t")), inner=script.transport(mode))
    mode.one(options, get("http://api/x", headers={"cookie": 'a="1 2"; t=old; b=3'}))
    assert script.requests[0].headers["cookie"] == 'a="1 2"; b=3; t=t1'


def redirect(target: str, status: int = 307) -> str:
    """A path that redirects to *target*."""
    return f"/api/redirect?{httpx2.QueryParams({'to': target, 'status': str(status)})}"


def test_redirect_to_another_scheme(mode: Mode) -> None:
    """Scenario 45: from http to https on the same host is another origin: the transport sends nothing along."""
    script = Script((307, {"location": "https://api/y"}, []), (200, {}, []))
    options = mode.options(
        counting_manager(), "transport", EVERYWHERE, inner=script.transport(mode), follow_redirects=True
    )
    mode.one(options, get("http://api/x"))
    first, second = script.requests
    assert "t1" in f"{first.url}{first.headers.raw}"
    assert "t1" not in f"{second.url}{second.headers.raw}"


def test_there_and_back(mode: Mode, via: Via) -> None:
    """Scenario 45: when a redirect comes back without the token, a 401 says nothing of it; the transport puts it on."""
    answers: list[Any] = [
        (307, {"location": "http://other/"}, []),
        (307, {"location": "http://api/y"}, []),
        (401, {}, []),
    ]
    script = Script(*answers, (200, {}, []))
    options = mode.options(counting_manager(), via, inner=script.transport(mode), follow_redirects=True)
    response = mode.one(options, get("http://api/x"))
    if via == "auth":
        assert (response.status_code, script.tokens) == (401, ["Bearer t1", None, None])
    else:
        assert (response.status_code, script.tokens) == (200, ["Bearer t1", None, "Bearer t1", "Bearer t2"])


@pytest.mark.parametrize("status", [303, 307])
def test_redirected_body_that_is_spent(mode: Mode, status: int) -> None:
    """Scenario 40: a body read once is not needed after a redirect to GET, and refused where it would be."""
    script = Script((status, {"location": "/y"}, []), (401, {}, []), (200, {}, []))
    options = mode.options(counting_manager(), "auth", inner=script.transport(mode), follow_redirects=True)

    async def pieces() -> Any:
        yield b"once"

    body: Any = (piece for piece in [b"once"]) if mode.blocking else pieces()
    (outcome,) = mode.run(options, [send("POST", "http://api/x", content=body)])
    assert getattr(outcome, "status_code", type(outcome)) == (200 if status == 303 else ReplayRefused)


def test_redirect_between_named_origins(
    server: ServerHandle, other: ServerHandle, manager: TokenManager, mode: Mode
) -> None:
    """P12: the transport carries the token along a redirect between two origins that are both on the list."""
    scheme = Scheme.bearer(origins=[server.url, other.url])
    options = mode.options(manager, "transport", scheme, base_url=server.url, follow_redirects=True)
    assert mode.one(options, get(redirect(f"{other.url}/open/x"))).json()["credentials"] == ["header"]


def test_token_call_stays_out_of_sight(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """P13: the token call is in no history and no event hook; through the transport no token is, either."""
    seen: list[httpx2.Request] = []
    answered: list[httpx2.Response] = []
    hooks = {"request": [mode.hook(seen.append)], "response": [mode.hook(answered.append)]}
    server.expire()
    response = mode.one(mode.options(manager, via, base_url=server.url, event_hooks=hooks), get("/api/x"))
    assert server.stats().token_posts == 1
    requests = [*seen, *(one.request for one in [*answered, *response.history, response])]
    assert {request.url.path for request in requests} == {"/api/x"}
    if via == "transport":
        assert (len(seen), response.history) == (1, [])
        assert not any("authorization" in request.headers for request in requests)
    else:
        assert [one.status_code for one in response.history] == [401]


@pytest.mark.parametrize("kind", [TokenTransport, AsyncTokenTransport])
def test_transport_of_its_own(manager: TokenManager, kind: Any) -> None:
    """Without a transport to send with, a new one is made, of the client's default kind."""
    wanted = httpx2.HTTPTransport if kind is TokenTransport else httpx2.AsyncHTTPTransport
    assert type(kind(manager)._transport) is wanted


def test_failing_connection(manager: TokenManager, mode: Mode, via: Via) -> None:
    """A network error is the caller's own, costs no refresh, and leaves nothing half-run behind."""

    async def job(api: Api) -> int:
        failures = 0
        for _ in range(2):
            try:
                await api.get("http://127.0.0.1:1/x")
            except mode.library.client.ConnectError:
                failures += 1
            # an event loop complains of generators that are collected in the middle
            gc.collect()
        return failures

    assert mode.one(mode.options(manager, via), job) == 2
