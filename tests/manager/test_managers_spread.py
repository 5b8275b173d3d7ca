"""Sessions that began together do not refresh together: the real arithmetic, with ten thousand keys."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable

import pytest

from unexpired import Session, Token, TokenManager
from unexpired._core.policy import Policy, ahead
from unexpired._engine.cell import cell_for
from unexpired._engine.desk import Desk
from unexpired.stores import MemoryStore

KEYS = 10_000
BUCKETS = 50
HOUR = 3600.0
NAMES: dict[str, Callable[[int], str]] = {
    "numbers": str,
    "users": lambda number: f"user {number}",
    "padded": lambda number: f"crm:{number:08}",
    "addresses": lambda number: f"person{number}@example.com",
    "uuids": lambda number: str(uuid.UUID(bytes=hashlib.sha256(b"%d" % number).digest()[:16])),
    "tenants": lambda number: f"tenant-{number % 20}/user-{number // 20}",
}


class Alike(MemoryStore):
    """A memory in which all sessions are the same, but for their keys."""

    def __init__(self, lifetime: float) -> None:
        super().__init__()
        self.session = Session.begin("any", "login", Token("a", lifetime=lifetime, expires_at=4e9))

    def load(self, key: str) -> Session:
        """The one."""
        del key
        return self.session


def soft_expiries(keys: list[str], lifetime: float = HOUR) -> dict[str, float]:
    """For how many seconds each manager gives its token out without refreshing ahead, as its desk decides it.

    The tokens of all were minted at the same moment.
    """
    found: dict[str, float] = {}
    store = Alike(lifetime)
    for key in keys:
        cell = cell_for(store, key)
        desk = Desk(cell, Policy(), lambda _: None)
        assert isinstance(desk.current(None), Token)
        assert desk.warm is not None
        found[key] = lifetime - (cell.look().held[None].expires - desk.warm.until)
    return found


@pytest.mark.parametrize(
    ("names", "lifetime", "window"),
    [*((names, HOUR, 300.0) for names in NAMES), ("users", 300.0, 75.0), ("users", 8 * HOUR, 300.0)],
)
def test_logins_made_together_refresh_apart(names: str, lifetime: float, window: float) -> None:
    """Scenario 67: 10 000 sessions with one moment of expiry spread their refreshes over half of the window.

    Of 50 equal parts of it none has more than one and a half times its share, and none less than half of it.
    """
    keys = [NAMES[names](number) for number in range(KEYS)]
    before_expiry = [lifetime - moment for moment in soft_expiries(keys, lifetime).values()]
    assert window / 2 - 0.01 <= min(before_expiry) < max(before_expiry) <= window + 0.01
    parts = Counter(min(int((moment - window / 2) / (window / 2) * BUCKETS), BUCKETS - 1) for moment in before_expiry)
    assert len(parts) == BUCKETS
    assert max(parts.values()) <= 1.5 * KEYS / BUCKETS
    assert min(parts.values()) >= 0.5 * KEYS / BUCKETS


def test_a_manager_goes_by_its_desk() -> None:
    """What is measured above is what `TokenManager` does: in the window a refresh begins, before it none."""
    asked = threading.Event()

    def grant(_: Session) -> dict[str, object]:
        asked.set()
        return {"access_token": "b", "refresh_token": "r", "expires_in": 3600}

    for key in ("user 1", "user 2"):
        soft = soft_expiries([key])[key]
        for age, begins in ((soft - 5.0, False), (soft + 5.0, True)):
            asked.clear()
            manager = TokenManager(grant, store=MemoryStore(), key=key)
            manager.login(Token("a", refresh_token="r", lifetime=HOUR, expires_at=time.time() + HOUR - age))
            assert manager.token().access_token in ("a", "b")
            assert (manager._cell.flying is not None or asked.is_set()) == begins
            assert asked.wait(20) if begins else not asked.is_set()


def test_the_leeway_leaves_room_for_the_spread() -> None:
    """Whatever a token's life, refreshing ahead begins before its leeway does, for every key: nobody waits for it."""
    policy = Policy()
    for lifetime in (4.0, 20.0, 60.0, 300.0, 1200.0, HOUR, 30 * 86400.0):
        token = Token("a", lifetime=lifetime, expires_at=4e9)
        assert ahead(policy, token, 1.0) >= token.margin(policy.leeway)


PROGRAM = """
import json, sys
from tests.manager.test_managers_spread import soft_expiries
print(json.dumps(soft_expiries([f"user {number}" for number in range(int(sys.argv[1]), int(sys.argv[2]))])))
"""


def test_processes_spread_theirs_over_the_same_window() -> None:
    """Processes that know when tokens expire spread their sessions as one: no moment that two of them prefer.

    For one session all processes have the same moment in mind, whatever their hash seed.
    """
    found: list[dict[str, float]] = []
    for seed, first, last in (("1", 0, 2500), ("2", 2500, 5000), ("3", 2400, 2600)):
        command = [sys.executable, "-c", PROGRAM, str(first), str(last)]
        environment = os.environ | {"PYTHONHASHSEED": seed}
        said = subprocess.run(command, env=environment, capture_output=True, timeout=60, check=True).stdout
        found.append(json.loads(said))
    one, other, both = found
    for key, moment in both.items():
        assert (one | other)[key] == pytest.approx(moment, abs=0.01)
    parts = Counter(int((HOUR - moment - 150.0) / 150.0 * 25) for moment in (one | other).values())
    assert len(parts) == 25
    assert max(parts.values()) <= 1.5 * 5000 / 25
