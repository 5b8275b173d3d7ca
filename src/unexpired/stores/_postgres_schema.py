"""The tables of `PostgresStore`, how they come about, and the statements on them."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping

from psycopg import sql

from unexpired.errors import ConfigurationError
from unexpired.stores._postgres_talk import Row, Statement

__all__ = ["LAYOUT", "Statements", "channel", "migrations"]

_MIGRATIONS: tuple[tuple[str, ...], ...] = (
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
_LONGEST = 63


def channel(schema: str) -> str:
    """The name under which changes are told: one word, whatever the schema is called."""
    return f"unexpired_{hashlib.sha256(schema.encode()).hexdigest()[:16]}"


def migrations(do: Callable[[Statement, Mapping[str, object]], list[Row]], schema: str) -> None:
    """Bring the tables up to date, in a transaction of its own: *do* carries out one statement after another."""
    quoted = _quoted(schema)

    def ask(text: str, **values: object) -> list[Row]:
        return do(Statement(text, quoted), values)

    ask("BEGIN")
    # Two processes that start at once: the second one finds everything done.
    ask("SELECT pg_advisory_xact_lock(hashtextextended(%(name)s, 0))", name=channel(schema))
    # Asked of the tables themselves: what to_regclass and its like say may be from before the lock.
    if not ask("SELECT 1 FROM pg_namespace WHERE nspname = {name}"):
        ask("CREATE SCHEMA {schema}")
    found = "SELECT 1 FROM pg_class WHERE relname = 'layout' AND relnamespace = "
    found += "(SELECT oid FROM pg_namespace WHERE nspname = {name})"
    if not ask(found):
        ask("CREATE TABLE {schema}.layout (version integer NOT NULL)")
        ask("INSERT INTO {schema}.layout VALUES (0)")
    rows = ask("SELECT version FROM {schema}.layout")
    version = int(rows[0][0]) if rows else 0
    for statements in _MIGRATIONS[version:]:
        for statement in statements:
            ask(statement)
    if version < LAYOUT:
        ask("UPDATE {schema}.layout SET version = %(version)s", version=LAYOUT)
    ask("COMMIT")


def _quoted(schema: str) -> dict[str, str]:
    """What stands in the statements for good."""
    return {
        "schema": sql.Identifier(schema).as_string(),
        "name": sql.Literal(schema).as_string(),
        "channel": sql.Literal(channel(schema)).as_string(),
        "listened": sql.Identifier(channel(schema)).as_string(),
    }


_PARTS = {
    # What is told is told at the commit, with what it tells of.
    "tell": "pg_notify({channel}, %(message)s)",
    "durable": (
        "CASE current_setting('synchronous_commit') WHEN 'off' THEN set_config('synchronous_commit', 'on', true) END"
    ),
    "now": "clock_timestamp()",
    "end": "clock_timestamp() + %(seconds)s * interval '1 second'",
}
_STATEMENTS = {
    "hello": "SELECT pg_backend_pid(), current_setting('fsync'), (SELECT max(version) FROM {schema}.layout)",
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
            WHERE lease.until <= {now} OR lease.holder = excluded.holder RETURNING until)
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
    "keys": """
        SELECT encode(id, 'hex'), encode(key, 'hex') FROM {schema}.sessions
        WHERE id > %(id)s ORDER BY id LIMIT 1000""",
    # A connection that only listens is idle all the time. Older servers do not know that setting.
    "stay": "SELECT set_config(name, '0', false) FROM pg_settings WHERE name = 'idle_session_timeout'",
    "listen": "LISTEN {listened}",
    "now": "SELECT pg_snapshot_xmin(pg_current_snapshot())::text",
    "since": """
        SELECT pg_snapshot_xmin(pg_current_snapshot())::text, sessions.change
        FROM (SELECT) AS one LEFT JOIN {schema}.sessions ON sessions.xact >= %(floor)s::xid8""",
}


class Statements:
    """The statements, for one schema."""

    def __init__(self, schema: str) -> None:
        if not schema.isprintable() or not 0 < len(schema.encode()) <= _LONGEST or schema.startswith("pg_"):
            raise ConfigurationError(
                f"{schema!r} cannot be the schema: use up to {_LONGEST} bytes of plain text, not beginning with pg_"
            )
        quoted = _quoted(schema)
        made = {name: Statement(_whole(text), quoted) for name, text in _STATEMENTS.items()}
        self.hello, self.keys = made["hello"], made["keys"]
        self.load, self.first = made["load"], made["first"]
        self.version, self.note, self.aside = made["version"], made["note"], made["aside"]
        self.take, self.renew, self.release = made["take"], made["renew"], made["release"]
        self.now, self.since = made["now"], made["since"]
        self.stay, self.listen = made["stay"], made["listen"]


def _whole(text: str) -> str:
    """A statement with its parts in it."""
    for name, part in _PARTS.items():
        text = text.replace(f"{{{name}}}", part)
    return text
