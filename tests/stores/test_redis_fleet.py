from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.modes import grant_for
from tests.stores.redis_server import RedisServer
from tests.waiting import until
from unexpired import TokenManager
from unexpired.stores.redis import RedisStore
from unexpired.testing import ServerConfig, ServerHandle, running_server

ROOT = Path(__file__).resolve().parents[2]
PROCESSES, TASKS, EXPIRIES = 3, 25, 5


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis with an append-only file."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture
def server() -> Iterator[ServerHandle]:
    """A token endpoint and an API that take a reused refresh token for theft."""
    with running_server(ServerConfig()) as handle:
        yield handle


class Worker:
    """A process of the fleet."""

    def __init__(self, url: str, store: str, mode: str) -> None:
        command = [sys.executable, "-m", "tests.concurrency.fleet_worker", url, store, mode, "0"]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)

    def order(self, what: str, number: int) -> None:
        """Tell it what to do."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps([what, number]) + "\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """What it says next."""
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def end(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()


@pytest.fixture
def fleet(server: ServerHandle, redis_server: RedisServer) -> Iterator[list[Worker]]:
    """Three processes on one Redis, ready to go."""
    with ExitStack() as stack:
        workers = []
        for mode in ("threads", "asyncio", "trio"):
            worker = Worker(server.url, redis_server.url, mode)
            stack.callback(worker.end)
            workers.append(worker)
        assert [worker.hear() for worker in workers] == ["ready"] * PROCESSES
        yield workers


@pytest.fixture
def manager(server: ServerHandle, redis_server: RedisServer) -> Iterator[TokenManager]:
    """This process's manager, logged in for the whole fleet."""
    with RedisStore(redis_server.url) as store:
        manager = TokenManager(grant_for(server), store=store, key="alice")
        manager.login(server.login())
        yield manager


def test_one_refresh_for_a_fleet(server: ServerHandle, manager: TokenManager, fleet: list[Worker]) -> None:
    """Three processes of 25 callers on one Redis cost one refresh at each expiry, and every call is served."""
    everybody = [[str(number) for number in range(TASKS)]] * PROCESSES
    for number in range(EXPIRIES):
        server.expire()
        server.api_faults([{"kind": "hold_refusals", "name": f"expiry {number}"}])
        for worker in fleet:
            worker.order("calls", TASKS)
        server.wait("api_call_held", (number + 1) * PROCESSES * TASKS)
        server.release(f"expiry {number}")
        assert [worker.hear() for worker in fleet] == everybody
    stats = server.stats()
    assert (stats.refreshes, stats.reuse_detected, stats.max_in_air) == (EXPIRIES, 0, 1)
    until(lambda: manager.token().minted == EXPIRIES + 1, "the newest token is seen")


def test_a_logout_reaches_the_fleet(
    server: ServerHandle, manager: TokenManager, fleet: list[Worker], redis_server: RedisServer
) -> None:
    """A logout is seen by other processes within moments: no call goes out with its token, and nobody refreshes."""
    for worker in fleet:
        worker.order("calls", 1)
    assert [worker.hear() for worker in fleet] == [["0"]] * PROCESSES
    with RedisStore(redis_server.url.replace("127.0.0.1", "localhost")) as far:
        other = TokenManager(grant_for(server), store=far, key="alice")
        waits = []
        for _ in range(10):
            manager.login(server.login())
            until(lambda: other.logged_in, "the login is seen")
            manager.logout()
            stored = time.monotonic()
            until(lambda: not other.logged_in, "the logout is seen")
            waits.append(time.monotonic() - stored)
        assert statistics.median(waits) < 0.25
    before = server.stats().token_posts
    for worker in fleet:
        worker.order("calls", 2)
    assert [worker.hear() for worker in fleet] == [["logout"] * 2] * PROCESSES
    assert server.stats().token_posts == before
