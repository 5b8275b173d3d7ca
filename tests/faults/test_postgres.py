from __future__ import annotations

import itertools
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import psycopg
import pytest

from tests.faults.line import Line
from tests.faults.losses import lose_the_last_write, outlive_the_lease
from tests.faults.stage import Place, play
from tests.faults.table import FAULTS, held
from tests.stores.postgres_server import PostgresServer, account, directory, postgres_server, program
from tests.waiting import until
from unexpired.stores.postgres import PostgresStore

SCHEMAS = itertools.count(1)
BOUNDS = {"slow": (25.0, 25.0), "cut off": (2.0, 30.0)}
"""Of a `Place`, where things take their time: a call with a valid token may have to read what has just changed."""
Made = tuple[Callable[[], object], Callable[[], object]]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for all faults that it survives; each test has a schema of its own."""
    with postgres_server() as one:
        yield one


@pytest.fixture
def line(server: PostgresServer) -> Iterator[Line]:
    """The only way to it."""
    line = Line(server.port)
    yield line
    line.close()


def pair(line: Line, stack: ExitStack) -> tuple[PostgresServer, PostgresServer]:
    """A primary, to which *line* leads, and its standby."""
    primary = stack.enter_context(postgres_server())
    line.lead_to(primary.port)
    place = stack.enter_context(directory())
    base = [program("pg_basebackup"), "-D", str(place / "data"), "-R", "-X", "stream", "-c", "fast", "-d", primary.url]
    subprocess.run(base, user=account(), check=True, cwd=place)
    standby = PostgresServer(place, {}, existing=True)
    stack.callback(standby.stop)
    standby.start()
    return primary, standby


def catch_up(primary: PostgresServer, standby: PostgresServer) -> None:
    """Wait until the standby has everything."""
    (written,) = primary.run("SELECT pg_current_wal_lsn()")[0]
    until(lambda: standby.run(f"SELECT pg_last_wal_replay_lsn() >= '{written}'") == [(True,)])


def failing_over(line: Line, stack: ExitStack) -> Made:
    """The standby takes over when the primary is dead; it has everything."""
    primary, standby = pair(line, stack)

    def strike() -> None:
        catch_up(primary, standby)
        primary.stop()

    def mend() -> None:
        assert standby.run("SELECT pg_promote()") == [(True,)]
        line.lead_to(standby.port)

    return strike, mend


def turning(server: PostgresServer, value: str) -> Callable[[], None]:
    """Makes the server read-only, or not any more, for all who are connected."""

    def turn() -> None:
        with psycopg.connect(server.url, autocommit=True, options="-cdefault_transaction_read_only=off") as one:
            one.execute(f"ALTER SYSTEM SET default_transaction_read_only = {value}".encode())
            one.execute("SELECT pg_reload_conf()")
        until(lambda: server.run("SHOW default_transaction_read_only") == [(value,)])

    return turn


def filling(server: PostgresServer, schema: str) -> Made:
    """Each write to the tables ends as one does for which the disk has no space."""

    def strike() -> None:
        server.run(
            f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            "RAISE EXCEPTION 'No space left on device' USING ERRCODE = 'disk_full'; END $$"
        )
        for table in ("sessions", "leases"):
            server.run(
                f"CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {schema}.{table} "
                f"FOR EACH STATEMENT EXECUTE FUNCTION {schema}.refuse()"
            )

    def mend() -> None:
        server.run(f"DROP FUNCTION {schema}.refuse CASCADE")

    return strike, mend


def made(fault: str, server: PostgresServer, line: Line, schema: str) -> Made:
    """What brings the fault about, and what ends it."""

    def slow() -> None:
        line.delay = 0.5

    def quick() -> None:
        line.delay = 0.0

    return {
        "killed": (server.stop, server.start),
        "read-only": (turning(server, "on"), turning(server, "off")),
        "full": filling(server, schema),
        "cut off": (line.freeze, line.heal),
        "slow": (slow, quick),
    }[fault]


def opened(
    stack: ExitStack, server: PostgresServer, line: Line, schema: str, timeout: float = 5.0
) -> tuple[PostgresStore, PostgresStore]:
    """The store as two processes have it, behind *line*."""
    near, far = (
        stack.enter_context(
            PostgresStore(
                server.at(line.port).replace("127.0.0.1", host), schema=schema, timeout=timeout, connections=16
            )
        )
        for host in ("127.0.0.1", "localhost")
    )
    return near, far


@pytest.mark.timeout(180)
@pytest.mark.parametrize("fault", FAULTS["PostgresStore"])
def test_a_fault_at_each_step(
    fault: str, line: Line, server: PostgresServer, record_property: Callable[[str, object], None]
) -> None:
    """Scenarios 19, 25 and 26: whatever happens to PostgreSQL at whichever step of a flight, nobody suffers.

    Calls with a valid token go on, the flight ends in a token or a typed error, nothing is redeemed twice, and the next
    call afterwards is served.
    """
    schema = f"faults_{next(SCHEMAS)}"
    with ExitStack() as stack:
        way = failing_over(line, stack) if fault == "failed over" else made(fault, server, line, schema)
        near, far = opened(stack, server, line, schema, 1.0 if fault == "cut off" else 5.0)
        held(record_property, "PostgresStore", fault, play(Place(near, far, *way, *BOUNDS.get(fault, ()))))


@pytest.mark.timeout(180)
def test_a_failover_that_loses_the_last_write(line: Line) -> None:
    """A standby that takes over without the last token has a spent one: one refresh is refused, and the login ends."""
    with ExitStack() as stack:
        primary, standby = pair(line, stack)

        def separate() -> None:
            catch_up(primary, standby)
            assert standby.run("SELECT pg_promote()") == [(True,)]

        def fail_over() -> None:
            primary.stop()
            line.lead_to(standby.port)

        lose_the_last_write(*opened(stack, primary, line, "lost"), separate, fail_over)


def test_a_process_that_is_cut_off_for_longer_than_its_lease(server: PostgresServer, line: Line) -> None:
    """One process is cut off with an answer to store until its lease has ended: the login ends as `answer_lost`."""
    schema = f"faults_{next(SCHEMAS)}"
    with ExitStack() as stack:
        near, _ = opened(stack, server, line, schema, 1.0)
        far = stack.enter_context(PostgresStore(server.url, schema=schema))
        outlive_the_lease(near, far, line.freeze, line.heal)
