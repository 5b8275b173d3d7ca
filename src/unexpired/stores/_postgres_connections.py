"""Connections to one PostgreSQL: a few of our own, or those of a pool; each statement bounded and in autocommit."""

from __future__ import annotations

import os
import select
import threading
import time
import weakref
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus
from psycopg.rows import tuple_row

from unexpired.stores._postgres_trouble import Cut, is_cut, may_be_repeated

__all__ = [
    "Connection",
    "Connections",
    "OwnConnections",
    "Pool",
    "TheirConnections",
    "execute",
    "run",
    "within",
]

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]

_TRIES = 4
_STALE = 100
_RECENT = 0.5
"""Seconds for which a connection that was just used is taken to stand; if it does not, the statement is repeated."""
_KEEPALIVE = {"keepalives_idle": 5, "keepalives_interval": 2, "keepalives_count": 3}


@runtime_checkable
class Pool(Protocol):
    """What is used of a `psycopg_pool.ConnectionPool`."""

    def getconn(self, timeout: float | None = None) -> Connection:
        """A connection, for this thread alone."""
        ...

    def putconn(self, conn: Connection) -> None:
        """Give it back."""
        ...


class Connections(Protocol):
    """Where connections come from."""

    def take(self, timeout: float) -> Connection:
        """A connection for this thread alone. Raises psycopg.Error."""
        ...

    def give_back(self, connection: Connection) -> None:
        """Its turn is over, whatever its state."""
        ...

    def close(self) -> None:
        """Let go of what is idle."""
        ...


def connect(conninfo: str, timeout: float) -> Connection:
    """A connection of our own, in autocommit."""
    settings: dict[str, Any] = {"connect_timeout": max(2, round(timeout)), "application_name": "unexpired"}
    given = conninfo_to_dict(conninfo)
    settings = {name: value for name, value in {**_KEEPALIVE, **settings}.items() if name not in given}
    return psycopg.connect(make_conninfo(conninfo, **settings), autocommit=True)


class OwnConnections:
    """At most *most* connections of our own, made when needed. A forked child leaves its parent's alone."""

    def __init__(self, conninfo: str, most: int) -> None:
        self._conninfo = conninfo
        self._most = most
        self.start_anew()
        _own.add(self)

    def start_anew(self) -> None:
        """Forget all connections, without a word to the server."""
        self._idle: list[tuple[float, Connection]] = []
        self._free = threading.BoundedSemaphore(self._most)

    def take(self, timeout: float) -> Connection:
        """An idle one that still stands, or a new one. Waits while all are in use."""
        until = time.monotonic() + timeout
        if not self._free.acquire(timeout=timeout):
            raise Cut(f"all {self._most} connections to it have been in use for {timeout:g} s")
        try:
            while self._idle:
                try:
                    since, connection = self._idle.pop()
                except IndexError:
                    break
                if time.monotonic() - since < _RECENT or _stands(connection):
                    return connection
                connection.close()
            return connect(self._conninfo, max(until - time.monotonic(), 0.1))
        except BaseException:
            self._free.release()
            raise

    def give_back(self, connection: Connection) -> None:
        """Keep it for the next one, unless it is broken."""
        if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
        else:
            self._idle.append((time.monotonic(), connection))
        self._free.release()

    def close(self) -> None:
        """Close what is idle."""
        while self._idle:
            self._idle.pop()[1].close()

    def inherited(self) -> object:
        """Those of a parent process."""
        return self._idle


class TheirConnections:
    """The connections of a pool of the program's own, which opens and closes it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._autocommit: dict[int, bool] = {}

    def take(self, timeout: float) -> Connection:
        """One of the pool's that still stands, in autocommit for this while."""
        connection = self._pool.getconn(timeout)
        for _ in range(_STALE):
            if _stands(connection):
                break
            connection.close()
            self._pool.putconn(connection)
            connection = self._pool.getconn(timeout)
        self._autocommit[id(connection)] = connection.autocommit
        if not connection.autocommit:
            connection.autocommit = True
        return connection

    def give_back(self, connection: Connection) -> None:
        """Back as it was."""
        before = self._autocommit.pop(id(connection), True)
        if not connection.closed and connection.pgconn.transaction_status == TransactionStatus.IDLE:
            if connection.autocommit != before:
                connection.autocommit = before
        else:
            connection.close()
        self._pool.putconn(connection)

    def close(self) -> None:
        """Nothing: it is not ours."""


def _stands(connection: Connection) -> bool:
    """Whether the server has said nothing meanwhile, which would be a goodbye."""
    if connection.closed:
        return False
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return not poll.poll(0)


def run(
    connections: Connections,
    statement: bytes,
    values: Mapping[str, object],
    *,
    timeout: float,
    prepare: bool | None,
) -> tuple[list[Row], bool]:
    """Carry out one statement within *timeout* seconds in all. Raises psycopg.Error or Cut.

    What was surely undone is repeated. So is what was cut off, once, on a new connection; the second part of the answer
    says whether it was, because it may then have taken effect twice.
    """
    until = time.monotonic() + timeout
    cuts = 0
    for number in range(_TRIES):
        left = max(until - time.monotonic(), 0.05)
        connection: Connection | None = None
        try:
            connection = connections.take(left)
            with within(connection, until, timeout):
                return execute(connection, statement, values, prepare), cuts > 0
        except (psycopg.Error, Cut) as error:
            cut = connection is not None and is_cut(error, connection)
            cuts += cut
            again = may_be_repeated(error) or (cut and cuts == 1)
            if not again or number == _TRIES - 1 or time.monotonic() >= until:
                if cut and not isinstance(error, Cut) and not getattr(error, "sqlstate", None):
                    raise Cut("the connection was cut") from error
                raise
        finally:
            if connection is not None:
                connections.give_back(connection)
    raise AssertionError("unreachable")


def execute(connection: Connection, statement: bytes, values: Mapping[str, object], prepare: bool | None) -> list[Row]:
    """The rows of one statement, whatever cursors and rows the connection makes by itself."""
    with psycopg.Cursor(connection, row_factory=tuple_row) as cursor:
        return cursor.execute(statement, values, prepare=prepare).fetchall()


@contextmanager
def within(connection: Connection, until: float, timeout: float) -> Generator[None]:
    """Bound what is done on *connection*: a server that is stopped or cut off answers nothing, for hours."""
    wait = connection.wait

    def bounded(talk: Generator[Any, Any, Any], *args: Any, **options: Any) -> Any:
        return wait(_bounded(talk, until, timeout), *args, **options)

    connection.wait = bounded  # type: ignore[method-assign, assignment]
    try:
        yield
    except Cut:
        connection.close()
        raise
    finally:
        del connection.wait


def _bounded(talk: Generator[Any, Any, Any], until: float, timeout: float) -> Generator[Any, Any, Any]:
    try:
        waits = next(talk)
        while True:
            ready = yield waits
            if not ready and time.monotonic() >= until:
                raise Cut(f"it has not answered for {timeout:g} s")
            waits = talk.send(ready)
    except StopIteration as stop:
        return stop.value


_own: weakref.WeakSet[OwnConnections] = weakref.WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """In a forked child: to use, or even to close, what the parent opened would end the parent's sessions."""
    for connections in list(_own):
        _inherited.append(connections.inherited())
        connections.start_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
