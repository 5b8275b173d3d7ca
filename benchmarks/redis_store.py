"""RedisStore on a Redis of its own, beside the bare client: calls, commands, and waiters in another process."""

from __future__ import annotations

import multiprocessing
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count, pairwise
from multiprocessing.connection import Connection
from typing import Any

import redis

from benchmarks.measure import Row, interleave, median, timed
from unexpired import TokenManager
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.grants import FunctionGrant
from unexpired.stores._redis_scripts import LEASE, RELEASE, SWAP
from unexpired.stores.redis import RedisStore

CALLS, COMMANDS, WAITS = 200_000, 300, 21


@contextmanager
def _server() -> Iterator[str]:
    program = shutil.which("redis-server")
    if program is None:
        raise RuntimeError("redis-server is missing: make system-packages installs it")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as directory:
        process = subprocess.Popen(
            [program, "--port", str(port), "--bind", "127.0.0.1", "--dir", directory, "--appendonly", "yes"],
            stdout=subprocess.DEVNULL,
        )
        try:
            client = redis.Redis(port=port)
            while not _answers(client):
                time.sleep(0.01)
            yield f"redis://127.0.0.1:{port}/0"
        finally:
            process.kill()
            process.wait()


def _answers(client: redis.Redis) -> bool:
    try:
        return bool(client.ping())
    except redis.RedisError:
        return False


def _manager(store: RedisStore) -> TokenManager:
    def never(_: Session) -> Token:
        raise RuntimeError("somebody else refreshes here")

    return TokenManager(FunctionGrant(never), store=store, key="bench", refresh_ahead=0)


def _each(work: Callable[[], object], times: int) -> float:
    def loop() -> None:
        for _ in range(times):
            work()

    return timed(loop) / times


def _chain(session: Session) -> list[Session]:
    """What is stored one after another in a round."""
    chain = [session]
    for _ in range(COMMANDS):
        chain.append(chain[-1].minted(Token("a" * 40, refresh_token="r" * 40)))
    return chain


def _commands(url: str) -> list[Row]:
    store = RedisStore(url)
    manager = _manager(store)
    session = manager.login({"access_token": "a" * 40, "refresh_token": "r" * 40, "expires_in": 86400})
    manager.token()
    token = manager.token
    raw: Any = redis.Redis.from_url(url)
    scripts = {one: raw.script_load(one.text) for one in (SWAP, LEASE, RELEASE)}
    state, numbers, record = [session], count(1), encode(session)
    fields = ("record", "login", "version", "notes")
    raw.hset("raw:session:{bench}", mapping={"login": "l", "version": 0, "notes": 0, "change": "", "record": record})

    def swaps() -> float:
        steps = iter(pairwise(_chain(state[0])))

        def swap() -> None:
            before, state[0] = next(steps)
            if not store.swap("bench", before, state[0]):
                raise RuntimeError("a swap was refused")

        return _each(swap, COMMANDS)

    def raw_swap() -> None:
        version = next(numbers)
        done = raw.evalsha(
            scripts[SWAP], 1, "raw:session:{bench}", "1", "l", version - 1, 0, "l", version, 0, record,
            f"{version:016x}", "", "raw:news", f"s:{version:016x}:bench",
        )  # fmt: skip
        if done != 1:
            raise RuntimeError("a swap was refused")

    def heard(work: Callable[[], object]) -> float:
        # Whoever wants to hear of changes hears of its own.
        news = raw.pubsub(ignore_subscribe_messages=True)
        news.subscribe(**{"raw:news": lambda _: None})
        listening = news.run_in_thread(sleep_time=1.0, daemon=True)
        try:
            return _each(work, COMMANDS)
        finally:
            listening.stop()
            raw.publish("raw:news", "the end")
            listening.join()

    def lease() -> None:
        held = store.lease("bench", owner="me", seconds=10.0, wait=1.0, stop=lambda: False)
        if held is None:
            raise RuntimeError("a free lease was not granted")
        held.release()

    def raw_lease() -> None:
        raw.evalsha(scripts[LEASE], 1, "raw:lease:{bench}", "me", 10_000)
        raw.evalsha(scripts[RELEASE], 1, "raw:lease:{bench}", "me", "raw:news", "r::bench")

    found = interleave(
        {
            "warm": lambda: _each(token, CALLS),
            "load": lambda: _each(lambda: store.load("bench"), COMMANDS),
            "HMGET": lambda: _each(lambda: raw.hmget("unexpired:session:{bench}", fields), COMMANDS),
            "swap": swaps,
            "EVALSHA": lambda: _each(raw_swap, COMMANDS),
            "EVALSHA, heard": lambda: heard(raw_swap),
            "lease": lambda: _each(lease, COMMANDS),
            "two EVALSHA": lambda: _each(raw_lease, COMMANDS),
            "two EVALSHA, heard": lambda: heard(raw_lease),
        }
    )
    took = {name: median(times) for name, times in found.items()}
    store.close()
    warm = took["warm"] * 1e6

    def beside(value: str, floor: str, note: str = "") -> Row:
        ratio = took[value] / took[floor]
        note = f"{took[value] * 1e6:.0f} µs beside {took[floor] * 1e6:.0f} µs{note}"
        return Row(
            f"RedisStore: {value}, beside the bare {floor}", ratio, "times", took[floor], "≤ 1.5", ratio <= 1.5, note
        )

    def alone(floor: str) -> str:
        return f"; {took[floor] * 1e6:.0f} µs where nobody listens"

    return [
        Row("warm call, RedisStore", warm, "µs", None, "≤ 0.7", warm <= 0.7),
        beside("load", "HMGET"),
        beside("swap", "EVALSHA, heard", alone("EVALSHA")),
        beside("lease", "two EVALSHA, heard", alone("two EVALSHA")),
    ]


def _waiter(url: str, orders: Connection) -> None:
    """Ask for a token that only somebody else can bring; say when it came, and after how many commands."""
    store = RedisStore(url)
    client = store._link.client
    ask, asked = client.execute_command, count()

    def counted(*command: Any, **options: Any) -> Any:
        next(asked)
        return ask(*command, **options)

    client.execute_command = counted
    manager = _manager(store)
    manager.session()
    orders.send("ready")
    while orders.recv():
        before = next(asked)
        manager.refresh()
        orders.send((time.monotonic(), next(asked) - before - 1))


def _waiters(url: str, processes: int) -> list[Row]:
    context = multiprocessing.get_context("spawn")
    store = RedisStore(url)
    stored = store.load("bench")
    session = Session.begin("bench", "another login", Token("a", refresh_token="r"))
    store.swap("bench", stored, session)
    pipes, workers = [], []
    for _ in range(processes):
        ours, theirs = context.Pipe()
        worker = context.Process(target=_waiter, args=(url, theirs))
        worker.start()
        pipes.append(ours)
        workers.append(worker)
    for pipe in pipes:
        pipe.recv()
    delays, commands = [], []
    for _ in range(WAITS):
        lease = store.lease("bench", owner="me", seconds=10.0, wait=9.0, stop=lambda: False)
        assert lease is not None
        for pipe in pipes:
            pipe.send(True)
        time.sleep(0.1)  # a token request
        new = session.minted(Token(f"b{session.version}", refresh_token="r"))
        store.swap("bench", session, new)
        since, session = time.monotonic(), new
        lease.release()
        said = [pipe.recv() for pipe in pipes]
        delays.append(max(when for when, _ in said) - since)
        commands += [number for _, number in said]
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send(False)
        worker.join()
    store.close()
    delay, number = median(delays) * 1e3, median(commands)
    note = f"the slowest {max(delays) * 1e3:.1f} ms"
    most = f"at most {max(commands)}"
    what = f"{processes} other processes" if processes > 1 else "another process"
    return [
        Row(f"stored until the last waiter of {what} goes on", delay, "ms", None, "≤ 5", delay <= 5, note),
        Row(
            f"Redis commands per waiter, {what}",
            number,
            "commands",
            None,
            "≤ 3",
            number <= 3,
            most,
        ),
    ]


def rows() -> list[Row]:
    """All figures of this store."""
    with _server() as url:
        return [*_commands(url), *_waiters(url, 1), *_waiters(url, 4)]
