"""Both dialects, whole, on real sockets: what a program gets from the front when tokens expire under it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.fronts import Api, Front, get
from tests.dialects.dialects import A, B, Dialect, grant_a, manager_a, manager_b
from unexpired import ApiError, ConfigurationError, LoginRequired, TokenManager
from unexpired.stores import FileStore, MemoryStore
from unexpired.testing import ServerHandle, server_process

each = pytest.mark.parametrize("dialect", [A, B], ids=["A", "B"])

AFTER_THE_RESTART = """
import sys
from tests.dialects.dialects import SCHEME_A, grant_a
from unexpired import ApiClient, TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

server = ServerHandle(sys.argv[1], 0)
manager = TokenManager(grant_a(server), store=FileStore(sys.argv[2]), key="a")
with ApiClient(server.url + "/a", manager=manager, scheme=SCHEME_A, unwrap=True) as api:
    print(api.get("/orders", params={"n": 9})["n"])
"""


@each
def test_fifty_callers_at_expiry(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenarios 1, 2, 37 and 41: 50 refused calls cost one refresh, each gets its own body, the count ends at 0."""
    manager = dialect.manager(server)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    counts: list[int] = []
    settings = front.settings(server, manager, dialect, unwrap=True, on_loading=counts.append)
    batch = front.start(settings, [get("/orders", params={"n": number}) for number in range(50)])
    server.wait("api_call_held", 50)
    server.release("all")
    assert [data["n"] for data in batch.result(25)] == [str(number) for number in range(50)]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)
    assert (max(counts), counts[-1], len(counts)) == (50, 0, 100)


@each
def test_late_refusals(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenario 9: refusals of the old token that arrive after the refresh are replayed and start no other."""
    manager = dialect.manager(server)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late", "prefix": f"{dialect.base}/late"}])
    late = front.start(front.settings(server, manager, dialect), [get(f"/late?n={number}") for number in range(10)])
    server.wait("api_call_held", 10)
    assert front.one(front.settings(server, manager, dialect), get("/orders"))["code"] == 0
    server.release("late")
    assert [body["data"]["n"] for body in late.result(25)] == [str(number) for number in range(10)]
    assert server.stats().token_posts == 1


@each
def test_refused_refresh(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenarios 48 and 49: all 50 get LoginRequired, the program navigates once, user and session are gone."""
    manager = dialect.manager(server)
    told: list[LoginRequired] = []
    cleared: list[str] = []
    counts: list[int] = []
    hooks = {"on_login_required": told.append, "clear_user": lambda: cleared.append("user")}
    settings = front.settings(server, manager, dialect, on_loading=counts.append, **hooks)
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    batch = front.start(settings, [get("/orders")] * 50)
    server.wait("api_call_refused", 50)
    server.revoke_family()
    server.release("refresh")
    outcomes = batch.result(25)
    assert {type(error) for error in outcomes} == {LoginRequired}
    assert {error.login_url for error in outcomes} == {dialect.login_url}
    assert (len(told), cleared) == (1, ["user"])
    assert any(told[0] is error for error in outcomes)
    assert counts[-1] == 0
    session = manager.session()
    assert session is not None
    assert session.ended is not None
    (later,) = front.run(front.settings(server, manager, dialect, **hooks), [get("/orders")])
    assert isinstance(later, LoginRequired)
    assert len(told) == 1
    assert server.stats().token_posts == 1


@each
def test_a_page_of_eight_panels(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenario 37: a page fires 8 calls at once, twice, with an expiry before each: all filled, the count back to 0."""
    manager = dialect.manager(server)
    counts: list[int] = []
    settings = front.settings(server, manager, dialect, on_loading=counts.append)
    for visit in (1, 2):
        server.expire()
        bodies = front.run(
            settings | {"transport": front.transport()}, [get(f"/panel/{n}", params={"n": n}) for n in range(8)]
        )
        assert [body["data"]["n"] for body in bodies] == [str(n) for n in range(8)]
        assert (server.stats().token_posts, counts[-1]) == (visit, 0)
    assert min(counts) == 0


@each
def test_on_the_login_page(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenario 48: where the program says that it is on its login page, calls fail at once and nobody navigates."""
    here = [True]
    told: list[LoginRequired] = []
    manager = dialect.manager(server, on_login_page=lambda: here[0])
    server.expire()
    settings = front.settings(server, manager, dialect, on_login_required=told.append)
    outcomes = front.run(settings, [get("/orders")] * 5)
    assert {(type(error), error.reason) for error in outcomes} == {(LoginRequired, "login_page")}
    assert (server.stats().token_posts, told) == (0, [])
    here[0] = False
    assert front.one(settings | {"transport": front.transport()}, get("/orders"))["code"] == 0


@each
def test_inside_login_page(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """Scenario 48: a `login_page()` block does the same for as long as it lasts, for every call of the program."""
    manager = dialect.manager(server)
    server.expire()

    async def job(api: Api) -> Any:
        with api.client.login_page():
            with pytest.raises(LoginRequired) as over:
                await api.get("/orders")
            refreshes = server.stats().token_posts
        return [over.value.reason, refreshes, (await api.get("/orders"))["code"]]

    assert front.one(front.settings(server, manager, dialect), job) == ["login_page", 0, 0]


def test_an_ended_login_on_the_login_page(server: ServerHandle, front: Front) -> None:
    """On the login page a program that hears that its login is over is not sent there again, but once it has left."""
    manager = manager_a(server)
    told: list[LoginRequired] = []
    server.revoke_family()

    async def job(api: Api) -> Any:
        with api.client.login_page(), pytest.raises(LoginRequired):
            await api.get("/orders")
        before = len(told)
        with pytest.raises(LoginRequired):
            await api.get("/orders")
        return [before, len(told)]

    assert front.one(front.settings(server, manager, A, on_login_required=told.append), job) == [0, 1]


def test_login_of_the_application(server: ServerHandle, front: Front) -> None:
    """`login` posts credentials without a token, maps the answer, stores the session; a wrong one stores nothing."""
    manager = TokenManager(lambda _: {}, store=MemoryStore(), key="b")
    fields = {"access_token": "data.Token"}

    async def job(api: Api) -> Any:
        with pytest.raises(ApiError) as wrong:
            await api.call("login", "/login", {"user": "alice", "password": "x"}, fields=fields)
        nobody = manager.session()
        body = await api.call("login", "/login", {"user": "alice", "password": "wonderland"}, fields=fields, into=dict)
        return [wrong.value.code, nobody, body["data"]["user"], (await api.get("/orders"))["method"]]

    settings = front.settings(server, manager, B, unwrap=True)
    assert front.one(settings, job) == [1001, None, "alice", "GET"]
    assert server.stats().credentials == {"query": 1}


def test_login_without_a_token(server: ServerHandle, front: Front) -> None:
    """A login endpoint whose answer is no object, or holds no token, is a mistake that is named, and stores nothing."""
    manager = TokenManager(lambda _: {}, store=MemoryStore(), key="b")

    async def job(api: Api) -> Any:
        with pytest.raises(ConfigurationError, match="access_token or a refresh_token"):
            await api.call("login", "/login", {"user": "alice", "password": "wonderland"})
        return None

    async def other(api: Api) -> Any:
        with pytest.raises(ConfigurationError, match="did not answer with a JSON object"):
            await api.call("login", "/login", {})
        return None

    assert front.one(front.settings(server, manager, B), job) is None
    listed = front.answering(lambda _: httpx2.Response(200, json=["a token"])) | {"manager": manager}
    assert front.one(listed, other) is None
    assert manager.session() is None


@each
def test_authenticated_false(server: ServerHandle, front: Front, dialect: Dialect) -> None:
    """A call marked `authenticated=False` carries no token, in no place, and a refusal of it refreshes nothing."""
    manager = dialect.manager(server)
    with pytest.raises(ApiError):
        front.one(front.settings(server, manager, dialect), get("/orders", authenticated=False))
    stats = server.stats()
    assert (stats.credentials, stats.token_posts, stats.api_calls) == ({}, 0, 1)


@pytest.mark.parametrize("expired", [False, True])
def test_restart(tmp_path: Path, expired: bool) -> None:
    """The program starts again with stored tokens: another process goes on, and refreshes if it must."""
    with server_process() as server:
        manager_a(server, store=FileStore(tmp_path / "sessions"))
        if expired:
            server.expire()
        command = [sys.executable, "-W", "error", "-c", AFTER_THE_RESTART, server.url, str(tmp_path / "sessions")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert (run.stderr, run.stdout) == ("", "9\n")
        stats = server.stats()
        assert (stats.token_posts, stats.reuse_detected) == (int(expired), 0)


def test_one_manager_for_both_clients(server: ServerHandle) -> None:
    """Scenarios 3 and 6: threads, asyncio and trio with clients of their own on one manager share one refresh."""
    manager = TokenManager(grant_a(server), store=MemoryStore(), key="a")
    login = server.login()
    manager.login({name: login[name] for name in ("access_token", "refresh_token")})
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    fronts = [Front(name) for name in ("threads", "asyncio", "trio")]
    batches = [front.start(front.settings(server, manager, A), [get("/orders")] * 5) for front in fronts]
    server.wait("api_call_held", 15)
    server.release("all")
    assert {body["code"] for batch in batches for body in batch.result(25)} == {0}
    assert server.stats().token_posts == 1


def test_address_of_the_login_page(server: ServerHandle, front: Front) -> None:
    """Scenario 48: the hook gets the address ready-made, its parts, and a message without a secret."""
    manager = manager_b(server)
    told: list[LoginRequired] = []
    server.revoke_family()
    front.run(front.settings(server, manager, B, on_login_required=told.append), [get("/orders")])
    (error,) = told
    assert error.login_url == "/login?redirect=%2Flist%3Fa%3D1&code=C1"
    assert dict(error.fields) == {"return_to": "/list?a=1", "code": "C1"}
    assert "log in" in str(error)
