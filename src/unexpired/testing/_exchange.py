"""One HTTP exchange over ASGI: what was asked, and the ways, decent and indecent, to answer it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast
from urllib.parse import parse_qsl

__all__ = ["Connection", "Exchange", "Headers", "Malformed", "Reply", "html_reply", "json_reply"]

Headers = Iterable[tuple[str, str]]
ASGIMessage = dict[str, Any]


class Connection(Protocol):
    """What the server lends an exchange of the socket below it."""

    @property
    def gone(self) -> bool:
        """Whether the connection is closing or closed."""
        ...

    def reset(self) -> None:
        """End the connection with a TCP RST; what was written and not yet sent is lost."""
        ...

    def hang_up(self) -> None:
        """Send what was written and close, whatever was promised in the headers."""
        ...


class Malformed(ValueError):
    """The request does not hold what it should; the text says why and quotes nothing of it."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A whole answer: status, body and headers (`Content-Length` is added on sending)."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def json_reply(document: object, status: int = 200, headers: Headers = ()) -> Reply:
    """Word *document* as a JSON answer that no cache keeps (RFC 6749 §5.1)."""
    fixed = (("content-type", "application/json"), ("cache-control", "no-store"))
    return Reply(status, json.dumps(document).encode(), (*fixed, *headers))


def html_reply(text: str, status: int = 200) -> Reply:
    """Word *text* as a small HTML page, as proxies and firewalls do."""
    page = f"<!doctype html><html><head><title>{text}</title></head><body><h1>{text}</h1></body></html>"
    return Reply(status, page.encode(), (("content-type", "text/html; charset=utf-8"),))


class Exchange:
    """One request and its answer. Used by the one task that ASGI runs for it."""

    __slots__ = ("_date", "_headers", "_query", "_receive", "_scope", "_send", "connection", "method", "path")

    def __init__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[ASGIMessage]],
        send: Callable[[ASGIMessage], Awaitable[None]],
        date: bytes | None,
    ) -> None:
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.connection: Connection = scope["state"]["connection"]
        self._scope = scope
        self._receive = receive
        self._send = send
        self._date = date
        self._headers: list[tuple[bytes, bytes]] = scope["headers"]
        self._query: list[tuple[str, str]] | None = None

    def header(self, name: bytes) -> str | None:
        """Give the header *name* (lower case), its lines joined by a comma; `None` when it was not sent."""
        lines = [value for key, value in self._headers if key == name]
        return b", ".join(lines).decode("latin-1") if lines else None

    def cookie(self, name: str) -> str | None:
        """Give the value of the cookie *name*."""
        for pair in (self.header(b"cookie") or "").split(";"):
            key, _, value = pair.strip().partition("=")
            if key == name:
                return value
        return None

    @property
    def query(self) -> list[tuple[str, str]]:
        """The query's parameters, in their order, repeated ones included."""
        if self._query is None:
            text: bytes = self._scope["query_string"]
            self._query = parse_qsl(text.decode("latin-1"), keep_blank_values=True) if text else []
        return self._query

    def asked(self, name: str, default: str = "") -> str:
        """Give the first query parameter *name*."""
        return next((value for key, value in self.query if key == name), default)

    async def body(self) -> bytes:
        """Read the whole request body."""
        parts: list[bytes] = []
        while True:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                return b"".join(parts)
            parts.append(message["body"])
            if not message["more_body"]:
                return b"".join(parts)

    async def parameters(self) -> dict[str, str]:
        """Read the parameters of a token request: the query of a GET, else a form or a JSON object.

        Raises `Malformed` for broken JSON and for a parameter given twice (RFC 6749 §3.2).
        """
        if self.method == "GET":
            pairs = self.query
        else:
            body = await self.body()
            if (self.header(b"content-type") or "").partition(";")[0].strip() == "application/json":
                return {key: str(value) for key, value in read_object(body).items()}
            pairs = parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True)
        found = dict(pairs)
        if len(found) != len(pairs):
            raise Malformed("a parameter is given twice")
        return found

    async def start(self, status: int, headers: Headers) -> None:
        """Send the status line and the headers."""
        lines = [(key.encode("latin-1"), value.encode("latin-1")) for key, value in headers]
        if self._date is not None:
            lines.append((b"date", self._date))
        await self._send({"type": "http.response.start", "status": status, "headers": lines})

    async def chunk(self, data: bytes, *, last: bool = False) -> None:
        """Send *data* as the next piece of the body."""
        await self._send({"type": "http.response.body", "body": data, "more_body": not last})

    async def answer(self, reply: Reply) -> None:
        """Send a whole *reply*."""
        await self.start(reply.status, (*reply.headers, ("content-length", str(len(reply.body)))))
        await self.chunk(reply.body, last=True)

    async def answer_truncated(self, reply: Reply) -> None:
        """Promise the whole *reply*, send the first half of its body, and close."""
        await self.start(reply.status, (*reply.headers, ("content-length", str(len(reply.body)))))
        await self.chunk(reply.body[: len(reply.body) // 2])
        self.connection.hang_up()
        await self._gone()

    async def answer_slowly(self, reply: Reply, bytes_per_second: float) -> None:
        """Send *reply* with its body one byte at a time, until it is sent or the client has gone."""
        await self.start(reply.status, (*reply.headers, ("content-length", str(len(reply.body)))))
        for position in range(len(reply.body)):
            if self.connection.gone:
                return
            await self.chunk(reply.body[position : position + 1])
            await asyncio.sleep(1 / bytes_per_second)
        await self.chunk(b"", last=True)

    async def reset(self) -> None:
        """Answer with a TCP RST."""
        self.connection.reset()
        await self._gone()

    async def _gone(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass


def read_object(body: bytes) -> dict[str, object]:
    """Read a JSON object; `Malformed` when *body* is anything else."""
    try:
        document: object = json.loads(body)
    except ValueError:
        raise Malformed("the body is not JSON") from None
    if not isinstance(document, dict):
        raise Malformed("the body is not a JSON object")
    return cast("dict[str, object]", document)
