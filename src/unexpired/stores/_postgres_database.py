"""One schema of one PostgreSQL: its tables, made when they are first needed, and what is asked of them."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from typing import Any

import psycopg

from unexpired.errors import StoreError
from unexpired.stores._postgres_connections import Connections, execute, run, within
from unexpired.stores._postgres_schema import LAYOUT, Statements, migrations
from unexpired.stores._postgres_trouble import Cut, in_words

__all__ = ["Database"]

_log = logging.getLogger("unexpired")
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

    def ask(self, doing: str, statement: bytes, values: Mapping[str, object], key: str | None) -> list[tuple[Any, ...]]:
        """The rows."""
        return self.run(doing, statement, values, key)[0]

    def run(
        self, doing: str, statement: bytes, values: Mapping[str, object], key: str | None
    ) -> tuple[list[tuple[Any, ...]], bool]:
        """The rows, and whether it was cut off and tried again: then the first try may have taken effect."""
        self.prepare(key)
        try:
            # Behind a pooler in transaction mode the next statement may go to a server that has prepared nothing.
            prepare = False if self.pooled else None
            return run(self.connections, statement, values, timeout=self.timeout, prepare=prepare)
        except (psycopg.Error, Cut) as error:
            if getattr(error, "sqlstate", None) in ("42P01", "3F000"):
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
        until = time.monotonic() + self.timeout
        connection = self.connections.take(self.timeout)
        try:
            with within(connection, until, self.timeout):
                process, fsync, there = execute(connection, self.statements.hello, {}, False)[0]
                self.pooled = process != connection.info.backend_pid
                if fsync != "on" and self.place not in _warned_of:
                    _warned_of.add(self.place)
                    _log.warning("%s runs with fsync off: a crash of its machine may lose logins", self.place)
                found = execute(connection, self.statements.layout, {}, False) if there else []
                if found and found[0][0] >= LAYOUT:
                    return int(found[0][0])
                with connection.transaction():
                    return migrations(connection, self._schema)
        finally:
            self.connections.give_back(connection)
