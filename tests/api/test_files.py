"""Files on their way up and down, and bodies that are read as they come."""

from __future__ import annotations

import gzip
import hashlib
import io
import os
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.api.fronts import Api, Front
from tests.dialects.dialects import B, manager_a
from unexpired import ApiError, ReplayRefused
from unexpired.api import Envelope
from unexpired.testing import ServerHandle

DATA = bytes(range(256)) * 1024  # 256 KiB: several chunks


def bearer(server: ServerHandle, front: Front, **more: Any) -> dict[str, Any]:
    """A client of the plain API."""
    return {"base_url": server.url, "manager": manager_a(server), "transport": front.transport(), **more}


class Received:
    """An API in this process that takes uploads, and refuses the first ones."""

    def __init__(self, refusals: int = 0) -> None:
        self.bodies: list[bytes] = []
        self.types: list[str] = []
        self.lengths: list[str | None] = []
        self._refusals = refusals

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        """Take one."""
        self.bodies.append(request.content)
        self.types.append(request.headers["content-type"])
        self.lengths.append(request.headers.get("content-length"))
        return httpx2.Response(401 if len(self.bodies) <= self._refusals else 200, json={"ok": True})


@pytest.mark.parametrize("opened", [False, True])
def test_upload_and_its_replay(server: ServerHandle, front: Front, tmp_path: Path, opened: bool) -> None:
    """Scenario 40: an upload that is refused is sent again with the whole body, byte for byte the same."""
    path = tmp_path / "photo.jpg"
    path.write_bytes(DATA)
    seen: list[tuple[int, int | None]] = []
    whole: list[bytes] = []
    manager = B.manager(server)
    server.expire()

    class Watching(httpx2.HTTPTransport if front.blocking else httpx2.AsyncHTTPTransport):  # type: ignore[misc]
        def handle_request(self, request: httpx2.Request) -> httpx2.Response:
            whole.append(b"".join(request.stream))  # type: ignore[arg-type]
            return super().handle_request(request)  # type: ignore[no-any-return]

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            whole.append(b"".join([chunk async for chunk in request.stream]))  # type: ignore[union-attr]
            return await super().handle_async_request(request)  # type: ignore[no-any-return]

    async def job(api: Api) -> Any:
        progress = {"progress": lambda done, total: seen.append((done, total))}
        if not opened:
            return await api.call("upload", "/files", path, {"title": "me"}, field="photo", **progress)
        with path.open("rb") as file:
            return await api.call("upload", "/files", file, {"title": "me"}, field="photo", **progress)

    settings = front.settings(server, manager, B, unwrap=True) | {"transport": Watching(verify=False)}
    answer = front.one(settings, job)
    assert len(set(whole)) == 1
    assert len(whole) == 2
    assert answer["body_sha256"] == hashlib.sha256(whole[0]).hexdigest()
    assert b'name="photo"; filename="photo.jpg"\r\nContent-Type: image/jpeg' in whole[0]
    assert b'name="title"\r\n\r\nme\r\n' in whole[0]
    assert DATA in whole[0]
    assert (seen[-1], min(seen)) == ((len(DATA), len(DATA)), (65536, len(DATA)))
    assert (server.stats().token_posts, server.stats().refused) == (1, 1)


def test_upload_of_what_has_no_name(front: Front) -> None:
    """A file in memory is called "file", its progress is known, and it need not stand at its start."""
    received = Received()
    seen: list[tuple[int, int | None]] = []
    file = io.BytesIO(b"abcdef")
    file.seek(3)

    async def job(api: Api) -> Any:
        return await api.call("upload", "/", file, progress=lambda done, total: seen.append((done, total)))

    assert front.one(front.answering(received), job) == {"ok": True}
    assert b'filename="file"' in received.bodies[0]
    assert b"abcdef" in received.bodies[0]
    assert (seen, received.lengths) == ([(6, 6)], [str(len(received.bodies[0]))])


def test_upload_of_a_file_that_decompresses(front: Front, tmp_path: Path) -> None:
    """Scenario 40: the length of a file that decompresses is that of its contents, also when it is sent again."""
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(DATA))
    received = Received(refusals=1)

    async def job(api: Api) -> Any:
        with gzip.open(path) as file:
            return await api.call("upload", "/", file)

    assert front.one(front.answering(received), job) == {"ok": True}
    assert [DATA in body for body in received.bodies] == [True, True]
    assert received.lengths == [str(len(body)) for body in received.bodies]


def test_upload_of_a_pipe(front: Front) -> None:
    """Scenario 40: what can be read only once is sent in chunks, its total unknown, and refused a second time."""
    seen: list[tuple[int, int | None]] = []

    async def job(api: Api) -> Any:
        reading, writing = os.pipe()
        os.write(writing, b"abc")
        os.close(writing)
        with os.fdopen(reading, "rb") as file:
            return await api.call("upload", "/", file, progress=lambda done, total: seen.append((done, total)))

    received = Received()
    assert front.one(front.answering(received), job) == {"ok": True}
    assert b"\r\n\r\nabc\r\n" in received.bodies[0]
    assert (seen, received.lengths) == ([(3, None)], [None])
    with pytest.raises(ReplayRefused):
        front.one(front.answering(Received(refusals=1)), job)


@pytest.mark.parametrize("as_path", [True, False])
def test_download(server: ServerHandle, front: Front, tmp_path: Path, as_path: bool) -> None:
    """A download after an expiry gets every byte, tells how far it is, and leaves one file, with the usual rights."""
    settings = bearer(server, front)
    server.expire()
    target = tmp_path / "report.bin"
    memory = io.BytesIO()
    seen: list[tuple[int, int | None]] = []

    async def job(api: Api) -> Any:
        report = {"progress": lambda done, total: seen.append((done, total))} if as_path else {}
        return await api.call("download", "/api/stream?chunks=4&size=50000", target if as_path else memory, **report)

    assert front.one(settings, job) == 200_000
    data = b"".join(bytes([index]) * 50_000 for index in range(4))
    assert (target.read_bytes() if as_path else memory.getvalue()) == data
    assert [path.name for path in tmp_path.iterdir()] == (["report.bin"] if as_path else [])
    assert seen[-1:] == ([(200_000, None)] if as_path else [])
    if as_path:
        (tmp_path / "usual").touch()
        assert target.stat().st_mode == (tmp_path / "usual").stat().st_mode
    assert server.stats().token_posts == 1


@pytest.mark.parametrize(("headers", "total"), [({}, 6), ({"content-encoding": "gzip"}, None)])
def test_total_of_a_download(front: Front, tmp_path: Path, headers: dict[str, str], total: int | None) -> None:
    """The total is what the answer states, unless it is the length of something compressed."""
    seen: list[tuple[int, int | None]] = []
    content = gzip.compress(b"abcdef") if headers else b"abcdef"

    async def job(api: Api) -> Any:
        return await api.call("download", "/", tmp_path / "a", progress=lambda *report: seen.append(report))

    assert front.one(front.answering(lambda _: httpx2.Response(200, headers=headers, content=content)), job) == 6
    assert (seen[-1], (tmp_path / "a").read_bytes()) == ((6, total), b"abcdef")


def failing_answers() -> dict[str, Any]:
    """Answers in place of a file."""
    code = httpx2.Response(200, json={"code": 7, "msg": "no such report"})
    chunked = httpx2.Response(200, headers={"content-type": "application/json"}, stream=Pieces([b'{"code"', b": 7}"]))
    return {"status": httpx2.Response(404, json={}), "code": code, "chunked": chunked}


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream):
    """A body that comes in pieces, and may break off."""

    def __init__(self, pieces: list[bytes], error: Exception | None = None) -> None:
        self._pieces = pieces
        self._error = error
        self.closed = 0

    def close(self) -> None:
        """Note it."""
        self.closed += 1

    async def aclose(self) -> None:
        """Note it."""
        self.closed += 1

    def __iter__(self) -> Any:
        yield from self._pieces
        if self._error is not None:
            raise self._error

    async def __aiter__(self) -> Any:
        for piece in self:
            yield piece


@pytest.mark.parametrize("name", ["status", "code", "chunked"])
def test_failed_download(front: Front, tmp_path: Path, name: str) -> None:
    """An error in place of a file, by a status or by a code, is an ApiError, and the file before stays as it was."""
    target = tmp_path / "report.bin"
    target.write_bytes(b"before")
    answers = failing_answers()

    async def job(api: Api) -> Any:
        return await api.call("download", "/", target)

    with pytest.raises(ApiError) as caught:
        front.one(front.answering(lambda _: answers[name], envelope=Envelope()), job)
    assert caught.value.code == (404 if name == "status" else 7)
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [("report.bin", b"before")]


@pytest.mark.parametrize("content", [b'{"a":  1}', b"[" + b" " * 100_000 + b"]"], ids=["small", "large"])
def test_download_of_json(front: Front, tmp_path: Path, content: bytes) -> None:
    """A file that is JSON itself is downloaded as it is, large or small."""

    def respond(_: httpx2.Request) -> httpx2.Response:
        return httpx2.Response(200, headers={"content-type": "application/json"}, content=content)

    async def job(api: Api) -> Any:
        return await api.call("download", "/", tmp_path / "a.json")

    assert front.one(front.answering(respond, envelope=Envelope()), job) == len(content)
    assert (tmp_path / "a.json").read_bytes() == content


def test_download_that_breaks_off(front: Front, tmp_path: Path) -> None:
    """A connection that is lost in the middle is an ApiError of code -1 that knows the response; no file is left."""

    def respond(request: httpx2.Request) -> httpx2.Response:
        body = Pieces([b"abc"], httpx2.ReadError("lost", request=request))
        return httpx2.Response(200, stream=body, request=request)

    async def job(api: Api) -> Any:
        return await api.call("download", "/", tmp_path / "a")

    with pytest.raises(ApiError, match="ReadError: lost") as caught:
        front.one(front.answering(respond), job)
    assert (caught.value.code, caught.value.response.status_code) == (-1, 200)
    assert list(tmp_path.iterdir()) == []


def test_download_that_its_reader_ends(front: Front, tmp_path: Path) -> None:
    """A progress callback may end a download by raising: that is what the caller sees, and no file is left."""

    def stop(done: int, _: int | None) -> None:
        raise InterruptedError(done)

    async def job(api: Api) -> Any:
        return await api.call("download", "/", tmp_path / "a", progress=stop)

    with pytest.raises(InterruptedError):
        front.one(front.answering(lambda _: httpx2.Response(200, content=b"abc")), job)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("known", [True, False])
def test_other_errors_inside_a_stream(front: Front, known: bool) -> None:
    """What another client raises inside the block is not taken for an error of the stream."""
    error = httpx2.ConnectError("elsewhere", request=httpx2.Request("GET", "http://b.test") if known else None)

    async def job(api: Api) -> Any:
        async with api.stream("GET", "/"):
            raise error

    with pytest.raises(httpx2.ConnectError) as caught:
        front.one(front.answering(lambda _: httpx2.Response(200)), job)
    assert caught.value is error


def test_a_stream_that_is_left_is_closed(front: Front) -> None:
    """A response that was not read to its end is closed, so that its connection is free again."""
    body = Pieces([b"abc"])

    async def job(api: Api) -> Any:
        async with api.stream("GET", "/"):
            return body.closed

    assert front.one(front.answering(lambda _: httpx2.Response(200, stream=body)), job) == 0
    assert body.closed > 0


def test_event_stream(server: ServerHandle, front: Front) -> None:
    """Scenario 14: an event stream passes through, event by event, while the connection stays open."""

    async def job(api: Api) -> Any:
        found = []
        async with api.stream("GET", "/api/events?name=go") as response:
            async for chunk in api.chunks(response):
                found.append(chunk)
                server.release("go")
        return found

    settings = bearer(server, front)
    server.expire()
    assert b"".join(front.one(settings, job)) == b"data: first\n\ndata: second\n\n"
    assert server.stats().token_posts == 1


def test_failed_stream(server: ServerHandle, front: Front) -> None:
    """A stream that the API refuses raises, with the body of the refusal read."""

    async def job(api: Api) -> Any:
        async with api.stream("GET", "/api/nothing"):
            raise AssertionError("there is nothing to read")

    server.api_faults([{"kind": "status", "code": 503, "body": "tired"}])
    with pytest.raises(ApiError) as caught:
        front.one(bearer(server, front), job)
    assert (caught.value.code, caught.value.body) == (503, b"tired")
