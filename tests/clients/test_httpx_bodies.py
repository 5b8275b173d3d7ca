"""Request bodies of httpx2 and httpx at a refusal: sent again the same, or refused clearly, never cut or empty."""

from __future__ import annotations

import hashlib
import io
import os
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from tests.clients.modes import HTTPX2, Api, Library, Mode, Via
from unexpired import ConfigurationError, ReplayRefused, TokenManager
from unexpired.testing import ServerHandle

BLOB = bytes(range(256)) * 700  # larger than one read of a file
Options = dict[str, Any]
threads = pytest.mark.parametrize("mode", ["threads"], indirect=True)
tasks = pytest.mark.parametrize("mode", ["asyncio", "trio"], indirect=True)


@pytest.fixture
def mode(request: pytest.FixtureRequest, library: Library) -> Mode:
    """Give the way that a test asks for, or each."""
    return Mode(request.param, library)


httpx2_only = pytest.mark.parametrize("library", [HTTPX2], indirect=True, ids=["httpx2"])
every = pytest.mark.parametrize("mode", ["threads", "asyncio", "trio"], indirect=True)


class Once:
    """An iterable of one's own that is empty the second time: a progress bar around a generator is one."""

    def __init__(self, parts: list[bytes]) -> None:
        self.parts = iter(parts)

    def __iter__(self) -> Iterator[bytes]:
        yield from self.parts

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self.parts:
            yield part


async def agen() -> AsyncIterator[bytes]:
    """An async generator of two pieces."""
    yield b"one"
    yield b"two"


OPENED: list[Any] = []


@pytest.fixture(autouse=True)
def _files_closed() -> Iterator[None]:
    yield
    while OPENED:
        OPENED.pop().close()


def opened(file: Any) -> Any:
    """The file, which is closed when the test is over."""
    OPENED.append(file)
    return file


def pipe() -> Any:
    """A file that the operating system cannot rewind."""
    reading, writing = os.pipe()
    os.write(writing, b"once only")
    os.close(writing)
    return opened(os.fdopen(reading, "rb"))


class Forward(io.BytesIO):
    """A file that can only be read on."""

    def seekable(self) -> bool:
        """Never."""
        return False

    def seek(self, *_: object) -> int:
        """Never."""
        raise io.UnsupportedOperation


def halfway(file: Any) -> Any:
    """A file that has been read to its middle."""
    file.write(BLOB)
    file.seek(100_000)
    return opened(file)


REPEATABLE: dict[str, tuple[Callable[[], Options], bytes]] = {
    "bytes": (lambda: {"content": BLOB}, BLOB),
    "text": (lambda: {"content": "grün"}, "grün".encode()),
    "nothing": (dict, b""),
    "json": (lambda: {"json": {"a": 1}}, b'{"a":1}'),
    "form": (lambda: {"data": {"a": "1 2"}}, b"a=1+2"),
}
REPEATABLE_BY_THREADS: dict[str, tuple[Callable[[], Options], bytes]] = {
    "list": (lambda: {"content": [b"one", b"two"]}, b"onetwo"),
    "tuple": (lambda: {"content": (b"one", b"two")}, b"onetwo"),
    "memory file": (lambda: {"content": io.BytesIO(BLOB)}, BLOB),
}
HALFWAY: dict[str, tuple[Callable[[], Options], bytes]] = {
    "memory file halfway": (lambda: {"content": halfway(io.BytesIO())}, BLOB[100_000:]),
    "file halfway": (lambda: {"content": halfway(tempfile.TemporaryFile())}, BLOB[100_000:]),  # noqa: SIM115
}
ONCE_BY_THREADS: dict[str, Callable[[], Options]] = {
    "generator": lambda: {"content": (part for part in [b"one", b"two"])},
    "iterator": lambda: {"content": iter([b"one", b"two"])},
    "wrapper of a generator": lambda: {"content": Once([b"one", b"two"])},
}
ONCE_BY_TASKS: dict[str, Callable[[], Options]] = {
    "async generator": lambda: {"content": agen()},
    "wrapper of a generator": lambda: {"content": Once([b"one", b"two"]).__aiter__()},
    "async iterable": lambda: {"content": type("Own", (), {"__aiter__": lambda _: agen()})()},
}


def received(response: httpx2.Response) -> tuple[str, int]:
    """What the server says that the body was."""
    answer = response.json()
    return answer["body_sha256"], answer["body_length"]


def sent(body: bytes) -> tuple[str, int]:
    """What it should say."""
    return hashlib.sha256(body).hexdigest(), len(body)


def check_same(options: Options, server: ServerHandle, mode: Mode, make: Any, body: bytes) -> None:
    """POST what *make* gives with an expired token; the server must see *body*."""
    server.expire()

    async def post(api: Api) -> httpx2.Response:
        return await api.send("POST", "/api/x", **make())

    response = mode.one(options, post)
    assert received(response) == sent(body)
    stats = server.stats()
    assert (stats.refused, stats.token_posts, stats.api_calls) == (1, 1, 2)


@every
@pytest.mark.parametrize("kind", REPEATABLE)
def test_same_body(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, kind: str) -> None:
    """Scenario 40: the replay of a body that starts anew has the very same bytes."""
    check_same(mode.options(manager, via, base_url=server.url), server, mode, *REPEATABLE[kind])


@threads
@pytest.mark.parametrize("kind", REPEATABLE_BY_THREADS)
def test_same_body_by_threads(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, kind: str) -> None:
    """Scenario 40: lists are sent again, files rewound to where they were when the call was made."""
    check_same(mode.options(manager, via, base_url=server.url), server, mode, *REPEATABLE_BY_THREADS[kind])


@threads
def test_factory(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 40: what a body factory makes is made anew for the replay."""
    options = mode.options(manager, via, base_url=server.url)
    body = mode.library.adapter.BodyFactory(lambda: iter([BLOB, b"end"]))
    check_same(options, server, mode, lambda: {"content": body}, BLOB + b"end")


@every
def test_factory_that_opens_a_file(
    server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, tmp_path: Path
) -> None:
    """A file that a body factory opens is read in blocks, not in lines, sent again whole, and closed each time."""
    (tmp_path / "body").write_bytes(BLOB * 3)
    files: list[Any] = []
    sizes: list[int] = []

    class Noting(io.FileIO):
        def read(self, size: int | None = -1, /) -> bytes:
            sizes.append(size or 0)
            return super().read(size)

    def factory() -> Any:
        files.append(Noting(tmp_path / "body"))
        return files[-1]

    adapter = mode.library.adapter
    body = adapter.BodyFactory(factory) if mode.blocking else adapter.AsyncBodyFactory(factory)
    check_same(mode.options(manager, via, base_url=server.url), server, mode, lambda: {"content": body}, BLOB * 3)
    assert len(files) == 2
    assert all(file.closed for file in files)
    assert 0 < max(sizes) < len(BLOB)


@tasks
@pytest.mark.parametrize("factory", [agen, lambda: iter([b"one", b"two"])])
def test_async_factory(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, factory: Any) -> None:
    """Scenario 40: what an async body factory makes, async or not, is sent again."""
    options = mode.options(manager, via, base_url=server.url)
    check_same(options, server, mode, lambda: {"content": mode.library.adapter.AsyncBodyFactory(factory)}, b"onetwo")


@every
def test_factory_of_something_else(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """A body factory that makes no iterable is refused with a word on what is wanted."""
    wrong: Any = object
    adapter = mode.library.adapter
    body = adapter.BodyFactory(wrong) if mode.blocking else adapter.AsyncBodyFactory(wrong)
    options = mode.options(manager, via, base_url=server.url)
    with pytest.raises(ConfigurationError, match="must return an iterable of bytes"):
        check_same(options, server, mode, lambda: {"content": body}, b"")


@every
def test_same_multipart(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 40: a multipart form with fields, bytes and a seekable file is sent again whole."""
    server.expire()
    form = {"data": {"a": "1"}, "files": {"b": b"bytes", "c": ("c.bin", io.BytesIO(BLOB))}}
    boundary = {"content-type": "multipart/form-data; boundary=same"}

    async def post(api: Api) -> httpx2.Response:
        return await api.send("POST", "/api/x", headers=boundary, **form)

    response = mode.one(mode.options(manager, via, base_url=server.url), post)
    plain = mode.library.client.Request("POST", "http://x", headers=boundary, **form)
    assert received(response) == sent(plain.read())
    assert server.stats().refused == 1


def check_refused(options: Options, server: ServerHandle, mode: Mode, make: Callable[[], Options]) -> None:
    """POST with an expired token: ReplayRefused, nothing sent again, and the caller's own second call works."""
    server.expire()

    async def post(api: Api) -> list[Any]:
        with pytest.raises(ReplayRefused, match="send the request again") as caught:
            await api.send("POST", "/api/x", **make())
        replays = (await api.blocking(server.stats)).api_calls
        return [caught.value, replays, await api.send("POST", "/api/x", **make())]

    error, calls, response = mode.one(options, post)
    assert (error.key, calls, response.status_code) == ("alice", 1, 200)
    assert response.json()["body_length"] > 0
    assert server.stats().token_posts == 1


@threads
@pytest.mark.parametrize("kind", ONCE_BY_THREADS)
def test_once_by_threads(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, kind: str) -> None:
    """Scenario 40: a body that can be read once is never sent empty or cut: the replay is refused, the token fresh."""
    check_refused(mode.options(manager, via, base_url=server.url), server, mode, ONCE_BY_THREADS[kind])


@threads
@httpx2_only
@pytest.mark.parametrize("kind", HALFWAY)
def test_rest_of_a_file(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, kind: str) -> None:
    """Scenario 40: a file that was read to its middle is rewound to there. httpx cannot send one at all."""
    check_same(mode.options(manager, via, base_url=server.url), server, mode, *HALFWAY[kind])


@threads
@httpx2_only
def test_pipe(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 40: a pipe is never sent empty or cut. httpx cannot send one at all."""
    check_refused(mode.options(manager, via, base_url=server.url), server, mode, lambda: {"content": pipe()})


@tasks
@pytest.mark.parametrize("kind", ONCE_BY_TASKS)
def test_once_by_tasks(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, kind: str) -> None:
    """Scenario 40: the same for the bodies of asynchronous clients."""
    check_refused(mode.options(manager, via, base_url=server.url), server, mode, ONCE_BY_TASKS[kind])


@every
def test_multipart_once(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 40: a multipart form with a file that cannot be rewound is refused."""
    check_refused(
        mode.options(manager, via, base_url=server.url),
        server,
        mode,
        lambda: {"files": {"a": ("a.bin", Forward(b"once only"))}},
    )


@every
def test_multipart_with_a_closed_or_bare_file(
    server: ServerHandle, manager: TokenManager, mode: Mode, via: Via
) -> None:
    """Scenario 40: a file object without the method to ask whether it seeks counts as one that does not."""

    class Bare:
        def __init__(self) -> None:
            self.read = io.BytesIO(b"once").read

    check_refused(
        mode.options(manager, via, base_url=server.url), server, mode, lambda: {"files": {"a": ("a.bin", Bare())}}
    )


@tasks
def test_async_file(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, tmp_path: Path) -> None:
    """Scenario 40: an asynchronous file, whose position cannot be asked without waiting, is refused."""
    (tmp_path / "body").write_bytes(b"line\n" * 3)
    server.expire()

    async def post(api: Api) -> int:
        async with await anyio.open_file(tmp_path / "body", "rb") as file:
            with pytest.raises(ReplayRefused):
                await api.send("POST", "/api/x", content=file)
        return 1

    assert mode.one(mode.options(manager, via, base_url=server.url), post) == 1
    assert server.stats().api_calls == 1


@threads
def test_stream_of_ones_own(server: ServerHandle, manager: TokenManager, mode: Mode, via: Via) -> None:
    """Scenario 40: a stream class of the caller's own counts as readable once, whatever its attributes are called."""

    class Own(httpx2.SyncByteStream, httpx.SyncByteStream):
        def __init__(self) -> None:
            self.fields: list[object] = []
            self._stream = [b"one"]

        def __iter__(self) -> Iterator[bytes]:
            while self._stream:
                yield self._stream.pop()

    server.expire()

    async def post(api: Api) -> None:
        client = api.client
        request = client.build_request("POST", "/api/x", headers={"content-length": "3"})
        request.stream = Own()
        with pytest.raises(ReplayRefused):
            client.send(request)

    mode.one(mode.options(manager, via, base_url=server.url), post)
    assert server.stats().api_calls == 1
