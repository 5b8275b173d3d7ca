"""Many sessions: ten thousand that are refreshed in a minute from four processes, and a hundred thousand in memory."""

from __future__ import annotations

import gc
import multiprocessing
import os
import random
import resource
import statistics
import threading
import time
import tracemalloc
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import redis

from benchmarks.measure import Row
from benchmarks.stores import KEY, first, opened, redis_server
from tests.stores.postgres_server import postgres_server
from unexpired import TokenManagers
from unexpired._core.session import Session
from unexpired.errors import UnexpiredError
from unexpired.grants import FunctionGrant

SESSIONS, SECONDS, PROCESSES = 10_000, 60.0, 4
THREADS = 32
ENDPOINT = 0.02
"""Seconds that the token endpoint takes to answer."""
IN_MEMORY, TRACED = 100_000, 10_000
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


# -- refreshing -------------------------------------------------------------------------------------------------------


@dataclass
class _Took:
    """What one process has seen: redemptions, the seconds of each call, what was not served, its CPU seconds."""

    redeemed: list[str] = field(default_factory=list)
    refused: list[float] = field(default_factory=list)
    warm: list[float] = field(default_factory=list)
    unserved: Counter[str] = field(default_factory=Counter)
    cpu: float = 0.0


def _key(number: int) -> str:
    return f"user-{number:06d}"


def _managers(place: str, took: _Took) -> TokenManagers:
    def grant(session: Session) -> dict[str, object]:
        took.redeemed.append(f"{session.key} {session.version}")
        time.sleep(ENDPOINT)
        return {"access_token": f"second of {session.key}", "refresh_token": "r" * 40, "expires_in": 3600}

    return TokenManagers(FunctionGrant(grant), store=opened(place), refresh_ahead=0)


def _call(work: Callable[[], object], took: _Took, times: list[float], since: float) -> None:
    try:
        work()
    except UnexpiredError as error:
        took.unserved[type(error).__name__] += 1
    times.append(time.monotonic() - since)


def _refresh_all(managers: TokenManagers, took: _Took, start: float) -> None:
    """For each session, when its time has come, a call whose first token was refused; many threads side by side."""
    numbers = count()

    def serve(key: str) -> None:
        if managers.manager(key).refresh(f"first of {key}").access_token != f"second of {key}":
            took.unserved["another token"] += 1

    def call() -> None:
        while (number := next(numbers)) < SESSIONS:
            moment = start + number * SECONDS / SESSIONS
            time.sleep(max(0.0, moment - time.monotonic()))
            # Counted from when it was due: a call that had to queue for a thread has waited, too.
            _call(partial(serve, _key(number)), took, took.refused, moment)

    threads = [threading.Thread(target=call) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _go_on(managers: TokenManagers, took: _Took, enough: threading.Event) -> None:
    """Calls with whatever is good, in between."""
    while not enough.wait(0.002):
        manager = managers.manager(_key(random.randrange(SESSIONS)))
        _call(manager.token, took, took.warm, time.monotonic())


def _serve(place: str, number: int, orders: Connection) -> None:
    """One process of four: log a quarter of the sessions in, know all of them, then serve for a minute."""
    took = _Took()
    managers = _managers(place, took)
    for one in range(number, SESSIONS, PROCESSES):
        key = _key(one)
        managers.manager(key).login({"access_token": f"first of {key}", "refresh_token": "r" * 40, "expires_in": 86400})
    orders.send("stored")
    orders.recv()
    for one in range(SESSIONS):
        managers.manager(_key(one)).token()
    gc.collect()
    orders.send("ready")
    start: float = orders.recv()
    before, enough = _cpu_here(), threading.Event()
    warm = threading.Thread(target=_go_on, args=(managers, took, enough))
    warm.start()
    _refresh_all(managers, took, start)
    enough.set()
    warm.join()
    took.cpu = _cpu_here() - before
    orders.send(took)
    orders.recv()


def _cpu_here() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _cpu(process: int) -> float:
    """CPU seconds of a server: of its process, of its children, and of those that have ended."""
    seconds = 0.0
    with suppress(FileNotFoundError, ProcessLookupError):
        fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        seconds += sum(map(int, fields[11:15])) / _CLOCK_TICKS
        for child in Path(f"/proc/{process}/task/{process}/children").read_text().split():
            seconds += _cpu(int(child))
    return seconds


def _minute(place: str, server: int) -> tuple[list[_Took], float]:
    """What the processes have seen, and the CPU seconds of the store's server meanwhile."""
    context = multiprocessing.get_context("spawn")
    pipes, workers = [], []
    for number in range(PROCESSES):
        here, there = context.Pipe()
        worker = context.Process(target=_serve, args=(place, number, there))
        worker.start()
        there.close()
        pipes.append(here)
        workers.append(worker)

    def hear() -> list[Any]:
        return [pipe.recv() for pipe in pipes]

    def tell(what: object) -> None:
        for pipe in pipes:
            pipe.send(what)

    hear()
    tell("look")
    hear()
    before = _cpu(server)
    tell(time.monotonic() + 0.5)
    found: list[_Took] = hear()
    used = _cpu(server) - before
    tell("enough")
    for worker in workers:
        worker.join()
    return found, used


def _refreshing(title: str, place: str, server: int) -> list[Row]:
    found, used = _minute(place, server)
    redeemed = Counter(one for took in found for one in took.redeemed)
    refused = [one for took in found for one in took.refused]
    warm = [one for took in found for one in took.warm]
    unserved = sum((took.unserved for took in found), Counter[str]())
    refreshes = redeemed.total()
    once = redeemed == Counter(f"{_key(number)} 1" for number in range(SESSIONS))
    ours = sum(took.cpu for took in found)
    name = f"{title}: {SESSIONS} sessions in {SECONDS:.0f} s, {PROCESSES} processes"
    said = f"{len(refused)} calls that needed it, {unserved.total()} not served {dict(unserved) or ''}"
    return [
        Row(f"{name}: refreshes", refreshes, "", SESSIONS, f"= {SESSIONS}", once and not unserved, said.rstrip()),
        _tail(f"{name}: p99, refused", refused, 1e3, "ms", f"since due, the endpoint's {ENDPOINT * 1e3:.0f} ms within"),
        _tail(f"{name}: p99, good token", warm, 1e6, "µs", f"{len(warm)} calls meanwhile"),
        Row(f"{name}: store's CPU", used, "s", None, "none", True,
            f"{used / SESSIONS * 1e3:.2f} ms a session; the processes' own {ours:.0f} s"),
    ]  # fmt: skip


def _tail(title: str, seconds: list[float], unit: float, name: str, note: str) -> Row:
    cuts = [cut * unit for cut in statistics.quantiles(seconds, n=1000)]
    median, p99, p999 = cuts[499], cuts[989], cuts[998]
    return Row(title, p99, name, median, "none", True, f"median {median:.0f}, p99.9 {p999:.0f}; {note}")


def in_redis() -> list[Row]:
    """The minute on a RedisStore."""
    with redis_server() as server:
        assert server.process is not None
        return _refreshing("RedisStore", server.url, server.process.pid)


def in_postgres() -> list[Row]:
    """The minute on a PostgresStore."""
    with postgres_server() as server:
        assert server.process is not None
        return _refreshing("PostgresStore", server.url, server.process.pid)


# -- in memory --------------------------------------------------------------------------------------------------------


def _resident() -> int:
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def _remember(place: str, sessions: int, traced: bool, answer: Connection) -> None:
    """Know so many sessions; say how many bytes that took."""
    managers = _managers(place, _Took())
    managers.manager(_key(0)).token()
    measure = _resident
    if traced:
        tracemalloc.start()
        measure = _traced
    before = measure()
    for number in range(1, sessions):
        managers.manager(_key(number)).token()
    after = measure()
    if len(managers) != sessions:
        raise RuntimeError(f"{len(managers)} managers are remembered")
    answer.send((after - before) / (sessions - 1))


def _stored(url: str, sessions: int) -> int:
    """Store as many sessions as fast as it goes: the length of a record."""
    with opened(url) as store:  # type: ignore[attr-defined]
        first(store, KEY)
    raw: Any = redis.Redis.from_url(url)
    fields = raw.hgetall(f"unexpired:session:{{{KEY}}}")
    record: bytes = fields[b"record"]
    with raw, raw.pipeline(transaction=False) as pipe:
        for number in range(sessions):
            key = _key(number)
            fields[b"record"] = record.replace(f'"{KEY}"'.encode(), f'"{key}"'.encode())
            pipe.hset(f"unexpired:session:{{{key}}}", mapping=fields)
            if number % 1000 == 999:
                pipe.execute()
        pipe.execute()
    return len(record)


def in_memory() -> Iterator[Row]:
    """What a process needs for each session that it knows."""
    context = multiprocessing.get_context("spawn")
    with redis_server() as server:
        length = _stored(server.url, IN_MEMORY)
        for sessions, traced in ((IN_MEMORY, False), (TRACED, True)):
            here, there = context.Pipe()
            worker = context.Process(target=_remember, args=(server.url, sessions, traced, there))
            worker.start()
            there.close()
            size = here.recv() / 1024
            worker.join()
            how = "tracemalloc" if traced else "resident memory"
            title = f"RedisStore: a session in memory, {sessions} of them, {how}"
            yield Row(title, size, "KiB", None, "none", True, f"{size * 1024:.0f} bytes; its record has {length}")
