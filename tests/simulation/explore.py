"""Runs worlds: one of a seed, many at random, a failing one made small."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.simulation.choices import Choices, Dice, Recorder, Script
from tests.simulation.plans import drawn
from tests.simulation.trace import Trace
from tests.simulation.world import Outcome, Plan, World

__all__ = ["Found", "Size", "Tally", "play", "play_seed", "shrunk", "traced"]


@dataclass(frozen=True, slots=True)
class Size:
    """How large worlds are."""

    processes: int = 3
    callers: int = 5


@dataclass(frozen=True, slots=True)
class Found:
    """A world in which a promise was broken, as small as it could be made, and what happened in it."""

    decisions: tuple[int, ...]
    plan: Plan
    outcome: Outcome
    trace: Trace


@dataclass(slots=True)
class Tally:
    """What many worlds came to."""

    worlds: int = 0
    steps: int = 0
    redemptions: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    lost: Counter[tuple[str, str]] = field(default_factory=Counter)
    broken: list[int] = field(default_factory=list)

    def add(self, seed: int, plan: Plan, outcome: Outcome) -> None:
        """Count one world."""
        self.worlds += 1
        self.steps += outcome.steps
        self.redemptions += outcome.redemptions
        self.answers.update(outcome.answers)
        for fault in outcome.faults:
            self.faults[fault.partition(" at ")[0]] += 1
        if outcome.lost:
            self.lost[plan.model.name, outcome.lost] += 1
        if outcome.broken is not None:
            self.broken.append(seed)

    def merge(self, other: Tally) -> None:
        """Count what another one counted."""
        self.worlds += other.worlds
        self.steps += other.steps
        self.redemptions += other.redemptions
        self.faults.update(other.faults)
        self.answers.update(other.answers)
        self.lost.update(other.lost)
        self.broken += other.broken


def play(choices: Choices, size: Size, trace: Trace | None = None) -> tuple[Plan, Outcome]:
    """Draw a world and live through it."""
    plan = drawn(choices, size.processes, size.callers)
    world = World(plan, choices, trace)
    if trace is None:
        return plan, world.play()
    with trace.effects(world):
        return plan, world.play()


def play_seed(seed: int, size: Size) -> tuple[Plan, Outcome]:
    """The world of a seed."""
    return play(Dice(seed), size)


def traced(choices: Choices, size: Size) -> Found:
    """The same, with everything that happens written down."""
    recorder, trace = Recorder(choices), Trace()
    plan, outcome = play(recorder, size, trace)
    return Found(tuple(recorder.decisions), plan, outcome, trace)


def shrunk(found: Found, size: Size, tries: int = 10_000) -> Found:
    """A smaller list of decisions that breaks the same promise: parts left out, or the plainest one instead."""
    best, promise = list(found.decisions), found.outcome.broken.promise if found.outcome.broken else ""

    def still(decisions: Sequence[int]) -> bool:
        nonlocal tries
        tries -= 1
        outcome = play(Script(decisions), size)[1]
        return outcome.broken is not None and outcome.broken.promise == promise

    width = max(1, len(best) // 2)
    while width and tries > 0:
        before = list(best)
        start = 0
        while start < len(best) and tries > 0:
            smaller = next((one for one in _candidates(best, start, width) if still(one)), None)
            if smaller is None or len(smaller) == len(best):
                start += width
            best = smaller if smaller is not None else best
        if width > 1 or best == before:
            width //= 2
    while best and best[-1] == 0:
        best.pop()
    return traced(Script(best), size)


def _candidates(decisions: list[int], start: int, width: int) -> Iterable[list[int]]:
    """What to try in place of *width* decisions from *start*: none of them, the plainest ones, or the one after."""
    end = start + width
    yield [*decisions[:start], *decisions[end:]]
    if any(decisions[start:end]):
        yield [*decisions[:start], *[0] * len(decisions[start:end]), *decisions[end:]]
        if width == 1 and decisions[start] > 1:
            yield [*decisions[:start], 1, *decisions[end:]]
