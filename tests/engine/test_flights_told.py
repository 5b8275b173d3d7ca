from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest

from tests.engine.staging import FRESH, Attempt, Crowd, Faulty, Server, aboard, manager_for, nearly_expired
from tests.waiting import until
from unexpired import LoginRequired, Session, StoreError, TemporarilyUnavailable, Token, TokenManager
from unexpired._core.session import Intent
from unexpired._engine.flying import Flying
from unexpired._engine.tally import lasting
from unexpired.errors import NotSent, Refused
from unexpired.events import Event, FlightEnded, RefreshSucceeded
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

HERE: ContextVar[str] = ContextVar("HERE", default="nobody's")


class Ends:
    """The ends of a manager's flights, as they are told."""

    def __init__(self, manager: TokenManager) -> None:
        self.told: list[FlightEnded] = []
        manager.on(FlightEnded, self.told.append)

    def only(self) -> FlightEnded:
        """The one that was told, or soon is."""
        until(lambda: self.told)
        (ended,) = self.told
        return ended


def stored(store: MemoryStore) -> Session:
    """The session, as any process would find it."""
    session = store.load("default")
    assert session is not None
    return session


def others_refresh(store: MemoryStore, number: int = 9) -> None:
    """Another process stores a newer token."""
    before = stored(store)
    token = Token(f"access {number}", refresh_token=f"refresh {number}", expires_at=time.time() + 600.0)
    assert store.swap("default", before, before.minted(token))


def others_log_out(store: MemoryStore) -> None:
    """Another process ends the login."""
    before = stored(store)
    assert store.swap("default", before, before.over("logout", time.time()))


def test_the_end_of_a_flight_is_told_with_all_its_figures() -> None:
    """After everything else of the flight: what came of it, for how many, and where its time went."""
    server = Server(gated=True)
    manager = manager_for(server)
    heard: list[Event] = []
    manager.on(Event, heard.append)
    crowd = Crowd("threads", 5, manager)
    until(lambda: aboard(manager) == 5)
    assert server.arrived.wait(20)
    server.gate.set()
    crowd.tokens()
    until(lambda: any(isinstance(event, FlightEnded) for event in heard))
    kinds = [type(event) for event in heard]
    assert kinds.index(RefreshSucceeded) < kinds.index(FlightEnded)
    (ended,) = [event for event in heard if isinstance(event, FlightEnded)]
    assert (ended.outcome, ended.reason, ended.callers, ended.version) == ("refreshed", "", 5, 2)
    assert (ended.requests, ended.fenced, ended.recovered, ended.retry_after) == (1, 0, False, None)
    assert 0 < ended.request_seconds <= ended.seconds
    assert 0 <= ended.lease_seconds <= ended.seconds - ended.request_seconds
    assert ended.expires_at == pytest.approx(time.time() + 3600.0, abs=60.0)


def test_each_flight_has_its_number() -> None:
    """No two flights of one process have the same, whoever's they are."""
    managers = [manager_for(Server()), manager_for(Server())]
    ends = [Ends(manager) for manager in managers]
    for manager in (*managers, managers[0]):
        manager.refresh()
    until(lambda: sum(len(each.told) for each in ends) == 3)
    numbers = [ended.flight for each in ends for ended in each.told]
    assert len(set(numbers)) == 3


def test_a_flight_for_a_resource_names_it() -> None:
    """The resource it redeemed for (RFC 8707) is told; the expiry is that of the token that lives longest."""

    def grant(session: Session, *, resource: str | None = None) -> dict[str, Any]:
        return {"access_token": f"{session.version} for {resource}", "refresh_token": "next", "expires_in": 60}

    manager = manager_for(FunctionGrant(grant), FRESH)
    ends = Ends(manager)
    manager.token("https://a.test")
    ended = ends.only()
    assert ended.resource == "https://a.test"
    assert ended.expires_at == pytest.approx(time.time() + 3600.0, abs=60.0)


def test_a_flight_that_waits_for_another_process_adopts_its_token() -> None:
    """It asks the server nothing, and the wait is the lease's."""
    store, server = MemoryStore(), Server()
    manager = manager_for(server, store=store)
    ends = Ends(manager)
    lease = store.lease("default", owner="another", seconds=10.0, wait=0.0, stop=lambda: False)
    assert lease is not None
    caller = Attempt(manager.token)
    until(lambda: aboard(manager) == 1)
    others_refresh(store)
    lease.release()
    assert caller.result().access_token == "access 9"
    ended = ends.only()
    assert (ended.outcome, ended.requests, ended.request_seconds, ended.version) == ("adopted", 0, 0.0, 2)
    assert 0 < ended.lease_seconds <= ended.seconds
    assert server.calls == 0


def test_a_flight_that_finds_the_login_over_tells_so() -> None:
    """Another process ended it: there was nothing to refresh, and nothing failed."""
    store = MemoryStore()
    manager = manager_for(Server(), store=store)
    ends = Ends(manager)
    lease = store.lease("default", owner="another", seconds=10.0, wait=0.0, stop=lambda: False)
    assert lease is not None
    caller = Attempt(manager.token)
    until(lambda: aboard(manager) == 1)
    others_log_out(store)
    lease.release()
    with pytest.raises(LoginRequired):
        caller.result()
    ended = ends.only()
    assert (ended.outcome, ended.requests, ended.expires_at) == ("gone", 0, None)


def busy(_: Session) -> dict[str, Any]:
    """Send nothing."""
    raise NotSent("the line is busy", retry_after=30.0)


def test_a_failure_and_the_pause_after_it_are_two_outcomes() -> None:
    """The flight that failed says how long nobody asks again; one that came within the pause asked nobody."""
    manager = manager_for(busy)
    ends = Ends(manager)
    for _ in range(2):
        with pytest.raises(TemporarilyUnavailable):
            manager.token()
    until(lambda: len(ends.told) == 2)
    # Told by two threads: the first may be the slower one.
    failed, cooling = sorted(ends.told, key=lambda end: end.flight)
    assert (failed.outcome, failed.reason, failed.requests) == ("failed", "unreachable", 1)
    assert failed.retry_after == pytest.approx(30.0, rel=0.5)
    assert (cooling.outcome, cooling.reason, cooling.requests) == ("cooling_down", "unreachable", 0)
    assert cooling.retry_after is None


def test_a_flight_that_ends_the_login_names_the_reason() -> None:
    """The server's refusal of the refresh token is the end, with the reason that callers get."""

    def refusing(_: Session) -> dict[str, Any]:
        raise Refused("no", error="invalid_grant")

    manager = manager_for(refusing)
    ends = Ends(manager)
    with pytest.raises(LoginRequired):
        manager.token()
    ended = ends.only()
    assert (ended.outcome, ended.reason, ended.version, ended.expires_at) == ("ended", "refused", 2, None)


def test_a_flight_that_comes_too_late_was_overtaken() -> None:
    """Somebody logged in while the server was asked: the write was fenced, and that is counted."""
    server = Server(gated=True)
    manager = manager_for(server)
    ends = Ends(manager)
    caller = Attempt(manager.token)
    assert server.arrived.wait(20)
    manager.login({"access_token": "new", "refresh_token": "new too", "expires_in": 60})
    server.gate.set()
    assert caller.result().access_token == "new"
    ended = ends.only()
    assert (ended.outcome, ended.fenced, ended.requests) == ("overtaken", 1, 1)


def test_a_contest_over_a_version_is_a_fenced_write() -> None:
    """Somebody noted something on the version first: that costs one write, and the flight goes on."""
    store, server = MemoryStore(), Server()
    manager = manager_for(server, store=store)
    ends = Ends(manager)
    plain_swap, contested = store.swap, threading.Event()

    def swap(key: str, expected: Session | None, new: Session) -> bool:
        if not contested.is_set():
            contested.set()
            now = stored(store)
            plain_swap(key, now, now.noted(intent=now.intent, failure=now.failure))
        return plain_swap(key, expected, new)

    store.swap = swap  # type: ignore[method-assign]
    assert manager.token().access_token == "access 1"
    ended = ends.only()
    assert (ended.outcome, ended.fenced, ended.requests) == ("refreshed", 1, 1)


def test_a_token_that_dies_with_the_process_is_told_as_unsaved(monkeypatch: pytest.MonkeyPatch) -> None:
    """The process ends while the store refuses the new token: its last word is no success, and no quiet either."""
    store, server, leaving = Faulty(), Server(gated=True), threading.Event()
    manager = manager_for(server, store=store)
    ends = Ends(manager)
    monkeypatch.setattr(Flying, "exiting", lambda _: leaving.is_set())
    Attempt(manager.token)
    assert server.arrived.wait(20)
    # Not before the request is sent: a slow machine would not send it any more.
    object.__setattr__(manager._policy, "deadline", 0.2)
    store.save_error = StoreError("the disk is full")
    leaving.set()
    server.gate.set()
    ended = ends.only()
    assert (ended.outcome, ended.requests) == ("unsaved", 1)


def test_a_flight_that_breaks_down_is_told_all_the_same() -> None:
    """A store that raises what no store may raise ends it, and its end is told."""
    store = Faulty()
    manager = manager_for(Server(), store=store)
    ends = Ends(manager)
    store.save_error = ZeroDivisionError()
    with pytest.raises(TemporarilyUnavailable, match="broke down"):
        manager.token()
    ended = ends.only()
    assert (ended.outcome, ended.version, ended.expires_at) == ("broken", 0, None)


def test_a_flight_in_the_background_has_no_callers() -> None:
    """Refreshing ahead is nobody's wait."""
    manager = manager_for(Server(), nearly_expired())
    ends = Ends(manager)
    assert manager.token().access_token == "access 0"
    ended = ends.only()
    assert (ended.outcome, ended.callers) == ("refreshed", 0)


@pytest.mark.parametrize(("ahead", "coalesced"), [(True, 3), (False, 2)])
def test_who_joins_what_another_one_started_is_coalesced(*, ahead: bool, coalesced: int) -> None:
    """All who wait for a flight that began in the background; all but one of those who began it themselves."""
    server = Server(gated=True)
    manager = manager_for(server, nearly_expired() if ahead else FRESH)
    ends = Ends(manager)
    old = manager.token()
    if ahead:
        assert server.arrived.wait(20)
    crowd = Crowd("threads", 3, manager, "refresh", rejected=old)
    until(lambda: aboard(manager) == 3)
    server.gate.set()
    crowd.tokens()
    ended = ends.only()
    assert (ended.callers, ended.coalesced) == (3, coalesced)


@pytest.mark.parametrize(("owner", "recovers"), [("somebody who is gone", True), ("", False)])
def test_taking_over_from_somebody_who_vanished_is_told(owner: str, recovers: bool) -> None:
    """A request that was announced and whose end is unknown was a crash; one whose end was noted was not."""
    store = MemoryStore()
    manager = manager_for(Server(), store=store)
    ends = Ends(manager)
    before = stored(store)
    intent = Intent(before.login, before.version, owner, 1, time.time())
    assert store.swap("default", before, before.noted(intent=intent, failure=None))
    assert manager.token().access_token == "access 1"
    ended = ends.only()
    assert (ended.outcome, ended.recovered) == ("refreshed", recovers)


def test_a_flight_is_told_where_its_starter_s_context_is() -> None:
    """A flight runs in a copy of the context of the caller that started it, and so do its listeners."""
    manager = manager_for(Server())
    contexts: list[str] = []
    manager.on(FlightEnded, lambda _: contexts.append(HERE.get()))

    def call() -> None:
        HERE.set("the caller's")
        manager.token()

    Attempt(call).result()
    until(lambda: contexts)
    assert contexts == ["the caller's"]


def lives(*expiries: float | None) -> Session:
    """A session with a token for each of these."""
    session = Session.begin("default", "login", "refresh")
    for number, expiry in enumerate(expiries):
        session = session.minted(Token(f"access {number}", expires_at=expiry), f"https://{number}.test")
    return session


@pytest.mark.parametrize(
    ("session", "expected"),
    [
        (lambda: None, None),
        (lives, None),
        (lambda: lives(5.0), 5.0),
        (lambda: lives(5.0, 7.0, 6.0), 7.0),
        (lambda: lives(5.0, None), None),
    ],
)
def test_the_expiry_of_a_session_is_that_of_its_longest_token(
    session: Callable[[], Session | None], expected: float | None
) -> None:
    """None while there is no token, or when one never expires as far as anybody knows."""
    assert lasting(session()) == expected
