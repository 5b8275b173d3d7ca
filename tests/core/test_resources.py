"""Several resources on one login: one refresh token, an access token each (scenario 7)."""

from __future__ import annotations

import pytest

from tests.core.harness import KEY, World, answer, session, token
from unexpired._core.effects import Need
from unexpired._core.record import decode, encode
from unexpired.errors import AnswerLost, ConfigurationError, NotSent, Refused

A, B = token("AT-a", resource="a"), token("AT-b", resource="b")
NO_SUCH = Refused("no such resource", error="invalid_target")


def test_all_tokens_show_the_refresh_token_that_is_good_now() -> None:
    """A scheme that sends it beside the access token of another resource never sends a spent one."""
    world = World(session(A, B), needs={Need("b")})
    world.fly()
    assert {held.refresh_token for held in world.stored.tokens.values()} == {"RT-2"}
    assert (world.stored.tokens["a"].access_token, world.stored.tokens["a"].minted) == ("AT-a", 1)
    salvaged = World(session(A, B), [AnswerLost("half of it", refresh_token="RT-9")], {Need("b")})
    salvaged.fly()
    assert {held.refresh_token for held in salvaged.stored.tokens.values()} == {"RT-9"}


@pytest.mark.parametrize("error", ["invalid_target", "invalid_scope"])
def test_a_resource_that_the_server_refuses_stops_no_other(error: str) -> None:
    """The others are refreshed while it pauses, and it is not asked for again because they were (RFC 8707 §2)."""
    world = World(session(A, B), [Refused("no", error=error)], {Need("a"), Need("b")})
    world.fly()
    assert (world.failure.kind, world.failure.resources) == ("configuration", ("a",))
    world.server = [answer(2)]
    world.fly()
    assert [sent.resource for sent in world.redeemed] == ["a", "b"]
    assert world.result.failure is None
    world.needs = {Need("a")}
    world.fly()
    assert (len(world.redeemed), world.failure.resources) == (2, ("a",))
    world.passes(world.failure.retry_at - world.wall + 0.001)()
    world.fly()
    assert world.redeemed[-1].resource == "a"


def test_who_waits_for_one_resource_does_not_get_the_error_of_another() -> None:
    """One flight met the needs of both: the refused one's caller is told, the other one goes on and is served."""
    world = World(session(A, B), [NO_SUCH, answer(2)])
    world.before("Needs", 1, lambda: world.needs.add(Need("a")))
    assert world.obtain(Need("b")).access_token == "AT-2"
    with pytest.raises(ConfigurationError, match="no such resource"):
        world.obtain(Need("a"))
    assert len(world.redeemed) == 2


def test_all_refused_resources_are_remembered() -> None:
    """The second one's failure does not let the first be asked for again."""
    world = World(session(A, B), [NO_SUCH], {Need("a")})
    world.fly()
    world.needs = {Need("b")}
    world.fly()
    assert world.stored.failure is not None
    assert world.stored.failure.resources == ("a", "b")
    world.needs = {Need("a"), Need("b")}
    world.fly()
    assert world.failure == world.stored.failure
    assert len(world.redeemed) == 2


@pytest.mark.parametrize("said", [NotSent("busy", retry_after=20.0), Refused("who?", error="invalid_client")])
def test_a_failure_of_the_server_or_client_is_one_of_all_resources(said: Exception) -> None:
    """What says nothing of one resource keeps everybody from asking."""
    world = World(session(A, B), [said], {Need("a")})
    world.fly()
    world.needs = {Need("b")}
    world.fly()
    assert (len(world.redeemed), world.failure.resources) == (1, ())
    assert world.failure.concerns("b")


def test_the_default_resource_can_be_the_refused_one() -> None:
    """None is a resource like the others, in the record too."""
    world = World(session(token(), A), [NO_SUCH], {Need(), Need("a")})
    world.fly()
    assert world.failure.resources == (None,)
    kept = decode(encode(world.stored), KEY, "the test")
    assert kept.failure == world.failure
    assert kept.failure is not None
    assert (kept.failure.concerns(None), kept.failure.concerns("a")) == (True, False)
