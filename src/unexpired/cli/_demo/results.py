"""What a scene came to, and whether the promises were held. Times are UNIX time in seconds; nothing holds a secret."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

__all__ = [
    "SERVED",
    "WRONG",
    "Attempt",
    "Call",
    "Expected",
    "Refresh",
    "Result",
    "broken",
    "clock",
    "counted",
    "figures",
    "to_json",
]

Expected = Literal["served", "LoginRequired", "TemporarilyUnavailable"]
"""How every call of a scene has to end: with its own response, or with this error."""

SERVED = "served"
WRONG = "somebody else's response"

_monotonic = time.monotonic
_EPOCH = time.time() - time.monotonic()


def clock() -> float:
    """UNIX time without jumps: callers, other processes and the server are drawn on one axis."""
    return _EPOCH + _monotonic()


@dataclass(frozen=True, slots=True)
class Attempt:
    """One request on the wire: when it was handed to the transport and when its answer was there."""

    sent: float
    answered: float


@dataclass(slots=True)
class Call:
    """One caller's call. *ended* is None while it hangs; *outcome* is `SERVED`, `WRONG` or an error's type."""

    number: int
    group: int = 0
    began: float = 0.0
    ended: float | None = None
    outcome: str = "no answer"
    attempts: list[Attempt] = field(default_factory=list[Attempt])

    def snapshot(self) -> Call:
        """The call as it is now, for one that may still be going on."""
        return Call(self.number, self.group, self.began, self.ended, self.outcome, list(self.attempts))

    @classmethod
    def from_json(cls, document: Mapping[str, Any], group: int) -> Call:
        """Read what `dataclasses.asdict` made of a call in another process."""
        attempts = [Attempt(**attempt) for attempt in document["attempts"]]
        ended, outcome = document["ended"], document["outcome"]
        return cls(document["number"], group, document["began"], ended, outcome, attempts)


@dataclass(frozen=True, slots=True)
class Refresh:
    """One token request as the server saw it."""

    received: float
    answered: float
    outcome: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """One scene. *released* is when the callers were let go; *wall_s* is from there to the last one's end.

    *floor_s* is what the same calls cost with a good token and without unexpired, plus one token request, one after
    the other, measured in the same run. *logins_ended* counts `SessionEnded` events,
    *revoked* the logins that the server ended, *cleared* says that the store holds no token any more.
    """

    scene: str
    about: str
    expected: Expected
    calls: Sequence[Call]
    refreshes: Sequence[Refresh]
    reuse_detected: int
    revoked: int
    logins_ended: int
    cleared: bool
    released: float
    wall_s: float
    floor_s: float

    @property
    def callers(self) -> int:
        """How many calls were made at the same instant."""
        return len(self.calls)

    @property
    def served(self) -> int:
        """How many got the response to their own request."""
        return sum(call.outcome == SERVED for call in self.calls)

    @property
    def told(self) -> int:
        """How many ended as the scene expects."""
        return sum(call.outcome == self.expected for call in self.calls)

    @property
    def hung(self) -> int:
        """How many did not end within their bound."""
        return sum(call.ended is None for call in self.calls)

    @property
    def logged_out(self) -> int:
        """How many logins were lost: revoked by the server, or ended by the client."""
        return max(self.revoked, self.logins_ended, int(self.cleared))

    @property
    def ratio(self) -> float:
        """The time taken, in floors."""
        return self.wall_s / self.floor_s if self.floor_s else float("inf")

    @property
    def fails(self) -> bool:
        """Whether this is a scene in which the refresh is made to fail."""
        return self.expected != SERVED


def counted(number: int, noun: str, plural: str | None = None) -> str:
    """*number* and its noun, which ends in an s for any but 1 unless it has a *plural* of its own."""
    return f"{number} {noun if number == 1 else plural or noun + 's'}"


def figures(result: Result) -> dict[str, str]:
    """The result as the columns of a table. A scene that fails serves nobody, and compares with no floor."""
    return {
        "callers": str(result.callers),
        "served": "" if result.fails else str(result.served),
        "told": str(result.told) if result.fails else "",
        "refreshes": str(len(result.refreshes)),
        "reuse": str(result.reuse_detected),
        "time": _span(result.wall_s),
        "floor": _span(result.floor_s),
        "ratio": "" if result.fails else f"{result.ratio:.2f}",
    }


def _span(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 0.9995 else f"{seconds * 1000:.0f} ms"


def broken(result: Result) -> list[str]:
    """The promises that were not held, a sentence each."""
    callers, wrong = counted(result.callers, "caller"), sum(call.outcome == WRONG for call in result.calls)
    ends = int(result.expected == "LoginRequired")
    others = ", ".join(sorted({call.outcome for call in result.calls} - {result.expected}))
    how = "served" if result.expected == SERVED else f"told {result.expected}"
    # a promise, whether it was held, and what is said when it was not
    promises = [
        (result.callers > 0, "nobody called"),
        (result.hung == 0, f"{result.hung} of {callers} hung"),
        (wrong == 0, f"{wrong} of {callers} got {WRONG}"),
        (result.told == result.callers, f"only {result.told} of {callers} {how}, the others got {others}"),
        (len(result.refreshes) == 1, f"{len(result.refreshes)} refreshes instead of 1"),
        (result.reuse_detected == 0, f"the server detected reuse {counted(result.reuse_detected, 'time')}"),
        (result.revoked == 0, f"the server revoked {counted(result.revoked, 'login')}"),
        (result.cleared == bool(ends), "the store still holds tokens" if ends else "the login was lost"),
        (
            result.logins_ended == ends,
            f"the end of the login was reported {counted(result.logins_ended, 'time')}, not {ends}",
        ),
    ]
    return [sentence for held, sentence in promises if not held]


def to_json(result: Result) -> dict[str, object]:
    """The result as `--json` prints it: *ok* if every promise was held, *told* only where the refresh has to fail."""
    document: dict[str, object] = {
        "scene": result.scene,
        "ok": not broken(result),
        "callers": result.callers,
        "served": result.served,
        "refreshes": len(result.refreshes),
        "reuse_detected": result.reuse_detected,
        "logged_out": result.logged_out,
        "hung": result.hung,
        "wall_s": round(result.wall_s, 4),
        "floor_s": round(result.floor_s, 4),
    }
    return {**document, "told": result.told} if result.fails else document


def call_to_json(call: Call) -> dict[str, Any]:
    """The call for the pipe between processes."""
    return asdict(call)
