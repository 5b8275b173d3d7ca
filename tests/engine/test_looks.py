"""One process's looks at the store and the clock: what it takes for changed, for young, for its own resource."""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest

from tests.engine.staging import FRESH, PATIENCE, Attempt, Server, manager_for, nearly_expired
from tests.waiting import until
from unexpired import Session, Token, TokenManager
from unexpired._core.effects import Granted, Lease, Sleep
from unexpired._core.flight import Plan
from unexpired._core.policy import Policy
from unexpired._core.session import Failure
from unexpired._engine import cell as cells
from unexpired._engine import clock
from unexpired._engine.arguments import check_resource
from unexpired._engine.cell import Cell, Reading
from unexpired._engine.clock import boot
from unexpired._engine.flying import Flying
from unexpired.errors import ConfigurationError
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore


class Leased:
    """A lease of some seconds ago, by a store with a clock of its own."""

    timed = True
    granted_at = 123.0

    def age(self) -> float:
        """Seconds since it was granted."""
        return 5.0

    def renew(self) -> None:
        """Nothing to do."""

    def release(self) -> None:
        """Nothing to do."""


class Leasing(MemoryStore):
    """A memory that gives *held*, or no lease, and keeps what it was asked for."""

    held: Leased | None = None
    asked: Mapping[str, Any]

    def lease(self, key: str, **asked: Any) -> Any:
        """Give it, or do not."""
        self.asked = {"key": key, **asked}
        return self.held


class Counting(MemoryStore):
    """A memory that counts who asks for its lease."""

    leases = 0

    def lease(self, *args: Any, **named: Any) -> Any:
        """Count, and give it."""
        self.leases += 1
        return super().lease(*args, **named)


def _granted(server: Server, asked: list[str | None]) -> Any:
    """A grant function that keeps what it was asked for."""

    def grant(session: Session, resource: str | None = None) -> Mapping[str, Any]:
        asked.append(resource)
        return server(session)

    return grant


def test_the_clock_that_never_jumps_runs_while_the_machine_sleeps() -> None:
    """On Linux that is CLOCK_BOOTTIME; the other one is UNIX time."""
    chosen = clock._choose()
    assert isinstance(chosen, partial)
    assert (chosen.func, chosen.args) == (time.clock_gettime, (time.CLOCK_BOOTTIME,))
    now = clock.instant(exiting=True)
    assert now.boot == pytest.approx(time.clock_gettime(time.CLOCK_BOOTTIME), abs=15.0)
    assert now.wall == pytest.approx(time.time(), abs=15.0)
    assert (now.exiting, clock.instant().exiting) == (True, False)


def test_a_record_counts_as_changed_from_the_last_read_on() -> None:
    """Where nobody has looked nothing is known; afterwards every change of it is one."""
    store = MemoryStore()
    cell = Cell(store, "alice")
    reading = Reading(cell)
    assert store.swap("alice", None, Session.begin("alice", "login-1", "RT-1"))
    assert not reading.changed()
    stored = reading.load()
    assert stored is not None
    assert not reading.changed()
    assert store.swap("alice", stored, stored.over("logout", 0.0))
    assert reading.changed()
    assert reading.load() is not None
    assert not reading.changed()


def test_a_flight_hears_of_what_changed_since_it_was_asked_for() -> None:
    """Between the look that started it and its first own one: it would wait for the lease, and the token is there."""
    store = MemoryStore()
    cell = Cell(store, "alice")
    assert cell.look().session is None
    reading = Reading(cell)
    assert not reading.changed()
    assert store.swap("alice", None, Session.begin("alice", "login-1", "RT-1"))
    assert cell.look().session is not None
    assert reading.changed()


def test_nothing_is_refreshed_ahead_while_a_failure_in_the_record_holds() -> None:
    """Another process met it: the token serves on, and nobody even asks for the lease (scenario 52)."""
    store = Counting()
    manager = manager_for(Server(), nearly_expired(), store=store)
    held = store.load("default")
    assert held is not None
    now = time.time()
    failure = Failure("unreachable", "down", now, now + 600.0)
    assert store.swap("default", held, held.noted(intent=None, failure=failure))
    for _ in range(5):
        assert manager.token().access_token == "access 0"
    assert (store.leases, manager._cell.flying) == (0, None)
    past = Failure("unreachable", "down", now - 60.0, now - 1.0)
    stored = store.load("default")
    assert stored is not None
    assert store.swap("default", stored, stored.noted(intent=None, failure=past))
    assert manager.token().access_token == "access 0"
    until(lambda: manager.token().access_token == "access 1")
    assert store.leases == 1


def test_a_token_for_a_resource_is_refreshed_ahead_for_that_resource() -> None:
    """The default one is left as it is."""
    asked: list[str | None] = []
    manager = manager_for(_granted(Server(), asked), FRESH)
    assert manager.token("mail").access_token == "access 1"
    aged = Token("access 1", refresh_token="refresh 1", lifetime=200.0, expires_at=time.time() + 22.0)
    _store_instead(manager, aged)
    until(lambda: manager.token("mail").access_token == "access 2")
    assert asked == ["mail", "mail"]
    assert manager.token().access_token == "access 0"


def _store_instead(manager: TokenManager, token: Token) -> None:
    """Another process stores *token* as the newest one for mail."""
    store = manager._cell.store
    held = store.load("default")
    assert held is not None
    assert store.swap("default", held, held.minted(token, "mail"))


def test_a_refresh_for_a_resource_without_a_token_asks_for_it() -> None:
    """Not for the default one."""
    asked: list[str | None] = []
    manager = manager_for(_granted(Server(), asked), FRESH)
    brought = manager.refresh(rejected="some other", resource="mail")
    assert (brought.resource, asked) == ("mail", ["mail"])


@pytest.mark.usefixtures("no_pause_passes")
def test_the_age_of_a_refused_token_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An older default token does not make a young one for a resource look old."""
    server = Server()
    with monkeypatch.context() as patch:
        patch.setattr(cells, "boot", lambda: boot() - 1000.0)
        manager = manager_for(_granted(server, []), FRESH)
        assert manager.token().access_token == "access 0"
    origin = "https://api.example.com"
    new = manager.exchange.replacement(manager.token("mail"), origin)
    assert new is not None
    assert manager.exchange.replacement(new, origin) is None
    assert server.calls == 2


def _flying(store: MemoryStore) -> Flying:
    """A flight that nobody has started."""
    cell = Cell(store, "alice")
    cell.look()
    return Flying(cell, Plan("alice", Policy(), "me"), FunctionGrant(Server()), Reading(cell))


def test_a_flight_takes_the_lease_for_as_long_as_it_may_need_it() -> None:
    """In its own name; what it was given counts from the grant, by this machine's clock and by the store's."""
    store = Leasing()
    store.held = Leased()
    flying = _flying(store)
    granted = flying._take_lease(Lease(7.0))
    asked = dict(store.asked)
    assert not asked.pop("stop")()
    assert asked == {"key": "alice", "owner": "me", "seconds": 12.0, "wait": 7.0}
    assert isinstance(granted, Granted)
    assert (granted.at, granted.timed) == (123.0, True)
    assert granted.since == pytest.approx(boot() - 5.0, abs=5.0)
    assert granted.since < boot() - 4.9


def test_a_lease_that_cannot_be_had_is_a_change_or_the_end_of_the_wait() -> None:
    """A change of the record ends the wait, too."""
    store = Leasing()
    flying = _flying(store)
    assert flying._take_lease(Lease(0.0)) == "timeout"
    assert store.swap("alice", None, Session.begin("alice", "login-1", "RT-1"))
    assert store.asked["stop"]()
    assert flying._take_lease(Lease(0.0)) == "changed"


def test_a_flight_sleeps_as_long_as_it_is_told() -> None:
    """By the clock that never jumps."""
    flying = _flying(MemoryStore())
    began = boot()
    assert flying._sleep(Sleep(0.2))
    assert 0.2 <= boot() - began < 15.0


def test_a_watchful_sleep_ends_when_the_record_changes() -> None:
    """Who holds off from another's intent goes on as soon as that one has stored its token (scenario 21)."""
    store = MemoryStore()
    flying = _flying(store)
    sleeping = Attempt(lambda: flying._sleep(Sleep(PATIENCE * 10, watchful=True)))
    assert store.swap("alice", None, Session.begin("alice", "login-1", "RT-1"))
    assert sleeping.result() is True


def test_a_wrong_function_of_the_login_page_is_called_by_its_argument() -> None:
    """`on_login_page` is what has to be mended."""
    with pytest.raises(ConfigurationError, match=r"^on_login_page must be a function"):
        manager_for(Server(), None, on_login_page=True)


@pytest.mark.parametrize(("number", "shown"), [(2**64 - 1, str(2**64 - 1)), (2**64, "an object of type int")])
def test_whole_numbers_are_quoted_up_to_64_bits(number: int, shown: str) -> None:
    """A longer one could be a key."""
    with pytest.raises(ConfigurationError) as caught:
        check_resource(number)
    assert f"not {shown};" in str(caught.value)
