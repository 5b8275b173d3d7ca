"""Bodies of httpx-like clients: sending one again unchanged, and looking into one without consuming it.

Knows neither httpx2 nor httpx by name: both hand over the same shapes.
"""

from __future__ import annotations

import zlib
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from functools import cache
from typing import Any, Protocol

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired.clients._peeking import Intake, is_encoded, sniffer_for

__all__ = ["Rewind", "apeek", "atake_in", "is_long", "peek", "rewinder", "stays", "take_in"]

Rewind = Callable[[], None]
_BOMB_SLICE = 512
_MILD = ("gzip", "x-gzip", "deflate")  # whose slice cannot become more than a thousand times as long


class _Response(Protocol):
    status_code: int
    headers: Any
    stream: Any


def rewinder(stream: Any, factory_kind: type[Any], module: Any) -> Rewind | None:
    """How to make a request's body ready to be sent once more, asked *before* it is first sent. None: impossible.

    Plain bytes need no asking: their rewind is `stays`. *module* is the client's.
    """
    source = getattr(stream, "_stream", None)
    if isinstance(stream, factory_kind) or isinstance(source, factory_kind):
        return stays
    if type(stream).__module__.partition(".")[0] != module.__name__:
        return None
    fields = getattr(stream, "fields", None)
    if fields is not None:
        return stays if all(_field_repeats(field) for field in fields) else None
    if hasattr(source, "read"):
        return _file_rewind(source)
    # Any other iterable may come out empty the second time, whatever it promises: a wrapper around a generator does.
    return stays if isinstance(source, Sequence) else None


def stays() -> None:
    """Bodies that start anew by themselves."""


def _field_repeats(field: Any) -> bool:
    """Whether a multipart field can be rendered again: the client itself goes back to the start of its files."""
    file = getattr(field, "file", None)
    return file is None or isinstance(file, str | bytes) or _seekable(file)


def _seekable(file: Any) -> bool:
    # An asynchronous file answers with a coroutine, which is true.
    try:
        return file.seekable() is True
    except (AttributeError, ValueError):
        return False


def _file_rewind(file: Any) -> Rewind | None:
    if hasattr(file, "__aiter__") or not _seekable(file):
        return None
    start = file.tell()
    return lambda: file.seek(start)


def _judge_head(scheme: Scheme, response: _Response) -> Judgement:
    """The judgement from status and headers alone."""
    return scheme.judge(Answer(response.status_code, response.headers))


@cache
def _kinds(module: Any) -> tuple[type[Any], type[Any]]:
    """The streams that hand a body on, made of the client's own bases: what was read of it, and the rest."""

    class Handed:
        def __init__(self, chunks: list[bytes], rest: Any, source: Any) -> None:
            self._chunks: list[bytes] = chunks
            self._rest: Any = rest
            self._source = source

        def is_whole(self) -> bool:
            """Whether all of it has been read."""
            return self._rest is None

        @property
        def elapsed(self) -> Any:
            """What the client's own stream measured, for `Response.elapsed`."""
            return getattr(self._source, "elapsed", None)

    class SyncHanded(Handed, module.SyncByteStream):  # type: ignore[misc]  # the client's own base, known only here
        def __iter__(self) -> Iterator[bytes]:
            yield from self._chunks
            yield from self._rest or ()

        def cut(self) -> None:
            """Let go of the connection, and of what was read: half a body is worth less than none."""
            self._source.close()
            self._chunks, self._rest = [], None

        def close(self) -> None:
            self._source.close()

    class AsyncHanded(Handed, module.AsyncByteStream):  # type: ignore[misc]  # as above
        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self._chunks:
                yield chunk
            if self._rest is not None:
                async for chunk in self._rest:
                    yield chunk

        async def cut(self) -> None:
            await self.aclose()
            self._chunks, self._rest = [], None

        async def aclose(self) -> None:
            # Left to the garbage collector it would be a warning under trio.
            end = getattr(self._rest, "aclose", None)
            if end is not None:
                await end()
            await self._source.aclose()

    return SyncHanded, AsyncHanded


def peek(scheme: Scheme, response: Any, method: str, module: Any) -> Judgement:
    """Judge a response by as much of its body as that takes, and hand the body on intact. *module* is the client's."""
    sniffer = sniffer_for(scheme, response.status_code, response.headers, method)
    if sniffer is None:
        return _judge_head(scheme, response)
    if response.is_stream_consumed:
        return _judge_read(scheme, sniffer, response, module)
    chunks: list[bytes] = []
    source = response.stream
    rest = iter(source)
    judgement = None
    for chunk in rest:
        chunks.append(chunk)
        judgement = sniffer.feed(chunk)
        if judgement is not None:
            break
    response.stream = _kinds(module)[0](chunks, rest, source)
    return judgement or _conclude(sniffer, response.headers, chunks, module)


async def apeek(scheme: Scheme, response: Any, method: str, module: Any) -> Judgement:
    """`peek`, for asynchronous bodies."""
    sniffer = sniffer_for(scheme, response.status_code, response.headers, method)
    if sniffer is None:
        return _judge_head(scheme, response)
    if response.is_stream_consumed:
        return _judge_read(scheme, sniffer, response, module)
    chunks: list[bytes] = []
    source = response.stream
    rest = aiter(source)
    judgement = None
    async for chunk in rest:
        chunks.append(chunk)
        judgement = sniffer.feed(chunk)
        if judgement is not None:
            break
    response.stream = _kinds(module)[1](chunks, rest, source)
    return judgement or _conclude(sniffer, response.headers, chunks, module)


def _judge_read(scheme: Scheme, sniffer: Sniffer, response: Any, module: Any) -> Judgement:
    """The judgement when a hook of the caller's has read the body already, or has let it pass by."""
    try:
        return sniffer.judge_body(response.content)
    except module.ResponseNotRead:
        return _judge_head(scheme, response)


def take_in(response: Any, module: Any) -> None:
    """Read a refused answer if it is short, so that its connection is free while its caller waits for a token.

    A refresh that goes over the same connections could wait for them for ever otherwise.
    """
    if response.is_stream_consumed:
        return
    chunks: list[bytes] = []
    source, intake = response.stream, Intake()
    rest: Any = iter(source)
    try:
        for chunk in rest:
            chunks.append(chunk)
            if intake.enough(chunk):
                break
        else:
            source.close()
            rest = None
    except module.TransportError as error:
        rest = _broken(error)
    response.stream = _kinds(module)[0](chunks, rest, source)


async def atake_in(response: Any, module: Any) -> None:
    """`take_in`, for asynchronous bodies."""
    if response.is_stream_consumed:
        return
    chunks: list[bytes] = []
    source, intake = response.stream, Intake()
    rest: Any = aiter(source)
    try:
        async for chunk in rest:
            chunks.append(chunk)
            if intake.enough(chunk):
                break
        else:
            await source.aclose()
            rest = None
    except module.TransportError as error:
        rest = _abroken(error)
    response.stream = _kinds(module)[1](chunks, rest, source)


def _broken(error: Exception) -> Iterator[bytes]:
    """The rest of a body that breaks here: a refusal is one all the same, and its reader, if any, is to hear of it."""
    yield from ()
    raise error


async def _abroken(error: Exception) -> AsyncIterator[bytes]:
    """`_broken`, for asynchronous bodies."""
    for piece in _broken(error):
        yield piece


def is_long(response: Any) -> bool:
    """Whether a refused answer went on after what `take_in` read: then its stream has to be `cut` before a replay."""
    return not response.is_stream_consumed and not response.stream.is_whole()


def _conclude(sniffer: Sniffer, headers: Any, chunks: list[bytes], module: Any) -> Judgement:
    if not is_encoded(headers):
        return sniffer.finish()
    decoded = _decode(headers["content-encoding"], b"".join(chunks), module)
    return sniffer.finish() if decoded is None else sniffer.judge_body(decoded)


def _decode(encoding: str, data: bytes, module: Any) -> bytes | None:
    """The decoded body, in small steps so that a compression bomb is left unexploded. None when it can't be."""
    if encoding.strip().lower() not in _MILD and not _unpacks_in_pieces(module):
        return None
    slices = (data[at : at + _BOMB_SLICE] for at in range(0, len(data), _BOMB_SLICE))
    stream = _kinds(module)[0]([], slices, module.ByteStream(b""))
    decoded = bytearray()
    try:
        for piece in module.Response(200, headers={"content-encoding": encoding}, stream=stream).iter_bytes():
            decoded += piece
            if len(decoded) > SNIFF_LIMIT:
                return None
    except module.DecodingError:
        return None
    return bytes(decoded)


@cache
def _unpacks_in_pieces(module: Any) -> bool:
    """Whether the client hands on what it unpacks bit by bit. One that does not can make gigabytes of a slice."""
    long = bytes(1_000_000)
    stream = _kinds(module)[0]([zlib.compress(long)], None, module.ByteStream(b""))
    response = module.Response(200, headers={"content-encoding": "deflate"}, stream=stream)
    return len(next(response.iter_bytes())) < len(long)
