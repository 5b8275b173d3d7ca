"""The search through everything, part by part: what each part holds, how many orders it has, and its bound."""

from __future__ import annotations

import time
from collections.abc import Iterable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

from tests.simulation import ops
from tests.simulation.choices import Script
from tests.simulation.engine import simulated
from tests.simulation.scheduler import Op
from tests.simulation.search import Search
from tests.simulation.servers import MODELS
from tests.simulation.trace import Trace
from tests.simulation.world import Outcome, Plan, World

__all__ = ["PARTS", "Part", "Searched", "again", "search", "search_all"]

# Those that need time to go wrong, or a store on another machine, are for worlds drawn at random.
_FOR_DICE = {"clock jumps", "slow", "slow server", "store down", "late answer", "disk full", "pause for a moment"}
# Each goes the same way as one that is left in.
_LIKE_OTHERS = {
    "busy (429)", "error 500 after", "timeout before", "timeout after", "malformed", "no readable error",
}  # fmt: skip
_OF_STORES_ELSEWHERE = {"lease lost", "stale"}
_ALL = (
    frozenset(fault for op in vars(ops).values() if isinstance(op, Op) for fault in op.faults)
    - _FOR_DICE
    - _LIKE_OTHERS
)


@dataclass(frozen=True, slots=True)
class Part:
    """One world, and how far its orders are followed. *preemptions*: None for all orders."""

    name: str
    plan: Plan
    preemptions: int | None = None
    share: float = 1.0

    @property
    def faults(self) -> frozenset[str]:
        """What can go wrong in it."""
        return _ALL if self.plan.timed else _ALL - _OF_STORES_ELSEWHERE


@dataclass(frozen=True, slots=True)
class Searched:
    """How a part went: *schedules* that differ in more than steps which commute, and whether those are all."""

    part: Part
    schedules: int
    left_out: int
    complete: bool
    seconds: float
    lost: int
    broken: Outcome | None
    decisions: tuple[int, ...]


STRICT, GRACE = MODELS[0], MODELS[2]
PAIR, CROWD, FLEET = (Plan(STRICT, *size, restarts=0) for size in ((2, 1), (1, 2), (2, 2)))

PARTS = (
    Part("1 process x 2 callers, no fault", replace(CROWD, faults=0), share=0.1),
    Part("1 process x 2 callers, one fault", CROWD),
    Part("2 processes x 1 caller, no fault", replace(PAIR, faults=0), share=0.1),
    Part("2 processes x 1 caller, refused by the API", replace(PAIR, faults=0, start="refused"), share=0.1),
    Part("2 processes x 1 caller, one fault", PAIR, share=6.0),
    Part("2 processes x 1 caller, one fault, timed leases", replace(PAIR, timed=True), share=6.0),
    Part("2 processes x 1 caller, one fault, grace of 10 s", replace(PAIR, model=GRACE), share=6.0),
    Part("2 processes x 2 callers, no fault", replace(FLEET, faults=0), 2, share=2.0),
    Part("2 processes x 2 callers, one fault", FLEET, 0, share=2.0),
    Part("2 processes x 2 callers, one fault, grace of 10 s", replace(FLEET, model=GRACE), 0, share=2.0),
    Part("2 processes x 2 callers, no fault", replace(FLEET, faults=0), 3, share=6.0),
    Part("2 processes x 2 callers, one fault", FLEET, 1, share=8.0),
    Part("2 processes x 2 callers, one fault", FLEET, 2, share=24.0),
    Part("2 processes x 2 callers, one fault", FLEET, 3, share=24.0),
)


def search(part: Part, seconds: float) -> Searched:
    """Go through a part, for so many seconds at most."""
    began = time.monotonic()
    found = Search(part.faults, preemptions=part.preemptions)
    more, lost = True, 0
    broken: Outcome | None = None
    decisions: tuple[int, ...] = ()
    with simulated():
        while more and broken is None and time.monotonic() - began < seconds:
            found.begin()
            outcome = World(part.plan, found).play()
            lost += bool(outcome.lost)
            if outcome.broken is not None:
                broken, decisions = outcome, tuple(found.decisions)
            more = found.more()
    took = time.monotonic() - began
    return Searched(part, found.schedules, found.left_out, not more, took, lost, broken, decisions)


def search_all(parts: Iterable[Part], seconds: float, jobs: int) -> Iterable[Searched]:
    """Go through all *parts*, *jobs* at a time; each has its share of *seconds*."""
    parts = list(parts)
    each = seconds * jobs / sum(part.share for part in parts)
    with ProcessPoolExecutor(jobs) as pool:
        for one in [pool.submit(search, part, each * part.share) for part in parts]:
            yield one.result()


def again(part: Part, decisions: tuple[int, ...]) -> tuple[Outcome, Trace]:
    """One schedule of a part once more, with everything that happens written down."""
    trace = Trace()
    world = World(part.plan, Script(decisions), trace)
    with simulated(), trace.effects(world):
        return world.play(), trace
