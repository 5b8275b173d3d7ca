"""Bodies of urllib3's answers that were looked into or read in advance: the same to their readers, also when broken."""

from __future__ import annotations

import gzip
import json
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
import urllib3
from urllib3.exceptions import ProtocolError

from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.scripted import counting_manager
from tests.grants.endpoint import CERTIFICATE
from unexpired import Judgement, Scheme, Verdict
from unexpired.clients._urllib3_bodies import is_whole, peek, take_in
from unexpired.clients.requests import TokenAdapter
from unexpired.clients.urllib3 import TokenPool

BOUND = 25.0
CODES = Scheme.bearer(code="code", expired=[7])
JSON = {"content-type": "application/json"}
EXPIRED = b'{"code": 7}'
CUT: Answer = (200, JSON | {"content-length": "100", "connection": "close"}, b'{"data": [1, 2')


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


@pytest.fixture
def session() -> Iterator[requests.Session]:
    """Give a session whose API has codes."""
    with requests.Session() as opened:
        opened.mount("http://", TokenAdapter(counting_manager(), CODES))
        yield opened


@pytest.fixture
def pool() -> Iterator[TokenPool]:
    """Give a pool whose API has codes."""
    with TokenPool(counting_manager(), CODES) as opened:
        yield opened


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def broken(pieces: list[bytes]) -> Iterator[bytes]:
    """Chunks, after which the connection breaks."""
    yield from pieces
    raise ConnectionError


@pytest.mark.parametrize("pack", [gzip.compress, zlib.compress], ids=["gzip", "deflate"])
def test_code_in_a_packed_body(listener: Listener, session: requests.Session, pack: Callable[[bytes], bytes]) -> None:
    """A code is found in a packed body, and the body is unpacked once, for its reader."""
    kind = JSON | {"content-encoding": "gzip" if pack is gzip.compress else "deflate"}
    served = json.dumps({"code": 0, "data": "x" * 5000}).encode()
    in_turn(listener, (200, kind, pack(EXPIRED)), (200, kind, pack(served)))
    assert session.get(f"{listener.url}/x").content == served
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.parametrize("preload", [True, False])
@pytest.mark.parametrize("decode", [True, False])
def test_code_for_urllib3(listener: Listener, pool: TokenPool, preload: bool, decode: bool) -> None:
    """A code is found whether urllib3 reads and unpacks the body in advance, or its caller does."""
    kind = JSON | {"content-encoding": "gzip"}
    served = gzip.compress(b'{"code": 0}')
    in_turn(listener, (200, kind, gzip.compress(EXPIRED)), (200, kind, served))
    answer = pool.request("GET", f"{listener.url}/x", preload_content=preload, decode_content=decode)
    assert answer.data == (b'{"code": 0}' if decode else served)
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.parametrize(
    "body", [b"not gzip", gzip.compress(bytes(100_000)), gzip.compress(EXPIRED)[:12]], ids=["none", "long", "cut"]
)
def test_packed_body_without_a_code(listener: Listener, session: requests.Session, body: bytes) -> None:
    """What cannot be unpacked, or is too long when it is, has no code; its reader gets what requests makes of it."""
    in_turn(listener, (200, JSON | {"content-encoding": "gzip"}, body))
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert response.raw.read(decode_content=False) == body
    assert listener.tokens == ["t1"]


def test_unknown_packing(listener: Listener, session: requests.Session) -> None:
    """A packing that urllib3 does not know leaves the body to its reader."""
    in_turn(listener, (200, JSON | {"content-encoding": "x-own"}, b"packed"))
    assert session.get(f"{listener.url}/x").content == b"packed"


def test_cut_answer_is_the_readers(listener: Listener, session: requests.Session, pool: TokenPool) -> None:
    """A body that breaks off while it is looked into is handed on, and breaks off for its reader at the same place."""
    listener.respond = lambda _heard, _before: CUT
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert response.status_code == 200
        pieces = response.iter_content(1)
        assert b"".join(next(pieces) for _ in range(14)) == CUT[2]
        with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
            next(pieces)
    with pytest.raises(requests.exceptions.ChunkedEncodingError, match="IncompleteRead"):
        session.get(f"{listener.url}/x")
    answer = pool.request("GET", f"{listener.url}/x", preload_content=False)
    with pytest.raises(ProtocolError, match="IncompleteRead"):
        answer.read()


def test_broken_chunks_are_the_readers(listener: Listener, session: requests.Session) -> None:
    """Chunks that break off are requests' own error, for the reader."""
    listener.respond = lambda _heard, _before: (200, JSON, broken([b'{"code": ', b"0"]))
    with session.get(f"{listener.url}/x", stream=True) as response:
        pieces = response.iter_content(None)
        assert [next(pieces), next(pieces)] == [b'{"code": ', b"0"]
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            next(pieces)


def test_refusal_in_chunks_frees_its_connection(listener: Listener, session: requests.Session) -> None:
    """A short refusal is read to its end, however it is cut, and the replay goes over the same connection."""
    in_turn(listener, (401, {}, iter([b"n", b"o"])), OK)
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert response.status_code == 200
    assert listener.connections == 1


def test_cut_refusal_is_replayed(listener: Listener, session: requests.Session) -> None:
    """A refusal whose body breaks off is a refusal all the same."""
    in_turn(listener, (401, {"content-length": "9", "connection": "close"}, b"no"), OK)
    assert session.get(f"{listener.url}/x").status_code == 200
    assert listener.tokens == ["t1", "t2"]


def test_cut_refusal_that_is_the_last_answer(listener: Listener, session: requests.Session) -> None:
    """A last answer that breaks off never looks like a whole one."""
    listener.respond = lambda _heard, _before: (401, {"content-length": "9", "connection": "close"}, b"no")
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert not is_whole(response.raw)
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            _ = response.content
    assert listener.tokens == ["t1", "t2"]


def test_pieces_of_a_wanted_size(listener: Listener, session: requests.Session) -> None:
    """A body of a stated length comes in pieces of the size that its reader asks for; a chunked one as it arrives."""
    body = b'{"code": 0, "data": "' + b"x" * 979
    long: Answer = (401, {}, b"no" * 100_000)
    in_turn(listener, (200, JSON, body), (200, JSON, iter([body[:300], body[300:]])), long, long)
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert [len(piece) for piece in response.iter_content(400)] == [400, 400, 200]
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert b"".join(response.iter_content(400)) == body
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert [len(piece) for piece in response.iter_content(9999)] == [9999] * 20 + [20]


def test_raw_answer_is_a_file(listener: Listener, session: requests.Session) -> None:
    """What was looked into is read, counted and closed like any answer of urllib3."""
    body = b'{"code": 0}' + b" " * 100
    listener.respond = lambda _heard, _before: (200, JSON, body)
    with session.get(f"{listener.url}/x", stream=True) as response:
        raw = response.raw
        assert isinstance(raw, urllib3.HTTPResponse)
        buffer = bytearray(5)
        assert (raw.readinto(buffer), bytes(buffer)) == (5, body[:5])
        assert raw.read(1) + raw.read1(3) + raw.read() == body[5:]
        assert (raw.tell(), raw.closed, raw.read()) == (len(body), True, b"")
    with session.get(f"{listener.url}/x", stream=True) as response:
        response.raw.drain_conn()
        assert response.raw.read() == b""
    assert listener.connections == 1


def test_reader_is_woken_up(listener: Listener, session: requests.Session) -> None:
    """Another thread may shut down the connection of an answer that was looked into: its reader gets an error."""
    done = threading.Event()

    def pieces() -> Iterator[bytes]:
        yield b'{"code": 0, '
        done.wait(BOUND)

    listener.respond = lambda _heard, _before: (200, JSON, pieces())
    with session.get(f"{listener.url}/x", stream=True) as response, ThreadPoolExecutor(1) as pool:
        read = response.iter_content(None)
        assert next(read) == b'{"code": 0, '
        waiting = pool.submit(next, read)
        response.raw.shutdown()
        with pytest.raises(requests.exceptions.ChunkedEncodingError):
            waiting.result(BOUND)
        done.set()


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.usefixtures("reads_for_a_second")
def test_refusal_that_never_ends(framing: str, tls: bool) -> None:
    """P3: a refusal that stops halfway holds its caller up for a second, not for ever."""
    served = threading.Event()
    late: list[bool] = []

    def stalled() -> Iterator[bytes]:
        yield b"n"
        late.append(not served.wait(BOUND))

    def respond(heard: Heard, _: int) -> Answer:
        refused: Answer = (401, {}, stalled()) if framing == "chunks" else (401, {"content-length": "9"}, b"no")
        return refused if heard.token == "t1" else OK

    timeout = urllib3.Timeout(connect=None, read=BOUND)
    with Listener(tls=tls, respond=respond) as there, TokenPool(counting_manager(), pool=trusting()) as pool:
        began = time.monotonic()
        assert pool.request("GET", f"{there.url}/x", preload_content=False, timeout=timeout).read() == OK[2]
        assert time.monotonic() - began < BOUND - 5
        served.set()
        _settled(lambda: bool(late) or framing == "length")
    assert there.tokens == ["t1", "t2"]
    assert not any(late)


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.usefixtures("reads_for_a_second")
def test_refusal_that_is_slow_and_last(tls: bool) -> None:
    """A last answer that takes its time is whole all the same."""

    def slow() -> Iterator[bytes]:
        yield b"n"
        time.sleep(1.3)  # longer than a refusal is worth waiting for
        yield b"o"

    def respond(heard: Heard, _: int) -> Answer:
        return REFUSED if heard.token == "t1" else (401, {}, slow())

    with Listener(tls=tls, respond=respond) as there, TokenPool(counting_manager(), pool=trusting()) as pool:
        assert pool.request("GET", f"{there.url}/x", preload_content=False).read() == b"no"
    assert there.tokens == ["t1", "t2"]


def trusting() -> urllib3.PoolManager:
    """A pool manager that trusts our listeners."""
    return urllib3.PoolManager(ca_certs=str(CERTIFICATE))


def _settled(state: Callable[[], bool]) -> None:
    """Wait for a state of the server."""
    until = time.monotonic() + BOUND
    while not state() and time.monotonic() < until:
        time.sleep(0.005)


class Caching:
    """What a cache puts before the connection: it wants to see all that is read."""

    def __init__(self, source: Any) -> None:
        self.source = source
        self.seen = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)

    def read(self, amt: int | None = None) -> bytes:
        """Read, and note."""
        data: bytes = self.source.read(amt)
        self.seen += data
        return data


def test_caches_see_all(listener: Listener) -> None:
    """A cache between us and the connection sees the whole body, also of an answer that is looked into."""
    body = b'{"code": 0, "data": 1}'
    listener.respond = lambda _heard, _before: (200, JSON, body)
    with urllib3.PoolManager() as pool:
        looks: list[Callable[[Any], Any]] = [lambda one: peek(CODES, one, "GET")[1], lambda one: take_in(one, "GET")]
        for look in looks:
            answer: Any = pool.request("GET", f"{listener.url}/x", preload_content=False)
            cache = answer._fp = Caching(answer._fp)
            assert look(answer).read() == body
            assert cache.seen == body


def test_judge_of_the_users_own(listener: Listener) -> None:
    """A judge gets the whole body, unpacked, also where urllib3 has read it in advance."""
    seen: list[bytes | None] = []

    def judge(answer: Any) -> Judgement | None:
        seen.append(answer.body)
        return Judgement(Verdict.EXPIRED, "own") if answer.body == b"old" else None

    in_turn(listener, (200, JSON, b"old"), (200, JSON, b"new"), REFUSED, OK)
    with TokenPool(counting_manager(), Scheme.bearer(judge=judge)) as pool:
        assert pool.request("GET", f"{listener.url}/x").data == b"new"
    assert seen == [b"old", b"new"]
