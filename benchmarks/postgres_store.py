"""PostgresStore on a server of its own, beside bare psycopg with the same statements; and statements per waiter."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from typing import Any
from unittest import mock

import psycopg

from benchmarks.fleet_release import TASKS, Fleet
from benchmarks.measure import Row, median, timed
from benchmarks.stores import KEY, Floor, chain, each, figures, first, leased, session_of
from tests.stores.postgres_server import PostgresServer, postgres_server
from unexpired._core.record import decode, encode
from unexpired.stores import _postgres_connections as connections
from unexpired.stores._postgres_schema import channel
from unexpired.stores._postgres_talk import Statement
from unexpired.stores.postgres import PostgresStore

OPERATIONS, ROUNDS = 300, 7
_SCHEMA, _WAITER = "recorded", "waiter"
_Sent = tuple[bytes, tuple[Any, ...]]


class _Bare:
    """Bare psycopg, in autocommit and with prepared statements, sending once more what a store sent."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._raw = psycopg.connect(url, autocommit=True, cursor_factory=psycopg.RawCursor)
        with PostgresStore(url, schema=_SCHEMA) as store:
            session = first(store, KEY)
            self._raw.execute(f"CREATE TABLE {_SCHEMA}.first AS TABLE {_SCHEMA}.sessions".encode())
            steps = pairwise(chain(session, OPERATIONS))
            self._load = _recorded(lambda: store.load(KEY)) * OPERATIONS
            self._lease = _recorded(lambda: leased(store)) * OPERATIONS
            self._swaps = _recorded(lambda: [store.swap(KEY, *step) for step in steps])

    def load(self) -> float:
        """Seconds of a load."""
        return self._each(self._load)

    def lease(self) -> float:
        """Seconds of a lease that is taken and given back."""
        return self._each(self._lease)

    def swap(self) -> float:
        """Seconds of a swap."""
        self._raw.execute(f"DELETE FROM {_SCHEMA}.sessions".encode())
        self._raw.execute(f"INSERT INTO {_SCHEMA}.sessions TABLE {_SCHEMA}.first".encode())
        return self._each(self._swaps)

    def heard(self, work: Callable[[], float]) -> float:
        """Whoever wants to hear of changes hears of its own: seconds of *work* while a thread of ours does."""
        name, ready = channel(_SCHEMA), threading.Event()

        def listen() -> None:
            with psycopg.connect(self._url, autocommit=True) as listening:
                listening.execute(f"LISTEN {name}".encode())
                ready.set()
                for told in listening.notifies():
                    if told.payload == "the end":
                        return

        thread = threading.Thread(target=listen)
        thread.start()
        ready.wait()
        try:
            return work()
        finally:
            self._raw.execute(f"NOTIFY {name}, 'the end'".encode())
            thread.join()

    def close(self) -> None:
        """Hang up."""
        self._raw.close()

    def _each(self, statements: list[_Sent]) -> float:
        execute = self._raw.execute

        def send() -> None:
            for text, values in statements:
                if not execute(text, values).fetchall():
                    raise RuntimeError("a statement did nothing")

        return timed(send) / OPERATIONS


def _recorded(work: Callable[[], object]) -> list[_Sent]:
    """What a store sends in *work*."""
    sent: list[_Sent] = []
    real = connections.execute

    def execute(
        connection: connections.Connection, statement: Statement, values: Mapping[str, object], *rest: Any, **how: Any
    ) -> Any:
        sent.append((statement.text, tuple(values[name] for name in statement.names)))
        return real(connection, statement, values, *rest, **how)

    with mock.patch.object(connections, "execute", execute):
        work()
    if not sent:
        raise RuntimeError("the store sent nothing by way of execute")
    return sent


def _costs(url: str) -> list[Row]:
    bare = _Bare(url)
    nobody = "where nobody listens"
    floors = {
        "load": Floor("bare psycopg", bare.load, ("of it to read the record", _decoding)),
        "swap": Floor("bare psycopg, heard", lambda: bare.heard(bare.swap), (nobody, bare.swap)),
        "lease": Floor("bare psycopg, heard", lambda: bare.heard(bare.lease), (nobody, bare.lease)),
    }
    try:
        with PostgresStore(url) as store:
            return figures("PostgresStore", store, 0.7, OPERATIONS, floors)
    finally:
        bare.close()


def _decoding() -> float:
    record = encode(session_of(KEY))
    return each(lambda: decode(record, KEY, "PostgreSQL"), OPERATIONS)


def _statements(server: PostgresServer, processes: int) -> Row:
    """What the server counts for the role that those who wait have to themselves."""
    server.run("CREATE EXTENSION pg_stat_statements")
    server.run(f"CREATE ROLE {_WAITER} LOGIN")
    server.run(f"GRANT USAGE ON SCHEMA unexpired TO {_WAITER}")
    server.run(f"GRANT ALL ON ALL TABLES IN SCHEMA unexpired TO {_WAITER}")
    fleet = Fleet(server.url, processes, theirs=server.url.replace("unexpired@", f"{_WAITER}@"))
    sent = f"SELECT coalesce(sum(calls), 0)::int FROM pg_stat_statements WHERE userid = '{_WAITER}'::regrole"
    counts: list[float] = []
    try:
        for _ in range(ROUNDS):
            server.run("SELECT pg_stat_statements_reset()")
            fleet.release()
            counts.append(int(str(server.run(sent)[0][0])) / processes)
    finally:
        fleet.close()
    number = median(counts)
    title = f"PostgresStore: statements per waiting process, of {processes}"
    note = f"at most {max(counts):.2f}; {TASKS} waiters in each"
    return Row(title, number, "statements", None, "≤ 3", number <= 3, note)


def rows() -> Iterator[Row]:
    """All figures of this store but the time until waiters go on, which `fleet_release` takes for all stores."""
    with postgres_server(shared_preload_libraries="pg_stat_statements") as server:
        yield from _costs(server.url)
        yield _statements(server, 4)
