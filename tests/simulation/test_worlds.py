from __future__ import annotations

from dataclasses import replace

import pytest

from tests.simulation.choices import Dice, Script
from tests.simulation.engine import simulated
from tests.simulation.exhaust import GRACE, PAIR, STRICT, Part, again, search
from tests.simulation.explore import Size, Tally, play_seed, shrunk, traced
from tests.simulation.mutants import MUTANTS, mutated
from tests.simulation.search import Search
from tests.simulation.servers import Model
from tests.simulation.world import Plan, World

WORLDS = 4000
LARGE = 40


def _tally(seeds: range, size: Size) -> Tally:
    tally = Tally()
    with simulated():
        for seed in seeds:
            tally.add(seed, *play_seed(seed, size))
    return tally


@pytest.mark.parametrize("part", range(4))
def test_random_worlds(part: int) -> None:
    """Scenarios 16 to 34: 3 processes of 5 callers with any faults; P1 to P10 hold at every step of every world."""
    size = WORLDS // 4
    tally = _tally(range(part * size, (part + 1) * size), Size())
    assert tally.broken == []
    assert tally.worlds == size
    assert tally.answers["response"] > 10 * size


def test_large_worlds() -> None:
    """6 processes of 30 callers, any faults: the promises hold, and 180 callers still cost a redemption or two."""
    tally = _tally(range(LARGE), Size(6, 30))
    assert tally.broken == []
    assert tally.redemptions < 5 * LARGE


def test_a_world_is_the_same_each_time() -> None:
    """A seed is a world: the same steps, the same answers, the same end."""
    with simulated():
        first, second = (traced(Dice(29), Size()) for _ in range(2))
    assert str(first.trace) == str(second.trace)
    assert first.outcome == second.outcome
    assert first.decisions == second.decisions


def test_what_the_decisions_of_a_seed_come_to_is_its_world() -> None:
    """The list of decisions that a seed leads to leads to the same world by itself."""
    with simulated():
        of_seed = traced(Dice(7), Size())
        of_list = traced(Script(of_seed.decisions), Size())
    assert str(of_list.trace) == str(of_seed.trace)


def test_a_failing_world_is_made_small() -> None:
    """What breaks a promise is told with the few decisions that it takes, and replays."""
    mutant = next(
        one for one in MUTANTS if one.name == "a lost answer is asked for again at once, without a grace period"
    )
    size = Size()
    with simulated(), mutated(mutant):
        seed = next(seed for seed in range(WORLDS) if play_seed(seed, size)[1].broken is not None)
        found = traced(Dice(seed), size)
        small = shrunk(found, size)
        once_more = traced(Script(small.decisions), size)
    assert found.outcome.broken is not None
    assert small.outcome.broken is not None
    assert small.outcome.broken.promise == found.outcome.broken.promise
    assert len(small.outcome.faults) <= len(found.outcome.faults)
    assert sum(map(bool, small.decisions)) < sum(map(bool, found.decisions))
    assert small.outcome.steps < found.outcome.steps
    assert str(once_more.trace) == str(small.trace)


@pytest.mark.parametrize("start", ["expired", "refused"])
def test_all_orders_of_two_processes(start: str) -> None:
    """Two processes with one caller each, in every order up to steps that commute: no promise breaks."""
    searched = search(Part("two processes", replace(PAIR, faults=0, start=start)), seconds=60)
    assert searched.broken is None
    assert searched.complete
    assert searched.schedules == {"expired": 82, "refused": 144}[start]


def test_the_search_finds_what_needs_an_order() -> None:
    """The search sees what goes wrong in some orders only, a token used too early; its schedule replays."""
    mutant = next(one for one in MUTANTS if one.name == "everybody is woken before the token is stored")
    part = Part("two processes", replace(PAIR, faults=0))
    with mutated(mutant):
        searched = search(part, seconds=60)
        assert searched.broken is not None
        outcome, trace = again(part, searched.decisions)
    assert outcome.broken == searched.broken.broken
    assert sum(map(bool, searched.decisions)) > 1
    assert "Swap" in str(trace)


@pytest.mark.parametrize("timed", [False, True], ids=["leases in files", "timed leases"])
@pytest.mark.parametrize("model", [STRICT, GRACE], ids=lambda model: model.name)
def test_a_login_is_lost_only_where_nothing_can_save_it(model: Model, timed: bool) -> None:
    """Scenario 21: a kill at any step of any order costs a strict login between commit and swap; with a grace, none."""
    search, reasons, worlds = Search(frozenset({"kill"}), preemptions=2), set[str](), 0
    with simulated():
        more = True
        while more:
            search.begin()
            outcome = World(replace(PAIR, model=model, timed=timed, restarts=0, deadline=5.0), search).play()
            assert outcome.broken is None
            reasons.add(outcome.lost)
            worlds, more = worlds + 1, search.more()
    assert worlds > 400
    assert reasons == ({"", "killed between the commit and the swap"} if model.strict else {""})


def test_a_plan_is_plain_by_default() -> None:
    """The smallest world has one expiry, one redemption, and an answer for everybody."""
    with simulated():
        outcome = World(Plan(STRICT, faults=0), Script([])).play()
    assert (outcome.redemptions, outcome.answers) == (1, {"response": 4})
