"""What callers and listeners are told about a flight: the whole of it, in its own words."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from tests.core.harness import EPOCH, KEY, REFUSING, World, answer, intent, session, token
from tests.core.test_landing import id_token
from unexpired._core.effects import Need, Publish, Result, Revoke
from unexpired._core.policy import Policy, cool_down
from unexpired._core.session import Failure
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, GrantError, LoginRequired, NotSent, Refused
from unexpired.events import Event, RefreshFailed, RefreshStarted, RefreshSucceeded, SessionEnded

ANOTHER: dict[str, Any] = {"id_token": id_token(sub="2")}
PERSON = token(id_token=id_token(sub="1"))


def _flown(*said: Any, **more: Any) -> World:
    """One flight from an expired token, in which the server said that."""
    world = World(**{"record": session(), "latency": 0.0, **more}, server=list(said))
    world.fly()
    return world


def test_a_success_is_told_with_its_resource() -> None:
    """Key, version, seconds, callers, and what the token is for."""
    world = _flown(answer(), needs={Need("https://a")}, latency=0.25)
    assert world.heard(RefreshSucceeded) == [RefreshSucceeded(KEY, 2, pytest.approx(0.25), 1, "https://a")]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "kind", "words"),
    [
        (NotSent("the line is busy"), "unreachable", "the line is busy"),
        (AnswerLost("cut off"), "lost", "cut off"),
        (AnswerLost("half of it", refresh_token="RT-2"), "lost", "half of it"),
        (Refused("HTTP 400", error=None), "unexplained", "HTTP 400"),
        (Refused("not so fast", error="slow_down"), "unreachable", "not so fast"),
        (Refused("no such client", error="invalid_client"), "configuration", "no such client"),
        (LoginRequired("nothing to spend", reason="no_refresh_token"), "configuration", "nothing to spend"),
        (answer(expires_in=-5), "expired", "the server answered with a token that has already expired"),
        (answer(**ANOTHER), "configuration", "the server answered with a token of another person"),
        (RuntimeError("s3cret"), "lost", "the grant returned RuntimeError, not a token or a mapping"),
        (GrantError("s3cret"), "lost", "the grant raised GrantError"),
        (Token("AT-2", scope=7), "lost", "the grant returned a token with fields of the wrong type"),  # type: ignore[arg-type]
        ({"refresh_token": "RT-2"}, "lost", "the answer has no usable access_token"),
    ],
)
def test_a_failure_is_told_to_everybody_alike(said: Any, kind: str, words: str) -> None:
    """The callers' failure, the record's memory and the one event say the same, and the callers keep their session."""
    record = session(replace(PERSON, expires_at=EPOCH + 20.0))
    world = _flown(said, record=record, needs={Need()}, policy=Policy(leeway=30.0, longest_pause=7.0))
    failure = world.failure
    assert (failure.kind, failure.message[: len(words)]) == (kind, words)
    assert world.stored.failure == failure
    assert world.result.session is world.stored
    pause = failure.retry_at - failure.since
    assert world.heard(RefreshFailed) == [RefreshFailed(KEY, 1, kind, failure.message, 1, pause)]


def test_a_grant_that_spends_no_refresh_token_is_told_why_its_refusal_ends_nothing() -> None:
    """The message says that a login cannot help."""
    world = _flown(Refused("no", error="invalid_grant"), policy=Policy(spends_refresh_token=False))
    assert world.failure.kind == "configuration"
    assert world.failure.message.startswith("the server refused a grant that spends no stored refresh token")


def test_without_a_refresh_token_a_resource_that_has_no_token_ends_the_login() -> None:
    """A good token for another resource is of no use to it."""
    held = session(token(expires_at=EPOCH + 200.0))
    world = _flown(LoginRequired("", reason="no_refresh_token"), record=held, needs={Need("https://a")})
    assert world.heard(SessionEnded) == [SessionEnded(KEY, 2, "no_refresh_token")]


@pytest.mark.parametrize("attempt", [None, 1])
def test_the_end_of_a_login_is_told_with_the_session_that_ended(attempt: int | None) -> None:
    """Callers get the ended session, with reason and time; listeners hear of its version."""
    record = session(intent=intent(attempt=attempt) if attempt else None)
    world = _flown(Refused("no", error="invalid_grant"), record=record)
    reason = "answer_lost" if attempt else "refused"
    over = world.result.session
    assert over is world.stored
    assert over.ended is not None
    assert (over.ended.reason, over.ended.at, over.key) == (reason, EPOCH, KEY)
    assert world.heard(SessionEnded) == [SessionEnded(KEY, 2, reason)]


def test_a_third_unexplained_refusal_a_minute_after_the_first_is_the_end() -> None:
    """The sixtieth second counts; the login ends as refused (scenario 12)."""
    for since, ends in ((EPOCH - 60.0, True), (EPOCH - 59.9, False)):
        earlier = Failure("unexplained", "", EPOCH - 9.0, EPOCH - 1.0, 2, 2, since)
        world = _flown(Refused("HTTP 400", error=None), record=session(failure=earlier))
        heard = [event.reason for event in world.heard(SessionEnded)]
        assert heard == (["refused"] if ends else [])


def test_another_failure_ends_the_count_of_the_unexplained_ones() -> None:
    """Their number and their first moment are forgotten."""
    earlier = Failure("unexplained", "", EPOCH - 9.0, EPOCH - 1.0, 2, 2, EPOCH - 60.0)
    failure = _flown(NotSent("busy"), record=session(failure=earlier)).failure
    assert (failure.count, failure.unexplained, failure.unexplained_since) == (3, 0, 0.0)


def test_pauses_are_no_longer_than_the_policy_s_longest() -> None:
    """After ten failures in a row too; a minute is the longest where nothing else is set."""
    earlier = Failure("unreachable", "", EPOCH - 9.0, EPOCH - 1.0, count=10)
    failure = _flown(NotSent("busy"), record=session(failure=earlier), policy=Policy(longest_pause=8.0)).failure
    assert failure.retry_at - failure.since == pytest.approx(4.0)
    assert cool_down(10, 0.5) == 30.0


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        (Token("AT-2", refresh_token="RT-2", scope=7), "RT-2"),  # type: ignore[arg-type]
        (Token("AT-2", refresh_token=b"RT-2"), "RT-1"),  # type: ignore[arg-type]
        (Token("", refresh_token="RT 2\n"), "RT-1"),
        (Token(""), "RT-1"),
    ],
    ids=["sound", "bytes", "broken", "none"],
)
def test_a_refresh_token_out_of_a_grant_s_broken_token_is_saved(said: Token, kept: str) -> None:
    """If it is one: the server has rotated, and the spent one is worth nothing any more."""
    world = _flown(said)
    assert (world.failure.kind, world.stored.refresh_token) == ("lost", kept)


def test_a_salvaged_token_that_cannot_be_stored_is_told_as_the_failure_it_is() -> None:
    """While the store refuses it, everybody gets the salvaged session and the failure."""
    world = World(session(), [AnswerLost("half of it", refresh_token="RT-2")])
    world.refuse("Swap", *range(2, 8))
    world.fly()
    early = next(effect for effect in world.trace if isinstance(effect, Publish))
    assert not early.last
    assert isinstance(early.result, Result)
    assert early.result.session is not None
    assert early.result.session.refresh_token == "RT-2"
    assert early.result.failure is not None
    assert (early.result.failure.kind, early.result.failure.message) == ("lost", "half of it")


def test_the_tries_to_store_double_their_distance() -> None:
    """From a tenth of a second to one."""
    world = World(session(), [answer(expires_in=86400)])
    world.refuse("Swap", *range(2, 11))
    world.fly()
    assert world.slept == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0])


def test_who_came_too_late_to_send_takes_what_another_has_stored() -> None:
    """Its intent is not the last word any more (scenario 16): no failure is told, and none is remembered."""
    world = World(session())

    def frozen() -> None:
        world.passes(11.0)()
        world.others_refresh()

    world.before("Swap", 1, lambda: world.before("Now", world.counts["Now"] + 1, frozen))
    world.fly()
    assert world.redeemed == []
    assert world.result.failure is None
    assert world.result.session == world.stored
    assert world.events == []
    assert world.stored.tokens[None].access_token == "AT-other"


def test_a_logout_during_the_refresh_revokes_what_the_server_gave() -> None:
    """Not what is stored: the late result."""
    world = World(session())
    world.before("Redeem", 1, world.others_log_out)
    world.fly()
    (revoked,) = [effect.session for effect in world.trace if isinstance(effect, Revoke)]
    assert revoked.refresh_token == "RT-2"


def test_only_requests_that_were_sent_are_told_as_started() -> None:
    """A lost answer leaves no time for the next try: the first request was started, the second never was."""
    world = World(session(), [AnswerLost("gone")], policy=Policy(reuse_grace=30.0))
    world.before("Swap", 2, world.passes(20.0))
    world.fly()
    started = RefreshStarted(KEY, 1, 1)
    message = "there was no time left to ask the server"
    assert [event for event in world.events if isinstance(event, RefreshStarted)] == [started]
    assert world.heard(RefreshFailed) == [RefreshFailed(KEY, 1, "time", message, 1)]
    assert world.failure.message == message
    assert world.result.session is not None
    assert world.result.session.version == 1


@pytest.mark.parametrize(("owner", "recovers"), [("gone", True), ("me", False), ("", False)])
def test_a_start_tells_whether_it_takes_over_from_somebody_who_vanished(owner: str, recovers: bool) -> None:
    """Another owner's open intent is a request whose end nobody knows; one's own is known, and so is a noted end."""
    world = _flown(answer(), record=session(intent=intent(owner=owner, since=EPOCH - 60.0)))
    assert world.heard(RefreshStarted) == [RefreshStarted(KEY, 1, 2, None, recovers)]


def test_a_repeated_request_takes_over_from_nobody() -> None:
    """Within a grace period the same owner sends again: that is no crash."""
    world = _flown(AnswerLost("gone"), answer(), policy=Policy(reuse_grace=30.0))
    assert [started.recovers for started in world.heard(RefreshStarted)] == [False, False]


def test_any_grace_at_all_is_used() -> None:
    """A lost answer is asked for again within a grace period of a second."""
    world = _flown(AnswerLost("gone"), answer(), policy=Policy(reuse_grace=1.0))
    assert world.result.failure is None
    assert len(world.redeemed) == 2


@pytest.mark.parametrize("version", [1, 0])
def test_a_flight_that_could_ask_nobody_is_told_with_what_is_known(version: int) -> None:
    """The version if there was a look at the session, no version if not."""
    world = World(session(), leases=["timeout"])
    if not version:
        world.refuse("Lease", 1)
    world.fly()
    failure = world.failure
    pause = failure.retry_at - failure.since
    assert world.events == [RefreshFailed(KEY, version, failure.kind, failure.message, 1, pause)]
    assert failure.message == (REFUSING if not version else f"another process has been refreshing {KEY!r} for 15 s")
    assert all(isinstance(event, Event) for event in world.events)
