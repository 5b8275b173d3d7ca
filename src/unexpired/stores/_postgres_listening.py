"""How `PostgresStore` hears of changes: LISTEN on a connection of its own, or a small question every so often."""

from __future__ import annotations

import select
import socket
import time
from contextlib import suppress
from functools import partial

import psycopg
from psycopg.pq.abc import PGconn

from unexpired.stores._postgres_connections import Connection, within
from unexpired.stores._postgres_database import Database
from unexpired.stores._postgres_trouble import Cut, in_words
from unexpired.stores._watching import Run

__all__ = ["Hearing"]

_TICK = 1.0
_HEALTH = 5.0
"""Seconds of silence after which the server is asked whether it is there, and has to answer in the next as many."""


class Hearing:
    """Listens as well as it can: on a connection without a pooler, or where that was promised, by LISTEN.

    *database* has a connection that nobody else uses, or those of a pool.
    """

    def __init__(self, database: Database, staleness: float, *, direct: bool) -> None:
        self._database = database
        self._staleness = staleness
        self._direct = direct

    @property
    def asks(self) -> bool:
        """Whether it has to ask for changes."""
        return not self._direct and self._database.pooled

    def __call__(self, run: Run) -> None:
        """See `Listen`. Raises StoreError."""
        database = self._database
        database.prepare(None)
        try:
            if self.asks:
                self._ask_again_and_again(run)
            else:
                self._listen(run)
        finally:
            database.connections.close()

    def _listen(self, run: Run) -> None:
        connections = self._database.connections
        try:
            connection = connections.take(self._database.timeout)
            try:
                self._follow(connection, run)
            finally:
                connection.close()
                connections.give_back(connection)
            return
        except (psycopg.Error, Cut, OSError) as error:
            trouble = in_words("listen to", self._database.place, error)
        raise trouble

    def _follow(self, connection: Connection, run: Run) -> None:
        database = self._database
        with within(connection, time.monotonic() + database.timeout, database.timeout):
            connection.execute(database.statements.listen, prepare=False)
        pgconn = connection.pgconn
        ours, theirs = socket.socketpair()
        with ours, theirs:
            run.poke = partial(_poke, theirs)
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN)
            poll.register(ours, select.POLLIN)
            run.up()
            _hear(pgconn, run)
            silent_since, asked = time.monotonic(), False
            while run.wanted:
                if poll.poll(_TICK * 1000):
                    pgconn.consume_input()
                    _hear(pgconn, run)
                    while not pgconn.is_busy() and pgconn.get_result() is not None:
                        asked = False
                    silent_since = time.monotonic()
                elif time.monotonic() - silent_since > _HEALTH:
                    if asked:
                        raise Cut(f"it has not answered for {_HEALTH:g} s")
                    pgconn.send_query(b"")
                    silent_since, asked = time.monotonic(), True

    def _ask_again_and_again(self, run: Run) -> None:
        """One statement, however many sessions there are: what was written by transactions that were not over before.

        The oldest of those may go on for long, and what came after it is found again: it counts once.
        """
        database = self._database
        floor = str(database.ask("read", database.statements.now, {}, None)[0][0])
        run.up()
        told: set[str] = set()
        while run.wanted:
            run.closing.wait(self._staleness)
            rows = database.ask("read", database.statements.since, {"floor": floor}, None)
            floor = str(rows[0][0])
            found = {str(change) for _, change in rows if change is not None}
            for change in found - told:
                run.heard(change)
            told = found


def _poke(other_end: socket.socket) -> None:
    with suppress(OSError):  # it has ended meanwhile
        other_end.send(b"!")


def _hear(pgconn: PGconn, run: Run) -> None:
    while (told := pgconn.notifies()) is not None:
        run.heard(told.extra.decode("ascii", "replace"))
