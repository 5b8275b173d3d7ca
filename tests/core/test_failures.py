"""The failure tables: one test, or more, for each row."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.harness import EPOCH, KEY, World, answer, intent, session, token
from unexpired._core.effects import Need
from unexpired._core.policy import Policy
from unexpired._core.session import Failure
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    GrantError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.events import RefreshFailed, SessionEnded

INVALID_GRANT = Refused("the server refused the request: invalid_grant", error="invalid_grant")


# -- definite ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said", [NotSent("busy"), Refused("no", error="temporarily_unavailable"), Refused("no", error="server_error")]
)
def test_a_passing_refusal_leaves_a_memory_and_no_intent(said: GrantError) -> None:
    """What was surely not processed is remembered with a pause before the lease is released (scenarios 50, 53)."""
    world = World(session(), [said])
    world.fly()
    assert world.names == ["Lease", "Load", "Swap", "Redeem", "Swap", "Release", "Publish", "Emit", "Emit"]
    assert world.stored.failure is world.failure
    assert (world.failure.kind, world.failure.count) == ("unreachable", 1)
    assert world.failure.retry_at == pytest.approx(EPOCH + 0.1 + 0.5)
    assert (world.stored.version, world.stored.intent, world.stored.ended) == (1, None, None)
    (failed,) = world.heard(RefreshFailed)
    assert (failed.version, failed.kind, failed.message, failed.callers) == (1, "unreachable", str(said), 1)
    assert failed.retry_after == pytest.approx(0.5)


def test_retry_after_is_honoured_within_reason() -> None:
    """The pause a server asks for is kept for the whole fleet, up to an hour (scenario 51)."""
    for asked, pause in ((120.0, 120.0), (1e9, 3600.0), (0.01, 0.5), (float("nan"), 0.5)):
        world = World(session(), [NotSent("busy", retry_after=asked)])
        world.fly()
        assert world.stored.failure is not None
        assert world.stored.failure.retry_at - world.stored.failure.since == pytest.approx(pause)


def test_a_login_is_not_held_back_by_a_failure() -> None:
    """A new login forgets the old one's failure, so that it can be redeemed at once (scenario 51)."""
    world = World(session(failure=Failure("unreachable", "busy", EPOCH, EPOCH + 3600)))
    world.login("RT-9")
    assert world.fly().failure is None


def test_an_earlier_lost_answer_is_not_forgotten_by_a_definite_failure() -> None:
    """A request that was not processed does not count as an attempt, and leaves an older intent where it was."""
    older = intent(attempt=1)
    world = World(session(intent=older), [NotSent("busy")])
    world.fly()
    assert world.stored.intent is older


def test_pauses_grow_with_each_failure_in_a_row_and_forget_after_a_success() -> None:
    """1 s, 2 s, 4 s, … up to 60 s with jitter, and 1 s again after a success; days of it end nothing (scenario 56)."""
    world = World(session(), [NotSent("down")])
    pauses = []
    for _ in range(200):
        world.fly()
        pauses.append(world.failure.retry_at - world.failure.since)
        world.boot += 3600.0
    assert pauses[:8] == [pytest.approx(pause) for pause in (0.5, 1, 2, 4, 8, 16, 30, 30)]
    assert max(pauses) == pytest.approx(30.0)
    assert world.stored.ended is None
    world.server = [answer()]
    assert world.fly().failure is None
    assert world.stored.failure is None


@pytest.mark.parametrize(
    "said",
    [*(Refused("no", error=code) for code in ("invalid_client", "unauthorized_client", "invalid_scope", "odd")),
     ConfigurationError("the address redirects")],
)  # fmt: skip
def test_a_wrong_set_up_does_not_end_the_session(said: UnexpiredError) -> None:
    """`invalid_client` and its like are remembered as a configuration failure; the login lives on."""
    world = World(session(), [said])
    world.fly()
    assert world.stored.failure is world.failure
    assert world.failure.kind == "configuration"
    assert (world.stored.ended, world.stored.intent, world.stored.refresh_token) == (None, None, "RT-1")


# -- lost answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "said",
    [AnswerLost("reset"), {"error": "x"}, {}, "AT-2", None, StoreError("x"), TemporarilyUnavailable("x"),
     GrantError("x")],
    ids=repr,
)  # fmt: skip
def test_a_lost_answer_leaves_the_intent(said: object) -> None:
    """Whatever is neither token nor a clear refusal may have rotated: the intent stays, nothing ends (scenario 54)."""
    world = World(session(), [said])
    world.fly()
    assert world.failure.kind == "lost"
    assert world.stored.intent == intent(owner="")
    assert world.stored.failure is world.failure
    assert world.stored.refresh_token == "RT-1"


def test_what_a_grant_returns_by_mistake_is_not_told() -> None:
    """A bare string from a grant could be the token: only its type is named."""
    world = World(session(), ["AT-2"])
    world.fly()
    assert world.failure.message == "the grant returned str, not a token or a mapping"


def test_without_grace_a_lost_answer_is_asked_for_again_after_its_pause() -> None:
    """Nothing is sent before `retry_at`; then the same version once more, as attempt 2 (scenario 24)."""
    world = World(session(), [AnswerLost("reset"), answer()])
    world.fly()
    world.fly()
    assert len(world.redeemed) == 1
    world.boot += 1.0
    assert world.fly().failure is None
    assert world.redeemed[1].session.intent is not None
    assert world.redeemed[1].session.intent.attempt == 2


@pytest.mark.parametrize(("attempt", "reason"), [(None, "refused"), (1, "answer_lost"), (4, "answer_lost")])
def test_invalid_grant_ends_the_session_with_the_right_reason(attempt: int | None, reason: str) -> None:
    """The first attempt was refused; at a later one the lost answer had rotated (scenarios 24, 33)."""
    world = World(session(intent=intent(attempt=attempt) if attempt else None), [INVALID_GRANT])
    world.fly()
    assert world.stored.ended is not None
    assert (world.stored.ended.reason, world.stored.version) == (reason, 2)
    assert (world.stored.refresh_token, dict(world.stored.tokens)) == (None, {})
    assert world.heard(SessionEnded) == [SessionEnded(KEY, 2, reason)]


def test_a_refresh_token_out_of_a_broken_answer_is_saved() -> None:
    """A readable refresh token in a broken answer becomes the next version; the access token stays (scenario 54)."""
    for said in (AnswerLost("truncated", refresh_token="RT-2"), {"refresh_token": "RT-2"}):
        world = World(session(), [said], policy=Policy(reuse_grace=30.0))
        world.fly()
        assert (world.stored.version, world.stored.refresh_token, world.stored.intent) == (2, "RT-2", None)
        assert world.stored.failure is world.failure
        assert world.stored.tokens[None].access_token == "AT-1"
        assert len(world.redeemed) == 1


@pytest.mark.parametrize("rest", ["", "  ", "RT\r\n2", 2, None])
def test_a_damaged_refresh_token_is_not_saved(rest: object) -> None:
    """What cannot be a refresh token does not replace the one we have."""
    world = World(session(), [{"refresh_token": rest}])
    world.fly()
    assert (world.stored.version, world.stored.refresh_token) == (1, "RT-1")


def test_a_salvaged_token_is_kept_on_trying_to_store_and_gives_way_to_a_login() -> None:
    """Saving it holds out like saving a whole answer, and somebody's login meanwhile stands."""
    world = World(session(), [AnswerLost("truncated", refresh_token="RT-2")])
    world.refuse("Swap", 2, 3)
    world.fly()
    assert world.stored.refresh_token == "RT-2"
    world = World(session(), [AnswerLost("truncated", refresh_token="RT-2")])
    world.before("Swap", 2, world.others_log_in)
    assert world.fly().session is world.record
    assert world.counts["Revoke"] == 0


# -- invalid_grant ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("effect", [("Load", 2), ("Swap", 2)])
def test_invalid_grant_adopts_a_newer_version(effect: tuple[str, int]) -> None:
    """A refused token that a sibling has replaced, even at the last moment, ends nothing (scenario 32)."""
    world = World(session(), [INVALID_GRANT])
    world.before(*effect, world.others_refresh)
    result = world.fly()
    assert result.session is world.record
    assert (result.failure, world.stored.ended, world.heard(SessionEnded)) == (None, None, [])


def test_a_session_ends_once_and_is_not_asked_for_again() -> None:
    """After the end, flights send nothing and report nothing more (scenarios 33, 49)."""
    world = World(session(), [INVALID_GRANT])
    for _ in range(50):
        world.fly()
    assert (len(world.redeemed), len(world.heard(SessionEnded))) == (1, 1)


@pytest.mark.parametrize(
    "world",
    [World(replace(session(), refresh_token=None), [INVALID_GRANT]),
     World(session(), [INVALID_GRANT], policy=Policy(spends_refresh_token=False))],
    ids=["none stored", "none spent"],
)  # fmt: skip
def test_invalid_grant_for_a_grant_that_spends_no_refresh_token_is_a_wrong_set_up(world: World) -> None:
    """Where no stored refresh token was spent, a new login cannot help: a configuration failure with a pause."""
    world.fly()
    assert world.stored.ended is None
    assert world.stored.failure is world.failure
    assert world.failure.kind == "configuration"


def test_a_grant_may_say_that_the_login_is_over() -> None:
    """LoginRequired from a grant ends the session with the grant's own reason."""
    world = World(
        session(), [LoginRequired("out", reason="password_changed")], policy=Policy(spends_refresh_token=False)
    )
    world.fly()
    assert world.stored.ended is not None
    assert world.stored.ended.reason == "password_changed"


def test_a_failure_is_not_written_over_a_newer_record() -> None:
    """Who meets a newer version when remembering a failure adopts it."""
    world = World(session(), [NotSent("busy")])
    world.before("Swap", 2, world.others_refresh)
    result = world.fly()
    assert (result.session, result.failure) == (world.record, None)


def test_a_failure_that_cannot_be_remembered_is_still_told() -> None:
    """A store that refuses the memory does not hide the failure itself."""
    world = World(session(), [NotSent("busy")])
    world.refuse("Swap", 2)
    world.fly()
    assert (world.failure.kind, world.failure.message) == ("unreachable", "busy")


# -- refusals without a reason ----------------------------------------------------------------------------------------


def _unexplained(times: int, apart: float, expires_at: float | None, interrupted: bool = False) -> World:
    world = World(session(token(expires_at=expires_at)), [Refused("HTTP 400", error=None)], needs=set())
    world.needs = {Need(None, world.stored.tokens[None], rejected=True)}
    for number in range(times):
        if interrupted and number == 1:
            world.server.insert(0, NotSent("busy"))
            world.fly()
            world.boot += apart
        world.fly()
        world.boot += apart
    return world


@pytest.mark.parametrize(
    ("times", "apart", "expires_at", "interrupted", "ends"),
    [(3, 35.0, EPOCH - 1, False, True), (2, 70.0, EPOCH - 1, False, False), (3, 20.0, EPOCH - 1, False, False),
     (4, 21.0, EPOCH - 1, False, True), (9, 70.0, EPOCH + 9999, False, False), (3, 35.0, None, False, True),
     (3, 35.0, EPOCH - 1, True, False)],
    ids=["3 in 70 s", "only 2", "3 in 40 s", "4 in 63 s", "token still valid", "unknown but refused", "not in a row"],
)  # fmt: skip
def test_unexplained_refusals_end_a_session_only_after_three_in_a_minute_of_an_expired_token(
    times: int, apart: float, expires_at: float | None, interrupted: bool, ends: bool
) -> None:
    """400 or 401 without a readable error ends the login after 3 in a row over a minute or more, else it pauses."""
    world = _unexplained(times, apart, expires_at, interrupted)
    assert (world.stored.ended is not None) is ends
    if not ends:
        assert world.stored.failure is not None
        assert world.stored.failure.kind == "unexplained"


def test_unexplained_refusals_do_not_end_a_session_whose_token_nobody_refused() -> None:
    """A token of unknown lifetime may well be good: refreshing it in vain ends nothing (scenario 56)."""
    world = World(session(token(expires_at=None, lifetime=None)), [Refused("HTTP 400", error=None)])
    world.needs = {Need(None, world.stored.tokens[None])}
    for _ in range(9):
        world.fly()
        world.boot += 70.0
    assert world.stored.ended is None


@pytest.mark.parametrize(
    ("expires_in", "rejected", "ends"), [(60.0, False, False), (60.0, True, True), (-1.0, False, True)]
)
def test_without_a_refresh_token_a_session_lives_as_long_as_its_token(
    expires_in: float, rejected: bool, ends: bool
) -> None:
    """A refresh-ahead that finds no refresh token leaves the valid token alone; one that is needed is the end."""
    over = LoginRequired("there is no refresh token", reason="no_refresh_token")
    world = World(session(token(expires_at=EPOCH + expires_in)), [over])
    world.needs = {Need(None, world.stored.tokens[None], rejected=rejected)}
    world.fly()
    assert (world.stored.ended is not None) is ends
    assert (world.stored.failure is not None) is not ends
    if ends:
        with pytest.raises(LoginRequired, match="there is no refresh token") as raised:
            world.obtain()
        assert raised.value.reason == "no_refresh_token"


def test_a_refresh_token_alone_that_the_grant_does_not_find_is_the_end() -> None:
    """With no token in hand there is nothing to live on."""
    world = World(replace(session(), tokens={}), [LoginRequired("none", reason="no_refresh_token")])
    world.fly()
    assert world.stored.ended is not None


def test_a_flight_that_asked_nobody_is_told_all_the_same() -> None:
    """A store that cannot be read is told to the listeners, or a failing background refresh would be invisible."""
    world = World(session())
    world.refuse("Load", 1)
    world.fly()
    (failed,) = world.heard(RefreshFailed)
    assert (failed.kind, failed.version, failed.callers, failed.retry_after) == ("store", 0, 1, 1.0)
