"""Many sessions in PostgreSQL, shared by any number of machines."""

from __future__ import annotations

import hashlib
import weakref
from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any, cast

from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores._closing import Closing
from unexpired.stores._watching import STORED, UNTOLD, board_for, kind_of

try:
    import psycopg
    from psycopg.conninfo import conninfo_to_dict, make_conninfo
    from psycopg.pq import Conninfo
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "PostgresStore needs psycopg, which is not installed: pip install 'unexpired[postgres]'", name=error.name
    ) from None

from unexpired.stores._postgres_connections import Connections, OwnConnections, Pool, TheirConnections
from unexpired.stores._postgres_database import Database
from unexpired.stores._postgres_lease import Asking, PostgresLease, take_lease
from unexpired.stores._postgres_listening import Hearing

__all__ = ["PostgresStore"]

_NAMED = ("host", "hostaddr", "port", "dbname", "service")
_LOOK, _LOOK_UNTOLD = 0.25, 0.1


class PostgresStore(Closing):
    """Keeps any number of sessions in a PostgreSQL database, for a fleet on many machines.

    *url* is a URL (``postgresql://user@host/database``), a connection string, or a `psycopg_pool.ConnectionPool` of
    the program's own, which stays the program's to open and close. Creating the store does not connect; its tables
    are made in *schema* at first use.

    * What `swap` reported as stored is on the server's disk, also where ``synchronous_commit`` is off. What an
      asynchronous standby has not got yet is lost when it takes over.
    * A lease is a row with a deadline on the server's clock. No connection is held while a token request is under way.
    * Changes by others are told by LISTEN/NOTIFY on one more connection and show within milliseconds; while that
      connection is broken, sessions are read again four times a second if they can be, and what is known serves if
      not. Behind a pooler in transaction mode give *listen*, a connection string that goes past the pooler; else
      changes are asked for every *staleness* seconds.
    * Every statement ends within *timeout* seconds, with a StoreError if need be; to connect, each host that does not
      answer takes at least 2 s. A statement that was cut off is tried again once, on a new connection, and what became
      of the first one is looked up.

    At most *connections* connections of its own are open at a time. All methods can be called from any thread, block,
    and raise StoreError only. A forked child makes its own connections; a pool must be made after the fork.

    Raises ConfigurationError for settings that cannot be.
    """

    remote = True

    def __init__(
        self,
        url: str | Pool,
        *,
        schema: str = "unexpired",
        listen: str | None = None,
        staleness: float = 1.0,
        timeout: float = 5.0,
        connections: int = 4,
    ) -> None:
        if not (staleness > 0 and timeout > 0 and connections > 0):
            raise ConfigurationError("staleness, timeout and connections of a PostgresStore are larger than zero")
        if not isinstance(cast("object", url), str | Pool):
            raise ConfigurationError("PostgresStore takes a connection string or a psycopg_pool.ConnectionPool")
        conninfo = url if isinstance(url, str) else _conninfo(url)
        settings = None if conninfo is None else _settings(conninfo)
        self._schema = schema
        self._shown = " ".join(f"{name}={settings[name]}" for name in _NAMED if name in settings) if settings else ""
        where = f"PostgreSQL ({self._shown or 'the default one'}, schema {schema})"
        self._identity: Hashable = ("postgres", schema, id(url) if settings is None else _where(settings))
        theirs = OwnConnections(url, connections) if isinstance(url, str) else TheirConnections(url)
        self._database = Database(theirs, schema, where, timeout)
        line = conninfo if listen is None else listen
        if listen is not None:
            _settings(listen)
        own: Connections = theirs if line is None else OwnConnections(line, 1)
        reads = self._database if listen is not None else None
        hearing = Hearing(Database(own, schema, where, timeout), staleness, direct=listen is not None, reads=reads)
        self._board = board_for(self._identity, hearing, "postgres")
        self._direct = listen is not None
        weakref.finalize(self, theirs.close)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._shown!r}, schema={self._schema!r})"

    @property
    def identity(self) -> Hashable:
        """Equal for all stores in this schema of this database, as far as they name it alike."""
        return self._identity

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none. Asks nobody while it is told of changes and was told of none."""
        self._board.join(self)
        id_ = _id(key)

        def load() -> Session | None:
            rows = self._database.ask("read", self._database.statements.load, {"id": id_}, key)
            return decode(rows[0][0], key, self._database.place) if rows else None

        return self._board.load(id_.hex(), load, self._database.timeout)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* durably if what is stored is *expected* (None: nothing), as `Session.replaces` has it."""
        self._board.join(self)
        id_, record = _id(key), encode(new).decode("ascii")
        name = id_.hex()
        before, kind = self._board.before(name), kind_of(expected, new)
        message = self._board.message(kind, name)
        values: dict[str, object] = {
            "id": id_,
            "key": _bytes(key),
            "login": _bytes(new.login),
            "version": new.version,
            "notes": new.notes,
            "ended": new.ended is not None,
            "record": record,
            "message": message,
            "told": kind != UNTOLD,
        }
        if expected is None:
            statement = self._database.statements.first
        else:
            statement = self._database.statements.version if kind == STORED else self._database.statements.note
            values |= {
                "old_login": _bytes(expected.login),
                "old_version": expected.version,
                "old_notes": expected.notes,
            }
        try:
            rows, again = self._database.run("write", statement, values, key)
            # The first of two tries may have stored it after all: then it is what stands there.
            stored = bool(rows) or (again and self._holds(id_, record, key))
        except BaseException:
            self._board.failed(message, name)
            raise
        if stored:
            self._board.stored(name, before, new)
        else:
            self._board.forget(name)
        return stored

    def stamp(self, key: str) -> Callable[[], object]:
        """A number in memory, which a change by anybody replaces as soon as this process is told of it."""
        self._board.join(self)
        return self._board.entry(_id(key).hex())

    def lease(
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> PostgresLease | None:
        """Wait for the session's lease among all processes on this database; it ends after *seconds*.

        Whoever waits is told when it ends, and looks every quarter of a second. *stop* is asked every 5 ms. The
        answer is None when *wait* seconds have passed or *stop* said so.
        """
        del owner
        self._board.join(self)
        self._board.listen()
        asking = Asking(self._database, self._board, key, _id(key))
        look = _LOOK if self._board.live and (self._direct or not self._database.pooled) else _LOOK_UNTOLD
        return take_lease(asking, seconds=seconds, wait=wait, stop=stop, look=look)

    def set_aside(self, key: str) -> None:
        """Move a record that cannot be read to the table ``aside``. Does nothing when there is none, or it is good."""
        id_ = _id(key)
        rows = self._database.ask("read", self._database.statements.load, {"id": id_}, key)
        try:
            if rows:
                decode(rows[0][0], key, self._database.place)
        except StoreError:
            message = self._board.message(STORED, id_.hex())
            values = {"id": id_, "record": rows[0][0], "message": message}
            if self._database.ask("write", self._database.statements.aside, values, key):
                self._board.heard(message)

    def keys(self) -> Iterator[str]:
        """The keys of all sessions in this schema, ended ones too, as they are while it goes on. Raises StoreError."""
        last = b""
        while rows := self._database.ask("list", self._database.statements.keys, {"id": last}, None):
            yield from (bytes.fromhex(key).decode("utf-8", "surrogatepass") for _, key in rows)
            last = bytes.fromhex(rows[-1][0])

    def close(self) -> None:
        """Close the connections. Using the store again opens them again."""
        self._board.leave(self)
        self._database.connections.close()

    def _holds(self, id_: bytes, record: str, key: str) -> bool:
        return self._database.ask("read", self._database.statements.load, {"id": id_}, key) == [(record,)]


def _conninfo(pool: Pool) -> str | None:
    """How *pool* connects, if that is a string; settings beside it count too."""
    conninfo: object = getattr(pool, "conninfo", None)
    beside: object = getattr(pool, "kwargs", None) or {}
    if not isinstance(conninfo, str) or not isinstance(beside, dict):
        return None
    settings = cast("dict[str, Any]", beside)
    known = {one.keyword.decode() for one in Conninfo.get_defaults()}
    return make_conninfo(conninfo, **{name: value for name, value in settings.items() if name in known})


def _settings(conninfo: str) -> dict[str, Any]:
    try:
        return conninfo_to_dict(conninfo)
    except psycopg.Error:
        pass
    # What psycopg says about it may quote a password, even as a context.
    raise ConfigurationError("this is no connection string of PostgreSQL: write postgresql://user@host/database")


def _where(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The place that connection settings lead to, with the environment's defaults filled in."""
    defaults = {one.keyword.decode(): (one.val or b"").decode() for one in Conninfo.get_defaults()}
    return tuple(str(settings.get(name) or defaults.get(name) or "") for name in (*_NAMED, "user"))


def _id(key: str) -> bytes:
    return hashlib.sha256(_bytes(key)).digest()


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
