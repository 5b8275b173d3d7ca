from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import Any

import pytest

from tests.fleet.conftest import PER_MACHINE, PROCESSES, Open
from tests.fleet.crew import TASKS
from tests.fleet.networks import MACHINES, Network
from tests.fleet.summary import PROPERTY

Record = Callable[[str, Any], None]
LOGINS = 20
FEW = 3
# What the pages of the stores say a copy can be old, where the way to the server is silently dead (seconds).
STALENESS = {"redis": 5.0, "postgresql": 10.0}


@pytest.mark.parametrize("kind", ["redis", "postgresql"])
def test_a_logout_on_one_machine_is_seen_on_the_others(
    kind: str, on_three_machines: Open, network: Network, record_property: Record
) -> None:
    """Scenario 62: other machines see a logout within the store's staleness, and in any case before they refresh."""
    fleet = on_three_machines(kind)
    took: list[float] = []
    for number in range(LOGINS):
        fleet.login()
        fleet.serve(count=FEW)
        fleet.server.expire()
        place = number % MACHINES * PER_MACHINE
        leaving, *here = fleet.workers[place : place + PER_MACHINE]
        others = [worker for worker in fleet.workers if worker not in (leaving, *here)]
        watching, calling = others[:PER_MACHINE], others[PER_MACHINE:]
        for worker in watching:
            worker.tell("watch")
        assert fleet.hear(watching) == ["watching"] * PER_MACHINE
        leaving.tell("logout")
        began = leaving.hear()
        # These may not have heard of it, and have a token that the server refuses.
        fleet.ask([*here, *calling], FEW)
        assert fleet.answers([*here, *calling]) == [["logout"] * FEW] * (2 * PER_MACHINE - 1)
        took += [seen - began for seen in fleet.hear(watching)]
    assert max(took) < STALENESS[kind]
    stats = fleet.server.stats()
    assert (stats.logins, stats.token_posts) == (LOGINS, 0)
    shape = f"{MACHINES} x {PER_MACHINE} x {TASKS}"
    median = f"{statistics.median(took) * 1000:.1f} ms"
    record_property(PROPERTY, {"store": kind, "shape": shape, "logout": median, "machines": network.kind})


@pytest.mark.parametrize("kind", ["file", "sqlite"])
def test_a_logout_is_seen_before_the_next_call(kind: str, on_one_machine: Open, record_property: Record) -> None:
    """Scenario 62: on one machine no call goes out any more in any process once `logout` has returned."""
    fleet = on_one_machine(kind)
    for number in range(LOGINS):
        fleet.login()
        fleet.serve(count=FEW)
        leaving = fleet.workers[number % PROCESSES]
        others = [worker for worker in fleet.workers if worker is not leaving]
        leaving.tell("logout")
        leaving.hear()
        fleet.ask(others, FEW)
        assert fleet.answers(others) == [["logout"] * FEW] * len(others)
    stats = fleet.server.stats()
    assert (stats.api_calls, stats.refused, stats.token_posts) == (LOGINS * PROCESSES * FEW, 0, 0)
    record_property(PROPERTY, {"store": kind, "shape": f"1 x {PROCESSES} x {TASKS}", "logout": "before the next call"})


@pytest.mark.parametrize("kind", ["file", "sqlite", "redis", "postgresql", "sealed+redis"])
def test_a_login_while_others_wait(kind: str, on_one_machine: Open) -> None:
    """Scenario 63: who waits for another process's refresh goes on at once with a login made meanwhile."""
    fleet = on_one_machine(kind)
    fleet.login()
    fleet.server.expire()
    fleet.server.faults([{"kind": "hold", "name": "the old login's"}])
    refreshing, *waiting = fleet.workers
    first = fleet.ask([refreshing])
    fleet.server.wait("token_request_held")
    asked = fleet.ask(waiting)
    fleet.server.wait("api_call_refused", PROCESSES * TASKS)
    session = fleet.manager.login(fleet.server.login())
    fleet.check(asked, waiting)
    assert not refreshing.has_spoken(), "the old login is still being refreshed"
    stats = fleet.server.stats()
    assert (stats.token_posts, stats.refreshes) == (1, 0)
    fleet.server.release("the old login's")
    fleet.check(first, [refreshing])
    fleet.server.wait("token_request_answered")
    fleet.serve()
    now = fleet.manager.session()
    assert now is not None
    assert (now.login, now.version, now.ended) == (session.login, session.version, None)
    stats = fleet.server.stats()
    assert (stats.token_posts, stats.revocations, stats.reuse_detected, stats.families_revoked) == (1, 0, 0, 0)
