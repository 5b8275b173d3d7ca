"""`python -m tests.simulation`: worlds of seeds, or all orders of small worlds. See `make simulate`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

from tests.simulation.choices import Dice, Script
from tests.simulation.engine import simulated
from tests.simulation.exhaust import PARTS, Searched, again, search_all
from tests.simulation.explore import Found, Size, Tally, play_seed, shrunk, traced

CHUNK = 250
SHOWN = 3


def _chunk(first: int, count: int, size: Size) -> Tally:
    tally = Tally()
    with simulated():
        for seed in range(first, first + count):
            tally.add(seed, *play_seed(seed, size))
    return tally


def _many(first: int, count: int, size: Size, jobs: int) -> bool:
    """Worlds of *count* seeds from *first*. Whether all promises held."""
    began = time.monotonic()
    tally = Tally()
    with ProcessPoolExecutor(jobs) as pool:
        chunks = [
            pool.submit(_chunk, start, min(CHUNK, first + count - start), size)
            for start in range(first, first + count, CHUNK)
        ]
        for done, chunk in enumerate(chunks, 1):
            tally.merge(chunk.result())
            if sys.stderr.isatty():
                print(f"\r{done * CHUNK} of {count}", end="", file=sys.stderr, flush=True)
    took = time.monotonic() - began
    print(f"{tally.worlds} worlds of {size.processes} processes x {size.callers} callers, seeds from {first}:")
    print(f"  {tally.steps} steps, {tally.redemptions} redemptions, {sum(tally.answers.values())} requests answered")
    _list("answers", tally.answers)
    _list("faults", tally.faults)
    _list("logins lost", Counter({f"{model}: {why}": count for (model, why), count in tally.lost.items()}))
    for seed in sorted(tally.broken)[:SHOWN]:
        print()
        world = f"WORLD={size.processes}x{size.callers}"
        with simulated():
            small = shrunk(traced(Dice(seed), size), size)
        _show(small)
        print(f"again, as small as this: make simulate {world} DECISIONS={','.join(map(str, small.decisions))}")
        print(f"again, as it was: make simulate {world} SEED={seed}")
    print(f"broken promises: {len(tally.broken)}" + (f", seeds {sorted(tally.broken)[:20]}" if tally.broken else ""))
    print(f"{tally.worlds / took:.0f} worlds/s, {tally.worlds / took / jobs:.0f} per core")
    return not tally.broken


def _list(name: str, counts: Counter[str]) -> None:
    print(f"  {name}: " + (", ".join(f"{what} {count}" for what, count in counts.most_common()) or "none"))


def _show(found: Found) -> None:
    broken = found.outcome.broken
    print(found.plan)
    print(found.trace)
    print(f"{broken.promise} IS BROKEN: {broken.how}" if broken else "all promises hold")


def _one(seed: int, size: Size) -> bool:
    with simulated():
        found = traced(Dice(seed), size)
    _show(found)
    print(f"answers: {dict(found.outcome.answers)}; faults: {', '.join(found.outcome.faults) or 'none'}")
    return found.outcome.broken is None


def _decided(decisions: tuple[int, ...], part: int | None, size: Size) -> bool:
    if part is not None:
        outcome, trace = again(PARTS[part - 1], decisions)
        print(trace)
        print(f"IS BROKEN: {outcome.broken}" if outcome.broken else "all promises hold")
        return outcome.broken is None
    with simulated():
        found = traced(Script(decisions), size)
    _show(found)
    return found.outcome.broken is None


def _exhaustive(minutes: float, jobs: int) -> bool:
    """All orders of small worlds. Whether all promises held in them."""
    began = time.monotonic()
    schedules = worlds = 0
    good = True
    print(f"{'world':<50} {'preemptions':>11} {'schedules':>10} {'repeated':>9} {'lost':>6}  all of them?")
    for one in search_all(PARTS, minutes * 60, jobs):
        bound = "any number" if one.part.preemptions is None else f"<= {one.part.preemptions}"
        done = "all" if one.complete else f"not all, {one.seconds:.0f} s were over"
        print(
            f"{one.part.name:<50} {bound:>11} {one.schedules:>10} {one.left_out:>9} {one.lost:>6}  {done}", flush=True
        )
        schedules, worlds = schedules + one.schedules, worlds + one.schedules + one.left_out
        good = good and _held(one)
    took = time.monotonic() - began
    print(f"{schedules} schedules that differ in more than steps which commute, in {took / 60:.1f} minutes")
    print(f"{worlds / took:.0f} worlds/s, {worlds / took / jobs:.0f} per core")
    return good


def _held(one: Searched) -> bool:
    if one.broken is None:
        return True
    part = PARTS.index(one.part) + 1
    _decided(one.decisions, part, Size())
    print(f"again: make simulate PART={part} DECISIONS={','.join(map(str, one.decisions))}")
    return False


def main() -> int:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, help="live through the world of this seed, and print what happens")
    parser.add_argument("--seeds", type=int, default=10_000, help="so many worlds")
    parser.add_argument("--first", type=int, default=0, help="their first seed")
    parser.add_argument("--world", default="3x5", help="processes x callers")
    parser.add_argument("--decisions", help="live through the world of these decisions, as a failing run prints them")
    parser.add_argument("--part", type=int, help="they are of this part of the exhaustive run, by its number")
    parser.add_argument("--exhaustive", action="store_true", help="all orders of small worlds")
    parser.add_argument("--minutes", type=float, default=30.0, help="for that, at most")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    processes, _, callers = args.world.partition("x")
    size = Size(int(processes), int(callers))
    if args.exhaustive:
        good = _exhaustive(args.minutes, args.jobs)
    elif args.decisions is not None:
        good = _decided(tuple(map(int, args.decisions.split(","))), args.part, size)
    elif args.seed is not None:
        good = _one(args.seed, size)
    else:
        good = _many(args.first, args.seeds, size, args.jobs)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
