"""niquests: bodies of answers that were looked into or read in advance, in both kinds of sessions."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from typing import Any

import niquests
import pytest
from niquests.adapters import AsyncHTTPAdapter, HTTPAdapter

from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.niquests_sessions import Api, Mode, Via, run
from tests.clients.scripted import counting_manager
from unexpired import InQuery, Scheme

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])
BOUND = 20.0
QUERY = Scheme(InQuery("access_token"))


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


@pytest.fixture(params=["threads", "asyncio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each kind of session."""
    found: Mode = request.param
    return found


@pytest.fixture(params=["auth", "adapter"])
def via(request: pytest.FixtureRequest) -> Via:
    """Give each way to carry a token."""
    found: Via = request.param
    return found


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def test_packed_code(listener: Listener, mode: Mode, via: Via) -> None:
    """A code is found in a body that is packed, and what has none is unpacked for its reader as ever."""
    packed = {**JSON, "content-encoding": "gzip"}
    in_turn(
        listener,
        (200, packed, gzip.compress(b'{"code": 40009}')),
        (200, packed, gzip.compress(b'{"code": 0, "data": "good"}' + b" " * 300_000)),
    )

    async def job(api: Api) -> Any:
        api.carry(via, counting_manager(), CODES)
        return (await api.get(f"{listener.url}/x")).json()

    assert run(mode, job) == {"code": 0, "data": "good"}
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.parametrize("body", [gzip.compress(b"{}")[:-6], b"not packed"], ids=["cut", "not packed"])
def test_body_that_cannot_be_unpacked(listener: Listener, mode: Mode, body: bytes) -> None:
    """What is not packed as it says is its reader's trouble: it starts no refresh."""
    in_turn(listener, (200, {**JSON, "content-encoding": "gzip"}, body))

    async def job(api: Api) -> Any:
        api.carry("adapter", counting_manager(), CODES)
        response = await api.get(f"{listener.url}/x", stream=True)
        await api.wait(response.close())
        return response.status_code

    assert run(mode, job) == 200
    assert listener.tokens == ["t1"]


@pytest.mark.parametrize("size", [3, 1000, -1])
def test_pieces_of_a_body_that_was_looked_into(listener: Listener, mode: Mode, size: int) -> None:
    """A body that was looked into comes in pieces of the size asked for, whole, with its progress and its trailers."""
    body = b'{"code": 0, "data": "0123456789"}'
    in_turn(listener, (200, JSON, body), (200, JSON, iter([body[:20], body[20:]])))

    async def job(api: Api) -> list[tuple[list[bytes], Any]]:
        api.carry("adapter", counting_manager(), CODES)
        found = []
        for _ in range(2):
            response = await api.get(f"{listener.url}/x", stream=True)
            assert response.extension is None
            found.append((await api.pieces(response, size), response.download_progress))
            assert dict(response.trailers) == {}
        return found

    (whole, progress), (chunked, _) = run(mode, job)
    assert b"".join(whole) == b"".join(chunked) == body
    assert size < 0 or {len(piece) for piece in (*whole[:-1], *chunked[:-1])} <= set(range(1, size + 1))
    assert (progress.total, progress.content_length) == (len(body), len(body))


def test_reading_by_hand(listener: Listener, mode: Mode) -> None:
    """The low-level answer is read in parts of exactly the size that is asked for, or to its end."""
    in_turn(listener, (200, JSON, iter([b'{"code": 0, "da', b'ta": 12', b"34}"])))

    async def job(api: Api) -> list[bytes]:
        api.carry("adapter", counting_manager(), CODES)
        response = await api.get(f"{listener.url}/x", stream=True)
        return [await api.wait(response.raw.read(amount)) for amount in (2, 18, None, None)]

    assert run(mode, job) == [b'{"', b'code": 0, "data": ', b"1234}", b""]


@pytest.mark.parametrize("status", [200, 401])
def test_body_that_breaks(listener: Listener, mode: Mode, status: int) -> None:
    """A body that breaks while it is looked into breaks for its reader; a refused one is let go."""

    def broken() -> Iterator[bytes]:
        yield b'{"data": [1, '
        raise ConnectionAbortedError

    listener.respond = lambda _, before: OK if before else (status, JSON, broken())

    async def job(api: Api) -> Any:
        api.carry("adapter", counting_manager(), CODES)
        if status == 401:
            return await api.get(f"{listener.url}/x")
        response = await api.get(f"{listener.url}/x", stream=True)
        with pytest.raises(niquests.exceptions.ChunkedEncodingError):
            await api.pieces(response)
        return response

    assert run(mode, job).status_code == 200
    assert listener.tokens == (["t1", "t2"] if status == 401 else ["t1"])


@pytest.mark.parametrize("framing", ["length", "chunks"])
@pytest.mark.parametrize("last", [False, True], ids=["replayed", "last"])
@pytest.mark.usefixtures("reads_for_a_second")
def test_refusal_that_stops_halfway(listener: Listener, mode: Mode, framing: str, last: bool) -> None:
    """P3: a refusal that stops halfway holds its caller up for a second, not for ever."""
    served = threading.Event()

    def stalled() -> Iterator[bytes]:
        yield b"n"
        assert served.wait(BOUND)
        yield b"o"

    def respond(heard: Heard, _: int) -> Answer:
        if heard.token == "t2":
            return 401 if last else 200, {}, b"end"
        return (401, {}, stalled()) if framing == "chunks" else (401, {"content-length": "9"}, b"no")

    listener.respond = respond

    async def job(api: Api) -> Any:
        api.carry("adapter", counting_manager())
        began = time.monotonic()
        response = await api.get(f"{listener.url}/x", timeout=BOUND)
        assert time.monotonic() - began < BOUND - 5
        served.set()
        return response.content

    assert run(mode, job) == b"end"


@pytest.mark.parametrize("ends", [True, False])
@pytest.mark.usefixtures("reads_for_a_second")
def test_slow_refusal_that_is_the_last_answer(listener: Listener, mode: Mode, ends: bool) -> None:
    """Scenario 36: a refusal that comes slowly, and is the last answer, reaches its caller whole, or can be let go."""
    go_on = threading.Event()

    def slow() -> Iterator[bytes]:
        yield b"n"
        assert go_on.wait(BOUND)
        yield b"o"

    async def job(api: Api) -> bytes:
        manager = counting_manager()
        api.carry("adapter", manager)
        listener.respond = lambda _heard, before: REFUSED if before == 0 else (401, {}, slow())
        response = await api.get(f"{listener.url}/x", stream=True, timeout=BOUND)
        assert response.status_code == 401
        go_on.set()
        found = b"".join(await api.pieces(response)) if ends else b"no"
        await api.wait(response.close())
        return found

    assert run(mode, job) == b"no"
    assert listener.tokens == ["t1", "t2"]


def test_long_refusal_gives_its_connection_up(listener: Listener, mode: Mode, via: Via) -> None:
    """Scenario 43: a refused answer that is too long to be read is let go: its replay needs its place in the pool."""

    async def job(api: Api) -> list[int]:
        kind: Any = HTTPAdapter if api.blocking else AsyncHTTPAdapter
        inner = kind(pool_connections=1, pool_maxsize=1, pool_block=True, disable_http3=True)
        manager = counting_manager()
        api.carry(via, manager)
        api.session.mount("http://", inner if via == "auth" else api.adapter(manager, None, inner))
        found = []
        for _ in range(3):
            response = await api.get(f"{listener.url}/x", timeout=5)
            found.append(response.status_code)
            kept.append(response)
        return found

    kept: list[Any] = []
    listener.respond = lambda heard, _: (401, {}, b"no" * 500_000) if heard.token == "t1" else OK
    assert run(mode, job) == [200] * 3
    assert listener.tokens == ["t1", "t2", "t2", "t2"]


def test_answer_is_given_up(listener: Listener, mode: Mode, via: Via) -> None:
    """A streamed answer that was looked into and is closed halfway gives its connection up, and calls go on."""
    more = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b'{"code": 0, "data": ['
        assert more.wait(20)
        yield b"1"

    listener.respond = lambda _, before: OK if before else (200, JSON, endless())

    async def job(api: Api) -> int:
        api.carry(via, counting_manager(), CODES)
        response = await api.get(f"{listener.url}/x", stream=True)
        await api.wait(response.close())
        more.set()
        status: int = (await api.get(f"{listener.url}/y")).status_code
        return status

    assert run(mode, job) == 200
