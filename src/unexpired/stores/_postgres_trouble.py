"""What psycopg raises, in our words: what to do about it, and nothing of what was to be stored."""

from __future__ import annotations

import psycopg
from psycopg import errors

from unexpired.errors import StoreError

__all__ = ["Cut", "Refusal", "advice", "in_words", "is_cut", "is_read_only", "may_be_repeated"]

_READ_ONLY = (
    "this server is a standby or read-only: name the primary, or several hosts with target_session_attrs=read-write"
)
_NO_SUCH_HOST = "its name could not be resolved; check its address"
_TOO_OLD = "it is older than PostgreSQL 13, which this store needs"
_ADVICE = {
    "08P01": "the pooler or the server did not take it: see its log",
    "0A000": _READ_ONLY,
    "25006": _READ_ONLY,
    "28": "check user and password, and the server's pg_hba.conf",
    "3D000": "create the database first: createdb",
    "3F000": "its tables have gone since this process started; the next use makes them anew",
    "42704": _TOO_OLD,
    "42883": _TOO_OLD,
    "42P01": "its tables have gone since this process started; the next use makes them anew",
    "40": "it was rolled back again and again because of others: see the server's log for who holds locks for long",
    "42501": "let the owner of the schema use this store once, then grant this user USAGE on it and ALL on its tables",
    "53100": "its disk is full: free some space there",
    "53200": "it is out of memory: see its log",
    "53300": "it takes no more connections: raise its max_connections, or use a pooler",
    "55P03": "somebody holds a lock for long: look for a transaction that was left open",
    "57014": "it took longer than the server's statement_timeout",
    "57": "it is shutting down or starting up: try again in a moment",
    "58": "it has trouble with its disk: see its log",
    "XX": "its data may be damaged: see its log",
    "22": "it holds what cannot be stored there",
}
"""By SQLSTATE, or by its class."""


class Cut(Exception):
    """The connection was cut, or no answer came in time: whether the statement took effect is not known."""


class Refusal(psycopg.DatabaseError):
    """The server refused, with a code. Its words are left where they are: they may quote what was to be stored."""

    def __init__(self, state: str) -> None:
        super().__init__(f"SQLSTATE {state}")
        self.sqlstate = state


def advice(error: Exception) -> str:
    """What happened and what to do, without a word of what was sent: a server's own text may quote a row."""
    if isinstance(error, Cut):
        return f"{error}; try again when it can be reached"
    state = getattr(error, "sqlstate", None)
    if state is None:
        return _without_state(error)
    known = _ADVICE.get(state) or _ADVICE.get(state[:2]) or "see the server's log"
    try:
        name = errors.lookup(state).__name__
    except KeyError:
        name = "SQLSTATE"
    return f"{name} ({state}); {known}"


def _without_state(error: Exception) -> str:
    if isinstance(error, psycopg.errors.ConnectionTimeout) or "timeout" in type(error).__name__.lower():
        return "no connection in time; check its address, and whether it can be reached from here"
    if not isinstance(error, psycopg.OperationalError):
        return f"{type(error).__name__}; see the server's log"
    # What libpq says about connecting names host, port, user and database, never the password.
    text = str(error).lower()
    for sign, meaning in (
        ("client certificate", "the server asks for a client certificate; give one by sslcert and sslkey"),
        ("certificate", "its certificate is not trusted; check sslmode and sslrootcert"),
        ("pg_hba.conf", "the server does not let this user in from here; check user and password, and its pg_hba.conf"),
        ("authentication", "the server does not let this user in; check user and password, and its pg_hba.conf"),
        ("password", "the server asks for a password; give it by PGPASSWORD or a password file"),
        ("does not exist", "there is no such database or user; create it first"),
        ("too many", "it takes no more connections; raise its max_connections, or use a pooler"),
        ("starting up", "it is starting up; try again in a moment"),
        ("shutting down", "it is shutting down; try again in a moment"),
        ("in recovery mode", "it is starting up after a crash; try again in a moment"),
        ("read-only", _READ_ONLY),
        ("recovery", _READ_ONLY),
        ("refused", "nobody listens there; start it, or check its address"),
        ("translate host name", _NO_SUCH_HOST),
        ("resolve host", _NO_SUCH_HOST),
        ("ssl", "no agreement on TLS; check sslmode"),
    ):
        if sign in text:
            return meaning
    return "the connection was cut; try again when it can be reached"


def is_cut(error: Exception, connection: psycopg.Connection[object] | None) -> bool:
    """Whether the connection is gone, so that the statement may or may not have taken effect."""
    if isinstance(error, Cut):
        return True
    return connection is not None and (connection.closed or connection.broken)


def may_be_repeated(error: Exception) -> bool:
    """Whether the server surely undid it, for reasons that pass at once: a deadlock, a serialization failure."""
    return (getattr(error, "sqlstate", None) or "") in ("40001", "40P01")


def is_read_only(error: Exception) -> bool:
    """Whether the server did nothing because it is no primary (any more)."""
    return (getattr(error, "sqlstate", None) or "") in ("25006", "0A000")


def in_words(doing: str, place: str, error: Exception, key: str | None = None) -> StoreError:
    """The error to raise instead, outside of the handler: not even its context may quote a row."""
    return StoreError(f"cannot {doing} {place}: {advice(error)}", key=key)
