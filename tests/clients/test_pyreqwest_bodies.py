"""pyreqwest: request bodies that are sent again the same, or not at all; streamed answers that stay whole."""

from __future__ import annotations

import asyncio
import hashlib
import io
import queue
import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from pyreqwest.exceptions import ReadError
from pyreqwest.multipart import FormBuilder

from tests.clients.contract.crew import BOUND
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.pyreqwest_clients import Kind, each_kind, pieces, sent
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, LoginRequired, ReplayRefused, Scheme, Verdict
from unexpired.clients import _peeking
from unexpired.clients._pyreqwest_calls import AsyncSending
from unexpired.clients._pyreqwest_requests import _Turns
from unexpired.clients.pyreqwest import BodyFactory

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])
LONG = bytes(range(256)) * 1000


@pytest.fixture(name="listener")
def _listener() -> Iterator[Listener]:
    with Listener(respond=refuse_first) as listening:
        yield listening


def refuse_first(_: Heard, before: int) -> Answer:
    """Refuse one call."""
    return OK if before else REFUSED


class Anew:
    """A stream that knows how to begin anew."""

    def __iter__(self) -> Iterator[bytes]:
        yield from (b"one", b"two")

    def __copy__(self) -> Anew:
        return Anew()


class Fails(Anew):
    """A stream that does not."""

    def __copy__(self) -> Anew:
        raise ValueError("not twice")


def from_its_middle(path: Path) -> Any:
    """A file of which some was read already."""
    path.write_bytes(b"begin" + LONG)
    file = path.open("rb")
    assert file.read(5) == b"begin"
    return file


@each_kind
@pytest.mark.parametrize(
    ("make", "wanted"),
    [
        (lambda _: [b"one", b"two"], b"onetwo"),
        (lambda _: (b"one", b"two"), b"onetwo"),
        (lambda _: io.BytesIO(LONG), LONG),
        (from_its_middle, LONG),
        (lambda _: Anew(), b"onetwo"),
    ],
    ids=["list", "tuple", "bytes", "file", "copied"],
)
def test_streams_that_can_be_had_again(
    listener: Listener, kind: str, make: Callable[[Path], Any], wanted: bytes, tmp_path: Path
) -> None:
    """Scenario 40: lists, files from where they stand, and what can be copied are sent again byte for byte."""
    each, body = Kind(kind), make(tmp_path / "body")

    async def job() -> tuple[int, bytes]:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            return await sent(client.post(f"{listener.url}/x").body_stream(body))

    assert each.run(job) == (200, OK[2])
    assert [heard.sha256 for heard in listener.heard] == [hashlib.sha256(wanted).hexdigest()] * 2
    getattr(body, "close", int)()


@each_kind
@pytest.mark.parametrize("body", ["form", "stream", "generator"])
def test_bodies_that_are_sent_once(listener: Listener, kind: str, body: str) -> None:
    """Scenario 40: a form of pyreqwest's own, and streams that cannot be copied, go out once; then the token is new."""
    each = Kind(kind)

    def made(client: Any) -> Any:
        request = client.post(f"{listener.url}/x")
        if body == "form":
            return request.multipart(FormBuilder().text("a", "1"))
        return request.body_stream(Fails() if body == "stream" else iter(Anew()))

    async def job() -> None:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            with pytest.raises(ReplayRefused, match=f"^POST to {re.escape(listener.url)} was refused"):
                await sent(made(client))
            assert await sent(made(client)) == (200, OK[2])

    each.run(job)
    assert listener.tokens == ["t1", "t2"]
    first, second = listener.heard
    assert first.length == second.length > 0


def test_body_that_is_still_being_sent() -> None:
    """Of a file only the last sending reads: one that is still on its way cannot take bytes from the replay."""
    body = _Turns([b"one", b"two"])
    assert [*zip(body, body, strict=True)] == [(b"one", b"one"), (b"two", b"two")]
    file = _Turns(io.BytesIO(LONG))
    first, second = iter(file), iter(file)
    assert next(first) == LONG[:65536]
    assert next(second) == LONG[:65536]
    with pytest.raises(RuntimeError, match="sent again"):
        next(first)
    assert b"".join(second) == LONG[65536:]


@each_kind
def test_factory_of_a_blocking_body(listener: Listener, kind: str, tmp_path: Path) -> None:
    """A `BodyFactory` serves both kinds of clients: its file is opened for each sending, and closed."""
    each, opened = Kind(kind), []
    (tmp_path / "body").write_bytes(LONG)

    def made() -> Any:
        opened.append((tmp_path / "body").open("rb"))
        return opened[-1]

    async def job() -> tuple[int, bytes]:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            return await sent(client.post(f"{listener.url}/x").body_stream(BodyFactory(made)))

    assert each.run(job) == (200, OK[2])
    assert [heard.sha256 for heard in listener.heard] == [hashlib.sha256(LONG).hexdigest()] * 2
    assert [file.closed for file in opened] == [True, True]


@each_kind
def test_factory_of_no_bytes(listener: Listener, kind: str) -> None:
    """A factory that makes no iterable is told so, and nothing is sent empty in its place."""
    each = Kind(kind)

    async def job() -> None:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            with pytest.raises(ConfigurationError, match="must return an iterable of bytes"):
                await sent(client.post(f"{listener.url}/x").body_stream(each.factory(lambda: 5)))

    each.run(job)
    assert listener.heard == []


def streamed(kind: str, listener: Listener, *more: Any, **limits: Any) -> Any:
    """What comes of one request for a stream: status, headers, extensions and pieces of its answer."""
    each = Kind(kind)

    async def job() -> Any:
        builder = each.builder().max_connections(1).gzip(False).with_middleware(each.tokens(counting_manager(), *more))
        async with each.opened(builder.build()) as client:
            request = client.get(f"{listener.url}/x").streamed_read_buffer_limit(limits.get("limit", 0))
            async with each.streamed(request.extensions({"own": 1})) as response:
                found = await pieces(response)
                return response.status, response.headers, response.version, response.extensions, b"".join(found)

    return each.run(job)


@each_kind
@pytest.mark.parametrize("hurry", [False, True], ids=["read", "read in part"])
def test_last_answer_of_a_stream(listener: Listener, kind: str, hurry: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Scenario 36: a refusal that stays one reaches who asked for a stream as it came, however much was read of it."""
    if hurry:
        monkeypatch.setattr(_peeking, "WORTH_WAITING", -1.0)
    listener.respond = lambda _heard, _before: (401, {"x-own": "ü", "x-two": "2"}, LONG[:60_000])
    status, headers, version, extensions, body = streamed(kind, listener)
    assert (status, headers["x-two"], version, extensions) == (401, "2", "HTTP/1.1", {"own": 1})
    assert body == LONG[:60_000]
    assert listener.tokens == ["t1", "t2"]


@each_kind
def test_last_answer_that_breaks_off(listener: Listener, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A refusal that breaks off is the client's own error, as it is without us."""
    monkeypatch.setattr(_peeking, "WORTH_WAITING", -1.0)
    fails = threading.Event()

    def broken() -> Iterator[bytes]:
        yield b"some"
        fails.set()
        raise OSError

    listener.respond = lambda _, before: (401, {"content-length": "50"}, broken()) if before else REFUSED
    with pytest.raises(ReadError):
        streamed(kind, listener)
    assert fails.is_set()
    assert listener.tokens == ["t1", "t2"]


@each_kind
@pytest.mark.parametrize("length", [None, "1000000", "50"])
def test_refusal_without_an_end(
    listener: Listener, kind: str, length: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Scenario 43: a refused stream that does not end is closed: its place in a pool of one is the replay's."""
    monkeypatch.setattr(_peeking, "WORTH_WAITING", -1.0)
    over = threading.Event()

    def endless() -> Iterator[bytes]:
        yield b"no"
        over.wait(BOUND)

    listener.respond = lambda _, before: (
        OK if before else (401, {"content-length": length} if length else {}, endless())
    )
    try:
        assert streamed(kind, listener)[::4] == (200, OK[2])
        assert not over.is_set()
    finally:
        over.set()
    assert listener.tokens == ["t1", "t2"]


@each_kind
def test_short_refusal_of_a_stream(listener: Listener, kind: str) -> None:
    """Scenario 43: a short refusal of a stream is read to its end, so the replay goes over the same connection."""

    def slow() -> Iterator[bytes]:
        yield b"n"
        threading.Event().wait(0.05)  # longer than this refresh takes
        yield b"o"

    listener.respond = lambda _, before: OK if before else (401, {"content-length": "2"}, slow())
    assert streamed(kind, listener)[::4] == (200, OK[2])
    assert listener.tokens == ["t1", "t2"]
    assert listener.connections == 1


def test_cancelled_while_the_last_answer_comes(listener: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """P9: who is cancelled while a refusal is read for it leaves the client's one connection to the next caller."""
    monkeypatch.setattr(_peeking, "WORTH_WAITING", -1.0)
    each, over, reads = Kind("asyncio"), threading.Event(), queue.SimpleQueue[None]()
    real = AsyncSending._read

    async def read(sending: AsyncSending, intake: Any) -> None:
        reads.put(None)
        await real(sending, intake)

    def endless() -> Iterator[bytes]:
        yield b"no"
        over.wait(BOUND)

    # Before that moment the answer is pyreqwest's own to drop.
    monkeypatch.setattr(AsyncSending, "_read", read)
    answers: list[Answer] = [REFUSED, (401, {"content-length": "50"}, endless())]
    listener.respond = lambda _, before: answers[before] if before < 2 else OK

    async def job() -> tuple[int, bytes]:
        builder = each.builder().max_connections(1).with_middleware(each.tokens(counting_manager()))
        async with each.opened(builder.build()) as client:
            request = client.get(f"{listener.url}/x").streamed_read_buffer_limit(0).build_streamed()
            caller = asyncio.ensure_future(request.__aenter__())
            for _ in range(2):
                await asyncio.to_thread(reads.get, timeout=BOUND)
            caller.cancel()
            with pytest.raises(asyncio.CancelledError):
                await caller
            return await sent(client.get(f"{listener.url}/x"))

    try:
        assert each.run(job) == (200, OK[2])
        assert not over.is_set()
    finally:
        over.set()


@each_kind
def test_refused_stream_of_one_who_must_log_in(listener: Listener, kind: str) -> None:
    """A refused stream is closed, too, when its caller gets an error in its place."""
    each, over, manager = Kind(kind), threading.Event(), counting_manager()

    def endless() -> Iterator[bytes]:
        yield b"no"
        over.wait(BOUND)

    listener.respond = lambda _, before: OK if before else (401, {}, endless())
    scheme = Scheme.bearer(judge=lambda answer: Verdict.LOGIN_REQUIRED if answer.status == 401 else None)

    async def job() -> int:
        builder = each.builder().max_connections(1).with_middleware(each.tokens(manager, scheme))
        async with each.opened(builder.build()) as client:
            with pytest.raises(LoginRequired):
                async with each.streamed(client.get(f"{listener.url}/x").streamed_read_buffer_limit(0)):
                    raise AssertionError("there is no answer")
            return (await sent(client.get(f"{listener.url}/x").extensions({"unexpired.authenticated": False})))[0]

    try:
        assert each.run(job) == 200
    finally:
        over.set()


@each_kind
def test_code_in_a_stream_of_known_length(listener: Listener, kind: str) -> None:
    """Scenario 37: a streamed JSON answer that says how long it is is judged by its code, and comes on whole."""
    bodies = [b'{"code": 40009}', b'{"code": 0, "data": 7}']
    listener.respond = lambda _, before: (200, JSON, bodies[before])
    status, headers, _, extensions, body = streamed(kind, listener, CODES)
    assert (status, headers["content-type"], extensions) == (200, "application/json", {"own": 1})
    assert body == bodies[1]
    assert listener.tokens == ["t1", "t2"]


@each_kind
@pytest.mark.parametrize("headers", [{"transfer-encoding": "chunked"}, {"content-encoding": "gzip"}])
def test_streams_that_are_not_looked_into(listener: Listener, kind: str, headers: dict[str, str]) -> None:
    """P11: a stream of unknown length, and a packed body, cannot be handed on after a look: they stay as they are."""
    body = b'{"code": 40009}'
    chunked = "transfer-encoding" in headers
    listener.respond = lambda _heard, _before: (200, JSON | headers, iter([body]) if chunked else body)
    assert streamed(kind, listener, CODES)[::4] == (200, body)
    assert listener.tokens == ["t1"]
