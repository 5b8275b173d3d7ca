from __future__ import annotations

import pytest

from tests.simulation.engine import simulated
from tests.simulation.explore import Size, play_seed
from tests.simulation.mutants import MUTANTS, Mutant, mutated

SEEDS = 2000


def test_there_are_enough_of_them() -> None:
    """At least 25 defects of different kinds are looked for, each under a name of its own."""
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 25


@pytest.mark.parametrize("mutant", MUTANTS, ids=str)
def test_a_defect_is_found(mutant: Mutant) -> None:
    """A product with this defect breaks a promise in one of the first 2 000 worlds, and without it in none of those."""
    with simulated():
        with mutated(mutant):
            seed = next((seed for seed in range(SEEDS) if play_seed(seed, Size())[1].broken is not None), None)
        assert seed is not None, "no world of these seeds shows it"
        assert play_seed(seed, Size())[1].broken is None


def test_a_patch_that_does_not_fit_is_noticed() -> None:
    """When the product's code has changed, a defect that is none any more is an error and not a success."""
    odd = Mutant("odd", MUTANTS[0].function, "what is not there", "")
    with pytest.raises(LookupError, match="odd"), mutated(odd):
        raise AssertionError
