"""Answers that would make a client refresh for ever, wait for ever, or show a token."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx2
import pytest

from unexpired import ConfigurationError, InCookie, InHeader, Scheme, Token, TokenManager
from unexpired._core.suspicion import endpoint_of
from unexpired._engine import desk
from unexpired._engine.clock import boot
from unexpired.clients import _peeking
from unexpired.clients.httpx2 import TokenAuth, TokenTransport
from unexpired.events import FreshTokenRefused
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

SECRET = "marked-secret"


class Api:
    """An API in memory: it takes any token at some paths and none at others, and a token server that always answers."""

    def __init__(self) -> None:
        self.minted = 0
        self.calls: list[str] = []
        self.store = MemoryStore()
        self.manager().login({"access_token": "0", "refresh_token": "r"})

    def manager(self) -> TokenManager:
        """A manager of the one session."""
        return TokenManager(self.refresh, store=self.store)

    def refresh(self, _: object) -> dict[str, str]:
        """The token server."""
        self.minted += 1
        return {"access_token": str(self.minted), "refresh_token": "r"}

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """The API."""
        self.calls.append(request.url.path)
        if request.url.path.startswith("/forbidden"):
            return httpx2.Response(401)
        if request.url.path == "/missing":
            return httpx2.Response(404)
        return httpx2.Response(200, text=request.headers["authorization"])


@pytest.fixture
def clock_stands(monkeypatch: pytest.MonkeyPatch) -> None:
    """No pause ends during the test, however slow the machine: what is refreshed, is refreshed for another reason."""
    now = boot()
    monkeypatch.setattr(desk, "boot", lambda: now)


@pytest.mark.usefixtures("clock_stands")
@pytest.mark.parametrize("beside", ["/fine", "/missing"])
def test_one_endpoint_that_refuses_everything_is_not_cured_by_its_neighbours(beside: str) -> None:
    """An origin where some calls are always refused and others never causes no refresh after refresh (scenario 36)."""
    api = Api()
    with httpx2.Client(transport=httpx2.MockTransport(api), auth=TokenAuth(api.manager())) as client:
        for number in range(200):
            assert client.get(f"http://api.test{beside}").status_code in (200, 404)
            assert client.get(f"http://api.test/forbidden/{number}").status_code == 401
    assert api.minted <= 3


def test_an_expiry_beside_an_endpoint_that_refuses_everything_is_still_silent() -> None:
    """The memory of one endpoint keeps no other from being refreshed for."""
    api = Api()
    good = {"0"}

    def respond(request: httpx2.Request) -> httpx2.Response:
        token = request.headers["authorization"].removeprefix("Bearer ")
        return httpx2.Response(200 if token in good and request.url.path == "/fine" else 401)

    with httpx2.Client(transport=httpx2.MockTransport(respond), auth=TokenAuth(api.manager())) as client:
        assert client.get("http://api.test/forbidden").status_code == 401
        good = {str(api.minted)}
        assert client.get("http://api.test/fine").status_code == 200
        good = {str(api.minted + 1)}
        assert client.get("http://api.test/fine").status_code == 200


@pytest.mark.usefixtures("clock_stands")
def test_a_manager_for_every_request_remembers_what_is_refused() -> None:
    """The memory does not go with the manager that had it (scenario 6)."""
    api = Api()

    def one_request() -> None:
        with httpx2.Client(transport=httpx2.MockTransport(api), auth=TokenAuth(api.manager())) as client:
            client.get("http://api.test/forbidden")

    for _ in range(20):
        one_request()
        gc.collect()
    assert api.minted <= 3


@pytest.mark.usefixtures("clock_stands")
def test_an_overloaded_endpoint_that_refuses_everything_is_not_cured_by_its_failures() -> None:
    """A 503 says nothing about the token: who knows whether anybody looked at it."""
    api, calls = Api(), []

    def respond(request: httpx2.Request) -> httpx2.Response:
        calls.append(request)
        return httpx2.Response(503 if len(calls) % 3 == 0 else 401)

    with httpx2.Client(transport=httpx2.MockTransport(respond), auth=TokenAuth(api.manager())) as client:
        for _ in range(100):
            client.get("http://api.test/forbidden")
    assert api.minted <= 3


@pytest.mark.usefixtures("no_pause_passes")
def test_a_refused_fresh_token_is_told() -> None:
    """What is withheld from an endpoint can be heard of."""
    api, told = Api(), list[FreshTokenRefused]()
    manager = api.manager()
    manager.on(FreshTokenRefused, told.append)
    with httpx2.Client(transport=httpx2.MockTransport(api), auth=TokenAuth(manager)) as client:
        for _ in range(5):
            client.get("http://api.test/forbidden")
    assert {event.origin for event in told} == {"http://api.test"}
    assert len(told) <= 2


def test_an_endpoint_is_not_a_thing() -> None:
    """What tells one thing from its siblings is left out; the method and the words stay."""
    assert endpoint_of("GET", "/users/17/orders/2024-05-17") == "GET /users/*/orders/*"
    assert endpoint_of("POST", "/v1/users/3f9a/keys") == "POST /*/users/*/keys"
    assert endpoint_of("GET", "/reports") != endpoint_of("POST", "/reports")


class Endless(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body without an end."""

    def __init__(self) -> None:
        self.read = 0
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        while not self.closed:
            self.read += 1
            yield b"x" * 1000

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while not self.closed:
            self.read += 1
            yield b"x" * 1000

    def close(self) -> None:
        """The client has let go of it."""
        self.closed = True

    async def aclose(self) -> None:
        """The same."""
        self.closed = True


def refusing(endless: Endless, good: str) -> httpx2.MockTransport:
    """An API that refuses all tokens but *good*, at endless length."""

    def respond(request: httpx2.Request) -> httpx2.Response:
        if request.headers["authorization"] == f"Bearer {good}":
            return httpx2.Response(200, text="served")
        return httpx2.Response(401, stream=endless)

    return httpx2.MockTransport(respond)


@pytest.mark.parametrize("patient", [True, False], ids=["long", "slow"])
def test_a_refused_answer_without_an_end_is_let_go(patient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long or slow a refusal is, the replay does not wait for it (scenario 43)."""
    api, endless = Api(), Endless()
    if not patient:
        monkeypatch.setattr(_peeking, "WORTH_WAITING", -1.0)
    with httpx2.Client(transport=refusing(endless, "1"), auth=TokenAuth(api.manager())) as client:
        assert client.get("http://api.test/").text == "served"
    assert endless.closed
    assert endless.read <= (70 if patient else 1)


async def _served(api: Api, endless: Endless) -> str:
    async with httpx2.AsyncClient(transport=refusing(endless, "1"), auth=TokenAuth(api.manager())) as client:
        return (await client.get("http://api.test/")).text


def test_a_refused_answer_without_an_end_is_let_go_by_tasks() -> None:
    """The same for tasks."""
    api, endless = Api(), Endless()
    assert asyncio.run(_served(api, endless)) == "served"
    assert endless.closed


@pytest.mark.parametrize("scheme", [Scheme.bearer(), Scheme(InHeader("x-token")), Scheme(InCookie("t"))])
def test_a_token_that_a_header_cannot_hold_is_not_shown(scheme: Scheme) -> None:
    """An outer space, which HTTP libraries complain about in words that quote it, is ours to refuse (scenario 68)."""
    with pytest.raises(ConfigurationError) as refused:
        scheme.render(Token(f"{SECRET} "))
    assert SECRET not in str(refused.value)
    manager = TokenManager(lambda _: {}, store=MemoryStore())
    for seed in ({"access_token": f"{SECRET} "}, Token(f"{SECRET} ")):
        with pytest.raises(ConfigurationError) as wrong:
            manager.login(seed)
        assert SECRET not in str(wrong.value)


def test_an_origin_that_redirects_can_leak_needs_the_transport() -> None:
    """httpx2 keeps the header from http to https on one host, so `origins` cannot be kept to (scenario 45)."""
    manager = Api().manager()
    with pytest.raises(ConfigurationError, match="TokenTransport"):
        TokenAuth(manager, Scheme.bearer(origins=["http://api.test"]))
    TokenAuth(manager, Scheme.bearer(origins=["http://127.0.0.1:8080", "https://api.test"]))
    TokenTransport(manager, Scheme.bearer(origins=["http://api.test"]), httpx2.MockTransport(Api())).close()


@pytest.mark.parametrize("resource", ["", 30])
def test_a_resource_is_a_name(resource: Any) -> None:
    """An empty resource would be taken for the default one by a store; a number was meant as `wait`."""
    manager = Api().manager()
    for ask in (manager.token, lambda resource: manager.refresh(resource=resource)):
        with pytest.raises(ConfigurationError, match="resource must"):
            ask(resource)


def test_refresh_over_the_same_pool(server: ServerHandle) -> None:
    """Scenario 43: a refresh function that uses the very client gets its connection, though there is only one."""
    client = httpx2.Client(base_url=server.url, limits=httpx2.Limits(max_connections=1), verify=False)

    def refresh(session: Any) -> dict[str, Any]:
        form = {"grant_type": "refresh_token", "refresh_token": session.refresh_token, "client_id": "public"}
        answer = client.post("/oauth/token", data=form, extensions={"unexpired.authenticated": False})
        found: dict[str, Any] = answer.json()
        return found

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login(server.login())
    server.expire()
    client.auth = TokenAuth(manager)
    with client:
        assert client.get("/api/x").status_code == 200
    assert server.stats().refreshes == 1
