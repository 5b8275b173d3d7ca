"""Rounds, medians and rows: every figure is taken several times, interleaved with its floor."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

__all__ = ["Row", "interleave", "timed"]

ROUNDS = 7


@dataclass(frozen=True, slots=True)
class Row:
    """One figure: *value* in *unit*, the *floor* it stands beside, what it should be, and whether it is."""

    name: str
    value: float
    unit: str
    floor: float | None
    target: str
    met: bool
    note: str = ""


def timed(work: Callable[[], object]) -> float:
    """Seconds that *work* takes, without a collection of garbage in the middle."""
    gc.collect()
    gc.disable()
    try:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start
    finally:
        gc.enable()


def interleave(works: Mapping[str, Callable[[], float]], rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Every work once a round, so that what else the machine does falls on all of them alike."""
    results: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            results[name].append(work())
    return results


def median(values: list[float]) -> float:
    """The middle one."""
    return statistics.median(values)
