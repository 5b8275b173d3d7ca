"""What becomes of an answer that holds a token: saved, unsaved, too late, or strange."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from typing import Any

import pytest

from tests.core.harness import EPOCH, KEY, REFUSING, World, answer, intent, session, token
from unexpired._core.effects import Need, Publish
from unexpired._core.policy import Policy
from unexpired._core.session import Failure
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, NotSent, Refused, StoreError
from unexpired.events import RefreshSucceeded, Unsaved

EARLIER = Failure("unreachable", "down", EPOCH - 10.0, EPOCH - 1.0, count=3)


def id_token(**claims: Any) -> str:
    """An unsigned id token."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


# -- unsaved ----------------------------------------------------------------------------------------------------------


def test_a_store_that_fails_once_costs_nothing() -> None:
    """A write that succeeds at the second try serves and saves as usual, without an alarm (scenario 25)."""
    world = World(session())
    world.refuse("Swap", 2)
    assert world.fly().failure is None
    assert world.stored.refresh_token == "RT-2"
    assert world.heard(Unsaved) == []
    assert len(world.results) == 1
    assert len(world.redeemed) == 1


def test_a_store_that_takes_its_time_keeps_nobody_waiting() -> None:
    """A second try that ends seconds after the first is enough to serve from memory (scenario 26)."""
    world = World(session(), [answer(expires_in=86400)])

    def times_out() -> None:
        world.passes(5.0)()
        raise StoreError(REFUSING)

    world.before("Swap", 2, times_out)
    world.before("Swap", 3, times_out)
    world.fly()
    assert world.heard(Unsaved) == [Unsaved(KEY, 2, 2, REFUSING)]
    assert [effect.last for effect in world.trace if isinstance(effect, Publish)] == [False, True]
    assert world.stored.refresh_token == "RT-2"


def test_a_store_that_keeps_refusing_is_tried_for_as_long_as_it_takes() -> None:
    """After 3 tries everybody here is served from memory and the alarm is raised once; trying goes on (scenario 26)."""
    world = World(session(), [answer(expires_in=86400)])
    world.refuse("Swap", *range(2, 900))
    world.fly()
    early, last = [effect for effect in world.trace if isinstance(effect, Publish)]
    assert (early.last, last.last) == (False, True)
    assert early.result.session is not None
    assert early.result.session.tokens[None].access_token == "AT-2"
    assert world.heard(Unsaved) == [Unsaved(KEY, 2, 3, REFUSING)]
    assert world.names[:8] == ["Lease", "Load", "Swap", "Redeem", "Swap", "Sleep", "Swap", "Sleep"]
    assert world.names[8:16] == ["Swap", "Publish", "Emit", "Sleep", "Renew", "Swap", "Sleep", "Renew"]
    assert max(world.slept) == 1.0
    assert world.stored.refresh_token == "RT-2"
    assert len(world.heard(RefreshSucceeded)) == 1


def test_saving_goes_on_without_the_lease() -> None:
    """A lease that cannot be renewed, by the store that refuses the token, does not make us drop it."""
    world = World(session(), timed=True)
    world.refuse("Swap", 2, 3, 4, 5)
    world.refuse("Renew", 1, 2, 3, 4)
    assert world.fly().failure is None
    assert world.stored.refresh_token == "RT-2"


def test_a_process_that_exits_tries_for_as_long_as_a_flight_may_take_and_raises_the_alarm() -> None:
    """A store that hiccups at the exit loses nothing; one that stays down is given up after the deadline, and told."""
    world = World(session())
    world.before("Redeem", 1, world.exits)
    world.refuse("Swap", 2, 3, 4, 5)
    world.fly()
    assert world.stored.refresh_token == "RT-2"
    world = World(session())
    world.before("Redeem", 1, world.exits)
    world.refuse("Swap", *range(2, 99))
    result = world.fly()
    assert 10.0 <= sum(world.slept) <= 20.0
    assert result.session is not None
    assert result.session.refresh_token == "RT-2"
    assert world.heard(Unsaved) == [Unsaved(KEY, 2, 3, REFUSING)]
    assert world.stored.intent is not None


# -- login and logout meanwhile ---------------------------------------------------------------------------------------


def test_a_logout_during_the_refresh_wins_and_revokes_the_late_result() -> None:
    """The result of a login that was logged out meanwhile is not stored, and revoked at the server (scenario 61)."""
    world = World(session())
    world.before("Swap", 2, world.others_log_out)
    result = world.fly()
    assert result.session is world.record
    assert world.stored.ended is not None
    assert world.counts["Revoke"] == 1
    assert world.heard(RefreshSucceeded) == []


@pytest.mark.parametrize("other", ["logged in", "logged in and out", "ended", "refreshed", "gone"])
def test_every_other_late_result_is_dropped_unrevoked(other: str) -> None:
    """After a new login, another kind of end or a newer version nothing is revoked: it could kill the winner."""
    world = World(session())

    def meanwhile() -> None:
        if other.startswith("logged in"):
            world.others_log_in()
        if other == "logged in and out":
            world.others_log_out()
        if other == "ended":
            world.record = world.stored.over("login_required", EPOCH)
        if other == "refreshed":
            world.others_refresh()
        if other == "gone":
            world.record = None

    world.before("Swap", 2, meanwhile)
    assert world.fly().session is world.record
    assert world.counts["Revoke"] == 0


# -- strange answers --------------------------------------------------------------------------------------------------


def test_what_the_answer_omits_is_kept() -> None:
    """Without a refresh token, id token or scope in the answer the old ones stay (scenario 28)."""
    world = World(session(token(id_token="ID-1", scope="read")), [{"access_token": "AT-2"}])
    world.fly()
    new = world.stored.tokens[None]
    assert (new.refresh_token, new.id_token, new.scope, world.stored.refresh_token) == ("RT-1", "ID-1", "read", "RT-1")


@pytest.mark.parametrize("said", [{"access_token": "AT-2"}, Token("AT-2")])
def test_a_token_without_a_lifetime_gets_the_configured_one(said: object) -> None:
    """The default lifetime counts from the request on this machine's clock, not on the store's (scenario 28)."""
    world = World(session(), [said], policy=Policy(default_lifetime=120.0), store_skew=-600.0)
    world.fly()
    assert world.stored.tokens[None].expires_at == pytest.approx(EPOCH + 120.0)
    assert world.stored.tokens[None].lifetime == 120.0
    world = World(session(), [said])
    world.fly()
    assert world.stored.tokens[None].expires_at is None


def test_a_token_that_has_already_expired_is_saved_and_is_a_failure() -> None:
    """It is stored, because it rotated; a growing pause keeps everybody from refreshing again at once (scenario 29)."""
    world = World(session(failure=EARLIER), [answer(expires_in=-5)])
    world.fly()
    assert world.failure.kind == "expired"
    assert (world.stored.refresh_token, world.stored.failure, world.failure.count) == ("RT-2", world.failure, 4)
    world.fly()
    assert len(world.redeemed) == 1


def test_a_logout_after_an_expired_token_was_saved_stands() -> None:
    """The memory of an expired token is not written over somebody else's change."""
    world = World(session(), [answer(expires_in=-5)])
    world.before("Swap", 3, world.others_log_out)
    result = world.fly()
    assert (result.session, result.failure) == (world.record, None)


@pytest.mark.parametrize("claims", [{"sub": "bob"}, {"sub": "alice", "iss": "elsewhere"}])
@pytest.mark.parametrize("resource", [None, "a"])
def test_another_persons_token_is_refused(claims: dict[str, str], resource: str | None) -> None:
    """An id token of another `sub` or `iss`, for any resource, is not stored; the old one is kept (scenario 35)."""
    mine = token(id_token=id_token(sub="alice", iss="here"))
    world = World(session(mine), [answer(id_token=id_token(**claims))], needs={Need(resource)})
    if resource is not None:
        world.record = session(replace(mine, expires_at=EPOCH + 200))
    world.fly()
    assert world.failure.kind == "configuration"
    assert world.stored.refresh_token == "RT-1"
    assert world.stored.intent == intent(owner="")


@pytest.mark.parametrize("new", [{"sub": "alice"}, {"sub": "alice", "iss": "here"}, {}])
def test_the_same_persons_token_is_taken(new: dict[str, str]) -> None:
    """An id token that says nothing else about the person is no obstacle."""
    world = World(session(token(id_token=id_token(sub="alice", iss="here"))), [answer(id_token=id_token(**new))])
    assert world.fly().failure is None


def test_a_token_in_hand_survives_every_failure() -> None:
    """A passing failure leaves the valid access token in the record, to be served (scenario 52)."""
    valid = token(expires_at=EPOCH + 100.0)
    for said in (
        NotSent("busy"),
        AnswerLost("reset"),
        Refused("no", error="invalid_client"),
        Refused("no", error=None),
    ):
        held = session(valid)
        world = World(held, [said], needs={Need(None, held.tokens[None])})
        world.fly()
        assert world.result.session is not None
        assert world.result.session.tokens == held.tokens
