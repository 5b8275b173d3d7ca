"""Against oidc-provider, a certified authorization server: rotation, reuse detection, and real expiry."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal

import httpx2
import pytest

from tests.servers.oidc.fleet import ROOT, call, outcome, running_fleet
from tests.servers.oidc.provider import CONFIDENTIAL, PUBLIC, RESOURCES, Client, Provider, command
from unexpired import ConfigurationError, LoginRequired, Token, TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.events import LoggedOut, SessionEnded

SHORT = 8  # seconds; the server cuts its clock to whole seconds, so that such a token lives 7 s to 8 s

Way = Literal["known", "lapsed", "ended"]
"""How an access token expires.

Known: by time, as the login said. Lapsed: by time, of which the login said nothing. Ended: by the server, too early.
"""


def name(value: Way | Client) -> str:
    """What a test is called after."""
    return value.client_id if isinstance(value, Client) else value


def log_in(provider: Provider, client: Client, manager: TokenManager, way: Way) -> None:
    """Store alice's login, with an access token that is going to expire in this way."""
    provider.access_lifetime(3600 if way == "ended" else SHORT)
    answer = provider.login(client, "alice")
    if way == "lapsed":
        del answer["expires_in"]
    manager.login(answer)


def expire(provider: Provider, client: Client, manager: TokenManager, way: Way) -> Token:
    """See to it, or wait until, the current access token is dead at the server; the next one lives for an hour."""
    provider.access_lifetime(3600)
    token = current(manager)
    if way == "ended":
        provider.end(token.access_token)
    while time.time() <= (token.expires_at or 0.0) and way == "known":
        time.sleep(0.01)
    while provider.active(client, token.access_token):
        time.sleep(0.01)
    provider.zero()
    return token


def current(manager: TokenManager) -> Token:
    """The stored token, as it is."""
    session = manager.session()
    assert session is not None
    return session.tokens[None]


def check_one_refresh(provider: Provider, client: Client, manager: TokenManager, way: Way, callers: int) -> None:
    """The server saw one redemption for all callers, and the grant lives on: it can be refreshed again."""
    seen = provider.counts()
    assert seen[:5] == (1, 0, 0, 1, callers)
    assert seen.rejected == 0 if way == "known" else 1 <= seen.rejected <= callers
    renewed = manager.refresh()
    assert provider.counts()[:3] == (2, 0, 0)
    assert provider.active(client, renewed.access_token)
    assert renewed.refresh_token is not None
    assert provider.active(client, renewed.refresh_token)


def call_with_tasks(provider: Provider, manager: TokenManager, tasks: int) -> Counter[str]:
    """The outcomes of that many tasks that call the API at once."""

    async def main() -> Counter[str]:
        auth = TokenAuth(manager)
        async with httpx2.AsyncClient(base_url=provider.issuer, auth=auth, timeout=30) as client:
            return await call(client, tasks)

    return asyncio.run(main())


@pytest.mark.parametrize("client", [PUBLIC, CONFIDENTIAL], ids=name)
def test_the_server_takes_a_second_redemption_for_theft(provider: Provider, client: Client) -> None:
    """What the other tests rely on: a refresh token that is spent twice costs the whole grant, the winner included."""
    first = provider.login(client, "alice")
    second = provider.redeem(client, first["refresh_token"])
    assert second["refresh_token"] != first["refresh_token"]
    assert provider.active(client, second["access_token"])
    assert provider.redeem(client, first["refresh_token"])["error"] == "invalid_grant"
    assert provider.redeem(client, second["refresh_token"])["error"] == "invalid_grant"
    assert not provider.active(client, second["access_token"])
    assert provider.counts()[:4] == (1, 2, 1, 1)


@pytest.mark.parametrize(
    ("way", "client"),
    [("known", CONFIDENTIAL), ("lapsed", PUBLIC), ("ended", CONFIDENTIAL), ("ended", PUBLIC)],
    ids=name,
)
def test_tasks(provider: Provider, tmp_path: Path, way: Way, client: Client) -> None:
    """Scenario 2: 50 tasks at expiry are all served for one redemption, and the grant stays alive."""
    manager = provider.manager(client, tmp_path / "store")
    log_in(provider, client, manager, way)
    expired = expire(provider, client, manager, way)
    assert call_with_tasks(provider, manager, 50) == {"alice": 50}
    assert current(manager).newer_than(expired)
    check_one_refresh(provider, client, manager, way, 50)


@pytest.mark.parametrize("client", [PUBLIC, CONFIDENTIAL], ids=name)
def test_threads(provider: Provider, tmp_path: Path, client: Client) -> None:
    """Scenario 1: 50 threads whose token the server has ended are all served for one redemption."""
    manager = provider.manager(client, tmp_path / "store")
    log_in(provider, client, manager, "ended")
    expire(provider, client, manager, "ended")
    auth = TokenAuth(manager)
    with (
        httpx2.Client(base_url=provider.issuer, auth=auth, timeout=30) as api,
        ThreadPoolExecutor(50) as threads,
    ):
        answers = threads.map(api.get, ["/me"] * 50)
        outcomes = Counter(map(outcome, answers))
    assert outcomes == {"alice": 50}
    check_one_refresh(provider, client, manager, "ended", 50)


@pytest.mark.parametrize(("way", "client"), [("known", PUBLIC), ("lapsed", CONFIDENTIAL), ("ended", PUBLIC)], ids=name)
def test_processes(provider: Provider, tmp_path: Path, way: Way, client: Client) -> None:
    """Scenario 4: 4 processes of 10 tasks, all holding the token that expires, need one redemption together."""
    manager = provider.manager(client, tmp_path / "store")
    with running_fleet(provider, client, tmp_path / "store", 4) as fleet:
        log_in(provider, client, manager, way)
        assert fleet.order("call", 1) == {"alice": 4}
        expire(provider, client, manager, way)
        assert fleet.order("call", 10) == {"alice": 40}
        check_one_refresh(provider, client, manager, way, 40)


@pytest.mark.parametrize("rotations", [60, pytest.param(200, marks=pytest.mark.crash)])
def test_rotations_in_a_row(provider: Provider, tmp_path: Path, rotations: int) -> None:
    """4 processes of 3 tasks that all want a newer token all the time rotate it once per version: no logout."""
    manager = provider.manager(PUBLIC, tmp_path / "store")
    with running_fleet(provider, PUBLIC, tmp_path / "store", 4) as fleet:
        log_in(provider, PUBLIC, manager, "ended")
        first = current(manager)
        outcomes = fleet.order("rotate", 3, first.minted + rotations)
    calls = outcomes["alice"]
    assert outcomes == {"alice": calls}
    assert current(manager).minted == first.minted + rotations
    assert provider.counts() == (rotations, 0, 0, 1, calls, 0)
    manager.refresh()
    assert provider.counts()[:4] == (rotations + 1, 0, 0, 1)


def test_a_grant_that_was_revoked(provider: Provider, tmp_path: Path) -> None:
    """Scenarios 33, 48 and 49: a revoked grant costs one request, ends once, and everybody everywhere is told."""
    manager = provider.manager(CONFIDENTIAL, tmp_path / "store")
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    with running_fleet(provider, CONFIDENTIAL, tmp_path / "store", 1) as fleet:
        log_in(provider, CONFIDENTIAL, manager, "ended")
        assert fleet.order("call", 1) == {"alice": 1}
        refresh_token = current(manager).refresh_token
        assert refresh_token is not None
        provider.revoke(CONFIDENTIAL, refresh_token)
        assert call_with_tasks(provider, manager, 50) == {"LoginRequired: refused": 50}
        assert fleet.order("call", 10) == {"LoginRequired: refused": 10}
    assert call_with_tasks(provider, manager, 50) == {"LoginRequired: refused": 50}
    assert provider.counts()[:2] == (0, 1)
    session = manager.session()
    assert session is not None
    assert session.ended is not None
    assert session.ended.reason == "refused"
    assert [event.reason for event in ended] == ["refused"]


@pytest.mark.parametrize("client", [PUBLIC, CONFIDENTIAL], ids=name)
def test_logout(provider: Provider, tmp_path: Path, client: Client) -> None:
    """Scenario 62: logout kills the tokens at the server (RFC 7009), and another process asks it for nothing more."""
    manager = provider.manager(client, tmp_path / "store")
    logged_out: list[LoggedOut] = []
    manager.on(LoggedOut, logged_out.append)
    with running_fleet(provider, client, tmp_path / "store", 1) as fleet:
        log_in(provider, client, manager, "ended")
        assert fleet.order("call", 1) == {"alice": 1}
        old = current(manager)
        assert old.refresh_token is not None
        assert provider.active(client, old.refresh_token)
        manager.logout()
        assert [event.revoked for event in logged_out] == [True]
        assert fleet.order("call", 10) == {"LoginRequired: logout": 10}
    assert not provider.active(client, old.refresh_token)
    assert not provider.active(client, old.access_token)
    with pytest.raises(LoginRequired, match="logged out"):
        manager.token()
    assert provider.counts()[:3] == (0, 0, 1)
    assert provider.redeem(client, old.refresh_token)["error"] == "invalid_grant"


def test_without_node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without Node or without the server's packages these tests fail, with a sentence that says what to install."""
    with pytest.raises(RuntimeError, match="make test"):
        command(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(RuntimeError, match=r"need Node\.js: install"):
        command()


def test_the_server_does_not_outlive_its_parent() -> None:
    """When the process that started the server is killed, the server ends by itself."""
    script = (
        "import os, signal\n"
        "from tests.servers.oidc.provider import running_provider\n"
        "with running_provider() as provider:\n"
        "    print(provider.issuer, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    killed = [sys.executable, "-c", script]
    parent = subprocess.run(killed, stdout=subprocess.PIPE, text=True, env=environment, timeout=30, check=False)
    assert parent.returncode == -signal.SIGKILL
    issuer = parent.stdout.strip()
    until = time.monotonic() + 20
    while True:
        try:
            httpx2.get(f"{issuer}/test/counts")
        except httpx2.TransportError:
            break
        assert time.monotonic() < until
        time.sleep(0.01)


def test_two_resources_of_one_login(provider: Provider, tmp_path: Path) -> None:
    """Scenario 7: 40 threads want tokens for two resources at once, and get their own; the login is refreshed on."""
    manager = provider.manager(PUBLIC, tmp_path / "store")
    log_in(provider, PUBLIC, manager, "ended")
    with ThreadPoolExecutor(40) as threads:
        tokens = list(threads.map(manager.token, [*RESOURCES] * 20))
    assert [provider.known(PUBLIC, token.access_token)["aud"] for token in tokens] == [*RESOURCES] * 20
    assert provider.counts()[:4] == (2, 0, 0, 1)
    renewed = manager.refresh(resource=RESOURCES[0])
    assert provider.known(PUBLIC, renewed.access_token)["aud"] == RESOURCES[0]
    session = manager.session()
    assert session is not None
    assert all(provider.active(PUBLIC, str(token.refresh_token)) for token in session.tokens.values())
    assert provider.counts()[:4] == (3, 0, 0, 1)


def test_a_resource_that_the_login_was_not_for(provider: Provider, tmp_path: Path) -> None:
    """Who asks for it is told so; this server has spent the refresh token by then, and the next refresh is the end."""
    manager = provider.manager(PUBLIC, tmp_path / "store")
    log_in(provider, PUBLIC, manager, "ended")
    with pytest.raises(ConfigurationError, match="invalid_target"):
        manager.token("https://nobody.example.com")
    assert provider.active(PUBLIC, manager.token().access_token)
    with pytest.raises(LoginRequired, match="no longer accepts"):
        manager.refresh()
    assert provider.counts()[:2] == (0, 2)
