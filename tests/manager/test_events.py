from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from unittest.mock import ANY

import pytest

from tests.engine.staging import EXPIRED, FRESH, Attempt, Crowd, Server, aboard, manager_for
from tests.waiting import until
from unexpired import TokenManager
from unexpired.events import (
    CallerWaited,
    Event,
    FlightEnded,
    FreshTokenRefused,
    LoggedIn,
    LoggedOut,
    RefreshStarted,
    RefreshSucceeded,
    RequestReplayed,
)
from unexpired.stores import MemoryStore


def test_a_refresh_is_told_with_its_figures() -> None:
    """Started (version, attempt), then succeeded (new version, seconds, how many callers waited), then the end."""
    server = Server(gated=True)
    manager = manager_for(server)
    heard: list[Event] = []
    manager.on(Event, lambda event: None if isinstance(event, CallerWaited) else heard.append(event))
    crowd = Crowd("threads", 7, manager)
    until(lambda: aboard(manager) == 7)
    server.gate.set()
    crowd.tokens()
    until(lambda: len(heard) == 3)
    started, succeeded, ended = heard
    assert started == RefreshStarted("default", version=1, attempt=1)
    assert isinstance(succeeded, RefreshSucceeded)
    assert (succeeded.version, succeeded.callers, succeeded.resource) == (2, 7, None)
    assert 0 < succeeded.seconds < 60
    assert isinstance(ended, FlightEnded)
    assert (ended.outcome, ended.version, ended.callers) == ("refreshed", 2, 7)


def test_listeners_hear_of_their_type_only() -> None:
    """A listener is called for the type it asked for and its subtypes; `Event` is all of them."""
    manager = manager_for(Server(), None)
    one: list[Event] = []
    every: list[Event] = []
    manager.on(LoggedIn, one.append)
    manager.on(Event, every.append)
    manager.login(FRESH)
    manager.logout()
    assert one == [LoggedIn("default", ANY)]
    assert every == [LoggedIn("default", ANY), LoggedOut("default", revoked=False)]


def test_callers_are_awake_before_listeners_are_told() -> None:
    """A listener that never returns keeps no caller waiting, nor the next refresh."""
    server, stuck, hanging = Server(), threading.Event(), threading.Event()
    manager = manager_for(server)

    def listener(_: Event) -> None:
        hanging.set()
        assert stuck.wait(20)

    manager.on(RefreshStarted, listener)
    assert Crowd("threads", 10, manager).tokens() == ["access 1"] * 10
    assert hanging.wait(20)
    assert Attempt(manager.refresh).result().access_token == "access 2"
    stuck.set()


def test_what_a_listener_raises_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    """An exception in a listener is logged; the other listeners and the caller notice nothing."""
    manager = manager_for(Server(), None)
    heard: list[Event] = []

    def broken(_: Event) -> None:
        raise ZeroDivisionError

    manager.on(LoggedIn, broken)
    manager.on(LoggedIn, heard.append)
    manager.login(FRESH)
    assert heard == [LoggedIn("default", ANY)]
    assert "a listener for LoggedIn failed" in caplog.text
    assert "ZeroDivisionError" in caplog.text


class BrokenHandler(logging.Handler):
    """A handler that raises."""

    def emit(self, record: logging.LogRecord) -> None:
        """Raise something."""
        raise ZeroDivisionError(record)


@pytest.fixture
def _broken_log() -> Iterator[None]:
    log, handler = logging.getLogger("unexpired"), BrokenHandler()
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.DEBUG)
    yield
    log.removeHandler(handler)
    log.setLevel(before)


@pytest.mark.usefixtures("_broken_log")
def test_what_the_log_raises_changes_nothing() -> None:
    """A log handler that raises costs nobody a token, and the listeners still hear."""
    manager = manager_for(Server())
    heard: list[Event] = []
    manager.on(RefreshSucceeded, heard.append)
    assert manager.token().access_token == "access 1"
    until(lambda: heard)


def test_a_subscription_ends_alone_and_once() -> None:
    """Two subscriptions of one function are two; ending one, even twice, leaves the other."""
    manager = manager_for(Server(), None)
    heard: list[Event] = []
    first = manager.on(LoggedIn, heard.append)
    manager.on(LoggedIn, heard.append)
    first()
    first()
    manager.login(FRESH)
    assert heard == [LoggedIn("default", ANY)]


def test_close_ends_the_managers_own_subscriptions() -> None:
    """After `close`, or the end of a `with` block, its listeners are silent, others are not, and it still works."""
    store = MemoryStore()
    heard: list[str] = []
    other = TokenManager(Server(), store=store)
    other.on(LoggedIn, lambda _: heard.append("other"))
    with TokenManager(Server(), store=store) as manager:
        manager.on(LoggedIn, lambda _: heard.append("closed"))
        manager.on(LoggedOut, lambda _: heard.append("closed"))
    manager.close()
    manager.login(EXPIRED)
    assert heard == ["other"]
    assert manager.token().access_token == "access 1"


def test_events_are_lines_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """Each event is one line of the `unexpired` logger, with the event attached, at a level that fits."""
    caplog.set_level(logging.DEBUG, "unexpired")
    manager = manager_for(Server(), None)
    manager.login(FRESH)
    manager.exchange.tell(RequestReplayed("default", "https://api.example.com", 1))
    manager.exchange.tell(Event("default"))
    levels = [(record.unexpired_event, record.levelno) for record in caplog.records]  # type: ignore[attr-defined]
    assert levels == [
        (LoggedIn("default", ANY), logging.INFO),
        (RequestReplayed("default", "https://api.example.com", 1), logging.DEBUG),
        (Event("default"), logging.INFO),
    ]
    assert "LoggedIn(key='default'" in caplog.text
    assert "access 0" not in caplog.text


@pytest.mark.usefixtures("no_pause_passes")
def test_an_api_that_refuses_fresh_tokens_is_told_once_for_each_token() -> None:
    """Withheld refreshes are no secret: the place and the pause are told, but not at every refusal."""
    server = Server()
    manager = manager_for(server, FRESH)
    told: list[FreshTokenRefused] = []
    manager.on(FreshTokenRefused, told.append)
    fresh = manager.exchange.replacement(manager.token(), "https://api.test")
    assert fresh is not None
    for _ in range(3):
        assert manager.exchange.replacement(fresh, "https://api.test") is None
    assert [event.origin for event in told] == ["https://api.test"]
    assert 0.5 <= told[0].pause <= 1.0
