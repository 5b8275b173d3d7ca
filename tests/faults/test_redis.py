from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.faults.line import Line
from tests.faults.losses import lose_the_last_write, outlive_the_lease
from tests.faults.stage import Place, play
from tests.faults.table import FAULTS, held
from tests.stores.redis_server import RedisServer, free_port
from unexpired.stores.redis import RedisStore

PREFIXES = itertools.count(1)
BOUNDS = {"slow": (25.0, 25.0), "cut off": (2.0, 30.0)}
"""Of a `Place`, where things take their time: a call with a valid token may have to read what has just changed."""
Made = tuple[Callable[[], object], Callable[[], object]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """One Redis for all faults that it survives."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture
def line(server: RedisServer) -> Iterator[Line]:
    """The only way to it."""
    line = Line(server.port)
    yield line
    line.close()


def told(server: RedisServer, *words: object) -> Callable[[], object]:
    """Carries out a command, past the line."""

    def tell() -> Any:
        with server.client() as raw:
            return raw.execute_command(*words)

    return tell


def failing_over(line: Line, directory: Path, stack: ExitStack) -> Made:
    """A primary and its replica, which takes over when the primary is dead; it has everything."""
    primary = RedisServer(directory / "primary", "--appendonly", "yes").start()
    stack.callback(primary.kill)
    line.lead_to(primary.port)
    replica = RedisServer(directory / "replica", "--replicaof", "127.0.0.1", str(primary.port)).start()
    stack.callback(replica.kill)

    def strike() -> None:
        with primary.client() as raw:
            raw.set("written", "last")
            assert raw.wait(1, 30_000) == 1
        primary.kill()

    def mend() -> None:
        told(replica, "REPLICAOF", "NO", "ONE")()
        line.lead_to(replica.port)

    return strike, mend


def made(fault: str, server: RedisServer, line: Line) -> Made:
    """What brings the fault about, and what ends it."""

    def slow() -> None:
        line.delay = 0.5

    def quick() -> None:
        line.delay = 0.0

    return {
        "killed": (server.kill, server.start),
        "read-only": (
            told(server, "REPLICAOF", "127.0.0.1", free_port()),
            told(server, "REPLICAOF", "NO", "ONE"),
        ),
        "full": (told(server, "CONFIG", "SET", "maxmemory", 1), told(server, "CONFIG", "SET", "maxmemory", 0)),
        "cut off": (line.freeze, line.heal),
        "slow": (slow, quick),
    }[fault]


def opened(stack: ExitStack, line: Line, prefix: str, settings: str = "") -> tuple[RedisStore, RedisStore]:
    """The store as two processes have it, behind *line*."""
    near, far = (
        stack.enter_context(RedisStore(f"redis://{host}:{line.port}/0{settings}", prefix=prefix))
        for host in ("127.0.0.1", "localhost")
    )
    return near, far


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS["RedisStore"])
def test_a_fault_at_each_step(
    fault: str, line: Line, server: RedisServer, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    """Scenarios 19, 25 and 26: whatever happens to Redis at whichever step of a flight, nobody suffers.

    Calls with a valid token go on, the flight ends in a token or a typed error, nothing is redeemed twice, and the next
    call afterwards is served.
    """
    with ExitStack() as stack:
        way = failing_over(line, tmp_path, stack) if fault == "failed over" else made(fault, server, line)
        near, far = opened(stack, line, f"faults{next(PREFIXES)}", "?socket_timeout=1" if fault == "cut off" else "")
        held(record_property, "RedisStore", fault, play(Place(near, far, *way, *BOUNDS.get(fault, ()))))


def test_a_failover_that_loses_the_last_write(line: Line, tmp_path: Path) -> None:
    """A replica that takes over without the last token has a spent one: one refresh is refused, and the login ends."""
    with ExitStack() as stack:
        primary = RedisServer(tmp_path / "primary").start()
        stack.callback(primary.kill)
        replica = RedisServer(tmp_path / "replica").start()
        stack.callback(replica.kill)
        line.lead_to(primary.port)

        def separate() -> None:
            told(replica, "REPLICAOF", "127.0.0.1", primary.port)()
            with primary.client() as raw:
                raw.set("written", "last")
                assert raw.wait(1, 30_000) == 1
            told(replica, "REPLICAOF", "NO", "ONE")()

        def fail_over() -> None:
            primary.kill()
            line.lead_to(replica.port)

        lose_the_last_write(*opened(stack, line, "lost"), separate, fail_over)


def test_a_process_that_is_cut_off_for_longer_than_its_lease(server: RedisServer, line: Line) -> None:
    """One process is cut off with an answer to store until its lease has ended: the login ends as `answer_lost`."""
    with ExitStack() as stack:
        near, _ = opened(stack, line, "alone", "?socket_timeout=1")
        far = stack.enter_context(RedisStore(server.url, prefix="alone"))
        outlive_the_lease(near, far, line.freeze, line.heal)
