"""From "the new token is stored" to "the last waiter of another process goes on", on each store that can be shared."""

from __future__ import annotations

import asyncio
import multiprocessing
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from multiprocessing.connection import Connection
from typing import Any

import psycopg
import redis

from benchmarks.measure import Row, median
from benchmarks.stores import KEY, REFRESH, each, first, manager_of, opened, redis_server
from tests.stores.postgres_server import postgres_server
from unexpired._core.session import Intent, Session
from unexpired._core.token import Token

TASKS, ROUNDS = 25, 21
REQUEST = 0.05
"""Seconds that a token request takes."""


def _wait(place: str, tasks: int, orders: Connection) -> None:
    """Wait, in so many tasks, for a token that only somebody else can bring; say when the last one had it."""
    manager = manager_of(opened(place))

    async def wait() -> float:
        before = manager.token()
        waiting = [asyncio.create_task(manager.arefresh(before)) for _ in range(tasks)]
        await asyncio.sleep(0)
        orders.send("waiting")
        for token in await asyncio.gather(*waiting):
            if token == before:
                raise RuntimeError("a waiter got the old token")
        return time.monotonic()

    with asyncio.Runner() as runner:
        manager.token()
        orders.send("ready")
        while orders.recv():
            orders.send(runner.run(wait()))


class Fleet:
    """Processes that wait for this one's refresh. *theirs* is the place by the name that they have for it."""

    def __init__(self, place: str, processes: int, *, tasks: int = TASKS, theirs: str | None = None) -> None:
        context = multiprocessing.get_context("spawn")
        self._store = opened(place)
        self._session = first(self._store, KEY)
        self._pipes, self._workers = [], []
        for _ in range(processes):
            here, there = context.Pipe()
            worker = context.Process(target=_wait, args=(theirs or place, tasks, there))
            worker.start()
            there.close()
            self._pipes.append(here)
            self._workers.append(worker)
        self._hear()

    def release(self) -> float:
        """Do as a flight does, while everybody waits for it: seconds from "it is stored" to the last one that goes on.

        Below zero where the others see it before it is durable, which is what the store waits for.
        """
        lease = self._store.lease(KEY, owner="me", seconds=10.0, wait=9.0, stop=lambda: False)
        if lease is None:
            raise RuntimeError("a free lease was not granted")
        for pipe in self._pipes:
            pipe.send(True)
        self._hear()
        before = self._session
        marked = before.noted(intent=Intent(before.login, before.version, "me", 1, time.time()), failure=None)
        self._swap(marked)
        time.sleep(REQUEST)
        self._swap(marked.minted(Token(f"access {before.version + 1}", refresh_token=REFRESH)))
        stored = time.monotonic()
        lease.release()
        last: float = max(self._hear())
        return last - stored

    def close(self) -> None:
        """Let them go."""
        for pipe in self._pipes:
            pipe.send(False)
        for worker in self._workers:
            worker.join()
        self._store.close()

    def _swap(self, new: Session) -> None:
        if not self._store.swap(KEY, self._session, new):
            raise RuntimeError("a swap was refused")
        self._session = new

    def _hear(self) -> list[Any]:
        return [pipe.recv() for pipe in self._pipes]


def _trip_of(place: str, stack: ExitStack) -> tuple[str, Callable[[], object]]:
    """The least that the place can be asked, and what that is called."""
    kind, _, rest = place.partition(":")
    if kind == "redis":
        client: Any = stack.enter_context(redis.Redis.from_url(place))
        return "PING", client.ping
    if kind == "postgresql":
        connection = stack.enter_context(psycopg.connect(place, autocommit=True))
        return "SELECT 1", lambda: connection.execute("SELECT 1").fetchone()
    if kind == "sqlite":
        database = sqlite3.connect(rest)
        stack.callback(database.close)
        return "SELECT 1", lambda: database.execute("SELECT count(*) FROM sessions").fetchone()
    store = opened(place)
    stack.callback(store.close)
    return "load", lambda: store.load(KEY)


def _release(title: str, place: str, processes: int) -> Row:
    fleet = Fleet(place, processes)
    try:
        fleet.release()
        delays = [fleet.release() for _ in range(ROUNDS)]
    finally:
        fleet.close()
    with ExitStack() as stack:
        name, ask = _trip_of(place, stack)
        trip = median([each(ask, 100) for _ in range(ROUNDS)])
    delay = median(delays) * 1e3
    note = f"{delay / trip / 1e3:.0f} x {name} ({trip * 1e6:.0f} µs); the slowest {max(delays) * 1e3:.1f} ms"
    others = "another process" if processes == 1 else f"{processes} others"
    what = f"{title}: stored to the last of {TASKS} tasks in {others}"
    return Row(what, delay, "ms", trip, "≤ 5", delay <= 5.0, note)


def rows() -> Iterator[Row]:
    """One process that waits, and four."""
    with redis_server() as remote, postgres_server() as database, tempfile.TemporaryDirectory() as directory:
        places = {
            "FileStore": f"file:{directory}/files",
            "SQLiteStore": f"sqlite:{directory}/sessions.db",
            "Sealed": f"sealed:{directory}/sealed",
            "RedisStore": remote.url,
            "PostgresStore": database.url,
        }
        for title, place in places.items():
            for processes in (1, 4):
                yield _release(title, place, processes)
