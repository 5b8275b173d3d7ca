"""Several processes of one user on one FileStore, against a server that takes a reused token for theft."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.modes import grant_for
from unexpired import TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

ROOT = Path(__file__).resolve().parents[2]
PROCESSES = 8
TASKS = 10
MODES = ("threads", "asyncio", "trio")


class Worker:
    """A process that runs `fleet_worker`."""

    def __init__(self, url: str, directory: Path, mode: str, grace: float) -> None:
        command = [sys.executable, "-m", "tests.concurrency.fleet_worker", url, str(directory), mode, str(grace)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def order(self, what: str, number: int) -> None:
        """Tell it what to do."""
        self.stdin.write(json.dumps([what, number]) + "\n")
        self.stdin.flush()

    def hear(self) -> Any:
        """What it says next."""
        return json.loads(self.stdout.readline())

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> None:
        """Leave nothing of it."""
        self.kill()
        self.stdin.close()
        self.stdout.close()


Start = Callable[..., list[Worker]]


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """The store that all processes share."""
    return FileStore(tmp_path / "sessions")


@pytest.fixture
def manager(server: ServerHandle, store: FileStore) -> TokenManager:
    """This process's manager, logged in for the whole fleet."""
    manager = TokenManager(grant_for(server), store=store, key="alice")
    manager.login(server.login())
    return manager


@pytest.fixture
def start(server: ServerHandle, tmp_path: Path) -> Iterator[Start]:
    """Starts that many workers, ready to go."""
    with ExitStack() as stack:

        def some(count: int, *, grace: float = 0.0) -> list[Worker]:
            workers = []
            for number in range(count):
                worker = Worker(server.url, tmp_path / "sessions", MODES[number % 3], grace)
                stack.callback(worker.end)
                workers.append(worker)
            assert [worker.hear() for worker in workers] == ["ready"] * count
            return workers

        yield some


def test_one_refresh_for_eight_processes(server: ServerHandle, manager: TokenManager, start: Start) -> None:
    """Scenario 4: 8 processes with 10 callers each cost one refresh, whoever knows of the expiry."""
    workers = start(PROCESSES)
    manager.login({**server.login(), "expires_in": -1})
    for worker in workers:
        worker.order("calls", TASKS)
    everybody = [[str(number) for number in range(TASKS)]] * PROCESSES
    assert [worker.hear() for worker in workers] == everybody
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, 0)

    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    for worker in workers:
        worker.order("calls", TASKS)
    server.wait("api_call_held", PROCESSES * TASKS)
    server.release("all")
    assert [worker.hear() for worker in workers] == everybody
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.max_in_air) == (2, 0, 1)
    assert stats.refused == PROCESSES * TASKS


def test_holder_is_killed_before_the_server_acted(server: ServerHandle, manager: TokenManager, start: Start) -> None:
    """Scenario 21: when the holder is killed mid-refresh, the waiting process goes on at once, with the same token."""
    holder, waiter = start(2)
    server.expire()
    server.faults([{"kind": "reset_before_commit", "hold": "first"}])
    holder.order("calls", 1)
    server.wait("token_request_held")
    waiter.order("calls", 3)
    server.wait("api_call_refused", 4)
    killed = time.monotonic()
    holder.kill()
    assert waiter.hear() == ["0", "1", "2"]
    assert time.monotonic() - killed < 8.0
    server.release("first")
    stats = server.stats()
    assert (stats.token_posts, stats.refreshes, stats.reuse_detected) == (2, 1, 0)
    assert manager.token().minted == 2


def test_holder_is_killed_after_the_server_acted(server: ServerHandle, manager: TokenManager, start: Start) -> None:
    """Scenario 21: when the server has rotated already, the next process adopts the answer within a grace period."""
    server.configure(grace=60.0)
    holder, waiter = start(2, grace=60.0)
    server.expire()
    server.faults([{"kind": "timeout_after", "hold_after": "answer"}])
    holder.order("calls", 1)
    server.wait("token_request_committed")
    holder.kill()
    waiter.order("calls", 3)
    assert waiter.hear() == ["0", "1", "2"]
    server.release("answer")
    assert server.stats().reuse_detected == 0
    assert manager.token().minted == 2


def test_answer_lost_with_its_holder(server: ServerHandle, manager: TokenManager, start: Start) -> None:
    """Scenario 21: without a grace period the next process tries once, and the login ends with the reason told."""
    holder, waiter = start(2)
    server.expire()
    server.faults([{"kind": "timeout_after", "hold_after": "answer"}])
    holder.order("calls", 1)
    server.wait("token_request_committed")
    holder.kill()
    waiter.order("calls", 3)
    assert waiter.hear() == ["answer_lost"] * 3
    server.release("answer")
    assert server.stats().token_posts == 2
    over = manager.session()
    assert over is not None
    assert over.ended is not None


def test_no_reader_sees_a_torn_session(
    server: ServerHandle, store: FileStore, manager: TokenManager, start: Start, tmp_path: Path
) -> None:
    """Scenario 31: while three processes rotate, a reader sees whole sessions only, 0600, never an older one."""
    workers, rounds = start(3), 0
    seen: list[int] = [0]
    modes: set[str] = set()
    # A reader that is held up may see but the last of a round.
    while len(seen) <= 5 and rounds < 10:
        rounds += 1
        for worker in workers:
            worker.order("refresh", 20)
        with ThreadPoolExecutor(3) as pool:
            said = [pool.submit(worker.hear) for worker in workers]
            while not all(one.done() for one in said):
                session = store.load("alice")
                assert session is not None
                assert session.version >= seen[-1]
                seen += [session.version] if session.version > seen[-1] else []
                for path in (tmp_path / "sessions").iterdir():
                    with suppress(FileNotFoundError):  # a new session on its way
                        modes.add(oct(path.stat().st_mode & 0o777))
        assert [one.result() for one in said] == ["done"] * 3
    assert modes == {"0o600"}
    stats = server.stats()
    assert (stats.reuse_detected, stats.max_in_air) == (0, 1)
    assert manager.token().minted == stats.refreshes + 1
    assert stats.refreshes >= 20 * rounds
    assert len(seen) > 5
