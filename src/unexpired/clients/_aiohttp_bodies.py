"""Bodies of aiohttp: which of them can be sent again, and answers that are looked into and handed on whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing, suppress
from functools import partial
from typing import Any, cast

from aiohttp import ClientError, ClientResponse, MultipartWriter, StreamReader
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesIOPayload, BytesPayload, IOBasePayload, Payload

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired.clients._bodies import AsyncFactory
from unexpired.clients._peeking import WORTH_WAITING, Intake, sniffer_for

__all__ = ["Remade", "can_be_sent_again", "peek", "steady", "take_in", "unsteady"]

_WRITE = "write_with_length"


class Remade(AsyncFactory, Payload):
    """A body that is made anew for each sending."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        AsyncFactory.__init__(self, factory)
        Payload.__init__(self, None)

    async def write(self, writer: AbstractStreamWriter) -> None:
        """Send all of it."""
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        """Send it, *content_length* bytes at most."""
        async with aclosing(cast("AsyncGenerator[bytes]", aiter(self))) as pieces:
            async for piece in pieces:
                await writer.write(piece[:content_length])
                if content_length is not None:
                    content_length = max(content_length - len(piece), 0)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Raise TypeError: it is never held as one."""
        raise TypeError(f"a body that is made on the way cannot be decoded ({encoding}, {errors})")


def can_be_sent_again(body: object) -> bool:
    """Whether aiohttp begins this body anew when it is sent once more."""
    if isinstance(body, MultipartWriter):
        return all(can_be_sent_again(part) for part, _, _ in body)
    if isinstance(body, IOBasePayload):
        # aiohttp goes on from where it is when a file cannot go back: that would be a body that is cut.
        file = body._value
        return not body.consumed and not file.closed and file.seekable()
    return not body or isinstance(body, BytesPayload | Remade)


def steady(body: object) -> None:
    """Have a body that is read on other threads written by `_write_steadily`, for one sending."""
    if _is_read_elsewhere(body):
        payload = cast("Payload", body)
        vars(payload)[_WRITE] = partial(_write_steadily, payload.write_with_length)


def unsteady(body: object) -> None:
    """Undo `steady`."""
    if isinstance(body, IOBasePayload | MultipartWriter):
        vars(body).pop(_WRITE, None)


def _is_read_elsewhere(body: object) -> bool:
    if isinstance(body, MultipartWriter):
        return any(_is_read_elsewhere(part) for part, _, _ in body)
    return isinstance(body, IOBasePayload) and not isinstance(body, BytesIOPayload)


async def _write_steadily(
    write: Callable[[AbstractStreamWriter, int | None], Awaitable[None]],
    writer: AbstractStreamWriter,
    content_length: int | None,
) -> None:
    """Write, and when that is given up, wait for the read under way on another thread.

    Servers refuse long before an upload has ended. The replay goes back to the start of the file, and a late read
    would take a piece out of it.
    """
    transport = cast("asyncio.WriteTransport", cast("Any", writer).transport)
    writing = asyncio.ensure_future(write(writer, content_length))
    try:
        await asyncio.wait([writing])
    except asyncio.CancelledError:
        # It may wait for a server that reads no more, even after the connection was closed.
        transport.abort()
        # aiohttp gives up at the end of the answer, and once more when that is closed.
        while not writing.done():
            with suppress(asyncio.CancelledError):
                await asyncio.wait([writing])
        _ = writing.cancelled() or writing.exception()  # or asyncio tells of an error that nobody looked at
        raise
    writing.result()


class _Joined:
    """Headers in which several lines of one name come as one (RFC 9110 §5.3)."""

    def __init__(self, headers: Mapping[str, str]) -> None:
        self._headers = cast("Any", headers)

    def get(self, name: str, /) -> str | None:
        return ", ".join(self._headers.getall(name, ())) or None


async def peek(scheme: Scheme, response: ClientResponse) -> Judgement:
    """Judge an answer by as much of its body as that takes; its reader finds all of it."""
    headers = _Joined(response.headers)
    sniffer = sniffer_for(scheme, response.status, headers, response.method, decoded=True)
    if sniffer is None:
        return scheme.judge(Answer(response.status, headers))
    if response._body is not None:
        # A middleware further in has read it.
        return sniffer.judge_body(response._body)
    await _look(response.content, lambda piece: sniffer.feed(piece) is not None)
    return sniffer.finish()


async def take_in(response: ClientResponse) -> None:
    """Read a refused answer if it is short: then its connection is free."""
    limit = asyncio.timeout(WORTH_WAITING)
    try:
        async with limit:
            await _look(response.content, Intake().enough)
    except TimeoutError:
        if not limit.expired():
            raise


async def _look(content: StreamReader, enough: Callable[[bytes], bool]) -> None:
    """Read until it is *enough*, and put it all back. An error of the connection waits for the reader."""
    pieces: list[tuple[bytes, bool]] = []
    try:
        with suppress(ClientError):
            while not content.at_eof():
                piece, ends = await content.readchunk()
                pieces.append((piece, ends))
                if enough(piece):
                    break
    finally:
        _put_back(content, pieces)


def _put_back(content: StreamReader, pieces: list[tuple[bytes, bool]]) -> None:
    """Make *pieces*, which `readchunk` gave, the next to be read, in the chunks in which they came.

    What aiohttp has for this, `unread_data`, warns each time and forgets the chunks.
    """
    stream = cast("Any", content)
    if pieces and stream._buffer_offset:
        stream._buffer[0] = stream._buffer[0][stream._buffer_offset :]
        stream._buffer_offset = 0
    for piece, ends in reversed(pieces):
        if ends:
            stream._http_chunk_splits.insert(0, stream._cursor)
        if piece:
            stream._buffer.appendleft(piece)
            stream._size += len(piece)
            stream._cursor -= len(piece)
