from __future__ import annotations

import random
from dataclasses import replace

import pytest

from tests.core.harness import token
from unexpired._core.suspicion import LONGEST, Suspicion, accepts, refuses
from unexpired._core.token import Token

OLD, NEW, NEWER = (token(f"AT-{number}", minted=number, login="login-1") for number in (1, 2, 3))


class Place:
    """An API at one origin, as one process meets it: calls go on all the time, each refusal asks for a flight."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.flights: list[float] = []
        self.current = OLD
        self.since = -900.0
        self.known: Suspicion | None = None
        self._random = random.Random(seed)

    def refuse(self) -> bool:
        """A refusal of the current token; an allowed flight brings the next token at once."""
        age = self.now - self.since
        allowed, self.known = refuses(self.known, self.current, age, self._random.random())
        if allowed:
            self.flights.append(self.now)
            self.current = replace(self.current, minted=self.current.minted + 1)
            self.since = self.now
        return allowed

    def accept(self) -> None:
        """A call that is taken with the current token."""
        if self.known is not None and accepts(self.known, self.current):
            self.known = None


@pytest.mark.parametrize("seed", range(5))
def test_an_api_that_refuses_everything_causes_a_few_refreshes_at_growing_pauses(seed: int) -> None:
    """A call each 10 ms for ten minutes, all refused: about log2 of it in refreshes, ever further apart."""
    place = Place(seed)
    while place.now < 600.0:
        place.refuse()
        place.now += 0.01
    assert 5 <= len(place.flights) <= 12
    gaps = [later - earlier for earlier, later in zip(place.flights, place.flights[1:], strict=False)]
    assert all(2.0**n / 2 <= gap <= 2.0**n + 0.02 for n, gap in enumerate(gaps))


def test_the_pause_grows_to_ten_minutes_and_not_beyond() -> None:
    """A day of refusals costs a refresh each five to ten minutes."""
    place = Place()
    while place.now < 86400.0:
        place.refuse()
        place.now += 1.0
    assert 86400 / 600 <= len(place.flights) <= 86400 / 300 + 12
    assert place.known is not None
    assert LONGEST / 2 <= place.known.pause <= LONGEST


def test_the_pauses_of_many_processes_are_spread() -> None:
    """The same strikes give different pauses, from half to the whole."""
    pauses = {refuses(None, OLD, 0.0, chance)[1].pause for chance in (0.0, 0.5, 0.99)}
    assert min(pauses) == 0.5
    assert max(pauses) == pytest.approx(0.995)
    assert len(pauses) == 3


def test_a_first_refusal_starts_a_flight() -> None:
    """Without any suspicion a refused token is refreshed, however young it is."""
    assert refuses(None, OLD, 0.0, 0.5)[0]


def test_a_burst_of_refusals_of_one_token_is_one_strike() -> None:
    """Everybody whose request carried the same token joins the same flight, and the pause does not grow."""
    _, known = refuses(None, OLD, 0.0, 0.5)
    for _ in range(50):
        allowed, after = refuses(known, OLD, 0.0, 0.5)
        assert allowed
        assert after is known


def test_a_freshly_minted_token_that_is_refused_starts_nothing() -> None:
    """The refusal of the token that the last refusal brought is left alone until it is older than the pause."""
    _, known = refuses(None, OLD, 0.0, 0.5)
    assert refuses(known, NEW, known.pause - 0.01, 0.5) == (False, replace(known, told=True))
    allowed, after = refuses(known, NEW, known.pause, 0.5)
    assert allowed
    assert (after.token, after.strikes, after.pause) == (NEW, 1, 1.5)


def test_a_new_login_that_is_refused_starts_nothing_either() -> None:
    """A token of another login is as fresh as a newly minted one."""
    _, known = refuses(None, NEWER, 0.0, 0.5)
    assert not refuses(known, Token("AT-9", login="login-2", minted=1), 0.1, 0.5)[0]


def test_one_acceptance_clears_the_suspicion() -> None:
    """A place that takes a token younger than the one it refused is trusted again at once."""
    place = Place()
    assert place.refuse()
    place.now = 0.1
    assert not place.refuse()
    place.accept()
    assert place.refuse()


def test_the_acceptance_of_an_older_token_proves_nothing() -> None:
    """A late answer to the refused token, or to one before it, does not clear the suspicion."""
    _, known = refuses(None, NEW, 0.0, 0.5)
    assert not accepts(known, OLD)
    assert not accepts(known, NEW)
    assert accepts(known, NEWER)


def test_a_suspicion_shows_no_token() -> None:
    """The repr names numbers only."""
    assert "AT-1" not in repr(Suspicion(OLD, 1.0))
