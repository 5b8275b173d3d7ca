"""A business code in answers of httpx2 and httpx: bodies come on intact, streams stay streams, bombs stay whole."""

from __future__ import annotations

import gzip
import json
import tracemalloc
import zlib
from typing import Any

import httpx2
import pytest

from tests.clients.modes import Api, Mode, Via, get, send
from tests.clients.scripted import JSON, Script, Stepwise, counting_manager, cut, left_behind, until
from unexpired import Scheme, TokenManager, Verdict
from unexpired.testing import ServerHandle

CODES = Scheme.bearer(code="code", expired=[40009], login_required=[40005], ok=[0])
EXPIRED = b'{"data": {"code": 0}, "msg": "sorry", "code": "40009"}'
FINE = json.dumps({"data": ["x" * 100] * 30, "code": 0}).encode()
LARGE = json.dumps({"data": ["x" * 100] * 3000}).encode()
GZIPPED = JSON | {"content-encoding": "gzip"}


def raw(method: str = "GET", url: str = "http://api/x") -> Any:
    """The job of one streamed request: its response and its raw pieces."""

    async def job(api: Api) -> tuple[httpx2.Response, list[bytes]]:
        async with api.stream(method, url) as response:
            return response, [chunk async for chunk in api.chunks(response)]

    return job


@pytest.mark.parametrize("size", [1, 7, 1000])
@pytest.mark.parametrize("packed", [False, True])
def test_code_in_pieces(mode: Mode, via: Via, size: int, packed: bool) -> None:
    """Scenario 37: an expired code is found however the body is cut and packed; the answer comes on piece by piece."""
    headers = GZIPPED if packed else JSON
    bodies = [gzip.compress(body) if packed else body for body in (EXPIRED, FINE)]
    script = Script(*((200, headers, cut(body, size)) for body in bodies))
    options = mode.options(counting_manager(), via, CODES, inner=script.transport(mode))
    response, pieces = mode.one(options, raw())
    assert script.tokens == ["Bearer t1", "Bearer t2"] or via == "auth"
    assert len(script.requests) == 2
    assert pieces == cut(bodies[1], size)
    assert script.closed == [True, True]
    assert response.status_code == 200


@pytest.mark.parametrize("packing", ["none", "gzip", "deflate", "twice"])
def test_read_and_decoded(mode: Mode, via: Via, packing: str) -> None:
    """Scenario 37: a sniffed body is decoded for its reader as ever, and the time of the call is known."""
    coding, body = {
        "none": ("identity", LARGE),
        "gzip": ("gzip", gzip.compress(LARGE)),
        "deflate": ("deflate", zlib.compress(LARGE)),
        "twice": ("deflate, gzip", gzip.compress(zlib.compress(LARGE))),
    }[packing]
    script = Script((200, JSON | {"content-encoding": coding}, cut(body, 5000)))
    response = mode.one(mode.options(counting_manager(), via, CODES, inner=script.transport(mode)), get("http://api/x"))
    assert response.content == LARGE
    assert response.elapsed.total_seconds() >= 0
    assert len(script.requests) == 1


def test_first_piece_is_not_held_back(mode: Mode, via: Via) -> None:
    """A body that shows its code at the start is handed on at once, before the rest of it exists."""
    got: list[bytes] = []
    script = Script((200, JSON, until(lambda: bool(got), b'{"code": 0, "data": [1', b",2]}")))

    async def job(api: Api) -> None:
        async with api.stream("GET", "http://api/x") as response:
            async for chunk in api.chunks(response):
                got.append(chunk)  # noqa: PERF401 - the body looks at it meanwhile

    mode.one(mode.options(counting_manager(), via, CODES, inner=script.transport(mode)), job)
    assert got == [b'{"code": 0, "data": [1', b",2]}"]


@left_behind
def test_download_given_up(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """A caller may leave a sniffed download early; nothing is left open, and the next call works."""

    async def job(api: Api) -> int:
        async with api.stream("GET", "/api/stream?chunks=300&size=1000&type=application/json") as response:
            assert response.status_code == 200
        return (await api.get("/api/x")).status_code

    assert mode.one(mode.options(manager, via, CODES, base_url=server.url), job) == 200


@pytest.mark.parametrize("levels", [1, 2])
def test_compression_bomb(mode: Mode, via: Via, levels: int) -> None:
    """A packed body that would grow without end is left packed by the sniffer, and is the caller's to open."""
    body = b" " * 50_000_000
    for _ in range(levels):
        body = gzip.compress(body, 9)
    script = Script((200, JSON | {"content-encoding": ", ".join(["gzip"] * levels)}, cut(body, 4096)))
    tracemalloc.start()
    try:
        _, pieces = mode.one(mode.options(counting_manager(), via, CODES, inner=script.transport(mode)), raw())
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
    finally:
        tracemalloc.stop()
    assert b"".join(pieces) == body


# and of others when what they read cannot be unpacked
@pytest.mark.filterwarnings(
    "ignore:.*async_generator object .*(Pieces|AsyncHanded|BoundAsyncStream|Response.aiter_raw)"
    ":pytest.PytestUnraisableExceptionWarning"
)
def test_damaged_packing(mode: Mode, via: Via) -> None:
    """A body that cannot be unpacked settles nothing; its reader hears of it from the client."""
    script = Script((200, GZIPPED, [b"not gzip"]))
    outcome = mode.run(
        mode.options(counting_manager(), via, CODES, inner=script.transport(mode)), [get("http://api/x")]
    )
    assert [type(error) for error in outcome] == [mode.library.client.DecodingError]
    assert len(script.requests) == 1


@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_no_body(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, method: str) -> None:
    """HEAD and 204 have no body to look into, and are replayed like others when refused by status."""
    server.expire()
    status = 200 if method == "HEAD" else 204

    async def job(api: Api) -> list[int]:
        first = await api.send(method, "/api/x")
        if status == 204:
            rules = [{"kind": "status", "code": 204, "headers": {"content-type": "application/json"}}]
            await api.blocking(lambda: server.api_faults(rules))
        return [first.status_code, (await api.send(method, "/api/x")).status_code]

    assert mode.one(mode.options(manager, via, CODES, base_url=server.url), job) == [200, status]
    assert server.stats().token_posts == 1


@pytest.mark.parametrize("consumed", ["read", "skimmed"])
def test_hook_that_reads(mode: Mode, consumed: str) -> None:
    """Scenario 37: a code is found in a body that an event hook has read; one that it let pass by settles nothing."""

    def read(response: httpx2.Response) -> None:
        if consumed == "read":
            response.read()
        else:
            list(response.iter_raw())

    async def aread(response: httpx2.Response) -> None:
        if consumed == "read":
            await response.aread()
        else:
            [_ async for _ in response.aiter_raw()]

    script = Script(*((200, JSON, [body]) for body in (EXPIRED, FINE)))
    hooks = {"response": [read if mode.blocking else aread]}
    options = mode.options(counting_manager(), "auth", CODES, inner=script.transport(mode), event_hooks=hooks)

    async def job(api: Api) -> bytes:
        async with api.stream("GET", "http://api/x") as response:
            return response.content if consumed == "read" else b""

    assert mode.one(options, job) == (FINE if consumed == "read" else b"")
    assert len(script.requests) == (2 if consumed == "read" else 1)


def test_hook_that_reads_a_refusal(server: ServerHandle, manager: TokenManager, mode: Mode) -> None:
    """A refusal by status that an event hook has read is replayed all the same."""
    server.expire()

    async def aread(response: httpx2.Response) -> None:
        await response.aread()

    hooks = {"response": [mode.library.client.Response.read if mode.blocking else aread]}
    options = mode.options(manager, "auth", base_url=server.url, event_hooks=hooks)
    assert mode.one(options, get("/api/x")).status_code == 200


@left_behind
@pytest.mark.parametrize("size", [10, 300_000])
def test_long_refusals(mode: Mode, via: Via, size: int) -> None:
    """Scenarios 36 and 43: refusals of any length are replayed, and one that is the last answer comes on whole."""
    refusal = [b"no" * 5000] * (size // 10_000) or [b"no"]
    script = Script(*((401, {}, list(refusal)) for _ in range(2)))
    response, pieces = mode.one(mode.options(counting_manager(), via, inner=script.transport(mode)), raw())
    assert (response.status_code, pieces) == (401, refusal)
    assert len(script.requests) == 2


@pytest.mark.parametrize("mode", ["asyncio", "trio"], indirect=True)
def test_streams_without_generators(mode: Mode) -> None:
    """A transport whose streams are plain iterators is sniffed and closed like any other."""
    script = Script((200, JSON, Stepwise(cut(EXPIRED, 5))), (200, JSON, Stepwise(cut(FINE, 500))))
    kind = mode.options(counting_manager(), "transport", CODES, inner=script.transport(mode))
    _, pieces = mode.one(kind, raw())
    assert b"".join(pieces) == FINE


def test_broken_body(mode: Mode, via: Via) -> None:
    """A body that breaks off while it is looked into is the caller's network error, and the response is closed."""

    def broken() -> Any:
        yield b'{"data": '
        raise mode.library.client.ReadError("the line went dead")

    script = Script((200, JSON, broken()))
    outcome = mode.run(
        mode.options(counting_manager(), via, CODES, inner=script.transport(mode)), [get("http://api/x")]
    )
    assert [type(error) for error in outcome] == [mode.library.client.ReadError]
    assert script.closed == [True]


def test_judge_that_raises(mode: Mode, via: Via) -> None:
    """What a judge of the caller's own raises reaches the caller, and the response is closed."""

    def judge(_: object) -> Verdict:
        raise LookupError("not my kind of answer")

    script = Script((200, JSON, [FINE]))
    scheme = Scheme.bearer(judge=judge)
    outcome = mode.run(
        mode.options(counting_manager(), via, scheme, inner=script.transport(mode)), [send("GET", "http://api")]
    )
    assert [type(error) for error in outcome] == [LookupError]
    assert script.closed == [True]
