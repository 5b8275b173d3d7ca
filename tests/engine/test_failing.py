from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.staging import (
    EXPIRED,
    FRESH,
    KINDS,
    PATIENCE,
    Attempt,
    Crowd,
    Faulty,
    Kind,
    Server,
    aboard,
    manager_for,
    nearly_expired,
)
from tests.waiting import until
from unexpired import Session, Token, TokenManager
from unexpired.errors import (
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.events import CallerWaited, Event, RefreshFailed, RefreshStarted, SessionEnded, Unsaved


class Refusing:
    """A grant function that raises *error* once its gate is open."""

    def __init__(self, error: Exception) -> None:
        self.calls = 0
        self.gate = threading.Event()
        self._error = error

    def __call__(self, session: Session) -> Token:
        """Raise it."""
        assert session.refresh_token
        self.calls += 1
        assert self.gate.wait(20)
        raise self._error


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "expected", "ends"),
    [
        (Refused("over", error="invalid_grant"), LoginRequired, 1),
        (NotSent("connection refused"), TemporarilyUnavailable, 0),
        (Refused("who?", error="invalid_client"), ConfigurationError, 0),
    ],
    ids=["refused", "unreachable", "misconfigured"],
)
def test_when_the_refresh_fails_everybody_is_told(
    kind: Kind, error: Exception, expected: type[UnexpiredError], ends: int
) -> None:
    """50 waiters of a failed refresh get a typed error each, none hangs, the end is told once (scenario 48)."""
    grant = Refusing(error)
    manager = manager_for(grant)
    ended: list[SessionEnded] = []
    failed: list[RefreshFailed] = []
    manager.on(SessionEnded, ended.append)
    manager.on(RefreshFailed, failed.append)
    crowd = Crowd(kind, 50, manager)
    until(lambda: aboard(manager) == 50)
    grant.gate.set()
    outcomes = crowd.outcomes()
    assert [type(outcome) for outcome in outcomes] == [expected] * 50
    until(lambda: len(ended) == ends and len(failed) == 1 - ends)
    assert [event.callers for event in failed] == [50] * (1 - ends)
    assert grant.calls == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (Refused("no", error="invalid_grant"), LoginRequired),
        (NotSent("busy", retry_after=60), TemporarilyUnavailable),
    ],
    ids=["ended", "paused"],
)
def test_later_calls_ask_nobody(kind: Kind, error: Exception, expected: type[UnexpiredError]) -> None:
    """50 calls after the end, or inside the pause after a failure, send 0 token requests (scenario 49)."""
    grant = Refusing(error)
    grant.gate.set()
    manager = manager_for(grant)
    with pytest.raises(expected):
        manager.token()
    late = Crowd(kind, 50, manager).outcomes() + Crowd(kind, 50, manager, "refresh").outcomes()
    assert [type(outcome) for outcome in late] == [expected] * 100
    assert grant.calls == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_hiccup_stays_silent(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a passing failure the whole group waits and tries once more, together (scenario 50)."""
    monkeypatch.setattr("unexpired._engine.flying.draw", lambda: 0.3)
    gate, calls = threading.Event(), 0

    def grant(session: Session) -> Mapping[str, Any]:
        nonlocal calls
        assert session.refresh_token == "refresh 0"
        calls += 1
        assert gate.wait(20)
        if calls == 1:
            raise NotSent("busy")
        return {"access_token": "access 1", "expires_in": 60}

    manager = manager_for(grant, patience=10.0)
    crowd = Crowd(kind, 50, manager)
    until(lambda: aboard(manager) == 50)
    gate.set()
    assert crowd.tokens() == ["access 1"] * 50
    assert calls == 2


def test_a_valid_token_is_served_while_the_server_is_away() -> None:
    """A refresh-ahead that fails harms nobody: the token is good, so it is served, and asking pauses (scenario 52)."""
    grant = Refusing(NotSent("away", retry_after=60))
    grant.gate.set()
    manager = manager_for(grant, nearly_expired())
    failed: list[RefreshFailed] = []
    manager.on(RefreshFailed, failed.append)
    assert manager.token().access_token == "access 0"
    until(lambda: failed)
    assert failed[0].callers == 0
    begun: list[object] = []
    manager._desk._refresh_ahead = begun.append
    assert [manager.token().access_token for _ in range(50)] == ["access 0"] * 50
    assert begun == [], "no flight is started that could only repeat the failure"
    assert grant.calls == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_token_inside_its_leeway_is_served_when_nothing_better_comes(kind: Kind) -> None:
    """Close to its expiry the token is replaced first; if that fails it is still served (scenario 52)."""
    grant = Refusing(NotSent("away"))
    grant.gate.set()
    last = Token("access 0", refresh_token="refresh 0", lifetime=200.0, expires_at=time.time() + 19.0)
    assert Crowd(kind, 5, manager_for(grant, last)).tokens() == ["access 0"] * 5
    assert grant.calls >= 1


def test_a_token_that_cannot_be_saved_is_served_from_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Unsaved: loud, its callers are served, nobody can have a later one, and saving goes on until it works (P5)."""
    monkeypatch.setattr("unexpired._core.landing._LONG_ENOUGH", 60.0)
    store, server = Faulty(), Server()
    manager = manager_for(server, store=store)
    store.save_error = StoreError("the disk is full")
    heard: list[Event] = []
    manager.on(Event, lambda event: None if isinstance(event, CallerWaited) else heard.append(event))
    assert manager.token().access_token == "access 1"
    assert manager.token().access_token == "access 1"
    until(lambda: heard)
    assert heard == [Unsaved("default", 2, 3, "the disk is full")]
    assert store.load("default").tokens[None].access_token == "access 0"  # type: ignore[union-attr]
    with pytest.raises(TemporarilyUnavailable, match="cannot be stored yet"):
        manager.refresh()
    store.save_error = None
    until(lambda: manager._cell.flying is None)
    assert store.load("default").refresh_token == "refresh 1"  # type: ignore[union-attr]
    assert manager.refresh().access_token == "access 2"
    assert (server.calls, server.reused) == (2, 0)
    until(lambda: len(heard) > 2)
    assert isinstance(heard[1], RefreshStarted)


def test_a_token_that_cannot_be_saved_does_not_bring_back_a_login_that_has_ended() -> None:
    """P8: whoever logged out during the refresh is not served from memory, however the store goes on."""
    store, server = Faulty(), Server(gated=True)
    manager = manager_for(server, store=store)
    attempt = Attempt(manager.token)
    assert server.arrived.wait(PATIENCE)
    manager.logout()
    store.save_error = StoreError("the disk is full")
    server.gate.set()
    with pytest.raises(LoginRequired) as caught:
        attempt.result()
    assert caught.value.reason == "logout"
    with pytest.raises(LoginRequired):
        manager.token()
    store.save_error = None
    until(lambda: manager._cell.flying is None)
    assert not manager.logged_in


def test_a_store_that_cannot_be_read_leaves_the_token_in_memory(caplog: pytest.LogCaptureFixture) -> None:
    """While the token in memory is valid it is served, by all managers, with one warning for each outage."""
    store = Faulty()
    manager = manager_for(Server(), FRESH, store=store)
    manager.token()
    for outage in (1, 2):
        store.load_error = StoreError("the disk is gone")
        manager._cell.adopt(manager._cell.view.session)  # type: ignore[union-attr]
        for _ in range(10):
            other = TokenManager(Server(), store=store)
            assert other.token().access_token == manager.token().access_token == "access 0"
        lines = [line.message for line in caplog.records if line.levelno == logging.WARNING]
        assert lines == ["the disk is gone; the token in memory is served meanwhile"] * outage
        store.load_error = None
        manager.token()


@pytest.mark.parametrize("kind", KINDS)
def test_a_store_that_cannot_be_read_and_no_token_is_an_error(kind: Kind) -> None:
    """With no valid token in memory everybody gets the store's error, whatever they asked."""
    store, server = Faulty(), Server()
    manager = manager_for(server, EXPIRED, store=store)
    store.load_error = StoreError("the disk is gone")
    for method in ("token", "refresh"):
        outcomes = Crowd(kind, 5, manager, method).outcomes()
        assert [str(outcome).split(": ")[-1] for outcome in outcomes] == ["the disk is gone"] * 5
        assert {type(outcome) for outcome in outcomes} == {StoreError}
    assert server.calls == 0


def test_a_store_that_fails_during_the_flight_is_an_error() -> None:
    """A store that cannot be read when the flight looks fails its callers with the store's error, nothing is sent."""
    store, server = Faulty(), Server()
    manager = manager_for(server, FRESH, store=store)
    manager.token()
    store.load_error = StoreError("the disk is gone")
    with pytest.raises(StoreError, match="the disk is gone"):
        manager.refresh()
    assert server.calls == 0


class BrokenLease(Faulty):
    """Its leases cannot be given back, and its mistakes are not StoreErrors."""

    def lease(self, key: str, **named: Any) -> Any:
        """A lease whose release raises."""
        held = super().lease(key, **named)
        assert held is not None
        free = held.release

        def release() -> None:
            free()
            raise ValueError("secret-7")

        held.release = release  # type: ignore[method-assign]
        return held


def test_a_lease_that_cannot_be_given_back_costs_nobody_a_token(caplog: pytest.LogCaptureFixture) -> None:
    """Everybody gets the new token although `release` raises; the log says where, not what."""
    manager = manager_for(Server(), store=BrokenLease())
    assert Attempt(manager.token).result().access_token == "access 1"
    assert "could not be given back: ValueError at test_failing.py" in caplog.text
    assert "secret-7" not in caplog.text


def test_a_store_with_a_mistake_of_its_own_hangs_nobody(caplog: pytest.LogCaptureFixture) -> None:
    """A flight that breaks down tells everybody at once, gives the lease back, and the next one can fly."""
    store, server = Faulty(), Server()
    manager = manager_for(server, FRESH, store=store)
    manager.token()
    store.load_error = ZeroDivisionError("secret-7")
    with pytest.raises(TemporarilyUnavailable, match="broke down"):
        manager.refresh()
    assert "broke down: ZeroDivisionError at staging.py" in caplog.text
    assert "secret-7" not in caplog.text
    store.load_error = None
    assert manager.refresh().access_token == "access 1"
