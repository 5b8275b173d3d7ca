from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from tests.engine.staging import FRESH, Crowd, Server, manager_for
from tests.waiting import until
from unexpired import Token, TokenManager
from unexpired._engine import cell, clock, desk, driving, flying, rooms
from unexpired.errors import TemporarilyUnavailable
from unexpired.stores import MemoryStore


class Clocks:
    """The two clocks of the engine, which stand still and can be put forward or back."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.wall_offset = 0.0
        self.boot_offset = 0.0
        wall, boot = time.time(), clock.boot()
        patch.setattr(time, "time", lambda: wall + self.wall_offset)
        for module in (clock, cell, desk, driving, flying, rooms):
            patch.setattr(module, "boot", lambda: boot + self.boot_offset)
        patch.setattr("unexpired.manager.boot", lambda: boot + self.boot_offset)

    def passes(self, seconds: float) -> None:
        """Time goes by, for both."""
        self.wall_offset += seconds
        self.boot_offset += seconds


@pytest.fixture
def clocks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Clocks]:
    """Clocks in the test's hand."""
    with monkeypatch.context() as patch:
        yield Clocks(patch)


@pytest.mark.parametrize("jump", [600.0, -600.0], ids=["forwards", "backwards"])
def test_a_clock_jump_moves_no_token_in_hand(jump: float, clocks: Clocks) -> None:
    """UNIX time jumps by 10 minutes: a token in hand neither expires by it nor lives on for it (scenario 64)."""
    server = Server(expires_in=300)
    manager = manager_for(server, {**FRESH, "expires_in": 300})
    manager.token()
    clocks.wall_offset += jump
    for _ in range(20):
        assert manager.token().access_token == "access 0"
    assert server.calls == 0
    clocks.boot_offset += 290
    assert manager.token().access_token == "access 1"
    assert server.calls == 1


@pytest.mark.parametrize("jump", [600.0, -600.0], ids=["forwards", "backwards"])
def test_a_clock_jump_between_processes_costs_one_refresh_at_most(jump: float, clocks: Clocks) -> None:
    """A manager that reads a token stored before the jump refreshes once at most, then is at rest (scenario 64)."""
    server, store = Server(expires_in=300), MemoryStore()
    manager_for(server, {**FRESH, "expires_in": 300}, store=store)
    clocks.wall_offset += jump
    later = _in_another_process(server, store)
    for _ in range(20):
        later.token()
    assert server.calls == (1 if jump > 0 else 0)
    clocks.boot_offset += 290
    assert later.token().access_token == f"access {server.calls}"
    assert server.calls == (2 if jump > 0 else 1)


def test_a_clock_set_back_does_not_make_a_token_live_for_ever(clocks: Clocks) -> None:
    """With the clock 10 minutes slow, a stored token lives no longer than its own lifetime (scenario 64)."""
    store = MemoryStore()
    manager_for(Server(), {**FRESH, "expires_in": 300}, store=store)
    clocks.wall_offset -= 600
    server = Server()
    later = _in_another_process(server, store)
    assert later.token().access_token == "access 0"
    clocks.boot_offset += 299
    assert later.token().access_token == "access 1"


def test_a_cool_down_ends_although_the_clock_is_set_back(clocks: Clocks) -> None:
    """A failure remembered with a time that is now in the future keeps nobody from asking (scenario 64)."""

    def away(_: object) -> Token:
        raise ConnectionError

    store = MemoryStore()
    manager = manager_for(away, store=store)
    with pytest.raises(TemporarilyUnavailable):
        manager.token()
    clocks.wall_offset -= 600
    assert _in_another_process(Server(), store).token().access_token == "access 1"


def test_after_a_day_asleep_there_is_one_refresh(clocks: Clocks) -> None:
    """The machine wakes with many managers and an expired token, by both clocks: 1 request (scenario 65)."""
    server = Server(gated=True)
    manager = manager_for(server, FRESH)
    manager.token()
    clocks.passes(86400)
    crowd = Crowd("threads", 20, manager)
    assert server.arrived.wait(20)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 20
    assert server.calls == 1


def test_a_short_lived_token_is_not_refreshed_for_each_call(clocks: Clocks) -> None:
    """A token of 15 s serves calls for most of its life, without any refresh (scenario 66)."""
    server = Server(expires_in=15)
    manager = manager_for(server)
    manager.token()
    for _ in range(100):
        assert manager.token().access_token == "access 1"
    clocks.passes(11)
    assert manager.token().access_token == "access 1"
    assert server.calls == 1
    clocks.passes(3)
    until(lambda: manager.token().access_token == "access 2")


def test_refresh_ahead_is_spread_over_the_keys(clocks: Clocks) -> None:
    """1 000 sessions of one age do not all refresh at the same moment (scenario 67)."""
    store = MemoryStore()
    begun: list[str] = []

    def grant(session: object) -> Token:
        raise AssertionError(session)

    managers = [manager_for(grant, FRESH, store=store, key=f"user {number}") for number in range(1000)]
    for manager in managers:
        manager._desk._refresh_ahead = lambda _, key=manager.key: begun.append(key)  # type: ignore[misc]
    counts = []
    for left in (301, 270, 240, 210, 180, 149):
        clocks.boot_offset += 3600 - left - clocks.boot_offset
        begun.clear()
        for manager in managers:
            assert manager.token().access_token == "access 0"
        counts.append(len(begun))
    assert counts[0] == 0
    assert counts[-1] == 1000
    steps = [later - earlier for earlier, later in itertools.pairwise(counts)]
    assert max(steps) < 300, counts


def _in_another_process(server: Server, store: MemoryStore) -> TokenManager:
    """A manager that has seen nothing of the session yet."""
    manager = TokenManager(server, store=store, patience=0)
    manager._cell.view = None
    return manager
