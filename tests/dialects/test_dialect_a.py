"""Dialect A: two bare headers, codes in a 200, forms, a refresh by GET."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import httpx2
import pytest

from tests.clients.modes import Mode, get, send
from tests.dialects.dialects import JSON, A, grant_a, manager_a
from unexpired import LoginRequired, TokenManager
from unexpired.events import SessionEnded
from unexpired.stores import FileStore, MemoryStore
from unexpired.testing import ServerHandle, server_process

AFTER_THE_RESTART = """
import sys
import httpx2
from tests.dialects.dialects import SCHEME_A, grant_a
from unexpired import TokenManager
from unexpired.clients.httpx2 import TokenTransport
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

server = ServerHandle(sys.argv[1], 0)
manager = TokenManager(grant_a(server), store=FileStore(sys.argv[2]), key="a", login_url="/")
with httpx2.Client(base_url=server.url + "/a", transport=TokenTransport(manager, SCHEME_A), timeout=300) as client:
    print(client.get("/orders?n=9").text)
"""


@pytest.mark.parametrize("code", [40009, "40009"])
def test_expired(server: ServerHandle, mode: Mode, code: int | str) -> None:
    """Scenario 37: the code for an expired token is understood as a number and as a string."""
    server.configure(expired_code=code)
    manager = manager_a(server)
    server.expire()
    assert mode.one(A.client(server, mode, manager), get("/orders?n=1")).json()["data"]["n"] == "1"
    stats = server.stats()
    assert (stats.token_posts, stats.credentials) == (1, {"custom": 2})


@pytest.mark.parametrize("code", [40005, 40003])
def test_invalid_login(server: ServerHandle, mode: Mode, code: int) -> None:
    """Scenarios 37 and 48: a code for an invalid login ends at `/`, once, without a refresh."""
    server.configure(login_code=code)
    manager = manager_a(server)
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    server.revoke_family()
    outcomes = mode.run(A.client(server, mode, manager), [get("/orders")] * 10)
    assert {(type(error), error.login_url) for error in outcomes} == {(LoginRequired, "/")}
    assert len(ended) == 1
    assert server.stats().token_posts == 0


def test_refresh_request(server: ServerHandle, mode: Mode) -> None:
    """The refresh is one GET with grant, client and refresh token in the query, and nothing in headers or body."""
    sent: list[httpx2.Request] = []
    manager = manager_a(server)
    login = server.login()
    with httpx2.Client(event_hooks={"request": [sent.append]}, verify=False) as http:
        manager = TokenManager(grant_a(server, http=http), store=MemoryStore(), key="a")
        manager.login({name: login[name] for name in ("access_token", "refresh_token")})
        server.expire()
        assert mode.one(A.client(server, mode, manager), get("/orders")).json()["code"] == 0
    (request,) = sent
    assert (request.method, request.url.path) == ("GET", "/a/security-amass/oauth/token")
    assert list(request.url.params.multi_items()) == [
        ("grant_type", "refresh_token"),
        ("refresh_token", login["refresh_token"]),
        ("client_id", "impawning"),
        ("client_secret", "impawning"),
    ]
    assert not {"authorization", "access_token", "refresh_token"} & request.headers.keys()


def test_form(server: ServerHandle, mode: Mode) -> None:
    """Scenario 40: a POST is form-encoded, and its replay has the same body."""
    manager = manager_a(server)
    server.expire()
    answer = mode.one(A.client(server, mode, manager), send("POST", "/orders", data={"id": "7", "name": "a b"})).json()
    assert answer["data"]["body_sha256"] == hashlib.sha256(b"id=7&name=a+b").hexdigest()
    assert server.stats().refused == 1


def test_timeout(server: ServerHandle, mode: Mode) -> None:
    """The client's 300 seconds hold for the call and for its replay."""
    seen: list[object] = []

    class Watched(httpx2.HTTPTransport if mode.blocking else httpx2.AsyncHTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request.extensions["timeout"])
            return super().handle_request(request)  # type: ignore[no-any-return]

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            seen.append(request.extensions["timeout"])
            return await super().handle_async_request(request)  # type: ignore[no-any-return]

    manager = manager_a(server)
    server.expire()
    client = A.client(server, mode, manager, inner=Watched(verify=False))
    assert mode.one(client, get("/orders")).json()["code"] == 0
    assert seen == [{"connect": 300, "read": 300, "write": 300, "pool": 300}] * 2


def test_other_codes(server: ServerHandle, mode: Mode) -> None:
    """A code that is in no set is the caller's own business, with its body."""
    manager = manager_a(server)
    answer = mode.one(A.client(server, mode, manager), send("POST", "/orders", headers=JSON, content=b"{}"))
    assert (answer.status_code, answer.json()["code"]) == (200, 40000)
    assert server.stats().token_posts == 0


@pytest.mark.parametrize("expired", [False, True])
def test_restart(tmp_path: Path, expired: bool) -> None:
    """The tokens survive a restart: another process goes on with them, and refreshes them if it must."""
    with server_process() as server:
        manager = manager_a(server, store=FileStore(tmp_path / "sessions"))
        before = manager.token().access_token
        if expired:
            server.expire()
        command = [sys.executable, "-W", "error", "-c", AFTER_THE_RESTART, server.url, str(tmp_path / "sessions")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert run.stderr == ""
        assert json.loads(run.stdout)["data"]["n"] == "9"
        stats = server.stats()
        assert (stats.token_posts, stats.reuse_detected) == (int(expired), 0)
        assert (manager.token().access_token != before) is expired
