from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.harness import EPOCH, KEY, World, answer, intent, session, token
from unexpired._core.effects import Need
from unexpired._core.flight import Plan
from unexpired._core.policy import Policy
from unexpired._core.session import Ended, Failure, Session
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, NotSent
from unexpired.events import RefreshFailed, RefreshStarted, RefreshSucceeded

FRESH = token("AT-1", expires_at=EPOCH + 200.0)


def test_a_refresh_takes_these_steps_in_this_order() -> None:
    """Lease, look, intent, request, store, release, wake, tell: one request, one version more, the intent gone."""
    world = World(session())
    result = world.fly()
    assert world.names == ["Lease", "Load", "Swap", "Redeem", "Swap", "Release", "Publish", "Emit", "Emit"]
    assert result.session is world.record
    assert result.failure is None
    assert (world.stored.version, world.stored.refresh_token, world.stored.intent) == (2, "RT-2", None)
    assert world.stored.tokens[None].access_token == "AT-2"
    assert world.stored.tokens[None].minted == 2
    assert world.stored.tokens[None].expires_at == pytest.approx(EPOCH + 300.0)


def test_the_intent_names_version_owner_attempt_and_time() -> None:
    """Before anything is sent the record says who is redeeming which version, and since when by the store's clock."""
    world = World(session(), store_skew=600.0)
    world.fly()
    marked = world.redeemed[0].session.intent
    assert marked == intent(owner="me", since=EPOCH + 600.0)
    assert world.redeemed[0].session.version == 1
    assert world.redeemed[0].timeout == pytest.approx(10.0)


def test_listeners_hear_what_happened_with_its_figures() -> None:
    """A refresh is told as started and succeeded, with versions, duration in seconds and how many waited."""
    world = World(session(), needs={Need(), Need(), Need()}, latency=0.25)
    world.fly()
    assert world.heard(RefreshStarted) == [RefreshStarted(KEY, 1, 1)]
    succeeded = world.heard(RefreshSucceeded)[0]
    assert (succeeded.version, succeeded.callers) == (2, 3)
    assert succeeded.seconds == pytest.approx(0.25)


def test_somebody_elses_newer_token_is_adopted() -> None:
    """What another process stored while we waited for the lease serves everybody, with 0 requests (scenario 65)."""
    world = World(session(), needs={Need(None, session().tokens[None])})
    world.before("Load", 1, world.others_refresh)
    assert world.fly().session is world.record
    assert world.names == ["Lease", "Load", "Release", "Publish"]


def test_a_record_that_changes_while_the_lease_is_waited_for_is_looked_at() -> None:
    """A waiter for the lease sees the result of its holder as soon as it is stored, without the lease."""
    world = World(session(), leases=["changed", "changed"])
    world.before("Load", 2, world.others_refresh)
    world.fly()
    assert world.names == ["Lease", "Load", "Lease", "Load", "Release", "Publish"]


def test_a_record_that_changes_just_before_the_intent_is_looked_at_again() -> None:
    """When the intent cannot be swapped in, nothing is sent, and the newer version is adopted."""
    world = World(session())
    world.before("Swap", 1, world.others_refresh)
    assert world.fly().session is world.record
    assert world.redeemed == []


def test_a_record_that_vanishes_before_the_intent_is_no_session() -> None:
    """When there is no record any more at the intent, nothing is sent and there is no session."""
    world = World(session())
    world.before("Swap", 1, lambda: setattr(world, "record", None))
    result = world.fly()
    assert (result.session, result.failure, world.redeemed) == (None, None, [])


@pytest.mark.parametrize("over", [None, Session(KEY, "login-1", 2, ended=Ended("logout", EPOCH))])
def test_a_session_that_is_over_is_left_alone(over: Session | None) -> None:
    """Without a session, or with an ended one, nothing is sent or stored (scenario 49)."""
    world = World(over)
    assert world.fly().session is over
    assert world.names == ["Lease", "Load", "Release", "Publish"]


def test_a_failure_in_the_record_answers_whoever_comes_before_its_time() -> None:
    """Before `retry_at` a flight returns the stored failure with 0 requests; at `retry_at` it asks the server."""
    failure = Failure("unreachable", "down", EPOCH - 5.0, EPOCH + 5.0)
    world = World(session(failure=failure))
    assert world.fly().failure is failure
    assert world.redeemed == []
    world.boot += 5.0
    assert world.fly().failure is None
    assert len(world.redeemed) == 1


def test_a_clock_set_back_does_not_prolong_a_failure() -> None:
    """A failure stored by a clock that has since been set back by ten minutes forbids nothing (scenario 64)."""
    world = World(session(failure=Failure("unreachable", "down", EPOCH + 600, EPOCH + 660)))
    assert world.fly().failure is None


def test_the_lease_is_never_gone_without() -> None:
    """A wait for the lease that times out looks at the store again, sends nothing and ends nothing (scenario 18)."""
    world = World(session(), leases=["timeout"])
    result = world.fly()
    assert world.failure.kind == "time"
    assert world.names == ["Lease", "Load", "Release", "Publish", "Emit"]
    assert [failed.kind for failed in world.heard(RefreshFailed)] == ["time"]
    assert result.session is world.record
    assert world.stored.ended is None


def test_a_timed_out_wait_adopts_what_is_there_by_then() -> None:
    """A result that arrives with the end of the wait for the lease is taken."""
    world = World(session(), leases=["timeout"])
    world.before("Load", 1, world.others_refresh)
    assert world.fly().failure is None


def test_waiting_for_the_lease_ends_in_all_after_its_time() -> None:
    """Each new wait for the lease is only for what is left of the whole."""
    world = World(session(), leases=["changed", "timeout"])
    world.before("Load", 1, world.passes(9.0))
    world.fly()
    assert world.boot == pytest.approx(500.0 + 15.0)


def test_a_timed_lease_waits_out_a_vanished_owners_request() -> None:
    """Under a timed lease an intent of another owner holds a taker off until since + D + margin, without the lease."""
    world = World(session(intent=intent(since=EPOCH - 4.0)), timed=True)
    world.fly()
    assert world.slept == [pytest.approx(8.0)]
    assert world.names[:4] == ["Lease", "Load", "Release", "Sleep"]
    assert world.redeemed[0].session.intent == intent(owner="me", attempt=2, since=EPOCH + 8.0)


def test_the_hold_off_counts_on_the_stores_clock() -> None:
    """This machine's own clock, ten minutes off, does not shorten or prolong the hold-off (scenario 64)."""
    for skew in (-600.0, 600.0):
        world = World(session(intent=intent(since=EPOCH - 4.0)), timed=True, clock_skew=skew, needs={Need()})
        world.record = session(token(expires_at=EPOCH - 700), intent=intent(since=EPOCH - 4.0))
        world.fly()
        assert world.slept == [pytest.approx(8.0)]


@pytest.mark.parametrize(
    ("timed", "owner", "age"),
    [(False, "gone", 1.0), (True, "me", 1.0), (True, "", 1.0), (True, "gone", 12.0)],
    ids=["freed by the system", "our own", "known to be over", "long ago"],
)
def test_nobody_is_waited_for_in_vain(timed: bool, owner: str, age: float) -> None:
    """An intent whose request is surely over holds nobody off."""
    world = World(session(intent=intent(owner=owner, since=EPOCH - age)), timed=timed)
    world.fly()
    assert world.slept == []
    assert world.redeemed[0].session.intent == intent(owner="me", attempt=2)


def test_an_old_failure_is_no_proof_that_a_newer_request_is_over() -> None:
    """A failure memory, even of a clock that is ahead, does not shorten the hold-off for a later intent."""
    failure = Failure("lost", "reset", EPOCH + 600.0, EPOCH + 601.0)
    world = World(session(intent=intent(attempt=2, since=EPOCH - 4.0), failure=failure), timed=True)
    world.fly()
    assert world.slept == [pytest.approx(8.0)]


def test_a_hold_off_longer_than_the_wait_for_the_lease_gives_up() -> None:
    """Holding off is bounded by the wait for the lease, and does not ask again and again at its end."""
    world = World(session(intent=intent(since=EPOCH)), timed=True, policy=Policy(lease_wait=5.0))
    world.fly()
    assert world.failure.kind == "time"
    assert world.counts["Lease"] == 2
    assert world.redeemed == []


def test_a_hold_off_ends_when_the_process_does() -> None:
    """A process that is exiting does not hold off, and sends nothing."""
    world = World(session(intent=intent(since=EPOCH)), timed=True, exiting=True)
    world.fly()
    assert world.failure.kind == "time"
    assert (world.counts["Lease"], world.redeemed) == (1, [])


def test_nothing_is_sent_after_the_deadline() -> None:
    """When time runs out between the intent and the request nothing is sent, and the intent is taken back."""
    world = World(session())
    world.before("Swap", 1, world.passes(10.0))
    world.fly()
    assert world.redeemed == []
    assert world.stored.intent is None
    assert world.failure.kind == "time"
    assert world.heard(RefreshStarted) == []
    assert [event.kind for event in world.heard(RefreshFailed)] == ["time"]


def test_nothing_is_sent_by_a_process_that_is_exiting() -> None:
    """Exiting before the request gives up and takes the intent back."""
    world = World(session())
    world.before("Swap", 1, world.exits)
    world.fly()
    assert world.redeemed == []
    assert world.stored.intent is None
    assert world.failure.kind == "time"


def test_a_request_that_was_sent_is_waited_for_and_saved_while_exiting() -> None:
    """Exiting after the request was sent saves its answer."""
    world = World(session())
    world.before("Redeem", 1, world.exits)
    assert world.fly().failure is None
    assert world.stored.refresh_token == "RT-2"


def test_a_failed_connect_is_repeated_for_two_seconds_at_most() -> None:
    """Connects are repeated after 0.1 s, 0.2 s, … within 2 s, then the failure is remembered."""
    world = World(session(), [NotSent("no route", connecting=True)], latency=0.0)
    world.fly()
    assert world.slept == [pytest.approx(pause) for pause in (0.1, 0.2, 0.4, 0.8)]
    assert len(world.redeemed) == 5
    assert world.stored.failure == world.failure
    assert world.failure.kind == "unreachable"


def test_a_connect_that_comes_about_in_the_end_is_a_success() -> None:
    """A hiccup of the network inside a flight goes unnoticed."""
    world = World(session(), [NotSent("no route", connecting=True), answer()])
    assert world.fly().failure is None


def test_a_process_that_is_exiting_does_not_connect_again() -> None:
    """A connect that fails while the process ends is not repeated."""
    world = World(session(), [NotSent("no route", connecting=True)])
    world.before("Redeem", 1, world.exits)
    world.fly()
    assert (len(world.redeemed), world.failure.kind) == (1, "unreachable")


def test_a_connect_is_not_repeated_after_the_deadline() -> None:
    """Time that runs out while a connect is waited for lets nothing be sent any more."""
    world = World(session(), [NotSent("no route", connecting=True)], policy=Policy(deadline=1.0))
    world.before("Sleep", 1, world.passes(2.0))
    world.fly()
    assert (len(world.redeemed), world.failure.kind) == (1, "time")


def test_resources_are_redeemed_one_after_another() -> None:
    """Needs for several resources are met one version each, the default one first (scenario 7)."""
    held = [token(), token("AT-a", resource="a"), token("AT-b", resource="b")]
    world = World(session(*held), needs={Need("b"), Need(), Need("a")})
    for number, resource in ((2, None), (3, "a"), (4, "b")):
        world.server = [answer(number)]
        world.fly()
        assert world.redeemed[-1].resource == resource
        assert world.redeemed[-1].session.refresh_token == f"RT-{number - 1}"
        assert world.stored.tokens[resource].minted == number
    world.fly()
    assert len(world.redeemed) == 3


def test_the_goal_is_what_all_who_joined_by_then_need() -> None:
    """A joiner with a rejected token turns an adoption into a refresh: the goal is the maximum, read when it counts."""
    held = session(FRESH)
    easy, hard = Need(), Need(None, held.tokens[None], rejected=True)
    world = World(held, needs={easy})
    world.before("Needs", 1, lambda: world.needs.add(hard))
    world.fly()
    assert len(world.redeemed) == 1


def test_a_rejection_of_an_older_token_starts_nothing() -> None:
    """A refused token that is not the stored one any more leads to 0 requests (scenario 9)."""
    old = replace(FRESH, access_token="AT-0", minted=0, login="login-1")
    world = World(session(FRESH), needs={Need(None, old, rejected=True)})
    world.fly()
    assert world.redeemed == []


def test_the_refused_string_under_a_newer_version_is_not_good_enough() -> None:
    """A token stored later that is the very string that was refused does not answer the refusal: it is refreshed."""
    refused = replace(FRESH, login="login-0", minted=5)
    world = World(session(FRESH), needs={Need(None, refused, rejected=True)})
    world.fly()
    assert len(world.redeemed) == 1


def test_a_store_that_cannot_be_read_or_marked_sends_nothing() -> None:
    """Without a look at the record, a lease or an intent nothing is sent, and everybody gets the store's error."""
    for effect in ("Lease", "Load", "Swap"):
        world = World(session())
        world.refuse(effect, 1)
        result = world.fly()
        assert world.redeemed == []
        assert (result.session, world.failure.kind) == (None, "store")
        assert world.failure.message == "the store refuses"


def test_a_lease_that_cannot_be_released_keeps_nobody_waiting() -> None:
    """A store that fails at the release changes nothing for those who wait for the token."""
    world = World(session())
    world.refuse("Release", 1)
    assert world.fly().failure is None


def test_a_plan_shows_no_owner() -> None:
    """The plan's repr names key and policy only."""
    assert "secret-owner" not in repr(Plan(KEY, Policy(), "secret-owner"))


def test_a_lost_answer_with_grace_is_asked_for_again_at_once() -> None:
    """With a grace period the same version is sent again at once, attempt + 1, and its token is taken (scenario 24)."""
    world = World(session(), [AnswerLost("reset"), answer()], policy=Policy(reuse_grace=30.0))
    assert world.fly().failure is None
    assert [one.session.intent for one in world.redeemed] == [
        intent(owner="me"),
        intent(owner="me", attempt=2, since=pytest.approx(EPOCH + 0.1)),  # type: ignore[arg-type]
    ]
    assert len({one.session.refresh_token for one in world.redeemed}) == 1
    assert world.slept == []


def test_a_lost_answer_that_used_up_all_the_time_is_remembered() -> None:
    """With a grace period too, an answer lost to the deadline leaves its memory instead of a further attempt."""
    world = World(session(), [AnswerLost("timeout")], latency=10.0, policy=Policy(reuse_grace=30.0))
    world.fly()
    assert world.stored.failure is world.failure
    assert world.failure.kind == "lost"
    assert world.stored.intent == intent(owner="")


def test_answers_lost_again_and_again_are_asked_for_three_times_in_a_flight() -> None:
    """The attempts within a grace period end, and leave a memory and the intent with its count."""
    world = World(session(), [AnswerLost("reset")], policy=Policy(reuse_grace=30.0))
    world.fly()
    assert len(world.redeemed) == 3
    assert world.stored.intent is not None
    assert world.stored.intent.attempt == 3
    assert world.stored.failure is world.failure


def test_the_session_a_flight_ends_with_may_be_somebody_elses() -> None:
    """While an attempt is repeated, a newer version that has been stored meanwhile is taken instead."""
    world = World(session(), [AnswerLost("reset")], policy=Policy(reuse_grace=30.0))
    world.before("Swap", 2, world.others_refresh)
    assert world.fly().session is world.record
    assert len(world.redeemed) == 1
    fresh = world.stored.tokens[None]
    assert isinstance(fresh, Token)
    assert fresh.access_token == "AT-other"


def test_a_note_of_another_writer_does_not_cost_the_rotated_token() -> None:
    """Who writes into the record meanwhile without a new version loses nothing for anybody (scenario 30)."""
    world = World(session())

    def another_writes() -> None:
        world.record = replace(world.stored, failure=Failure("unreachable", "busy", EPOCH, EPOCH + 60))

    world.before("Redeem", 1, another_writes)
    assert world.fly().failure is None
    assert (world.stored.refresh_token, world.stored.version, world.stored.failure) == ("RT-2", 2, None)


@pytest.mark.parametrize("timed", [True, False])
def test_who_finds_another_intent_in_place_of_his_own_starts_over_at_the_lease(timed: bool) -> None:
    """P1: a lease that two believe to hold costs no second redemption: one sees the other's intent, and waits."""
    world = World(session(), timed=timed)

    def another_announces() -> None:
        world.record = world.stored.noted(intent=intent(owner="another", since=world.wall), failure=None)

    world.before("Swap", 1, another_announces)
    world.fly()
    assert world.names[:7] == ["Lease", "Load", "Swap", "Release", "Lease", "Load", "Release"]
    assert world.slept == [pytest.approx(12.0)]
    assert len(world.redeemed) == 1
    assert world.redeemed[0].session.intent is not None
    assert world.redeemed[0].session.intent.attempt == 2


def test_who_finds_an_answer_in_place_of_his_intent_adopts_it() -> None:
    """P1: the other owner's token serves everybody, and nothing is sent."""
    world = World(session(), timed=True)
    world.before("Swap", 1, world.others_refresh)
    assert world.fly().session is world.stored
    assert world.redeemed == []
