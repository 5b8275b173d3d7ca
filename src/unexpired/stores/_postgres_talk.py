"""One statement on one connection, within a bound: by libpq as `psycopg.pq` has it, without a cursor's way round."""

from __future__ import annotations

import hashlib
import re
import select
import time
import weakref
from collections.abc import Mapping
from typing import Any

import psycopg
from psycopg.pq import DiagnosticField, ExecStatus
from psycopg.pq.abc import PGconn, PGresult

from unexpired.stores._postgres_trouble import Cut, Refusal

__all__ = ["Bound", "Connection", "Row", "Statement", "execute", "is_ready"]

Connection = psycopg.Connection[Any]
Row = tuple[Any, ...]
"""Values as the server writes them in text, None for NULL."""

_FINE = (ExecStatus.TUPLES_OK.value, ExecStatus.COMMAND_OK.value)
_FORGOTTEN, _KNOWN = "26000", "42P05"
"""The server does not know what was prepared, and has done nothing; or it knows it already."""
_NEVER = -(1 << 62)


class Statement:
    """What the server is sent: *text* with ``$1`` and so on for *names*, and the *handle* it is prepared under."""

    __slots__ = ("handle", "names", "text")

    def __init__(self, text: str, quoted: Mapping[str, str]) -> None:
        """*text* has ``%(name)s`` for what is given with each use, and ``{name}`` for what *quoted* says for good."""
        numbers: dict[str, int] = {}

        def number(found: re.Match[str]) -> str:
            return f"${numbers.setdefault(found[1], len(numbers) + 1)}"

        # In this order, and each once: a quoted name may look like either of them.
        text = re.sub(r"%\((\w+)\)s", number, text)
        text = re.sub(r"\{(\w+)\}", lambda found: quoted[found[1]], text)
        self.names = tuple(numbers)
        self.text = text.encode()
        # The same handle means the same text, whoever prepared it: some poolers hand on what others prepared.
        self.handle = f"unexpired_{hashlib.sha256(self.text).hexdigest()[:32]}".encode()


class Bound:
    """*seconds* from now."""

    __slots__ = ("seconds", "until")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.until = time.monotonic() + seconds

    def left(self) -> float:
        """Seconds until then, less than none afterwards."""
        return self.until - time.monotonic()


def execute(
    connection: Connection, statement: Statement, values: Mapping[str, object], bound: Bound, *, prepare: bool
) -> list[Row]:
    """The rows. Raises Refusal, or Cut, after which the connection is closed.

    With *prepare* a statement is prepared when the connection has seen it `prepare_threshold` times, as psycopg does.
    """
    pgconn = connection.pgconn
    given = [_written(values[name]) for name in statement.names]
    try:
        result = _try_prepared(connection, statement, given, bound) if prepare else None
        if result is None:
            pgconn.send_query_params(statement.text, given)
            result = _answer(pgconn, bound)
    except Cut:
        connection.close()
        raise
    except psycopg.OperationalError:
        pass
    else:
        state = _state(result)
        if state is None:
            columns = range(result.nfields)
            return [tuple(_read(result.get_value(row, one)) for one in columns) for row in range(result.ntuples)]
        if state:
            raise Refusal(state)
    # Outside of the handler: what libpq says there is of no use, and could quote anything.
    connection.close()
    raise Cut("the connection was cut")


def _try_prepared(connection: Connection, statement: Statement, given: list[bytes], bound: Bound) -> PGresult | None:
    """The answer to the statement if it is prepared by now, else None: it has to be sent as it is."""
    pgconn, threshold = connection.pgconn, connection.prepare_threshold
    uses = _uses.get(connection)
    if uses is None:
        uses = _uses[connection] = {}
    seen = uses.get(statement.handle, 0)
    if seen is not None:
        if threshold is None or seen < threshold:
            uses[statement.handle] = seen + 1
            return None
        pgconn.send_prepare(statement.handle, statement.text)
        state = _state(_answer(pgconn, bound))
        if state not in (None, _KNOWN):
            return None
        uses[statement.handle] = None
    pgconn.send_query_prepared(statement.handle, given)
    result = _answer(pgconn, bound)
    if _state(result) != _FORGOTTEN:
        return result
    uses[statement.handle] = _NEVER
    return None


_uses: weakref.WeakKeyDictionary[Connection, dict[bytes, int | None]] = weakref.WeakKeyDictionary()
"""By connection and handle: how often it was sent as it is, None when it is prepared."""


def _answer(pgconn: PGconn, bound: Bound) -> PGresult:
    """What the server answers to what was just sent. Raises Cut, or psycopg.OperationalError."""
    while pgconn.flush():
        _wait(pgconn, bound, writes=True)
    answer: PGresult | None = None
    while True:
        while pgconn.is_busy():
            _wait(pgconn, bound)
        result = pgconn.get_result()
        if result is None:
            break
        answer = answer or result
    if answer is None:
        raise Cut("the connection was cut")
    return answer


def _wait(pgconn: PGconn, bound: Bound, *, writes: bool = False) -> None:
    if not is_ready(pgconn.socket, bound.left(), writes=writes):
        raise Cut(f"it has not answered for {bound.seconds:g} s")
    pgconn.consume_input()


def is_ready(socket: int, seconds: float, *, writes: bool = False) -> bool:
    """Whether there is something to read (or, if it *writes*, room to write) within so many seconds."""
    seconds = max(seconds, 0.0)
    if not hasattr(select, "poll"):  # pragma: no cover - Windows
        return any(select.select([socket], [socket] if writes else [], [], seconds))
    poll = select.poll()
    poll.register(socket, select.POLLIN | select.POLLOUT if writes else select.POLLIN)
    return bool(poll.poll(seconds * 1000))


def _state(result: PGresult) -> str | None:
    """None if all is well, the server's code if it refused, nothing if it said nothing any more."""
    if result.status in _FINE:
        return None
    return (result.error_field(DiagnosticField.SQLSTATE) or b"").decode("ascii", "replace")


def _written(value: object) -> bytes:
    """A parameter as text. All text is ASCII, so that the server's encoding does not matter."""
    if isinstance(value, bytes):
        return b"\\x" + value.hex().encode()
    if isinstance(value, bool):
        return b"t" if value else b"f"
    return str(value).encode("ascii")


def _read(value: bytes | None) -> str | None:
    return None if value is None else value.decode("ascii", "replace")
