"""A token endpoint on its bad days, seen by a program that only calls its API."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.clients.modes import Mode, get, grant_for
from unexpired import ConfigurationError, LoginRequired, Session, TemporarilyUnavailable, TokenManager
from unexpired._core.effects import Instant
from unexpired._engine import driving, flying
from unexpired._engine.clock import boot
from unexpired.clients.httpx2 import TokenAuth
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle, running_server

Kind = type[Exception]


@pytest.fixture(scope="module")
def other() -> Iterator[ServerHandle]:
    """Give the server of somebody else."""
    with running_server() as server:
        yield server


@pytest.fixture
def still(monkeypatch: pytest.MonkeyPatch) -> None:
    """No time passes for flights: however slow the machine, the next call comes while the failure is remembered."""
    now = time.time()

    def instant(*, exiting: bool = False) -> Instant:
        return Instant(now, boot(), exiting)

    for module in (driving, flying):
        monkeypatch.setattr(module, "instant", instant)


class Program:
    """A program with a session, whose token the server has just let expire."""

    def __init__(self, server: ServerHandle, mode: Mode, **options: Any) -> None:
        self.server = server
        self.mode = mode
        self.store = MemoryStore()
        settings: dict[str, Any] = {"grant": grant_for(server), "patience": 0.0} | options
        self.manager = TokenManager(settings.pop("grant"), store=self.store, key="alice", **settings)
        self.manager.login(server.login())
        server.expire()
        self.before = self.session()

    def session(self) -> Session:
        """What is stored."""
        found = self.store.load("alice")
        assert found is not None
        return found

    def call(self) -> Any:
        """One call: its status, or its error."""
        (outcome,) = self.mode.run(self.mode.options(self.manager, "auth", base_url=self.server.url), [get("/api/x")])
        return outcome

    def kept(self) -> bool:
        """Whether the stored session is as it was."""
        before, now = self.before, self.session()
        same_tokens = before.tokens[None].access_token == now.tokens[None].access_token
        return before.same_version(now) and before.refresh_token == now.refresh_token and same_tokens


@pytest.mark.parametrize(
    ("fault", "kind", "says"),
    [
        ({"kind": "html"}, TemporarilyUnavailable, "without a usable access token"),
        ({"kind": "html", "code": 502}, TemporarilyUnavailable, "HTTP 502"),
        ({"kind": "html", "code": 403}, ConfigurationError, "turns token requests away"),
        ({"kind": "truncated_json"}, TemporarilyUnavailable, "broke off"),
        ({"kind": "error_in_200"}, ConfigurationError, "invalid_request"),
        ({"kind": "error_in_200", "error": "Access denied"}, ConfigurationError, "an error code of its own"),
        ({"kind": "empty_400"}, TemporarilyUnavailable, "without saying why"),
        ({"kind": "status", "code": 200, "body": "[]"}, TemporarilyUnavailable, "without a usable access token"),
        ({"kind": "status", "code": 200, "body": '{"access_token": 7}'}, TemporarilyUnavailable, "without a usable"),
        ({"kind": "status", "code": 404, "body": "Access denied"}, ConfigurationError, "check its address"),
        ({"kind": "429", "retry_after": 30}, TemporarilyUnavailable, "come back later"),
        ({"kind": "503", "retry_after": 30, "date": True}, TemporarilyUnavailable, "come back later"),
        ({"kind": "reset_before_commit"}, TemporarilyUnavailable, "was lost"),
        ({"kind": "reset_after_commit"}, TemporarilyUnavailable, "was lost"),
    ],
)
@pytest.mark.usefixtures("still")
def test_bad_answer(server: ServerHandle, mode: Mode, fault: dict[str, Any], kind: Kind, says: str) -> None:
    """Scenario 54: each bad answer is a typed error that says what it was, and the stored pair is left as it was."""
    program = Program(server, mode)
    server.faults([fault])
    error = program.call()
    assert type(error) is kind
    assert says in str(error)
    assert "Access denied" not in str(error)
    assert program.kept()
    # the memory of the failure keeps the next caller from asking at once
    assert type(program.call()) is kind
    assert server.stats().token_posts == 1


def test_refused_for_good(server: ServerHandle, mode: Mode) -> None:
    """Scenario 54: `invalid_grant` ends the session whatever the status it comes with."""
    program = Program(server, mode)
    server.faults([{"kind": "error_in_200", "error": "invalid_grant"}])
    error = program.call()
    assert (type(error), error.reason) == (LoginRequired, "refused")


def test_answer_without_an_access_token(server: ServerHandle, mode: Mode) -> None:
    """Scenario 54: a readable refresh token in an answer without `access_token` is saved, and used the next time."""
    program = Program(server, mode)
    server.faults([{"kind": "no_access_token"}])
    assert type(program.call()) is TemporarilyUnavailable
    saved = program.session()
    assert (saved.version, saved.refresh_token == program.before.refresh_token) == (2, False)
    patient = TokenManager(grant_for(server), store=program.store, key="alice")
    options = mode.options(patient, "auth", base_url=server.url)
    assert mode.one(options, get("/api/x")).status_code == 200
    assert server.stats().reuse_detected == 0


@pytest.mark.parametrize("status", [302, 307, 308])
def test_redirect_to_another_host(server: ServerHandle, other: ServerHandle, mode: Mode, status: int) -> None:
    """Scenario 46: a redirect of the token endpoint is not followed: the error names it, no credential goes there."""
    program = Program(server, mode)
    server.faults([{"kind": "redirect", "to": f"{other.url}/oauth/token", "code": status}])
    error = program.call()
    assert type(error) is ConfigurationError
    assert other.url.removeprefix("http://") in str(error)
    stats = other.stats()
    assert (stats.token_posts, stats.api_calls, stats.credentials) == (0, 0, {})
    assert program.kept()


@pytest.mark.parametrize(("rate", "deadline"), [(1, 1.5), (5, 0.5)])
def test_dribble(server: ServerHandle, mode: Mode, rate: int, deadline: float) -> None:
    """Scenario 55: an answer that comes byte by byte, none of them late, ends at the deadline of the whole refresh."""
    program = Program(server, mode, deadline=deadline)
    server.faults([{"kind": "dribble", "bytes_per_second": rate}])
    began = time.monotonic()
    error = program.call()
    assert type(error) is TemporarilyUnavailable
    assert deadline - 0.1 < time.monotonic() - began < deadline + 4.0
    assert program.kept()


def test_silence(server: ServerHandle, mode: Mode) -> None:
    """Scenario 55: an endpoint that never answers is given up at the same deadline."""
    program = Program(server, mode, deadline=0.3)
    server.faults([{"kind": "timeout_before", "seconds": 60}])
    began = time.monotonic()
    assert type(program.call()) is TemporarilyUnavailable
    assert time.monotonic() - began < 5.0
    assert program.kept()


@pytest.mark.usefixtures("still")
def test_token_that_has_expired_already(server: ServerHandle, mode: Mode) -> None:
    """Scenario 54: an already expired token is a clear error, not a loop; what it rotated to is saved first."""
    program = Program(server, mode)
    server.faults([{"kind": "expired_token", "times": 9}])
    for _ in range(3):
        error = program.call()
        assert type(error) is TemporarilyUnavailable
        assert "already expired" in str(error)
    assert server.stats().token_posts == 1
    assert program.session().refresh_token != program.before.refresh_token


def test_token_of_another_person(server: ServerHandle, mode: Mode) -> None:
    """Scenario 54: an id token with another `sub` is refused, and nothing of that answer is kept or used."""
    server.configure(id_token=True)
    program = Program(server, mode)
    server.faults([{"kind": "other_sub"}])
    error = program.call()
    assert type(error) is ConfigurationError
    assert "another person" in str(error)
    assert "mallory" not in str(error)
    assert program.kept()


@pytest.mark.parametrize("wrong", [{"client_secret": "wrong"}, {"client_id": "nobody"}])
def test_wrong_client(server: ServerHandle, mode: Mode, wrong: dict[str, str]) -> None:
    """Scenario 54: a client that the server does not know is a matter of settings: the session lives on."""
    program = Program(server, mode, grant=grant_for(server, **wrong))
    error = program.call()
    assert type(error) is ConfigurationError
    assert "invalid_client" in str(error)
    assert program.kept()


@pytest.mark.parametrize("mode", ["threads", "asyncio"], indirect=True)
def test_unreachable(server: ServerHandle, mode: Mode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 53: no name, no connection and no TLS are passing failures, never the end of a session."""
    resolve = socket.getaddrinfo

    def known(host: Any, *others: Any, **more: Any) -> Any:
        if host in ("unknown.invalid", b"unknown.invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return resolve(host, *others, **more)

    # A name server that is out of reach would take half a minute.
    monkeypatch.setattr(socket, "getaddrinfo", known)
    port = server.url.rpartition(":")[2]
    urls = ["http://127.0.0.1:1/token", "http://unknown.invalid/token", f"https://127.0.0.1:{port}/token"]
    programs = [Program(server, mode, grant=RefreshTokenGrant(url, client_id="public")) for url in urls]
    server.expire()
    jobs = [get("/api/x", auth=TokenAuth(program.manager)) for program in programs]
    outcomes = mode.run({"base_url": server.url, "transport": mode.transport()}, jobs)
    assert [type(error) for error in outcomes] == [TemporarilyUnavailable] * 3
    assert all(program.kept() for program in programs)
