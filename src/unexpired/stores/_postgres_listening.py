"""How `PostgresStore` hears of changes: LISTEN on a connection of its own, or a small question every so often."""

from __future__ import annotations

import select
import socket
from contextlib import suppress
from functools import partial

import psycopg
from psycopg.pq.abc import PGconn

from unexpired.errors import StoreError
from unexpired.stores._listening import PATIENCE, Run
from unexpired.stores._postgres_database import Database
from unexpired.stores._postgres_talk import Bound, Connection, execute
from unexpired.stores._postgres_trouble import Cut, in_words

__all__ = ["Hearing"]


class Hearing:
    """Listens as well as it can: on a connection without a pooler, or where that was promised, by LISTEN.

    *database* has a connection that nobody else uses, or those of a pool. Sessions are read through *reads*, if that
    is another way.
    """

    def __init__(self, database: Database, staleness: float, *, direct: bool, reads: Database | None = None) -> None:
        self._database = database
        self._reads = reads or database
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

    def reads(self) -> bool:
        """Whether a session could be read now."""
        try:
            self._reads.ask("read", self._reads.statements.now, {}, None)
            return True
        except StoreError:
            return False
        finally:
            if self._reads is self._database:
                self._database.connections.close()

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
        except TimeoutError:
            trouble = in_words("listen to", self._database.place, Cut(f"it has not answered for {PATIENCE:g} s"))
        except (psycopg.Error, Cut, OSError) as error:
            trouble = in_words("listen to", self._database.place, error)
        raise trouble

    def _follow(self, connection: Connection, run: Run) -> None:
        database = self._database
        bound = Bound(database.timeout)
        for statement in (database.statements.stay, database.statements.listen):
            execute(connection, statement, {}, bound, prepare=False)
        pgconn = connection.pgconn
        ours, theirs = socket.socketpair()
        with ours, theirs:
            run.poke = partial(_poke, theirs)
            poll = select.poll()
            poll.register(pgconn.socket, select.POLLIN)
            poll.register(ours, select.POLLIN)

            def hear(timeout: float) -> bool:
                said = bool(poll.poll(timeout * 1000))
                if said:
                    pgconn.consume_input()
                    _hear(pgconn, run)
                    while not pgconn.is_busy() and pgconn.get_result() is not None:
                        pass
                return said

            run.up()
            _hear(pgconn, run)
            run.follow(hear, partial(pgconn.send_query, b""))

    def _ask_again_and_again(self, run: Run) -> None:
        """One statement, however many sessions there are: what was written by transactions that were not over before.

        The oldest of those may go on for long, and what came after it is found again: it counts once.
        """
        database = self._database
        floor = str(database.ask("read", database.statements.now, {}, None)[0][0])
        run.up()
        told: set[str] = set()
        while run.is_wanted():
            run.pause(self._staleness)
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
