"""The rules of a flight, held against every way that it can go, up to two (or three) surprises deep."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.core.harness import KEY, REFUSING, World, answer, every_path, intent, session
from unexpired._core import effects
from unexpired._core.effects import Instant, Result
from unexpired._core.policy import Policy
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
)
from unexpired.events import SessionEnded, Unsaved

Choose = Callable[[list[Any]], Any]

GOOD = answer(2)
REFUSED = Refused("no", error="invalid_grant")
ANSWERS: list[Any] = [
    GOOD,
    AnswerLost("reset"),
    AnswerLost("truncated", refresh_token="RT-2"),
    NotSent("busy", retry_after=5.0),
    NotSent("no route", connecting=True),
    REFUSED,
    Refused("no", error="invalid_client"),
    Refused("no", error="temporarily_unavailable"),
    Refused("no", error=None),
    LoginRequired("the grant says so", reason="custom"),
    ConfigurationError("settings"),
    TemporarilyUnavailable("an inner manager"),
    answer(2, expires_in=-5),
    "AT-2",
]


@dataclass
class AnyWorld(World):
    """A world where everything can happen at every effect, as *choose* has it, but only so many surprises."""

    choose: Choose = field(default=lambda options: options[0])
    left: int = 2
    outsider: str = ""
    theirs: Session | None = None
    swaps_failed: int = 0

    def surprise(self, usual: str, *others: str) -> str:
        """What happens here: the usual, or one of the others while there are surprises left."""
        happens: str = self.choose([usual, *others]) if self.left else usual
        self.left -= happens != usual
        return happens

    def outside(self, happens: str) -> None:
        """Somebody else changes the record."""
        if happens in ("refresh", "log_in", "log_out"):
            self.outsider = happens
            getattr(self, f"others_{happens}")()
            self.theirs = self.record

    def meddlers(self) -> list[str]:
        """Who may still come: one of them, once, and not to an ended session."""
        if self.outsider or self.record is None or self.record.ended is not None:
            return []
        return ["refresh", "log_in", "log_out"]

    def _now(self, effect: effects.Now) -> Instant:
        happens = self.surprise("in time", "late", "exits")
        self.boot += 11.0 if happens == "late" else 0.001
        self.exiting = self.exiting or happens == "exits"
        return super()._now(effect)

    def _lease(self, effect: effects.Lease) -> object:
        happens = self.surprise("granted", "changed", "timeout", "refused")
        if happens == "refused":
            raise StoreError(REFUSING)
        self.leases = [happens] if happens != "granted" else []
        return super()._lease(effect)

    def _load(self, effect: effects.Load) -> Session | None:
        happens = self.surprise("loaded", "refused", *self.meddlers())
        if happens == "refused":
            raise StoreError(REFUSING)
        self.outside(happens)
        return super()._load(effect)

    def _swap(self, effect: effects.Swap) -> bool:
        happens = self.surprise("swapped", "refused", *self.meddlers())
        if happens == "refused":
            self.swaps_failed += 1
            raise StoreError(REFUSING)
        self.outside(happens)
        return super()._swap(effect)

    def _renew(self, effect: effects.Renew) -> None:
        if self.surprise("renewed", "refused") == "refused":
            raise StoreError(REFUSING)
        super()._renew(effect)

    def _release(self, effect: effects.Release) -> None:
        super()._release(effect)
        if self.surprise("released", "refused") == "refused":
            raise StoreError(REFUSING)

    def _redeem(self, effect: effects.Redeem) -> object:
        if self.counts["Redeem"] == 1:
            self.server = [self.choose(ANSWERS)]
        else:
            happens = self.surprise("the same", "good", "refused")
            self.server = {"the same": self.server, "good": [GOOD], "refused": [REFUSED]}[happens]
        return super()._redeem(effect)


def check(world: AnyWorld) -> None:
    """What must hold whatever happened."""
    check_sending(world)
    check_order(world)
    check_saved(world)
    check_others(world)
    assert_typed(world.result)


def check_sending(world: AnyWorld) -> None:
    """Nothing is sent without an intent just stored, nor without a look at the deadline just before."""
    deadline = 0.0
    marked: Session | None = None
    for before, effect in zip(world.trace, world.trace[1:], strict=False):
        if isinstance(effect, effects.Lease):
            marked, deadline = None, float("inf")
        elif isinstance(effect, effects.Swap) and effect.new.intent is not None:
            marked = effect.new
        elif isinstance(effect, effects.Redeem):
            assert isinstance(before, effects.Now)
            assert effect.session is marked
            assert marked.intent is not None
            assert (marked.intent.owner, marked.intent.version) == (world.owner, marked.version)
            assert 0 < effect.timeout <= min(world.policy.deadline, deadline)
            deadline = effect.timeout


def usable(world: AnyWorld) -> list[int]:
    """Where in the trace a token request was answered with a token."""
    places = [index for index, effect in enumerate(world.trace) if isinstance(effect, effects.Redeem)]
    return [index for index in places[-1:] if world.server[0] in (GOOD, ANSWERS[-2])]


def check_order(world: AnyWorld) -> None:
    """A token is stored next; the lease is released before anybody is woken, all are before listeners hear."""
    names = [type(effect).__name__ for effect in world.trace]
    for index in usable(world):
        stored = world.trace[index + 1]
        assert isinstance(stored, effects.Swap)
        redeemed = world.trace[index]
        assert isinstance(redeemed, effects.Redeem)
        assert stored.new.same_version(redeemed.session.minted(Token("any")))
        assert stored.new.refresh_token == "RT-2"
        assert "Redeem" not in names[index + 1 :], "a version was redeemed after an answer"
    published = [i for i, effect in enumerate(world.trace) if isinstance(effect, effects.Publish)]
    assert [world.trace[i].last for i in published] == [False] * (len(published) - 1) + [True]  # type: ignore[attr-defined]
    assert names.index("Release", max((i for i, name in enumerate(names) if name == "Lease"))) < published[-1]
    assert not world.held
    assert set(names[published[-1] + 1 :]) <= {"Now", "Emit"}
    for i, effect in enumerate(world.trace[: published[-1]]):
        if isinstance(effect, effects.Emit):
            assert isinstance(effect.event, Unsaved)
            assert isinstance(world.trace[i - 1], effects.Publish)


def check_saved(world: AnyWorld) -> None:
    """A rotated token is in the store in the end; a failure is in the store before the lease is released."""
    if usable(world) and not world.outsider and not world.heard(Unsaved):
        assert world.stored.refresh_token == "RT-2"
        assert world.stored.version == 2
    failure = world.result.failure
    undisturbed = not world.outsider and not world.swaps_failed
    if undisturbed and failure is not None and failure.kind not in ("store", "time"):
        assert world.stored.failure is failure
        release = [type(effect) for effect in world.trace].index(effects.Release)
        assert effects.Swap not in [type(effect) for effect in world.trace[release:]] or world.counts["Lease"] > 1


def check_others(world: AnyWorld) -> None:
    """What somebody else stored meanwhile stands; only a logout lets a late result be revoked."""
    if world.theirs is not None:
        assert world.record is world.theirs
        assert world.heard(SessionEnded) == []
    if world.counts["Revoke"]:
        assert world.outsider == "log_out"
    ended = world.record is not None and world.record.ended is not None and world.outsider != "log_out"
    assert len(world.heard(SessionEnded)) == ended


def assert_typed(result: Result) -> None:
    """Everybody gets a session, or a failure with a pause, or the news that there is no session."""
    assert result.session is None or result.session.key == KEY
    if result.failure is not None:
        assert result.failure.retry_at > result.failure.since
        assert "AT-2" not in result.failure.message
        assert "RT-2" not in result.failure.message


@pytest.mark.parametrize("surprises", [2, pytest.param(3, marks=pytest.mark.simulate)])
@pytest.mark.parametrize("grace", [0.0, 30.0], ids=["no grace", "grace"])
@pytest.mark.parametrize("timed", [False, True], ids=["held", "timed"])
@pytest.mark.parametrize("left", [None, intent(since=999_995.0)], ids=["clean", "intent"])
def test_the_rules_of_a_flight_hold_on_every_path(surprises: int, grace: float, timed: bool, left: Any) -> None:
    """Lease, intent and deadline come before a request, storing right after it, and then memory, release, waking, news.

    On every path that any answer and a few surprises make, a flight ends, sends nothing after an answer, overwrites
    nobody's newer record and never raises (scenarios 23 and 27).
    """

    def explore(choose: Choose) -> None:
        world = AnyWorld(session(intent=left), policy=Policy(reuse_grace=grace), timed=timed)
        world.choose, world.left = choose, surprises
        world.fly()
        check(world)

    assert every_path(explore) > 1000
