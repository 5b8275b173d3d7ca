"""The tables of `PostgresStore`, how they come about, and the statements on them."""

from __future__ import annotations

import hashlib
import re
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import tuple_row

from unexpired.errors import ConfigurationError

__all__ = ["LAYOUT", "Statements", "channel", "migrations"]

_MIGRATIONS: tuple[tuple[LiteralString, ...], ...] = (
    (
        """CREATE TABLE {schema}.sessions (
            id bytea PRIMARY KEY, key bytea NOT NULL, login bytea NOT NULL, version bigint NOT NULL,
            notes bigint NOT NULL, ended boolean NOT NULL, record text NOT NULL, changed timestamptz NOT NULL,
            change text NOT NULL, xact xid8 NOT NULL)""",
        "CREATE INDEX ON {schema}.sessions (xact)",
        "CREATE TABLE {schema}.aside (key bytea NOT NULL, record text NOT NULL, at timestamptz NOT NULL)",
        # Who loses them at a crash of the server is safe all the same: the intent in the session is waited for.
        """CREATE UNLOGGED TABLE {schema}.leases (
            id bytea PRIMARY KEY, holder text NOT NULL, until timestamptz NOT NULL)""",
    ),
)
"""What leads from each layout to the next. Only ever added to."""

LAYOUT = len(_MIGRATIONS)


def channel(schema: str) -> str:
    """The name under which changes are told: one word, whatever the schema is called."""
    return f"unexpired_{hashlib.sha256(schema.encode()).hexdigest()[:16]}"


def migrations(connection: psycopg.Connection[Any], schema: str) -> int:
    """Bring the tables up to date, in a transaction that is open already. Returns the layout that was found."""
    names = {"schema": sql.Identifier(schema), "n": sql.Literal(LAYOUT)}

    def do(text: LiteralString, *values: object) -> psycopg.Cursor[Any]:
        cursor = psycopg.Cursor(connection, row_factory=tuple_row)
        return cursor.execute(sql.SQL(text).format(**names), values or None, prepare=False)

    # Two processes that start at once: the second one finds everything done.
    do("SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))", channel(schema))
    # Asked of the tables themselves: what to_regclass and its like say may be from before the lock.
    if do("SELECT FROM pg_namespace WHERE nspname = %s", schema).fetchone() is None:
        do("CREATE SCHEMA {schema}")
    found = "SELECT FROM pg_class WHERE relname = 'layout' AND relnamespace = "
    found += "(SELECT oid FROM pg_namespace WHERE nspname = %s)"
    if do(found, schema).fetchone() is None:
        do("CREATE TABLE {schema}.layout (version integer NOT NULL)")
        do("INSERT INTO {schema}.layout VALUES (0)")
    row = do("SELECT version FROM {schema}.layout").fetchone()
    version = int(row[0]) if row else 0
    for statements in _MIGRATIONS[version:]:
        for statement in statements:
            do(statement)
    if version < LAYOUT:
        do("UPDATE {schema}.layout SET version = {n}")
    return version


_PARTS: dict[str, LiteralString] = {
    # What is told is told at the commit, with what it tells of.
    "tell": "pg_notify({channel}, %(message)s)",
    "durable": (
        "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END"
    ),
    "now": "clock_timestamp()",
    "end": "clock_timestamp() + %(seconds)s * interval '1 second'",
}
_STATEMENTS: dict[str, LiteralString] = {
    "hello": "SELECT pg_backend_pid(), current_setting('fsync'), to_regclass({layout}) IS NOT NULL",
    "layout": "SELECT version FROM {schema}.layout",
    "load": "SELECT record FROM {schema}.sessions WHERE id = %(id)s",
    "first": """
        WITH stored AS (
            INSERT INTO {schema}.sessions (id, key, login, version, notes, ended, record, changed, change, xact)
            VALUES (%(id)s, %(key)s, %(login)s, %(version)s, %(notes)s, %(ended)s, %(record)s, {now}, %(message)s,
                    pg_current_xact_id())
            ON CONFLICT (id) DO NOTHING RETURNING 1)
        SELECT {tell}, {durable} FROM stored""",
    "version": """
        WITH stored AS (
            UPDATE {schema}.sessions
            SET login = %(login)s, version = %(version)s, notes = %(notes)s, ended = %(ended)s, record = %(record)s,
                changed = {now}, change = %(message)s, xact = pg_current_xact_id()
            WHERE id = %(id)s AND login = %(old_login)s AND version = %(old_version)s RETURNING 1)
        SELECT {tell}, {durable} FROM stored""",
    "note": """
        WITH stored AS (
            UPDATE {schema}.sessions
            SET notes = %(notes)s, ended = %(ended)s, record = %(record)s, changed = {now}, change = %(message)s,
                xact = pg_current_xact_id()
            WHERE id = %(id)s AND login = %(old_login)s AND version = %(old_version)s AND notes = %(old_notes)s
            RETURNING 1)
        SELECT CASE WHEN %(told)s THEN {tell} END, {durable} FROM stored""",
    "aside": """
        WITH gone AS (
            DELETE FROM {schema}.sessions WHERE id = %(id)s AND record = %(record)s RETURNING key, record),
        kept AS (
            INSERT INTO {schema}.aside (key, record, at) SELECT key, record, {now} FROM gone RETURNING 1)
        SELECT {tell}, {durable} FROM kept""",
    "take": """
        WITH granted AS (
            INSERT INTO {schema}.leases AS lease (id, holder, until) VALUES (%(id)s, %(holder)s, {end})
            ON CONFLICT (id) DO UPDATE SET holder = excluded.holder, until = {end}
            WHERE lease.until <= {now} RETURNING until)
        SELECT true, extract(epoch FROM until)::float8 - %(seconds)s FROM granted
        UNION ALL
        SELECT false, extract(epoch FROM until - {now})::float8 FROM {schema}.leases
        WHERE id = %(id)s AND NOT EXISTS (SELECT FROM granted)""",
    "renew": """
        UPDATE {schema}.leases SET until = {end}
        WHERE id = %(id)s AND holder = %(holder)s AND until > {now} RETURNING 1""",
    "release": """
        WITH freed AS (
            UPDATE {schema}.leases SET holder = '', until = to_timestamp(0)
            WHERE id = %(id)s AND holder = %(holder)s RETURNING 1)
        SELECT {tell} FROM freed""",
    "listen": "LISTEN {listened}",
    "now": "SELECT pg_snapshot_xmin(pg_current_snapshot())::text",
    "since": """
        SELECT pg_snapshot_xmin(pg_current_snapshot())::text, sessions.change
        FROM (SELECT) AS one LEFT JOIN {schema}.sessions ON sessions.xact >= %(floor)s::xid8""",
}


class Statements:
    """The statements, for one schema."""

    def __init__(self, schema: str) -> None:
        if not re.fullmatch(r"\w[\w$-]*", schema) or len(schema.encode()) > 63:
            raise ConfigurationError(f"{schema!r} cannot be the schema: use up to 63 letters, digits and underscores")
        names: dict[str, sql.Composable] = {
            "schema": sql.Identifier(schema),
            "layout": sql.Literal(sql.Identifier(schema, "layout").as_string()),
            "channel": sql.Literal(channel(schema)),
            "listened": sql.Identifier(channel(schema)),
        }
        names |= {name: sql.SQL(text).format(**names) for name, text in _PARTS.items()}
        texts = {name: sql.SQL(text).format(**names).as_bytes() for name, text in _STATEMENTS.items()}
        self.hello, self.layout = texts["hello"], texts["layout"]
        self.load, self.first = texts["load"], texts["first"]
        self.version, self.note, self.aside = texts["version"], texts["note"], texts["aside"]
        self.take, self.renew, self.release = texts["take"], texts["renew"], texts["release"]
        self.listen, self.now, self.since = texts["listen"], texts["now"], texts["since"]
