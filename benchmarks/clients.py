"""What each adapter adds to a request with a fresh token, beside the same client with a constant header."""

from __future__ import annotations

import tempfile
from contextlib import closing

from benchmarks.adapters import ADAPTERS
from benchmarks.measure import Row, median
from benchmarks.rig import Adapter, Rig, Tokens
from unexpired import TokenManager
from unexpired.stores import FileStore, MemoryStore, Store

ROUNDS = 3000
ANSWER = {"access_token": "a" * 40, "refresh_token": "r" * 40, "expires_in": 86400}
LIMITS = {"memory": 2.5, "file": 4.0}


def rows() -> list[Row]:
    """Added cost per request in the process, for every adapter."""
    with tempfile.TemporaryDirectory() as directory:
        managers = {"memory": manager_with(MemoryStore()), "file": manager_with(FileStore(directory))}
        return [row for adapter in ADAPTERS for row in _added(adapter, managers)]


def manager_with(store: Store) -> TokenManager:
    """A manager whose token is fresh all day."""
    manager = TokenManager(lambda _: ANSWER, store=store, key="bench")
    manager.login(ANSWER)
    return manager


def _added(adapter: Adapter, managers: dict[str, TokenManager]) -> list[Row]:
    tokens: Tokens = {"floor": None, **managers}
    with closing(Rig(adapter, tokens, None)) as rig:
        results = rig.in_turn(ROUNDS)
    floor = median(results["floor"])
    found: list[Row] = []
    for name, limit in LIMITS.items():
        pairs = zip(results[name], results["floor"], strict=True)
        cost = median([with_token - without for with_token, without in pairs])
        title = f"added per request, {adapter}, {name}"
        note = f"{floor:.1f} µs with {adapter.floor}"
        found.append(Row(title, cost, "µs", floor, f"≤ {limit}", cost <= limit, note))
    return found
