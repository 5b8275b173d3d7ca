"""What a redemption under way carries, how a flight ends, and the memory of one that failed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace

from unexpired._core.effects import Instant, Result
from unexpired._core.policy import Policy, asked_pause, cool_down
from unexpired._core.session import Failure, FailureKind, Session
from unexpired.events import Event, RefreshFailed

__all__ = ["Outcome", "Trip", "fail", "failed", "passing", "unknown"]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What everybody gets, and what the listeners hear afterwards."""

    result: Result
    events: Collection[Event] = field(default_factory=tuple)


@dataclass(frozen=True, slots=True)
class Trip:
    """One redemption under way: the session *before* it, and the same with our intent *marked* in it."""

    key: str
    policy: Policy
    before: Session
    marked: Session
    resource: str | None

    @property
    def attempt(self) -> int:
        """How often this version has been sent, this time included."""
        return self.marked.intent.attempt if self.marked.intent is not None else 1

    @property
    def unsent(self) -> Session:
        """The session as it was before our intent."""
        return self.marked.noted(intent=self.before.intent, failure=self.before.failure)

    @property
    def answered(self) -> Session:
        """The session with our intent in it, and the request that it announced over."""
        intent = self.marked.intent
        return self.marked.noted(
            intent=replace(intent, owner="") if intent is not None else None, failure=self.marked.failure
        )


def passing(kind: FailureKind, message: str, now: float, pause: float) -> Failure:
    """A failure that is not kept in the record."""
    return Failure(kind, message, now, now + pause)


def unknown(key: str, session: Session | None, failure: Failure) -> Outcome:
    """Nothing was asked, and nobody knows how the session would be: told, but not kept in the record."""
    version = session.version if session is not None else 0
    pause = failure.retry_at - failure.since
    event = RefreshFailed(key, version, failure.kind, failure.message, 0, pause)
    return Outcome(Result(session, failure), [event])


def fail(
    trip: Trip,
    kind: FailureKind,
    message: str,
    instant: Instant,
    chance: float,
    *,
    retry_after: float | None = None,
    only: bool = False,
) -> Failure:
    """The memory of this failure, with a pause that grows with each one in a row. *only*: of this resource alone."""
    earlier = trip.before.failure
    count = earlier.count + 1 if earlier is not None else 1
    pause = asked_pause(retry_after, cool_down(count, chance, trip.policy.longest_pause))
    unexplained, since = (earlier.unexplained, earlier.unexplained_since) if earlier is not None else (0, 0.0)
    if kind == "unexplained":
        unexplained, since = unexplained + 1, since or instant.wall
    else:
        unexplained, since = 0, 0.0
    resources = _beside(earlier, trip.resource, instant) if only else ()
    return Failure(kind, message, instant.wall, instant.wall + pause, count, unexplained, since, resources)


def _beside(earlier: Failure | None, resource: str | None, instant: Instant) -> tuple[str | None, ...]:
    """This resource, and those that a failure before this one still forbids to ask for."""
    others = earlier.resources if earlier is not None and earlier.holds(instant.wall) else ()
    return (*(one for one in others if one != resource), resource)


def failed(trip: Trip, failure: Failure) -> RefreshFailed:
    """The news of it; who waited is filled in when they are woken."""
    return RefreshFailed(
        trip.key, trip.before.version, failure.kind, failure.message, 0, failure.retry_at - failure.since
    )
