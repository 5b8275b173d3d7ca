from __future__ import annotations

import itertools
import json
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import psycopg
import pytest

from tests.clients.modes import grant_for
from tests.stores.postgres_server import PostgresServer, account, directory, pgbouncer, postgres_server, program
from tests.stores.postgres_worker import KEY, following
from tests.waiting import until
from unexpired import TokenManager
from unexpired.errors import StoreError
from unexpired.stores import open_store
from unexpired.stores.postgres import PostgresStore
from unexpired.testing import ServerHandle, server_process

ROOT = Path(__file__).resolve().parents[2]
EXPIRIES, PROCESSES, TASKS = 5, 3, 25
MODES = ("threads", "asyncio", "trio")
LONG = 40.0


class Worker:
    """A process, spoken to through its pipes."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, *arguments]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def say(self, word: str) -> None:
        """Tell it."""
        self.stdin.write(f"{word}\n")
        self.stdin.flush()

    def hear(self) -> str:
        """What it says next."""
        return self.stdout.readline().strip()

    def end(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(10)
        self.stdin.close()
        self.stdout.close()


Start = Callable[..., Worker]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for this file; each test has a database of its own."""
    with postgres_server() as one:
        yield one


@pytest.fixture(scope="module")
def issuer() -> Iterator[ServerHandle]:
    """An authorization server with an API, in a process of its own."""
    with server_process() as one:
        yield one


DATABASES = itertools.count()


@pytest.fixture
def url(server: PostgresServer) -> str:
    """A database of this test's own."""
    name = f"db_{next(DATABASES)}"
    server.run(f"CREATE DATABASE {name}")
    return server.url.replace("/postgres", f"/{name}")


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    """This process's store."""
    with PostgresStore(url) as one:
        yield one


@pytest.fixture
def start(url: str) -> Iterator[Start]:
    """Starts a worker on the store."""
    with ExitStack() as stack:

        def one(task: str) -> Worker:
            worker = Worker("-m", "tests.stores.postgres_worker", task, url)
            stack.callback(worker.end)
            return worker

        yield one


def test_no_version_is_lost_between_processes(store: PostgresStore, start: Start) -> None:
    """Three processes that each add 30 versions bring 90, and the tables are made once by those who start together."""
    workers = [start("count") for _ in range(3)]
    assert [worker.hear() for worker in workers] == ["ready"] * 3
    for worker in workers:
        worker.say("go")
    assert [worker.hear() for worker in workers] == ["done"] * 3
    found = store.load(KEY)
    assert found is not None
    assert found.version == 90


def test_a_change_elsewhere_is_told(store: PostgresStore, start: Start) -> None:
    """What one process stores shows in the stamp of another one, which is told of it."""
    store.swap(KEY, None, following(None))
    worker = start("tell")
    assert worker.hear() == "ready"
    took = []
    for _ in range(15):
        worker.say("go")
        before = store.load(KEY)
        assert store.swap(KEY, before, following(before))
        stored = time.clock_gettime(time.CLOCK_MONOTONIC)
        took.append(float(worker.hear()) - stored)
    assert max(took) < 20.0
    print(f"stored to shown elsewhere: median {statistics.median(took) * 1000:.2f} ms, worst {max(took) * 1000:.2f} ms")  # noqa: T201


def test_a_forked_child_starts_anew(store: PostgresStore, start: Start) -> None:
    """A child neither holds nor frees its parent's lease, talks on connections of its own, and hears for itself."""
    store.swap(KEY, None, following(None))
    worker = start("fork")
    said = [worker.hear() for _ in range(5)]
    assert said == [
        "child: not mine",
        "child: refused",
        "child: stored True",
        "child: hears True, 2 threads",
        "parent: sees 2",
    ]


@pytest.mark.timeout(180)
def test_what_was_reported_survives_the_servers_crash(start: Start, server: PostgresServer, url: str) -> None:
    """Every version that was reported as stored is there after the server was killed in the middle of writing."""
    worker = start("write")
    last = 0
    for _ in range(3):
        until = last + 20
        while last < until:
            last = int(worker.hear())
        server.stop(signal.SIGQUIT)
        server.start()
    worker.process.send_signal(signal.SIGSTOP)
    worker.process.send_signal(signal.SIGCONT)
    reached = int(worker.hear())
    with PostgresStore(url) as store:
        found = store.load(KEY)
    assert found is not None
    assert found.version >= reached > last


@pytest.mark.timeout(180)
def test_one_redemption_for_a_fleet(issuer: ServerHandle, url: str) -> None:
    """Three processes with 25 callers each, in threads, asyncio and trio, cost one redemption for each expiry."""
    issuer.reset()
    with ExitStack() as stack, open_store(url) as shared:  # type: ignore[attr-defined]
        manager = TokenManager(grant_for(issuer), store=shared, key="alice")
        manager.login(issuer.login())
        workers = []
        for number in range(PROCESSES):
            worker = Worker("-m", "tests.concurrency.fleet_worker", issuer.url, url, MODES[number], "0")
            stack.callback(worker.end)
            workers.append(worker)
        assert [json.loads(worker.hear()) for worker in workers] == ["ready"] * PROCESSES
        everybody = [[str(number) for number in range(TASKS)]] * PROCESSES
        for expiry in range(1, EXPIRIES + 1):
            issuer.expire()
            hold: list[Any] = [{"kind": "hold_refusals", "name": f"all {expiry}"}]
            issuer.api_faults(hold)
            for worker in workers:
                worker.say(json.dumps(["calls", TASKS]))
            issuer.wait("api_call_held", PROCESSES * TASKS * expiry)
            issuer.release(f"all {expiry}")
            assert [json.loads(worker.hear()) for worker in workers] == everybody
            stats = issuer.stats()
            assert (stats.token_posts, stats.reuse_detected, stats.max_in_air) == (expiry, 0, 1)
        until(lambda: manager.token().minted == EXPIRIES + 1, "the newest token is seen")


@pytest.mark.parametrize("listen", [True, False])
def test_behind_a_pooler(server: PostgresServer, url: str, *, listen: bool) -> None:
    """Behind PgBouncer in transaction mode changes are heard past it, or asked for; nothing is prepared there."""
    database = url.rpartition("/")[2]
    with (
        pgbouncer(server, database=database) as pooled,
        PostgresStore(pooled, listen=url if listen else None, staleness=0.2) as store,
        PostgresStore(url) as other,
    ):
        session = following(None)
        stamp = store.stamp(KEY)
        before = stamp()
        assert stamp() == before
        assert other.swap(KEY, None, session)
        until(lambda: stamp() != before, "the change is heard")
        assert store.load(KEY) is not None
        for _ in range(20):
            assert store.swap(KEY, session, following(session))
            session = following(session)
        before, marker = stamp(), store.stamp("later")
        unmarked = marker()
        # What is told after all of its own changes: then those were told before.
        assert other.swap("later", None, following(None))
        until(lambda: marker() != unmarked, "the change is heard")
        assert stamp() == before, "its own changes count once"
        mine = other.lease(KEY, owner="a", seconds=0.5, wait=0.0, stop=lambda: False)
        assert mine is not None
        assert store.lease(KEY, owner="b", seconds=0.5, wait=LONG, stop=lambda: False) is not None


@pytest.mark.timeout(180)
def test_a_standby_takes_over(server: PostgresServer) -> None:
    """With both hosts named, the store goes on when the primary dies and the standby is promoted."""
    with directory() as place, postgres_server() as primary:
        data = place / "data"
        base = [program("pg_basebackup"), "-D", str(data), "-R", "-X", "stream", "-c", "fast", "-d", primary.url]
        subprocess.run(base, user=account(), check=True, cwd=place)
        standby = PostgresServer(place, {}, existing=True)
        standby.start()
        try:
            hosts = f"127.0.0.1:{primary.port},127.0.0.1:{standby.port}"
            both = f"postgresql://unexpired@{hosts}/postgres?target_session_attrs=read-write"
            with PostgresStore(both) as store, PostgresStore(standby.url) as readonly:
                session = following(None)
                assert store.swap(KEY, None, session)
                mine = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
                assert mine is not None
                caught_up = "SELECT count(*) FROM unexpired.sessions"
                until = time.monotonic() + LONG
                while time.monotonic() < until:
                    try:
                        if standby.run(caught_up) == [(1,)]:
                            break
                    except psycopg.Error:
                        time.sleep(0.01)
                assert readonly.load(KEY) is not None
                with pytest.raises(StoreError, match="read-only"):
                    readonly.swap(KEY, session, following(session))
                with pytest.raises(StoreError, match="read-only"):
                    readonly.lease(KEY, owner="a", seconds=1.0, wait=0.0, stop=lambda: False)
                with pytest.raises(StoreError, match=r"cannot open.*read-only"):
                    PostgresStore(standby.url, schema="fresh").load(KEY)
                primary.stop(signal.SIGQUIT)
                standby.run("SELECT pg_promote()")
                assert store.swap(KEY, session, following(session))
                assert store.lease(KEY, owner="b", seconds=1.0, wait=LONG, stop=lambda: False) is not None
        finally:
            standby.stop()
            shutil.rmtree(data, ignore_errors=True)
    assert server.is_up()
