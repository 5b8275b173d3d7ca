"""One refresh, from the lease to the news: the way of a refresh as a generator of effects.

Rules that the order of the effects below keeps:

* nothing is sent without a lease, an intent in the store, and time left before the deadline;
* the very next effect after a usable answer stores it, fenced by login and version, never by the lease;
* a failed flight leaves a memory in the record before the lease is released, so that nobody repeats it at once;
* the lease is released before anybody is woken, everybody is woken before the listeners are told.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from unexpired._core import landing
from unexpired._core.effects import (
    Draw,
    Emit,
    Flow,
    Granted,
    Instant,
    Lease,
    Load,
    Needs,
    Now,
    Publish,
    Redeem,
    Release,
    Result,
    Sleep,
    Swap,
)
from unexpired._core.landing import settle
from unexpired._core.outcome import Outcome, Trip, fail, passing, unknown
from unexpired._core.policy import Policy
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, NotSent, StoreError, UnexpiredError
from unexpired.events import Event, RefreshFailed, RefreshStarted, RefreshSucceeded

__all__ = ["Plan", "flight"]

_AFTER_A_CONTEST = 0.05
"""Seconds before the lease is tried again when its record keeps changing."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a flight is about: the session's *key*, the numbers, and who this is in the fleet."""

    key: str
    policy: Policy
    owner: str = field(repr=False)


def flight(plan: Plan) -> Flow[None]:
    """Bring a token that meets everybody's need, or say why there is none. Never raises for what can go wrong."""
    began = yield from Now()
    try:
        outcome = yield from _lead(plan, began)
    except StoreError as error:
        instant = yield from Now()
        outcome = unknown(plan.key, None, passing("store", str(error), instant.wall, 1.0))
    yield from _release()
    callers = yield from Publish(outcome.result)
    ended = yield from Now()
    for event in outcome.events:
        if isinstance(event, RefreshSucceeded):
            told: Event = replace(event, callers=callers, seconds=ended.boot - began.boot)
        elif isinstance(event, RefreshFailed):
            told = replace(event, callers=callers)
        else:
            told = event
        yield from Emit(told)


def _release() -> Flow[None]:
    """Give the lease up. One that cannot be ends by itself, or with this process: what is stored stands."""
    try:
        yield from Release()
    except StoreError:
        return


def _lead(plan: Plan, began: Instant) -> Flow[Outcome]:
    """Get the lease, unless the answer is in the store before that."""
    limit = began.boot + plan.policy.lease_wait
    instant = began
    events: list[RefreshStarted] = []
    contests = 0
    while True:
        granted = yield from Lease(max(0.0, limit - instant.boot))
        session = yield from Load()
        instant = yield from Now()
        needs = yield from Needs()
        settled = settle(session, needs, instant, plan.policy)
        if settled is not None or session is None:
            return Outcome(settled or Result(None), events)
        if granted == "timeout":
            message = f"another process has been refreshing {plan.key!r} for {plan.policy.lease_wait:g} s"
            return unknown(plan.key, session, passing("time", message, instant.wall, 1.0))
        if isinstance(granted, Granted):
            pause = _hold_off(plan, granted, session, instant, contested=contests > 0)
            outcome = (yield from _redeem(plan, granted, session, events)) if pause <= 0.0 else None
            if outcome is not None:
                return outcome
            yield from _release()
            if pause <= 0.0:
                contests += 1
                pause = _AFTER_A_CONTEST if contests > 1 else 0.0
            instant = yield from Now()
            left = limit - instant.boot
            sleep = Sleep(min(pause, left), watchful=pause > _AFTER_A_CONTEST)
            if instant.exiting or left <= 0.0 or (pause > 0.0 and not (yield from sleep)):
                message = f"a refresh of {plan.key!r} by another process may still be under way"
                failure = passing("time", message, instant.wall, max(pause, 1.0))
                return unknown(plan.key, session, failure)
            instant = yield from Now()


def _hold_off(plan: Plan, granted: Granted, session: Session, instant: Instant, *, contested: bool) -> float:
    """Seconds until another owner's request is surely over.

    Only a timed lease can change hands before that, and one that turned out not to be ours alone (*contested*).
    """
    intent = session.intent
    if not (granted.timed or contested) or intent is None or intent.owner in ("", plan.owner):
        return 0.0
    store_now = granted.at + (instant.boot - granted.since)
    return intent.since + plan.policy.deadline + plan.policy.lease_margin - store_now


def _redeem(plan: Plan, granted: Granted, session: Session, events: list[RefreshStarted]) -> Flow[Outcome | None]:
    """Redeem this version, with the lease held; again at once where the server's grace period makes that safe.

    None: the record is not what it was. Somebody logged in or out, or the lease was lost: start over from there.
    """
    deadline = granted.since + plan.policy.deadline
    repeats = 2 if plan.policy.reuse_grace > 0 else 0
    while True:
        instant = yield from Now()
        needs = yield from Needs()
        settled = settle(session, needs, instant, plan.policy)
        if settled is not None:
            return Outcome(settled, list(events))
        resource = landing.wanted(session, needs, instant, plan.policy)
        attempt = session.intent.attempt + 1 if session.intent is not None else 1
        since = granted.at + (instant.boot - granted.since)
        intent = Intent(session.login, session.version, plan.owner, attempt, since)
        marked = session.noted(intent=intent, failure=session.failure)
        recovers = session.intent is not None and session.intent.owner not in ("", plan.owner)
        if not (yield from Swap(session, marked)):
            return None
        trip = Trip(plan.key, plan.policy, session, marked, resource)
        events.append(RefreshStarted(plan.key, session.version, attempt, resource, recovers))
        answer = yield from _send(trip, deadline)
        if answer is None:
            return (yield from _not_sent(trip, events))
        if isinstance(answer, AnswerLost) and not answer.refresh_token and repeats > 0:
            repeats -= 1
            instant = yield from Now()
            if not instant.exiting and instant.boot < deadline:
                session = marked
                continue
        outcome = yield from landing.land(trip, answer)
        return Outcome(outcome.result, [*events, *outcome.events])


def _send(trip: Trip, deadline: float) -> Flow[Token | UnexpiredError | None]:
    """Send the token request before *deadline*, or not at all (None). A failed connect is repeated briefly."""
    pause = 0.1
    instant = yield from Now()
    first = instant.boot
    while not instant.exiting and instant.boot < deadline:
        said = yield from Redeem(trip.marked, trip.resource, deadline - instant.boot)
        answer = landing.read(said, instant, trip.policy)
        if not (isinstance(answer, NotSent) and answer.connecting):
            return answer
        instant = yield from Now()
        give_up = min(deadline, first + trip.policy.connect_retries)
        if instant.boot + pause >= give_up or not (yield from Sleep(pause)):
            return answer
        pause *= 2
        instant = yield from Now()
    return None


def _not_sent(trip: Trip, events: list[RefreshStarted]) -> Flow[Outcome]:
    """Nothing was sent: too late, or the process is exiting. So the intent is taken back, if it still is the last.

    If it is not, somebody has stored what everybody here needs, or is about to.
    """
    instant = yield from Now()
    if not (yield from Swap(trip.marked, trip.unsent)) and not instant.exiting:
        return Outcome(Result((yield from Load())), events[:-1])
    chance = yield from Draw()
    failure: Failure = fail(trip, "time", "there was no time left to ask the server", instant, chance)
    return Outcome(
        Result(trip.before, failure),
        [*events[:-1], RefreshFailed(trip.key, trip.before.version, failure.kind, failure.message, 0)],
    )
