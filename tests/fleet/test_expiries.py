from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.fleet.conftest import EXPIRIES, PER_MACHINE, PROCESSES, Open
from tests.fleet.crew import TASKS, Fleet
from tests.fleet.networks import MACHINES, Network
from tests.fleet.summary import PROPERTY

Record = Callable[[str, Any], None]


def live_through(fleet: Fleet) -> dict[str, Any]:
    """Let the token expire again and again, in turns as nobody and as everybody knows: the row for the table."""
    fleet.login()
    fleet.serve()
    stats = fleet.server.stats()
    for number in range(EXPIRIES):
        before = stats
        if number % 2 == 0:
            fleet.refused_all_at_once()
        else:
            fleet.expired_by_the_clock()
        stats = fleet.server.stats()
        assert (stats.token_posts, stats.reuse_detected, stats.families_revoked) == (number + 1, 0, 0)
        refused = len(fleet.workers) * TASKS if number % 2 == 0 else 0
        assert stats.refused - before.refused == refused
    assert (stats.refreshes, stats.max_in_air) == (EXPIRIES, 1)
    assert len({one.refresh_token for one in stats.redemptions}) == EXPIRIES
    assert fleet.served == (1 + EXPIRIES) * len(fleet.workers) * TASKS
    return {"expiries": EXPIRIES, "redemptions": stats.refreshes, "served": fleet.served}


@pytest.mark.parametrize("kind", ["file", "sqlite", "redis", "postgresql", "sealed+redis"])
def test_one_redemption_for_eight_processes(kind: str, on_one_machine: Open, record_property: Record) -> None:
    """Scenario 4: each expiry costs 8 processes with 25 callers each one redemption, and each caller has its answer."""
    row = live_through(on_one_machine(kind))
    record_property(PROPERTY, {"store": kind, "shape": f"1 x {PROCESSES} x {TASKS}", **row})


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_one_redemption_for_three_machines(
    kind: str, on_three_machines: Open, network: Network, record_property: Record
) -> None:
    """Scenario 5: so it is for three machines with 3 processes each, on one store."""
    row = live_through(on_three_machines(kind)) | {"machines": network.kind}
    record_property(PROPERTY, {"store": kind, "shape": f"{MACHINES} x {PER_MACHINE} x {TASKS}", **row})
