"""One schema of one PostgreSQL: its tables, made when they are first needed, and what is asked of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import psycopg

from unexpired.errors import StoreError
from unexpired.stores._postgres_connections import Connections, run, take
from unexpired.stores._postgres_schema import LAYOUT, Statements, migrations
from unexpired.stores._postgres_talk import Bound, Row, Statement, execute
from unexpired.stores._postgres_trouble import Cut, Refusal, in_words

__all__ = ["Database"]

_log = logging.getLogger("unexpired")
_NO_TABLES = ("42P01", "3F000")
_warned_of: set[str] = set()


class Database:
    """Carries out statements, each in a transaction of its own. Raises StoreError only.

    *pooled* says, once something was asked, whether a pooler stands before the server.
    """

    def __init__(self, connections: Connections, schema: str, place: str, timeout: float) -> None:
        self.connections = connections
        self.statements = Statements(schema)
        self.place = place
        self.timeout = timeout
        self.pooled = False
        self._schema = schema
        self._ready = False

    def ask(self, doing: str, statement: Statement, values: Mapping[str, object], key: str | None) -> list[Row]:
        """The rows."""
        return self.run(doing, statement, values, key)[0]

    def run(
        self, doing: str, statement: Statement, values: Mapping[str, object], key: str | None
    ) -> tuple[list[Row], bool]:
        """The rows, and whether it was cut off and tried again: then the first try may have taken effect."""
        self.prepare(key)
        try:
            # Behind a pooler in transaction mode the next statement may go to a server that has prepared nothing.
            return run(self.connections, statement, values, timeout=self.timeout, prepare=not self.pooled)
        except (psycopg.Error, Cut) as error:
            if getattr(error, "sqlstate", None) in _NO_TABLES:
                self._ready = False
            trouble = in_words(doing, self.place, error, key)
        # Outside of the handler: not even the error's context may quote a row.
        raise trouble

    def prepare(self, key: str | None) -> None:
        """See to it, once, that the tables are there and of this layout."""
        if self._ready:
            return
        trouble: StoreError | None = None
        try:
            found = self._look_around()
        except (psycopg.Error, Cut) as error:
            trouble = in_words("open", self.place, error, key)
        else:
            if found > LAYOUT:
                trouble = StoreError(
                    f"cannot read {self.place}: it was written by a newer unexpired (this one knows layouts up to "
                    f"{LAYOUT}); update this program",
                    key=key,
                )
        if trouble is not None:
            raise trouble
        self._ready = True

    def _look_around(self) -> int:
        """The layout of the tables, which are made or brought up to date where they are not of this one."""
        bound = Bound(self.timeout)
        connection = take(self.connections, bound)

        def do(statement: Statement, values: Mapping[str, object]) -> list[Row]:
            return execute(connection, statement, values, bound, prepare=False)

        try:
            try:
                found = do(self.statements.hello, {})
            except Refusal as error:
                if error.sqlstate not in _NO_TABLES:
                    raise
                found = []
            if not found or int(found[0][2] or 0) < LAYOUT:
                migrations(do, self._schema)
                found = do(self.statements.hello, {})
            process, fsync, layout = found[0]
            self.pooled = int(process) != connection.pgconn.backend_pid
            if fsync != "on" and self.place not in _warned_of:
                _warned_of.add(self.place)
                _log.warning("%s runs with fsync off: a crash of its machine may lose logins", self.place)
            return int(layout)
        finally:
            self.connections.give_back(connection)
