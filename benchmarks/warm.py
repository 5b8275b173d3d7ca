"""A look at the token, when it is fresh and there is nothing to wait for. What calls cost then is in `clients`."""

from __future__ import annotations

import tempfile
from functools import partial

from benchmarks.clients import manager_with
from benchmarks.measure import Row, interleave, median, timed
from unexpired import TokenManager
from unexpired.stores import FileStore, MemoryStore

LOOKUPS = 2000
ROUNDS = 61
"""Short rounds, many of them: what else the machine does then falls on all alike."""
LIMITS = {"memory": 0.5, "file": 2.0}


def rows() -> list[Row]:
    """The manager's own lookup."""
    with tempfile.TemporaryDirectory() as directory:
        managers = {"memory": manager_with(MemoryStore()), "file": manager_with(FileStore(directory))}
        results = interleave({name: partial(_lookup, manager) for name, manager in managers.items()}, ROUNDS)
    costs = {name: median(values) for name, values in results.items()}
    return [
        Row(f"warm token(), {name}", cost, "µs", None, f"≤ {LIMITS[name]}", cost <= LIMITS[name])
        for name, cost in costs.items()
    ]


def _lookup(manager: TokenManager) -> float:
    token = manager.token
    return timed(lambda: [token() for _ in range(LOOKUPS)]) / LOOKUPS * 1e6
