"""Answers of urllib3, for its own adapter and that of requests: looked into, read in advance, and handed on whole."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Generator, Iterable

from urllib3.exceptions import DecodeError
from urllib3.response import HTTPResponse

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired.clients._peeking import Intake, is_encoded, sniffer_for

__all__ = ["is_whole", "peek", "take_in"]

_PIECE = 65536


class _Spliced:
    """A file of what was read already and of what the answer still has, as it came over the wire."""

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse) -> None:
        self._pieces = deque(pieces)
        self._source = source

    def is_whole(self) -> bool:
        """Whether all of it was read in advance."""
        return self._source.closed

    def read1(self, amt: int = _PIECE) -> bytes:
        """What there is, *amt* bytes at most; waits for the network only when nothing was read in advance."""
        if not self._pieces:
            return self._source.read1(amt, decode_content=False) or b""
        piece = self._pieces.popleft()
        if len(piece) > amt:
            self._pieces.appendleft(piece[amt:])
        return piece[:amt]

    def read(self, amt: int | None = None) -> bytes:
        """*amt* bytes, fewer only at the end; all of them for None."""
        found = bytearray()
        while (amt is None or len(found) < amt) and (piece := self.read1(_PIECE if amt is None else amt - len(found))):
            found += piece
        return bytes(found)

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to be had."""
        return not self._pieces and self._source.closed

    def close(self) -> None:
        """Close what the answer comes from."""
        self._pieces.clear()
        self._source.close()


class _Handed(HTTPResponse):
    """An answer whose beginning was read already: the same to its reader, also in how early its pieces come."""

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse, method: str) -> None:
        self.spliced = _Spliced(pieces, source)
        super().__init__(
            body=self.spliced,  # type: ignore[arg-type]  # all that is called of a file
            headers=source.headers,
            status=source.status,
            version=source.version,
            version_string=source.version_string,
            reason=source.reason,
            preload_content=False,
            decode_content=source.decode_content,
            original_response=source._original_response,
            msg=source.msg,
            retries=source.retries,
            enforce_content_length=False,
            request_method=method,
            request_url=source.geturl(),
        )
        self._source = source

    def stream(self, amt: int | None = _PIECE, decode_content: bool | None = None) -> Generator[bytes]:
        """Each piece as it arrives."""
        while piece := self.read1(amt or _PIECE, decode_content):
            yield piece

    def release_conn(self) -> None:
        """Give the connection back."""
        self._source.release_conn()


def peek(scheme: Scheme, source: HTTPResponse, method: str) -> tuple[Judgement, HTTPResponse]:
    """Judge an answer by as much of its body as that takes: the judgement, and the answer as if nobody had looked."""
    sniffer = sniffer_for(scheme, source.status, source.headers, method)
    if sniffer is None:
        return scheme.judge(Answer(source.status, source.headers)), source
    pieces: list[bytes] = []
    judgement = None
    while judgement is None and (piece := source.read1(_PIECE, decode_content=False)):
        pieces.append(piece)
        judgement = sniffer.feed(piece)
    return judgement or _conclude(sniffer, source, pieces), _Handed(pieces, source, method)


def take_in(source: HTTPResponse, method: str) -> HTTPResponse:
    """*source*, read to its end if that is near: then its connection is free."""
    pieces: list[bytes] = []
    intake = Intake()
    while piece := source.read1(_PIECE, decode_content=False):
        pieces.append(piece)
        if intake.enough(piece):
            break
    return _Handed(pieces, source, method)


def is_whole(source: object) -> bool:
    """Whether all of an answer was read in advance: it holds no connection."""
    return isinstance(source, _Handed) and source.spliced.is_whole()


def _conclude(sniffer: Sniffer, source: HTTPResponse, pieces: list[bytes]) -> Judgement:
    if not is_encoded(source.headers):
        return sniffer.finish()
    packed = HTTPResponse(io.BytesIO(b"".join(pieces)), headers=source.headers, preload_content=False)
    try:
        body = packed.read(SNIFF_LIMIT + 1, decode_content=True)
    except DecodeError:
        return sniffer.finish()
    return sniffer.finish() if len(body) > SNIFF_LIMIT else sniffer.judge_body(body)
