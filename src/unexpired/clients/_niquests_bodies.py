"""Answers of urllib3-future, which niquests hands on: looked into, read in advance, and handed on whole."""

from __future__ import annotations

import asyncio
import io
import time
from collections import deque
from collections.abc import Iterable

from niquests.packages.urllib3 import AsyncHTTPResponse, HTTPResponse
from niquests.packages.urllib3.exceptions import DecodeError, HTTPError
from niquests.packages.urllib3.util import wait_for_read

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired.clients._peeking import WORTH_WAITING, Intake, is_encoded, sniffer_for
from unexpired.clients._urllib3_future import comes

__all__ = ["apeek", "atake_in", "is_whole", "peek", "take_in"]

_PIECE = 65536


class _Spliced:
    """Stands for the file of an answer: what was read already, and then what the answer still has."""

    # Tells a reader of urllib3-future that a piece at a time is what it gets.
    _eot = False

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse, broken: Exception | None) -> None:
        self._pieces = deque(pieces)
        self._source = source
        self._broken = broken
        self.data_in_count = 0

    def ready(self, amt: int) -> bytes:
        """What was read in advance, *amt* bytes at most; a whole piece for -1."""
        if not self._pieces:
            if self._broken is not None:
                raise self._broken
            return b""
        piece = self._pieces.popleft()
        if 0 <= amt < len(piece):
            self._pieces.appendleft(piece[amt:])
            piece = piece[:amt]
        return piece

    def add(self, piece: bytes) -> None:
        """Put what came since behind what was read."""
        self._pieces.append(piece)

    def is_whole(self) -> bool:
        """Whether all of it was read in advance."""
        return self._source.closed and self._broken is None

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to be had."""
        return not self._pieces and self._broken is None and self._source.closed

    @property
    def trailers(self) -> object:
        """What came after the body."""
        return self._source.trailers

    def read(self) -> bytes:
        """Is there because a file is known by it; the answer reads by itself."""
        return b""

    def close(self) -> None:
        """Forget what was read in advance."""
        self._pieces.clear()
        self._broken = None


class _Handed(HTTPResponse):
    """An answer whose beginning was read already: the same to its reader, also in how early its pieces come."""

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse, method: str, broken: Exception | None) -> None:
        self.spliced, self._source = _Spliced(pieces, source, broken), source
        super().__init__(**_settings(self.spliced, source, method))

    def _fp_read(self, amt: int | None = None, *, read1: bool = False) -> bytes:
        found = bytearray()
        at_once = amt is not None and (read1 or amt < 0)
        while amt is None or at_once or len(found) < amt:
            left = -1 if amt is None or amt < 0 else amt - len(found)
            piece = self.spliced.ready(left) or self._source.read1(left, decode_content=False)
            found += piece
            if at_once or not piece:
                break
        self.spliced.data_in_count += len(found)
        return bytes(found)

    @property
    def extension(self) -> object:
        """What speaks on after an upgrade."""
        return self._source.extension

    def release_conn(self) -> None:
        """Give the connection back."""
        self._source.release_conn()

    def close(self) -> None:
        """Close what the answer comes from."""
        self.spliced.close()
        self._source.close()


class _AsyncHanded(AsyncHTTPResponse):
    """The same, for tasks; *coming* is a piece that is being read."""

    def __init__(
        self,
        pieces: Iterable[bytes],
        source: AsyncHTTPResponse,
        method: str,
        broken: Exception | None,
        coming: asyncio.Future[bytes] | None = None,
    ) -> None:
        self.spliced, self._source = _Spliced(pieces, source, broken), source
        self._coming = coming
        super().__init__(**_settings(self.spliced, source, method))

    async def _fp_read(  # type: ignore[override]  # as the class that it overrides
        self, amt: int | None = None, *, read1: bool = False
    ) -> bytes:
        found = bytearray()
        at_once = amt is not None and (read1 or amt < 0)
        while amt is None or at_once or len(found) < amt:
            left = -1 if amt is None or amt < 0 else amt - len(found)
            piece = self.spliced.ready(left) or await self._more(left)
            found += piece
            if at_once or not piece:
                break
        self.spliced.data_in_count += len(found)
        return bytes(found)

    async def _more(self, amt: int) -> bytes:
        if self._coming is None:
            return await self._source.read1(amt, decode_content=False)
        coming, self._coming = self._coming, None
        self.spliced.add(await coming)
        return self.spliced.ready(amt)

    @property
    def extension(self) -> object:
        """What speaks on after an upgrade."""
        return self._source.extension

    def release_conn(self) -> None:
        """Give the connection back."""
        self._source.release_conn()

    async def close(self) -> None:  # type: ignore[override]  # as above
        """Close what the answer comes from."""
        self.spliced.close()
        if self._coming is not None:
            self._coming.cancel()
            await asyncio.wait([self._coming])
            self._coming = None
        await self._source.close()


def _settings(spliced: _Spliced, source: HTTPResponse, method: str) -> dict[str, object]:
    return {
        "body": spliced,
        "headers": source.headers,
        "status": source.status,
        "version": source.version,
        "reason": source.reason,
        "preload_content": False,
        "decode_content": source.decode_content,
        "original_response": source._original_response,
        "retries": source.retries,
        "enforce_content_length": False,
        "request_method": method,
        "request_url": source.geturl(),
    }


def peek(scheme: Scheme, source: HTTPResponse, method: str) -> tuple[Judgement, HTTPResponse]:
    """Judge an answer by as much of its body as that takes: the judgement, and the answer as if nobody had looked.

    What breaks while it is read breaks for its reader, at the same place.
    """
    sniffer = sniffer_for(scheme, source.status, source.headers, method)
    if sniffer is None:
        return scheme.judge(Answer(source.status, source.headers)), source
    pieces: list[bytes] = []
    judgement = broken = None
    try:
        while judgement is None and (piece := source.read1(_PIECE, decode_content=False)):
            pieces.append(piece)
            judgement = sniffer.feed(piece)
    except (HTTPError, OSError) as error:
        broken = error
    return judgement or _conclude(sniffer, source, pieces), _Handed(pieces, source, method, broken)


async def apeek(scheme: Scheme, source: AsyncHTTPResponse, method: str) -> tuple[Judgement, AsyncHTTPResponse]:
    """`peek`, for tasks."""
    sniffer = sniffer_for(scheme, source.status, source.headers, method)
    if sniffer is None:
        return scheme.judge(Answer(source.status, source.headers)), source
    pieces: list[bytes] = []
    judgement = broken = None
    try:
        while judgement is None and (piece := await source.read1(_PIECE, decode_content=False)):
            pieces.append(piece)
            judgement = sniffer.feed(piece)
    except (HTTPError, OSError) as error:
        broken = error
    return judgement or _conclude(sniffer, source, pieces), _AsyncHanded(pieces, source, method, broken)


def take_in(source: HTTPResponse, method: str) -> HTTPResponse:
    """*source*, read to its end if that is near: then its connection is free."""
    pieces: list[bytes] = []
    intake, broken, until = Intake(), None, time.monotonic() + WORTH_WAITING
    try:
        while comes(source, until, wait_for_read) and (piece := source.read1(_PIECE, decode_content=False)):
            pieces.append(piece)
            if intake.enough(piece):
                break
    except (HTTPError, OSError) as error:
        broken = error
    return _Handed(pieces, source, method, broken)


async def atake_in(source: AsyncHTTPResponse, method: str) -> AsyncHTTPResponse:
    """`take_in`, for tasks."""
    pieces: list[bytes] = []
    intake, broken, coming, until = Intake(), None, None, time.monotonic() + WORTH_WAITING
    try:
        while True:
            coming = asyncio.ensure_future(source.read1(_PIECE, decode_content=False))
            try:
                await asyncio.wait([coming], timeout=max(0.0, until - time.monotonic()))
            except asyncio.CancelledError:
                coming.cancel()
                raise
            if not coming.done():
                break
            piece, coming = coming.result(), None
            pieces.append(piece)
            if not piece or intake.enough(piece):
                break
    except (HTTPError, OSError) as error:
        broken, coming = error, None
    return _AsyncHanded(pieces, source, method, broken, coming)


def is_whole(source: object) -> bool:
    """Whether all of an answer was read in advance: it holds no connection."""
    return isinstance(source, _Handed | _AsyncHanded) and source.spliced.is_whole()


def _conclude(sniffer: Sniffer, source: HTTPResponse, pieces: list[bytes]) -> Judgement:
    if not is_encoded(source.headers):
        return sniffer.finish()
    packed = HTTPResponse(io.BytesIO(b"".join(pieces)), headers=source.headers, preload_content=False)
    try:
        body = packed.read(SNIFF_LIMIT + 1, decode_content=True)
    except DecodeError:
        return sniffer.finish()
    return sniffer.finish() if len(body) > SNIFF_LIMIT else sniffer.judge_body(body)
