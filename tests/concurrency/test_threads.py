from __future__ import annotations

import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.modes import BOUND, grant_for
from tests.engine.staging import FRESH, Server, manager_for
from tests.waiting import until
from unexpired import LoginRequired, Session, TokenManager
from unexpired._core.ports import Store
from unexpired.clients.httpx2 import TokenAuth, TokenTransport
from unexpired.events import RefreshSucceeded
from unexpired.stores import FileStore, MemoryStore
from unexpired.testing import ServerHandle

FORCED = 1e-6
"""Seconds after which the interpreter takes a thread's turn away: as often as it can."""


@pytest.fixture(autouse=True)
def _forced() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(FORCED)
    yield
    sys.setswitchinterval(before)


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Each kind of store that needs no server."""
    return MemoryStore() if request.param == "memory" else FileStore(tmp_path / "sessions")


def at_once(count: int, work: Callable[[int], Any]) -> list[Any]:
    """What *work* gives to each of *count* threads that begin at the same moment; raises what one of them raised."""
    gate = threading.Barrier(count)

    def caller(mine: int) -> Any:
        gate.wait(BOUND)
        return work(mine)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(caller, range(count)))


def expiries(server: ServerHandle, store: Store, threads: int, rounds: int) -> None:
    """Let *threads* threads call at the same moment after each of *rounds* expiries, and hold what is promised."""
    manager = TokenManager(grant_for(server), store=store, key="alice")
    manager.login(server.login())
    told: list[RefreshSucceeded] = []
    manager.on(RefreshSucceeded, told.append)
    refreshes: list[int] = []

    def expire() -> None:
        refreshes.append(server.stats().refreshes)
        server.expire()

    barrier = threading.Barrier(threads, action=expire, timeout=BOUND)
    inner = httpx2.HTTPTransport(verify=False, limits=httpx2.Limits(max_connections=threads))
    options: dict[str, Any] = {"base_url": server.url, "timeout": BOUND}
    with ExitStack() as stack:
        # Both adapters at once, over one pool of connections.
        clients = [
            stack.enter_context(httpx2.Client(auth=TokenAuth(manager), transport=inner, **options)),
            stack.enter_context(httpx2.Client(transport=TokenTransport(manager, transport=inner), **options)),
        ]

        def caller(mine: int) -> list[Any]:
            answers = []
            for number in range(rounds):
                barrier.wait()
                response = clients[mine % 2].get("/api/x", params={"n": f"{mine}.{number}"})
                answers.append(response.json().get("n", response.status_code))
            return answers

        answers = at_once(threads, caller)
    assert answers == [[f"{mine}.{number}" for number in range(rounds)] for mine in range(threads)]
    assert refreshes == list(range(rounds))
    stats = server.stats()
    assert (stats.refreshes, stats.token_posts, stats.reuse_detected, stats.max_in_air) == (rounds, rounds, 0, 1)
    until(lambda: len(told) >= rounds)
    assert [event.version for event in told] == [version + 2 for version in range(rounds)]


def test_each_expiry_is_one_redemption(server: ServerHandle, store: Store) -> None:
    """Scenarios 1, 10 and 41: 60 preempted threads, 6 expiries: one redemption each, everybody its own answers."""
    expiries(server, store, 60, 6)


@pytest.mark.crash
@pytest.mark.timeout(580)
def test_each_of_fifty_expiries_is_one_redemption(server: ServerHandle, store: Store) -> None:
    """Scenarios 1, 10 and 41: 200 preempted threads, 50 expiries: one redemption each, everybody its own answers."""
    expiries(server, store, 200, 50)


def test_who_is_refused_always_gets_a_newer_token(store: Store) -> None:
    """Threads that are refused at moments of their own get a later token than theirs each time; no version twice."""
    server = Server()
    manager = manager_for(server, FRESH, store=store)

    def caller(_: int) -> list[int]:
        token, seen = manager.token(), []
        for _ in range(12):
            token = manager.refresh(rejected=token)
            seen.append(token.minted)
        return seen

    seen = at_once(30, caller)
    assert all(one == sorted(set(one)) for one in seen)
    newest = max(one[-1] for one in seen)
    assert (server.calls, server.reused) == (newest - 1, 0)
    assert newest > 12


def test_threads_with_managers_of_their_own_cause_one_refresh(tmp_path: Path) -> None:
    """Scenario 6: managers, stores and flights that come and go in every thread are still one for the session."""
    server, rounds, threads = Server(), 10, 24
    token = manager_for(server, FRESH, store=FileStore(tmp_path)).token()
    barrier = threading.Barrier(threads, timeout=BOUND)

    def caller(_: int) -> list[str]:
        mine, seen = token, []
        for _ in range(rounds):
            barrier.wait()
            mine = TokenManager(server, store=FileStore(tmp_path)).refresh(rejected=mine)
            seen.append(mine.access_token)
            barrier.wait()
        return seen

    assert at_once(threads, caller) == [[f"access {number + 1}" for number in range(rounds)]] * threads
    assert (server.calls, server.reused) == (rounds, 0)


class Commotion:
    """A manager whose logins come and go. Each login's tokens carry its name."""

    def __init__(self, store: Store) -> None:
        self.manager = manager_for(self._redeem, None, store=store)
        self.names: dict[str, str] = {}
        self.got: list[tuple[str, str]] = []
        self.reasons: set[str] = set()
        self.risen: list[str] = []
        self.spent: Counter[str] = Counter()
        self._ready = threading.Semaphore(0)

    def _redeem(self, session: Session) -> Mapping[str, Any]:
        name, _, number = str(session.refresh_token).partition(".")
        self.spent[f"{name}.{number}"] += 1
        for _ in range(20):
            time.sleep(0)  # lets the others in, so that the session changes under the refresh
        return self._answer(name, int(number) + 1)

    def _answer(self, name: str, number: int) -> Mapping[str, Any]:
        return {"access_token": f"{name}:{number}", "refresh_token": f"{name}.{number}", "expires_in": 3600}

    def log_in(self, name: str) -> None:
        """Begin the login of that name."""
        self.names[self.manager.login(self._answer(name, 0)).login] = name

    def refresh(self) -> None:
        """Ask for newer tokens, until all together have got 200 of them."""
        try:
            for _ in range(5_000):
                try:
                    token = self.manager.refresh()
                    self.got.append((str(token.login), token.access_token.partition(":")[0]))
                except LoginRequired as error:
                    self.reasons.add(error.reason)
                if len(self.got) >= 200:
                    return
        finally:
            self._ready.release()

    def log_out_and_in(self, mine: str) -> None:
        """End the login, look whether it stays ended, and begin another one, until a refreshing thread is done."""
        for number in range(10_000):
            self.manager.logout()
            self._look_at(self.manager.session())
            self.log_in(f"{mine} {number}")
            until = len(self.got) + 5
            for _ in range(500):
                time.sleep(0)
                if len(self.got) >= until:
                    break
            if self._ready.acquire(blocking=False):
                self._ready.release()
                return

    def _look_at(self, over: Session | None) -> None:
        if over is None or over.ended is None:
            return
        for _ in range(50):
            time.sleep(0)
            now = self.manager.session()
            if now is not None and now.login == over.login and now.ended is None:
                self.risen.append(now.login)


def test_no_login_gets_the_token_of_another(store: Store) -> None:
    """Scenarios 61 and 63: threads log in and out; each token is of the login it says, what is over stays so."""
    here = Commotion(store)
    here.log_in("first")
    at_once(12, lambda mine: here.log_out_and_in(f"thread {mine}") if mine < 2 else here.refresh())
    here.log_in("last")
    assert here.manager.token().access_token == "last:0"
    assert set(here.got) <= set(here.names.items())
    assert len(set(here.got)) > 1
    assert here.reasons <= {"logout"}
    assert here.risen == []
    assert set(here.spent.values()) == {1}
