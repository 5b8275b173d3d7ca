from __future__ import annotations

import pytest

from tests.core.harness import EPOCH, KEY, World, answer, session, token
from unexpired._core.effects import Join, Need, Result
from unexpired._core.obtain import gone
from unexpired._core.policy import Policy
from unexpired._core.session import Ended, Failure, Session
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
)


def _valid(seconds: float = 200.0) -> Session:
    return session(token(expires_at=EPOCH + seconds))


def test_the_token_a_flight_brings_is_the_callers() -> None:
    """A caller joins one flight and gets its token."""
    world = World(session())
    assert world.obtain().access_token == "AT-2"
    assert world.counts["Join"] == 1


def test_a_flight_for_another_resource_is_followed_by_ones_own() -> None:
    """A flight that brought nothing for this resource, and did not fail, is followed by the next one at once."""
    world = World(session(token(expires_at=EPOCH + 200)), [answer(2), answer(3)])
    first = Result(session(token(expires_at=EPOCH + 200)))
    flights = iter([first])
    world._join = lambda effect: next(flights, None) or World._join(world, effect)  # type: ignore[method-assign]
    assert world.obtain(Need("a")).resource == "a"
    assert world.slept == []


def test_what_a_flight_brings_is_used_even_when_it_is_short_lived() -> None:
    """A token of 1 s is returned although it is within the leeway (scenario 66)."""
    world = World(session(), [answer(expires_in=1)])
    assert world.obtain().access_token == "AT-2"
    assert len(world.redeemed) == 1


def test_a_newer_token_with_the_same_string_is_handed_over() -> None:
    """A server that repeats the refused token does not send its caller into a loop of refreshes."""
    held = _valid()
    world = World(held, [answer(1)])
    assert world.obtain(Need(None, held.tokens[None], rejected=True)).minted == 2
    assert len(world.redeemed) == 1


def test_a_hiccup_is_sat_out_once() -> None:
    """A passing failure makes a caller wait for `retry_at` and join the next flight, once (scenario 50)."""
    world = World(session(), [NotSent("busy"), answer()])
    assert world.obtain().access_token == "AT-2"
    assert world.slept == [pytest.approx(0.5)]
    world = World(session(), [NotSent("busy")])
    with pytest.raises(TemporarilyUnavailable) as caught:
        world.obtain()
    assert (len(world.redeemed), world.counts["Join"]) == (2, 2)
    assert caught.value.retry_after == pytest.approx(1.0)
    assert caught.value.key == KEY


@pytest.mark.parametrize("policy", [Policy(patience=0.0), Policy(patience=3.0)])
def test_patience_is_bounded(policy: Policy) -> None:
    """A pause longer than the patience is not waited for, and patience 0 fails at once."""
    world = World(session(), [NotSent("busy", retry_after=4.0)], policy=policy)
    with pytest.raises(TemporarilyUnavailable) as caught:
        world.obtain()
    assert world.slept == []
    assert caught.value.retry_after == pytest.approx(4.0)


def test_a_pause_beyond_the_callers_bound_is_not_waited_for() -> None:
    """A caller who has 2 s left does not wait for 4 s."""
    world = World(session(), [NotSent("busy", retry_after=4.0)], latency=3.0)
    with pytest.raises(TemporarilyUnavailable):
        world.obtain(wait=5.0)
    assert world.slept == []


def test_an_exiting_process_does_not_sit_out_a_failure() -> None:
    """A wait cut short by the end of the process raises what was known."""
    world = World(session(), [NotSent("busy")])
    world.before("Sleep", 1, world.exits)
    with pytest.raises(TemporarilyUnavailable, match="busy"):
        world.obtain()


def test_nobody_waits_beyond_the_bound() -> None:
    """A flight that takes longer than the caller will wait leaves a typed error with a pause."""
    world = World(session())
    world._join = lambda _: None  # type: ignore[assignment, method-assign]
    with pytest.raises(TemporarilyUnavailable, match="within 3 s") as caught:
        world.obtain(wait=3.0)
    assert caught.value.retry_after is not None
    assert [effect.until for effect in world.trace if isinstance(effect, Join)] == [503.0]


def test_flights_that_bring_nothing_end_with_the_bound() -> None:
    """Flights that neither bring a token nor fail are not followed beyond the caller's time."""
    world = World(session())
    world.before("Join", 1, world.passes(40.0))
    world._join = lambda _: Result(session())  # type: ignore[assignment, method-assign]
    world.needs = set()
    with pytest.raises(TemporarilyUnavailable):
        world.obtain(Need("a"))


def test_a_token_that_arrives_with_the_last_moment_is_taken() -> None:
    """What a flight has brought is returned even when the caller's time is over by then."""
    world = World(session(), latency=5.0)
    assert world.obtain(wait=5.0).access_token == "AT-2"


@pytest.mark.parametrize("said", [NotSent("busy"), AnswerLost("reset"), Refused("no", error="invalid_client")])
def test_a_valid_token_is_served_when_the_refresh_fails(said: Exception) -> None:
    """While the access token in hand is valid a failed refresh raises nothing (scenario 52)."""
    held = _valid(20.0)
    world = World(held, [said])
    assert world.obtain(Need(None, held.tokens[None])) is held.tokens[None]


def test_a_valid_token_is_served_when_time_is_over() -> None:
    """A token endpoint that hangs costs the caller its wait, not the token that is still valid (scenario 52)."""
    held = _valid(20.0)
    world = World(held)
    world._join = lambda _: None  # type: ignore[assignment, method-assign]
    assert world.obtain(Need(None, held.tokens[None]), wait=5.0) is held.tokens[None]


@pytest.mark.parametrize("rejected", [True, False])
def test_a_refused_or_expired_token_is_not_served(rejected: bool) -> None:
    """A token that the API refused is not handed out again when the refresh fails, nor one that has expired."""
    held = _valid(200.0 if rejected else -1.0)
    world = World(held, [NotSent("busy", retry_after=600.0)])
    with pytest.raises(TemporarilyUnavailable):
        world.obtain(Need(None, held.tokens[None], rejected=rejected))


def test_a_token_stored_meanwhile_is_served_in_spite_of_a_failure() -> None:
    """A valid later token that came with a failed flight is good enough for who had none."""
    failed = Result(_valid(), Failure("lost", "reset", EPOCH, EPOCH + 60))
    world = World(session())
    world._join = lambda _: failed  # type: ignore[assignment, method-assign]
    assert world.obtain().access_token == "AT-1"


def test_an_expired_token_that_came_with_a_failure_is_not_served() -> None:
    """A server that answers with expired tokens gives a typed error, and no loop (scenario 29)."""
    world = World(session(), [answer(expires_in=-5)], policy=Policy(patience=0.0))
    with pytest.raises(TemporarilyUnavailable, match="already expired"):
        world.obtain()
    assert len(world.redeemed) == 1


@pytest.mark.parametrize(
    ("said", "error", "text"),
    [(Refused("invalid_client", error="invalid_client"), ConfigurationError, "invalid_client"),
     (Refused("invalid_scope", error="invalid_scope"), ConfigurationError, "invalid_scope"),
     (ConfigurationError("redirected"), ConfigurationError, "redirected")],
)  # fmt: skip
def test_a_wrong_set_up_is_told_at_once(said: Exception, error: type[Exception], text: str) -> None:
    """A configuration failure is not sat out."""
    world = World(session(), [said])
    with pytest.raises(error, match=text):
        world.obtain()
    assert world.slept == []


def test_a_store_that_fails_is_told_at_once() -> None:
    """Callers get a StoreError that names the key and what the store said."""
    world = World(session())
    world.refuse("Load", 1)
    with pytest.raises(StoreError, match="the store refuses") as caught:
        world.obtain()
    assert caught.value.key == KEY


@pytest.mark.parametrize(
    ("ended", "words"),
    [("logout", "logged out"), ("refused", "no longer accepts"), ("answer_lost", "interrupted while rotating"),
     ("login_required", "the API says"), ("password_changed", r"has ended \(password_changed\)")],
)  # fmt: skip
def test_an_ended_login_says_why(ended: str, words: str) -> None:
    """LoginRequired carries the reason and the key, without any request (scenario 49)."""
    world = World(Session(KEY, "login-1", 2, ended=Ended(ended, EPOCH)))
    with pytest.raises(LoginRequired, match=words) as caught:
        world.obtain()
    assert (caught.value.reason, caught.value.key) == (ended, KEY)
    assert world.redeemed == []


def test_without_a_login_the_error_says_how_to_get_one() -> None:
    """The first use with nothing stored names the ways to log in or to seed a token."""
    with pytest.raises(LoginRequired, match=r"manager\.login.*seed_from_file.*seed_from_environ") as caught:
        World(None).obtain()
    assert caught.value.reason == "no_session"
    assert gone(KEY, session()).reason == "no_session"


def test_a_replaced_login_gives_its_token_to_those_who_wait() -> None:
    """Who waits when somebody logs in anew gets the new login's token (scenario 63)."""
    held = session()
    world = World(held)
    world.before("Swap", 2, world.others_log_in)
    assert world.obtain(Need(None, held.tokens[None])).access_token == "AT-new"
