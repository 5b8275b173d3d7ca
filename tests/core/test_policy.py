from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.harness import token
from unexpired._core.policy import LONGEST_RETRY_AFTER, Policy, ahead, asked_pause, cool_down

chances = st.floats(0.0, 1.0, exclude_max=True)


def test_the_defaults_are_those_the_documentation_lists() -> None:
    """Leeway, window, deadline, margins and bounds in seconds."""
    assert Policy() == Policy(30.0, 300.0, 10.0, 2.0, 15.0, 30.0, 30.0, 0.0, 60.0, 2.0, None, True)


@given(st.integers(1, 10**9), chances, st.floats(1.0, 3600.0))
def test_a_cool_down_doubles_up_to_the_longest_with_full_jitter(count: int, chance: float, longest: float) -> None:
    """It is anywhere between 0.1 s and 1 s doubled with each failure in a row, never longer than the longest."""
    pause = cool_down(count, chance, longest)
    ceiling = min(2.0 ** min(count - 1, 60), longest)
    assert pause == pytest.approx(max(0.1, ceiling * chance))


@given(st.none() | st.floats(), st.floats(0.1, 60.0))
def test_a_server_may_ask_for_an_hour_at_most(asked: float | None, own: float) -> None:
    """Whatever the server asks for, the pause is our own at least and an hour at most."""
    assert own <= asked_pause(asked, own) <= LONGEST_RETRY_AFTER


@given(st.floats(1.0, 1e9), chances)
def test_the_window_for_refreshing_ahead_scales_with_the_lifetime(lifetime: float, chance: float) -> None:
    """At most 300 s, at most 25 % of the lifetime, shortened by up to half of itself per key (scenario 66)."""
    window = ahead(Policy(), token(lifetime=lifetime), chance)
    whole = min(300.0, lifetime / 4)
    assert whole / 2 <= window <= whole


def test_keys_created_together_refresh_apart() -> None:
    """The window depends on the key's own chance, so that sessions of one age spread (scenario 67)."""
    windows = {ahead(Policy(), token(lifetime=3600.0), number / 100) for number in range(100)}
    assert len(windows) == 100
    assert max(windows) - min(windows) > 140.0
