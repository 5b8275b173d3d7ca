"""Connections to one PostgreSQL: a few of our own, or those of a pool; each statement bounded, and repeated if cut."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import TransactionStatus

from unexpired.stores._postgres_talk import Bound, Connection, Row, Statement, execute, is_ready
from unexpired.stores._postgres_trouble import Cut, is_cut, is_read_only, may_be_repeated

__all__ = [
    "Connection",
    "Connections",
    "OwnConnections",
    "Pool",
    "TheirConnections",
    "execute",
    "run",
    "take",
]

_TRIES = 4
_STALE = 100
_SETTINGS = {
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
    "application_name": "unexpired",
    "client_encoding": "UTF8",
}


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
        """A connection for this thread alone, outside of a transaction. Raises psycopg.Error."""
        ...

    def give_back(self, connection: Connection) -> None:
        """Its turn is over, whatever its state."""
        ...

    def close(self) -> None:
        """Let go of what is idle."""
        ...


def connect(conninfo: str, timeout: float) -> Connection:
    """A connection of our own, in autocommit, to the first of the hosts that answers in its share of the time."""
    given = conninfo_to_dict(conninfo)
    hosts = str(given.get("hostaddr") or given.get("host") or "").count(",") + 1
    settings: dict[str, Any] = {**_SETTINGS, "connect_timeout": max(2, int(timeout / hosts))}
    settings = {name: value for name, value in settings.items() if name not in given}
    return psycopg.connect(make_conninfo(conninfo, **settings), autocommit=True)


class OwnConnections:
    """At most *most* connections of our own, made when needed. A forked child leaves its parent's alone."""

    def __init__(self, conninfo: str, most: int) -> None:
        self._conninfo = conninfo
        self._most = most
        self._end: Any = None
        self.start_anew()
        _own.add(self)

    def start_anew(self) -> None:
        """Forget all connections, without a word to the server."""
        if self._end is not None:
            self._end.detach()
        self._idle: list[Connection] = []
        self._end = weakref.finalize(self, _close, self._idle)
        self._free = threading.BoundedSemaphore(self._most)

    def take(self, timeout: float) -> Connection:
        """An idle one that still stands, or a new one. Waits while all are in use."""
        until = time.monotonic() + timeout
        if not self._free.acquire(timeout=timeout):
            raise Cut(f"all {self._most} connections to it have been in use for {timeout:g} s")
        try:
            while (connection := _popped(self._idle)) is not None:
                if _stands(connection):
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
            self._idle.append(connection)
        self._free.release()

    def close(self) -> None:
        """Close what is idle."""
        _close(self._idle)

    def inherited(self) -> object:
        """Those of a parent process."""
        return self._idle


def _popped(idle: list[Connection]) -> Connection | None:
    try:
        return idle.pop()
    except IndexError:
        return None


def _close(idle: list[Connection]) -> None:
    while (connection := _popped(idle)) is not None:
        connection.close()


class TheirConnections:
    """The connections of a pool of the program's own, which opens and closes it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def take(self, timeout: float) -> Connection:
        """One of the pool's that still stands."""
        connection = self._pool.getconn(timeout)
        for _ in range(_STALE):
            if _stands(connection):
                break
            connection.close()
            self._pool.putconn(connection)
            connection = self._pool.getconn(timeout)
        return connection

    def give_back(self, connection: Connection) -> None:
        """Back as it was."""
        if connection.closed or connection.pgconn.transaction_status != TransactionStatus.IDLE:
            connection.close()
        self._pool.putconn(connection)

    def close(self) -> None:
        """Nothing: it is not ours."""


def _stands(connection: Connection) -> bool:
    """Whether the server has said nothing meanwhile, which would be a goodbye."""
    return not connection.closed and not is_ready(connection.pgconn.socket, 0)


def take(connections: Connections, bound: Bound) -> Connection:
    """A connection with some time left to use it. Raises psycopg.Error or Cut."""
    connection = connections.take(max(bound.left(), 0.05))
    if bound.left() <= 0:
        # A host that is dead may cost all the time that there is: at least the next one has this connection at once.
        connections.give_back(connection)
        raise Cut(f"there was no connection to it within {bound.seconds:g} s")
    return connection


def run(
    connections: Connections,
    statement: Statement,
    values: Mapping[str, object],
    *,
    timeout: float,
    prepare: bool,
) -> tuple[list[Row], bool]:
    """Carry out one statement within *timeout* seconds in all. Raises psycopg.Error or Cut.

    What was surely undone is repeated. So is what was cut off, once, on a new connection; the second part of the answer
    says whether it was, because it may then have taken effect twice.
    """
    bound = Bound(timeout)
    cuts = demotions = 0
    for number in range(_TRIES):
        connection: Connection | None = None
        try:
            connection = take(connections, bound)
            return execute(connection, statement, values, bound, prepare=prepare), cuts > 0
        except (psycopg.Error, Cut) as error:
            cut = connection is not None and is_cut(error, connection)
            cuts += cut
            demoted = connection is not None and is_read_only(error)
            demotions += demoted
            if demoted and connection is not None:
                # Another server may be the primary by now, at the same address or another: connect anew.
                connection.close()
                connections.close()
            again = may_be_repeated(error) or (cut and cuts == 1) or (demoted and demotions == 1)
            if not again or number == _TRIES - 1 or bound.left() <= 0:
                raise
        finally:
            if connection is not None:
                connections.give_back(connection)
    raise AssertionError("unreachable")


_own: weakref.WeakSet[OwnConnections] = weakref.WeakSet()
_inherited: list[object] = []


def _after_fork() -> None:
    """In a forked child: to use, or even to close, what the parent opened would end the parent's sessions."""
    for connections in list(_own):
        _inherited.append(connections.inherited())
        connections.start_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
