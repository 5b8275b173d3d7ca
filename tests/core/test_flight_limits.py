"""The times of a flight at their limits, and what stands in the record while it is under way."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.harness import EPOCH, KEY, LOGIN, World, answer, intent, session, token
from unexpired._core.effects import Lease, Need, Swap
from unexpired._core.policy import Policy
from unexpired._core.session import Failure, Session
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, NotSent
from unexpired.events import RefreshFailed, RefreshStarted, RefreshSucceeded

EARLIER = Failure("unreachable", "down", EPOCH - 10.0, EPOCH - 1.0, count=3)


def _marked(world: World) -> Session:
    """What the first `Swap` of a flight stores."""
    return next(effect.new for effect in world.trace if isinstance(effect, Swap))


def _gone(left: float) -> Session:
    """A session whose redeemer has vanished; its request is surely over in *left* seconds (10 s and a margin of 2)."""
    return session(intent=intent(since=EPOCH - 12.0 + left))


def test_the_intent_counts_on_from_the_moment_of_the_lease() -> None:
    """What the store's clock said then, and the seconds since: the request begins now."""
    world = World(session(), store_skew=5.0)
    world.before("Load", 1, world.passes(3.0))
    world.fly()
    marked = _marked(world)
    assert marked.intent is not None
    assert marked.intent.since == pytest.approx(EPOCH + 8.0)


def test_the_memory_of_a_failure_stays_while_the_next_request_is_under_way() -> None:
    """A process that dies over it leaves both."""
    world = World(session(failure=EARLIER))
    world.fly()
    assert _marked(world).failure == EARLIER


def test_the_memory_of_a_failure_stays_when_nothing_was_sent() -> None:
    """The process ends before the request: the record is as it was before, without the intent."""
    world = World(session(failure=EARLIER))
    world.before("Swap", 1, world.exits)
    world.fly()
    assert (world.stored.failure, world.stored.intent) == (EARLIER, None)
    assert world.redeemed == []


def test_a_hold_off_shorter_than_a_second_is_kept() -> None:
    """To the end, and then the request is sent."""
    world = World(_gone(0.5), timed=True, owner="me")
    world.fly()
    assert world.slept == pytest.approx([0.5])
    assert world.result.failure is None


def test_a_hold_off_counts_from_the_moment_of_the_lease() -> None:
    """Seconds that went by since then are not waited for again."""
    world = World(_gone(4.0), timed=True)
    world.before("Load", 1, world.passes(3.0))
    world.fly()
    assert world.slept == pytest.approx([1.0])


def test_the_last_second_of_the_wait_is_used_for_a_hold_off() -> None:
    """With 0.8 s left a hold-off of half a second is still sat out."""
    world = World(_gone(1.2), timed=True, policy=Policy(lease_wait=1.5))
    world.before("Load", 1, world.passes(0.7))
    world.fly()
    assert world.slept == pytest.approx([0.5])
    assert len(world.redeemed) == 1


def test_a_hold_off_that_is_cut_short_is_told() -> None:
    """The process ends: a second's pause at least, the session as it is, and whose it was."""
    world = World(_gone(0.5), timed=True)
    world.before("Sleep", 1, world.exits)
    world.fly()
    message = f"a refresh of {KEY!r} by another process may still be under way"
    assert world.result.session is world.record
    assert world.failure.message == message
    assert world.heard(RefreshFailed) == [RefreshFailed(KEY, 1, "time", message, 1, 1.0)]


def test_when_the_time_for_the_lease_is_over_it_is_asked_for_once_more_without_waiting() -> None:
    """A record that kept changing until then may leave the lease free."""
    world = World(session(), leases=["changed"])
    world.before("Load", 1, world.passes(20.0))
    world.fly()
    assert [effect.wait for effect in world.trace if isinstance(effect, Lease)] == [15.0, 0.0]
    assert world.result.failure is None


def test_a_wait_for_the_lease_in_vain_pauses_for_a_second() -> None:
    """Then somebody may try again."""
    world = World(session(), leases=["timeout"])
    world.fly()
    assert world.failure.retry_at - world.failure.since == pytest.approx(1.0)


def test_a_lease_that_another_has_too_is_given_up_and_taken_anew() -> None:
    """Another owner's intent appeared on the same version: the lease was lost, and nothing is sent under it."""
    world = World(session())
    other = session().noted(intent=intent(owner="other"), failure=None)
    world.before("Swap", 1, lambda: setattr(world, "record", other))
    world.fly()
    assert world.names[:7] == ["Lease", "Load", "Swap", "Release", "Lease", "Load", "Release"]
    assert world.slept == [pytest.approx(12.0)]
    assert [effect.session.intent.attempt for effect in world.redeemed if effect.session.intent] == [2]
    assert world.result.failure is None


def test_a_newer_version_met_under_the_lease_is_gone_on_from() -> None:
    """What somebody stored just before the intent is looked at under a new lease, and redeemed if it will not do."""
    world = World(session())
    newer = replace(session(), refresh_token="RT-9", version=5)
    world.before("Swap", 1, lambda: setattr(world, "record", newer))
    world.fly()
    assert [effect.session.refresh_token for effect in world.redeemed] == ["RT-9"]
    assert world.counts["Lease"] == 2
    assert world.stored.version == 6


@pytest.mark.parametrize("ending", ["nobody needs it", "no session"])
def test_a_request_that_was_started_is_told_however_the_flight_ends(ending: str) -> None:
    """Its answer was lost, and before the next try nothing was left to do."""
    world = World(session(), [AnswerLost("gone")], policy=Policy(reuse_grace=30.0), needs={Need("https://a")})
    if ending == "nobody needs it":
        world.before("Redeem", 1, world.needs.clear)
    else:
        world.before("Swap", 2, lambda: setattr(world, "record", None))
    world.fly()
    assert world.events == [RefreshStarted(KEY, 1, 1, "https://a")]
    assert len(world.redeemed) == 1


def test_somebody_else_s_failure_leaves_the_callers_their_session() -> None:
    """It is in the record that a flight finds; both are handed on."""
    held = session(failure=Failure("unreachable", "down", EPOCH, EPOCH + 9.0))
    world = World(held)
    world.fly()
    assert (world.result.session, world.result.failure) == (held, held.failure)


def test_a_connect_is_tried_again_until_two_seconds_have_gone_by() -> None:
    """The pauses double from a tenth of a second, and the last one would go beyond."""
    world = World(session(), [NotSent("refused", connecting=True)], latency=0.0)
    world.fly()
    assert world.slept == pytest.approx([0.1, 0.2, 0.4, 0.8])


def test_a_need_is_met_by_a_token_outside_its_leeway_only() -> None:
    """The last 30 seconds are as good as none."""
    for seconds, met in ((30.0, False), (30.1, True)):
        held = session(token(expires_at=EPOCH + seconds))
        assert Need().met_by(held, EPOCH, 30.0) is met


def test_only_who_was_refused_needs_another_string() -> None:
    """A later token with the same string does for everybody else."""
    carried = token("AT-1", login=LOGIN, minted=0)
    held = session(token("AT-1", expires_at=EPOCH + 200.0))
    assert Need(than=carried).met_by(held, EPOCH, 30.0)
    assert not Need(than=carried, rejected=True).met_by(held, EPOCH, 30.0)


def test_a_token_is_not_expired_before_its_last_moment() -> None:
    """Where no leeway is asked for there is none."""
    one = token(expires_at=EPOCH)
    assert [one.expired(EPOCH + at) for at in (-0.5, 0.0)] == [False, True]


def test_a_server_s_clock_is_believed_when_it_is_more_than_five_seconds_off() -> None:
    """At exactly five the machine's own counts."""
    for skew, moment in ((5.0, 100.0), (5.5, 94.5)):
        said = {"access_token": "AT-1", "expires_at": EPOCH + 100.0}
        read = Token.from_response(said, now=EPOCH, server_time=EPOCH + skew)
        assert read.expires_at == pytest.approx(EPOCH + moment)


def test_a_first_login_keeps_key_and_answer() -> None:
    """Whether it brings a token or only a refresh token."""
    for first in (Token.from_response(answer(), now=EPOCH), "RT-2"):
        begun = Session.begin(KEY, "login-2", first)
        assert (begun.key, begun.login, begun.version, begun.refresh_token) == (KEY, "login-2", 1, "RT-2")


@pytest.mark.parametrize("exits", [False, True])
def test_a_record_that_keeps_changing_ends_with_the_time_for_the_lease(exits: bool) -> None:
    """P3: whose intents are refused again and again pauses between, and gives up in the end, or when it is to exit."""
    world = World(session())

    def another_writes() -> None:
        world.record = world.stored.noted(intent=None, failure=None)

    for number in range(1, 1000):
        world.before("Swap", number, another_writes)
    if exits:
        world.before("Swap", 3, world.exits)
    world.fly()
    assert world.redeemed == []
    assert world.failure.kind == "time"
    assert max(world.slept) == pytest.approx(0.05)
    assert world.counts["Lease"] == 3 if exits else 290 < world.counts["Lease"] < 310


def test_an_expired_answer_is_a_failure_even_where_that_cannot_be_noted() -> None:
    """P6: another owner's note came first; the token is no good all the same, and nobody takes it for a fresh one."""
    world = World(session(), [answer(2, expires_in=-5)])
    world.before("Swap", 3, lambda: setattr(world, "record", world.stored.noted(intent=intent(), failure=None)))
    world.fly()
    assert world.failure.kind == "expired"
    assert world.heard(RefreshSucceeded) == []
