"""`TokenManagers` on the stores of a fleet: a thousand sessions cost a process no more threads than one."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.manager.test_managers_keeping import DAY, minted
from tests.stores.postgres_server import postgres_server
from tests.stores.redis_server import RedisServer
from tests.waiting import until
from unexpired import LoginRequired, Session, TokenManagers
from unexpired.stores import Store, open_store

SESSIONS = 1000
KEYS = [f"user {number}" for number in range(SESSIONS)]
ANSWER = {"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 3600}


@dataclass
class Place:
    """A server: *here* and *far* open stores there that share nothing in memory, as two processes have them."""

    here: Callable[[], Store]
    far: Callable[[], Store]
    connections: Callable[[], int]


@pytest.fixture(scope="module", params=["redis", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Each kind of server."""
    with ExitStack() as stack:
        if request.param == "redis":
            server = RedisServer(Path(tmp_path_factory.mktemp("redis")), "--appendonly", "yes").start()
            stack.callback(server.kill)
            raw = stack.enter_context(server.client())
            url, connections = server.url, lambda: len(raw.client_list()) - 1
        else:
            database = stack.enter_context(postgres_server())
            counting = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'unexpired'"
            url, connections = database.url, lambda: int(str(database.run(counting)[0][0]))
        far = url.replace("127.0.0.1", "localhost")
        yield Place(lambda: open_store(url), lambda: open_store(far), connections)


@pytest.fixture
def managers(place: Place) -> Iterator[Callable[..., TokenManagers]]:
    """Makes managers as one process has them, and closes them with their stores."""
    with ExitStack() as stack:

        def make(grant: Any, *, far: bool = False) -> TokenManagers:
            store = place.far() if far else place.here()
            stack.callback(store.close)
            return stack.enter_context(TokenManagers(grant, store=store))

        yield make


class Rotating:
    """A server that counts how often each version of each session is redeemed."""

    def __init__(self) -> None:
        self.asked: Counter[tuple[str, int]] = Counter()

    def __call__(self, session: Session) -> dict[str, Any]:
        """Redeem it."""
        self.asked[session.key, session.version] += 1
        return {"access_token": f"access {session.version + 1}", "refresh_token": "r", "expires_in": 3600}


def threads() -> list[str]:
    """The names of those that are there."""
    return sorted(thread.name for thread in threading.enumerate())


@pytest.mark.timeout(180)
def test_a_thousand_sessions_need_one_watcher(place: Place, managers: Callable[..., TokenManagers]) -> None:
    """One thread listens for the changes of all sessions of a store, and a few dozen connections serve them all.

    A change by another process is heard for each of them.
    """
    before, served = threads(), place.connections()
    here, far = managers(Rotating()), managers(Rotating(), far=True)
    for key in KEYS:
        here.manager(key).login(ANSWER)
    with ThreadPoolExecutor(16) as pool:
        assert set(pool.map(lambda key: here.manager(key).token().access_token, KEYS)) == {"access 1"}
    # A machine that is busy has looks under way at the same time, each with a connection of its own.
    until(lambda: len(threads()) <= len(before) + 2)
    assert place.connections() - served <= 64 + 4
    for key in KEYS[::10]:
        far.manager(key).refresh()
    for key in KEYS[::10]:
        until(lambda key=key: here.manager(key).token().access_token == "access 2")  # type: ignore[misc]
    assert here.manager(KEYS[1]).token().access_token == "access 1"
    until(lambda: len(threads()) <= len(before) + 4)


def test_a_logout_reaches_the_fleet(managers: Callable[..., TokenManagers]) -> None:
    """Scenario 62: a user who is logged out in one process is refused by the others; everybody else goes on."""
    here, far = managers(Rotating()), managers(Rotating(), far=True)
    for key in ("alice", "bob"):
        here.manager(key).login(ANSWER)
        assert far.manager(key).token().access_token == "access 1"
    here.manager("alice").logout()

    def refused() -> bool:
        try:
            far.manager("alice").token()
        except LoginRequired as over:
            return over.reason == "logout"
        return False

    until(refused)
    assert far.manager("bob").token().access_token == "access 1"


def test_rounds_in_several_processes_refresh_each_session_once(managers: Callable[..., TokenManagers]) -> None:
    """`keep_alive` on two machines at the same time: no version is redeemed twice, no session is left out."""
    server, keys = Rotating(), [f"idle {number}" for number in range(60)]
    fleet = managers(server), managers(server, far=True)
    for key in keys:
        fleet[0].manager(key).login(minted(20 * DAY))
    with ThreadPoolExecutor(2) as pool:
        rounds = list(pool.map(lambda one: one.keep_alive(DAY, keys=keys, at_once=3), fleet))
    assert not any(one.failed or one.ended or one.unknown for one in rounds)
    assert {key for one in rounds for key in one.kept} == set(keys)
    assert server.asked == {(key, 1): 1 for key in keys}
