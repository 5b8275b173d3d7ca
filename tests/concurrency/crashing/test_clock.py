"""Processes whose clocks are ten minutes apart, or jump, by libfaketime: the machine's own clock is not touched."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.concurrency.crashing.conftest import Start, Started
from unexpired import TokenManager
from unexpired.testing import ServerHandle

OFFSETS = (600, -600)
_IDS = ("ahead", "behind")
_PLACES = ("/usr/lib", "/usr/lib64", "/usr/local/lib")


def _library() -> str:
    """Where libfaketime is."""
    for place in map(Path, _PLACES):
        for found in (*place.glob("faketime/libfaketime.so.1"), *place.glob("*/faketime/libfaketime.so.1")):
            return str(found)
    pytest.fail("libfaketime was not found: `make system-packages` installs it, or apt-get install libfaketime")


def _wrong_clock(**settings: str) -> dict[str, str]:
    """The environment of a process whose UNIX time is wrong. Clocks that only count, and file times, are right."""
    right = {"FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1", "NO_FAKE_STAT": "1"}
    # Otherwise every timed wait of a thread ends at once, and threads that wait for their turn take all the time.
    right["FAKETIME_FORCE_MONOTONIC_FIX"] = "0"
    return {"LD_PRELOAD": _library(), **right, **settings}


def _set(clock: Path, offset: int) -> None:
    """Let the clock of the process that reads it from there be wrong by so many seconds."""
    draft = clock.with_suffix(".draft")
    draft.write_text(f"{offset:+d}s\n")
    draft.rename(clock)


def _offset(program: Started) -> float:
    """By how many seconds the program's UNIX time is wrong. Its clocks that only count are right."""
    wall, boot, monotonic = program.ask("clocks")
    assert abs(boot - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
    assert abs(monotonic - time.monotonic()) < 60
    return float(wall - time.time())


@pytest.fixture(params=OFFSETS, ids=_IDS)
def pair(request: pytest.FixtureRequest, manager: TokenManager, start: Start) -> list[Started]:
    """Two programs that share a login, the second with a wrong clock."""
    assert manager.logged_in
    programs = [start(), start(environment=_wrong_clock(FAKETIME=f"{request.param:+d}s"))]
    assert abs(_offset(programs[0])) < 60
    assert abs(_offset(programs[1]) - request.param) < 60
    return programs


def _call(programs: list[Started], count: int = 1) -> None:
    """All programs make their calls, at the same time, and all are served."""
    for program in programs:
        program.order("call", count)
    for program in programs:
        served = False
        while not served:
            said = program.hear()
            served = said == [200] * count
            assert served or said[0] == "stored", said


def test_clocks_ten_minutes_apart_cost_no_refresh_more(
    server: ServerHandle, manager: TokenManager, pair: list[Started]
) -> None:
    """Tokens live an hour: each expiry costs one redemption, whoever meets it first, and none follows (scenario 64)."""
    manager.login(server.login())
    for expiry, first in enumerate((pair[:1], pair[1:], pair) * 2, 1):
        server.expire()
        _call(first)
        _call(pair, 10)
        assert server.stats().token_posts == expiry
    stats = server.stats()
    assert (stats.refreshes, stats.reuse_detected, stats.max_in_air) == (6, 0, 1)
    assert manager.token().minted == 7


def test_clocks_further_apart_than_a_token_lives_cost_one_refresh_more(
    server: ServerHandle, manager: TokenManager, pair: list[Started]
) -> None:
    """Tokens live five minutes: what one mints may be expired for the other, but only once, without a loop.

    Scenario 64.
    """
    server.configure(access_lifetime=300.0)
    manager.login(server.login())
    for expiry, first in enumerate((pair[:1], pair[1:]) * 2, 1):
        server.expire()
        _call(first)
        _call(pair, 20)
        _call(pair, 20)
        at_rest = server.stats().token_posts
        assert expiry <= at_rest <= 2 * expiry + 1
        _call(pair, 20)
        assert server.stats().token_posts == at_rest
    assert server.stats().reuse_detected == 0
    assert manager.logged_in


@pytest.mark.parametrize("offset", OFFSETS, ids=_IDS)
def test_a_clock_that_jumps_costs_nothing(
    offset: int, server: ServerHandle, manager: TokenManager, start: Start, tmp_path: Path
) -> None:
    """The clock of a running process jumps by ten minutes: its token stays good, and expires once (scenario 64)."""
    clock = tmp_path / "clock"
    _set(clock, 0)
    jumping = start(environment=_wrong_clock(FAKETIME_TIMESTAMP_FILE=str(clock), FAKETIME_NO_CACHE="1"))
    steady = start()
    server.configure(access_lifetime=300.0)
    manager.login(server.login())
    _call([jumping, steady], 5)
    _set(clock, offset)
    assert abs(_offset(jumping) - offset) < 60
    _call([jumping, steady], 20)
    assert server.stats().token_posts == 0
    server.expire()
    _call([steady])
    assert server.stats().token_posts == 1
    _call([jumping, steady], 20)
    _set(clock, 0)
    _call([jumping, steady], 20)
    at_rest = server.stats().token_posts
    assert at_rest <= 2
    _call([jumping, steady], 20)
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (at_rest, 0)
