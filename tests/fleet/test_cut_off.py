from __future__ import annotations

import pytest

from tests.fleet.conftest import PER_MACHINE, Open
from tests.fleet.crew import TASKS
from tests.fleet.networks import Network

FEW = 3
WAIT = 4.0
# A caller waits for a flight, and may look at the store before and after that, each look within the store's own bound.
BOUND = 30.0
TYPED = {"StoreError", "TemporarilyUnavailable"}


@pytest.mark.parametrize("silent", [False, True], ids=["down", "silent"])
@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_a_machine_without_the_store(kind: str, on_three_machines: Open, network: Network, *, silent: bool) -> None:
    """A machine that is cut off from the store goes on with its token; it redeems nothing, then or when it is back."""
    fleet = on_three_machines(kind, wait=WAIT)
    alone, others = fleet.workers[:PER_MACHINE], fleet.workers[PER_MACHINE:]
    fleet.login()
    fleet.serve()
    network.machines[0].cut(silent=silent)
    try:
        fleet.serve(alone)
        others[0].tell("refresh")
        assert others[0].hear() == "done"
        fleet.serve(alone)
        if silent:
            for worker in alone:
                worker.tell("notice")
            fleet.obey(alone)
            fleet.serve(alone)
        fleet.serve(others)
        assert fleet.server.stats().refused == 0

        fleet.server.expire()
        asked = fleet.ask(others)
        fleet.ask(alone, FEW)
        fleet.check(asked, others)
        for outcomes, seconds in fleet.hear(alone):
            assert len(outcomes) == FEW
            assert set(outcomes) <= TYPED
            assert seconds < BOUND
        assert fleet.server.stats().token_posts == 2
    finally:
        network.machines[0].heal()
    session = fleet.manager.session()
    assert session is not None
    fleet.seen(session, alone)
    fleet.serve(alone)
    fleet.serve()
    stats = fleet.server.stats()
    assert (stats.token_posts, stats.refreshes, stats.max_in_air) == (2, 2, 1)
    assert (stats.reuse_detected, stats.families_revoked) == (0, 0)
    # From now on it hears of changes again.
    fleet.login()
    fleet.serve()
    assert fleet.server.stats().token_posts == 2
    assert fleet.served == TASKS * (len(fleet.workers) * 4 + len(alone) * (3 if silent else 2) + len(others))
