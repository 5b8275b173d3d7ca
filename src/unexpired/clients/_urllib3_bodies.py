"""Answers of urllib3, for its own adapter and that of requests: looked into, read in advance, and handed on whole."""

from __future__ import annotations

import http.client
import io
import ssl
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable
from typing import Any

from urllib3.exceptions import DecodeError, HTTPError
from urllib3.response import BaseHTTPResponse, HTTPResponse
from urllib3.util import wait_for_read

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired.clients._peeking import WORTH_WAITING, Intake, is_encoded, sniffer_for
from unexpired.clients._urllib3_future import comes

__all__ = ["is_whole", "judge_read", "peek", "take_in"]

_PIECE = 65536
_FUTURE = hasattr(HTTPResponse, "start_extension")
"""Whether urllib3 is urllib3-future, which niquests puts in its place."""


class _Spliced:
    """A file of what was read already and of what the answer still has, as it came over the wire."""

    # By this urllib3-future knows that a piece may be less than what was asked for.
    _eot = False

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse, broken: Exception | None) -> None:
        self._pieces = deque(pieces)
        self._source = source
        self._more = _reader(source)
        self._broken = broken

    def is_whole(self) -> bool:
        """Whether all of it was read in advance."""
        return self._source.closed and self._broken is None

    def read1(self, amt: int = _PIECE) -> bytes:
        """What there is, *amt* bytes at most; waits for the network only when nothing was read in advance."""
        if self._pieces:
            piece = self._pieces.popleft()
            if len(piece) > amt >= 0:
                self._pieces.appendleft(piece[amt:])
                return piece[:amt]
            return piece
        if self._broken is not None:
            raise self._broken
        return self._more(amt)

    def read(self, amt: int | None = None) -> bytes:
        """*amt* bytes, fewer only at the end; all of them for None."""
        found = bytearray()
        while (amt is None or len(found) < amt) and (piece := self.read1(_PIECE if amt is None else amt - len(found))):
            found += piece
        return bytes(found)

    @property
    def closed(self) -> bool:
        """Whether there is nothing more to be had."""
        return not self._pieces and self._broken is None and self._source.closed

    def close(self) -> None:
        """Close what the answer comes from."""
        self._pieces.clear()
        self._broken = None
        self._source.close()


class _Handed(HTTPResponse):
    """An answer whose beginning was read already: the same to its reader, also in how early its pieces come."""

    def __init__(self, pieces: Iterable[bytes], source: HTTPResponse, method: str, broken: Exception | None) -> None:
        self.spliced = _Spliced(pieces, source, broken)
        more: dict[str, Any] = {} if _FUTURE else {"version_string": source.version_string}
        super().__init__(
            body=self.spliced,  # type: ignore[arg-type]  # all that is called of a file
            headers=source.headers,
            status=source.status,
            version=source.version,
            reason=source.reason,
            preload_content=False,
            decode_content=source.decode_content,
            original_response=source._original_response,
            msg=source.msg,
            retries=source.retries,
            enforce_content_length=False,  # the source does
            request_method=method,
            request_url=source.url,
            **more,
        )
        self._source = source

    def stream(self, amt: int | None = _PIECE, decode_content: bool | None = None) -> Generator[bytes]:
        """Chunks as they arrive, and other bodies in pieces of *amt* bytes, as urllib3 does."""
        as_they_come = self.chunked and not _FUTURE
        if not as_they_come:
            yield from super().stream(amt, decode_content)
        while as_they_come and (piece := self.read1(amt or _PIECE, decode_content)):
            yield piece

    def _fp_read(self, amt: int | None = None, *, read1: bool = False) -> bytes:
        # As urllib3 has it, and as urllib3-future has it for files of its own only.
        return self.spliced.read1(_PIECE if amt is None else amt) if read1 or (amt or 0) < 0 else self.spliced.read(amt)

    def release_conn(self) -> None:
        """Give the connection back."""
        self._source.release_conn()

    def shutdown(self) -> None:
        """Wake up who is reading."""
        self._source.shutdown()


def peek(scheme: Scheme, source: HTTPResponse, method: str) -> tuple[Judgement, HTTPResponse]:
    """Judge an answer by as much of its body as that takes: the judgement, and the answer as if nobody had looked.

    What breaks while it is read breaks for its reader, at the same place.
    """
    sniffer = sniffer_for(scheme, source.status, source.headers, method)
    if sniffer is None:
        return scheme.judge(Answer(source.status, source.headers)), source
    pieces: list[bytes] = []
    judgement = broken = None
    more = _reader(source)
    try:
        while judgement is None and (piece := more(_PIECE)):
            pieces.append(piece)
            judgement = sniffer.feed(piece)
    except (HTTPError, OSError) as error:
        broken = error
    return judgement or _conclude(sniffer, source, pieces), _Handed(pieces, source, method, broken)


def judge_read(scheme: Scheme, source: BaseHTTPResponse, method: str, *, decoded: bool) -> Judgement:
    """Judge an answer that the client has read in advance; *decoded*: and unpacked."""
    sniffer = sniffer_for(scheme, source.status, source.headers, method, decoded=decoded)
    if sniffer is None:
        return scheme.judge(Answer(source.status, source.headers))
    body = source.data or b""
    return sniffer.feed(body) or (sniffer.finish() if decoded else _conclude(sniffer, source, [body]))


def take_in(source: HTTPResponse, method: str) -> HTTPResponse:
    """*source*, read to its end if that is near: then its connection is free."""
    pieces: list[bytes] = []
    intake, more, broken = Intake(), _reader(source), None
    until = time.monotonic() + WORTH_WAITING
    try:
        while _comes(source, until) and (piece := more(_PIECE)):
            pieces.append(piece)
            if intake.enough(piece):
                break
    except (HTTPError, OSError) as error:
        broken = error
    return _Handed(pieces, source, method, broken)


def is_whole(source: object) -> bool:
    """Whether all of an answer was read in advance: it holds no connection."""
    return isinstance(source, _Handed) and source.spliced.is_whole()


def _reader(source: HTTPResponse) -> Callable[[int], bytes]:
    """What reads the next piece of *source*, still packed."""
    # What a cache has put before the connection knows `read` only.
    if isinstance(source, _Handed) or isinstance(source._fp, http.client.HTTPResponse) or hasattr(source._fp, "_eot"):
        return lambda amt: source.read1(amt, decode_content=False) or b""
    return lambda amt: source.read(amt, decode_content=False) or b""


def _comes(source: HTTPResponse, until: float) -> bool:
    """Whether there is something to read before *until*, be it the end. Nothing is taken from the answer for it."""
    if _FUTURE:
        return comes(source, until, wait_for_read)
    sock = getattr(source.connection, "sock", None)
    buffered: Any = getattr(source._fp, "fp", None)
    if sock is None or not hasattr(buffered, "peek") or source.length_remaining == 0:
        return True
    timeout, waited = sock.gettimeout(), False
    while True:
        sock.settimeout(0)
        try:
            # Nothing means that nothing is there yet, or, where something was announced, the end.
            if _suffices(source, buffered.peek(1)) or waited:
                return True
        except ssl.SSLWantReadError:
            pass
        finally:
            sock.settimeout(timeout)
        left = until - time.monotonic()
        if left <= 0 or not wait_for_read(sock, left):
            return False
        waited = True


def _suffices(source: HTTPResponse, there: bytes) -> bool:
    """Whether with what is *there* the next piece can be read: between two chunks (RFC 9112 §7.1) it takes a line."""
    left: object = getattr(source._fp, "chunk_left", None)
    if not source.chunked or left:
        return bool(there)
    return b"\n" in (there if left is None else there[2:])


def _conclude(sniffer: Sniffer, source: BaseHTTPResponse, pieces: list[bytes]) -> Judgement:
    if not is_encoded(source.headers):
        return sniffer.finish()
    packed = HTTPResponse(io.BytesIO(b"".join(pieces)), headers=source.headers, preload_content=False)
    try:
        body = packed.read(SNIFF_LIMIT + 1, decode_content=True)
    except DecodeError:
        return sniffer.finish()
    return sniffer.finish() if len(body) > SNIFF_LIMIT else sniffer.judge_body(body)
