"""What the decisions ask for: frozen requests that a driver carries out and answers.

A flow is a generator of effects. `session = yield from Load()` asks for the stored session and is sent it. The same
flows run on real threads and stores (`_engine`) and under a scheduler that takes them apart step by step.

Rules: a flow does no I/O and reads no clock; it catches named exceptions only; it has no `yield` in a `finally`.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, TypeVar, cast

from unexpired._core.session import Failure, Session
from unexpired._core.token import Token
from unexpired.errors import UnexpiredError
from unexpired.events import Event

__all__ = [
    "Draw",
    "Effect",
    "Emit",
    "Flow",
    "Granted",
    "Instant",
    "Join",
    "Lease",
    "Load",
    "Need",
    "Needs",
    "Now",
    "Publish",
    "Redeem",
    "Release",
    "Renew",
    "Result",
    "Revoke",
    "SetAside",
    "Sleep",
    "Swap",
]

R = TypeVar("R")
Flow = Generator["Effect[Any]", Any, R]
"""A conversation with a driver that ends in an R."""


class Effect(Generic[R]):
    """One request to the driver, answered with an R."""

    __slots__ = ()

    def __iter__(self) -> Flow[R]:
        return cast("R", (yield self))


@dataclass(frozen=True, slots=True, eq=False)
class Need:
    """What a caller wants: a token for *resource*, later than the one it has (*than*), which may have been refused."""

    resource: str | None = None
    than: Token | None = None
    rejected: bool = False

    def met_by(self, session: Session, now: float, leeway: float) -> bool:
        """Whether the stored token for this resource will do, at UNIX time *now*."""
        token = session.tokens.get(self.resource)
        if token is None or token.expired(now, leeway):
            return False
        if self.than is None:
            return True
        return token.newer_than(self.than) if self.rejected else token.later_than(self.than)


@dataclass(frozen=True, slots=True)
class Instant:
    """*wall* is UNIX time; *boot* is a clock that never jumps and runs during suspend. Both in seconds."""

    wall: float
    boot: float
    exiting: bool = False


@dataclass(frozen=True, slots=True)
class Granted:
    """A lease is held. *since* is boot time just before it was granted; *at* is UNIX time on the store's clock.

    A *timed* lease ends by itself; the other kind ends with its holder.
    """

    since: float
    at: float
    timed: bool = False


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """How a flight ended: the session as it is now, and why there is no token, if there is none."""

    session: Session | None
    failure: Failure | None = None


@dataclass(frozen=True, slots=True)
class Now(Effect[Instant]):
    """What time is it?"""


@dataclass(frozen=True, slots=True)
class Draw(Effect[float]):
    """A random number in [0, 1)."""


@dataclass(frozen=True, slots=True)
class Sleep(Effect[bool]):
    """Wait. False when the process is exiting: the wait was cut short, unless it is *patient*.

    A *watchful* one ends when the record changes, as `Lease` does.
    """

    seconds: float
    patient: bool = False
    watchful: bool = False


@dataclass(frozen=True, slots=True)
class Needs(Effect[frozenset[Need]]):
    """What all who have joined by now want."""


@dataclass(frozen=True, slots=True)
class Lease(Effect[Granted | Literal["changed", "timeout"]]):
    """The right to redeem: wait for it up to *wait* seconds. ``changed``: the record changed meanwhile, look at it."""

    wait: float


@dataclass(frozen=True, slots=True)
class Renew(Effect[None]):
    """Keep the lease longer, for a rotated token that cannot be stored yet."""


@dataclass(frozen=True, slots=True)
class Release(Effect[None]):
    """Give the lease up, if it is held."""


@dataclass(frozen=True, slots=True)
class Load(Effect[Session | None]):
    """Read the stored session. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Swap(Effect[bool]):
    """Store *new* durably if the stored session still is *expected* (`Session.replaces`). Raises StoreError."""

    expected: Session | None
    new: Session


@dataclass(frozen=True, slots=True)
class SetAside(Effect[None]):
    """Move a record that cannot be read out of the way, without destroying it. Raises StoreError."""


@dataclass(frozen=True, slots=True)
class Redeem(Effect[Token | Mapping[str, Any] | UnexpiredError]):
    """Ask the server for a new token, within *timeout* seconds in all. Answers with it, or with what went wrong."""

    session: Session
    resource: str | None
    timeout: float


@dataclass(frozen=True, slots=True)
class Revoke(Effect[bool]):
    """Revoke what *session* holds at the server (RFC 7009), best effort: whether the server took it."""

    session: Session


@dataclass(frozen=True, slots=True)
class Publish(Effect[int]):
    """Wake everybody who joined with *result*: how many there were. Not the *last* word: the flight goes on."""

    result: Result
    last: bool = True


@dataclass(frozen=True, slots=True)
class Emit(Effect[None]):
    """Tell the listeners."""

    event: Event


@dataclass(frozen=True, slots=True)
class Join(Effect[Result | None]):
    """Join the flight in progress, or start one, and wait for it until boot time *until*. None: time is over."""

    need: Need
    until: float = field(default=0.0)
