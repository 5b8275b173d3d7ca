"""What a soak counts, and what it may not find: pure, so that each rule can be seen to bite."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from statistics import median

__all__ = ["BOUND", "Durations", "Figures", "Process", "Redemption", "Sample", "judge", "memory_growth", "spent_twice"]

BOUND = 60.0
"""Seconds after which a call hangs: two waits for a token (10 s each), two sendings (15 s each), and some room."""

_STEPS = 320
_SHORTEST, _STEP = 0.0002, 1.05
_MOST_MIB, _MOST_SHARE, _LEAST_STEP_MIB = 3.0, 0.05, 0.5
_MOST_MORE = 4
_MOST_LEFT = 1
_ENOUGH_SAMPLES = 40
_STATUSES = (401, 403, 429, 500, 502, 503)
_FAULTS = {f"{said} {status}" for said in ("status", "ApiError") for status in _STATUSES}
_PASSING = {"TemporarilyUnavailable", "ConfigurationError", "LoginRequired step_up"}
_ENDINGS = {"LoginRequired refused", "LoginRequired answer_lost"}


class Durations:
    """How long calls took, in steps of 5 %: its size does not grow with their number."""

    def __init__(self, counts: Iterable[int] = ()) -> None:
        self.counts = list(counts) or [0] * _STEPS

    def note(self, seconds: float) -> None:
        """Count one call."""
        step = int(math.log(max(seconds, _SHORTEST) / _SHORTEST, _STEP))
        self.counts[min(step, _STEPS - 1)] += 1

    def add(self, other: Durations) -> None:
        """Count all of *other*'s."""
        self.counts = [mine + its for mine, its in zip(self.counts, other.counts, strict=True)]

    @property
    def total(self) -> int:
        """How many calls."""
        return sum(self.counts)

    def within(self, share: float) -> float:
        """The seconds in which that *share* of the calls was over, to 5 %."""
        left = share * self.total
        for step, count in enumerate(self.counts):
            left -= count
            if count and left <= 0:
                return float(_SHORTEST * _STEP ** (step + 1))
        return 0.0


@dataclass(frozen=True, slots=True)
class Redemption:
    """One token request as its process saw it; *answered*: with a token that could be taken. Times are monotonic."""

    login: str
    version: int
    began: float
    ended: float
    answered: bool


@dataclass(frozen=True, slots=True)
class Sample:
    """What a process held at one moment: memory in MiB, open descriptors, threads."""

    mib: float
    descriptors: int
    threads: int


@dataclass(slots=True)
class Process:
    """One process of the fleet: *samples* once a second while it works, *left* when all its callers have ended."""

    name: str
    samples: list[Sample] = field(default_factory=list)
    longest: float = 0.0
    left: Sample | None = None
    over: bool = False
    hung: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Figures:
    """Everything that was seen."""

    processes: list[Process] = field(default_factory=list)
    adapters: dict[str, Durations] = field(default_factory=dict)
    served: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    failures: Counter[str] = field(default_factory=Counter)
    events: Counter[str] = field(default_factory=Counter)
    redemptions: list[Redemption] = field(default_factory=list)
    endings: int = 0
    announced: int = 0
    server: Counter[str] = field(default_factory=Counter)
    last_call: str = ""


def spent_twice(redemptions: Iterable[Redemption]) -> tuple[int, int]:
    """How many redemptions of a version overlapped an earlier one, and how many came after an answered one."""
    by_version: defaultdict[tuple[str, int], list[Redemption]] = defaultdict(list)
    for one in redemptions:
        by_version[one.login, one.version].append(one)
    overlapping = late = 0
    for those in by_version.values():
        busy_until = answered_at = math.inf
        busy_until = -math.inf
        for one in sorted(those, key=lambda each: each.began):
            overlapping += one.began < busy_until
            late += one.began >= answered_at
            busy_until = max(busy_until, one.ended)
            if one.answered:
                answered_at = min(answered_at, one.ended)
    return overlapping, late


def _quarters(samples: Sequence[Sample]) -> list[Sequence[Sample]]:
    """The second, third and fourth quarter: the first one is for warming up."""
    size = len(samples) // 4
    return [samples[size * number : size * (number + 1)] for number in (1, 2, 3)]


def memory_growth(samples: Sequence[Sample]) -> float:
    """MiB by which the last quarter's median is above the second quarter's."""
    second, _, fourth = _quarters(samples)
    return median(one.mib for one in fourth) - median(one.mib for one in second) if second else 0.0


def _leaks(process: Process) -> list[str]:
    """Memory keeps growing when the medians of the quarters 2, 3, 4 climb by half a MiB at each step, and in all by
    more than 3 MiB and 5 %. Descriptors and threads do when their least number in quarter 4 is 5 above quarter 2's.
    """  # noqa: D205 - one rule, one paragraph
    if len(process.samples) < _ENOUGH_SAMPLES:
        return []
    quarters = _quarters(process.samples)
    second, third, fourth = (median(one.mib for one in quarter) for quarter in quarters)
    found = []
    climbs = third - second > _LEAST_STEP_MIB and fourth - third > _LEAST_STEP_MIB
    if climbs and fourth - second > max(_MOST_MIB, _MOST_SHARE * second):
        found.append(f"the memory of {process.name} keeps growing: {second:.1f}, {third:.1f}, {fourth:.1f} MiB")
    early, late = quarters[0], quarters[2]
    if min(one.descriptors for one in late) > min(one.descriptors for one in early) + _MOST_MORE:
        found.append(f"{process.name} opens more and more descriptors")
    if min(one.threads for one in late) > min(one.threads for one in early) + _MOST_MORE:
        found.append(f"{process.name} has more and more threads")
    return found


def judge(figures: Figures) -> list[str]:
    """What must not be, in sentences; none when all is well."""
    found = []
    for process in figures.processes:
        if process.hung or process.longest > BOUND:
            found.append(f"a caller hung in {process.name}: {', '.join(process.hung) or f'{process.longest:.0f} s'}")
        if not process.over:
            found.append(f"{process.name} did not come to its end")
        if process.left is not None and process.left.threads > _MOST_LEFT:
            found.append(f"{process.name} had {process.left.threads} threads after its last call")
        found += _leaks(process)
    if figures.endings > figures.announced:
        found.append(f"a login was lost: {figures.endings} ended, the server had ended {figures.announced}")
    if figures.server["reuse_detected"] or figures.server["families_revoked"]:
        found.append(f"a spent refresh token came again: the server noticed {figures.server['reuse_detected']}")
    overlapping, late = spent_twice(figures.redemptions)
    if overlapping:
        found.append(f"a version was redeemed {overlapping} times while it was being redeemed")
    if late:
        found.append(f"a version was redeemed {late} times after an answered one")
    expected = _FAULTS | _PASSING | (_ENDINGS if figures.announced else set())
    if unexpected := sorted(figures.errors.keys() - expected):
        found.append(f"unexpected: {', '.join(f'{name} ({figures.errors[name]})' for name in unexpected)}")
    if figures.events["Unsaved"]:
        found.append("a rotated token could not be stored")
    found += [f"{adapter} served nobody" for adapter in figures.adapters if not figures.served[adapter]]
    if not figures.adapters:
        found.append("nobody called")
    if figures.last_call:
        found.append(f"after the faults a call was not served: {figures.last_call}")
    return found
