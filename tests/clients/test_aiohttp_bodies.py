"""aiohttp's request bodies at a refusal: what can be had again is sent again whole, the rest is refused."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clients.aiohttp_sessions import Wire, get, response, run, serving, session, token_of, wait_for
from tests.clients.contract.listener import OK, REFUSED, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, ReplayRefused
from unexpired.clients.aiohttp import BodyFactory

BLOB = bytes(range(256)) * 2000


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that refuses the first request, and tells what it heard."""
    with Listener(respond=lambda _, before: OK if before else REFUSED) as listening:
        yield listening


async def made() -> AsyncIterator[bytes]:
    """A body that can be read once."""
    yield BLOB


def at(place: int, file: Any) -> Any:
    """A file that was read up to *place*."""
    file.seek(place)
    return file


Open = Callable[..., Any]


@pytest.fixture
def file(tmp_path: Path) -> Iterator[Open]:
    """Give what opens a file with `BLOB` in it, and closes it in the end: not all are aiohttp's to close."""
    path = tmp_path / "body"
    path.write_bytes(BLOB)
    with ExitStack() as stack:
        yield lambda mode="r", **options: stack.enter_context(path.open(mode, **options))


def form(*contents: Any) -> aiohttp.FormData:
    """A form with these as its files."""
    data = aiohttp.FormData({"a": "1"})
    for number, content in enumerate(contents):
        data.add_field(f"f{number}", content, filename=f"f{number}")
    return data


def parts(*contents: Any) -> aiohttp.MultipartWriter:
    """A body of these parts."""
    writer = aiohttp.MultipartWriter("mixed")
    for content in contents:
        writer.append(content)
    return writer


AGAIN: dict[str, Callable[[Open], Any]] = {
    "text": lambda _: "grün",
    "text file": lambda file: file(encoding="latin-1", newline=""),
    "text in memory": lambda _: io.StringIO("grün"),
    "file": lambda file: file("rb"),
    "file from its middle": lambda file: at(1000, file("rb")),
    "file without a buffer": lambda file: file("rb", buffering=0),
    "memory from its middle": lambda _: at(1000, io.BytesIO(BLOB)),
    "form": lambda file: form(BLOB, file("rb"), at(7, io.BytesIO(BLOB))),
    "parts in parts": lambda file: parts(BLOB, parts(file("rb"), "text"), "text"),
    "factory of a file": lambda file: BodyFactory(lambda: file("rb")),
    "factory of pieces": lambda _: BodyFactory(lambda: [b"one", BLOB]),
    "factory of a generator": lambda _: BodyFactory(made),
    "form with a factory": lambda file: form(BodyFactory(made), BodyFactory(lambda: file("rb"))),
}


@pytest.mark.parametrize("kind", AGAIN)
def test_sent_again(listener: Listener, file: Open, kind: str) -> None:
    """Scenario 40: the replay has the very bytes of the body that was refused, and the body that is good at once."""

    async def main() -> None:
        async with session(counting_manager()) as client:
            assert (await get(client, listener.url, "POST", data=AGAIN[kind](file))).status == 200
            await get(client, listener.url, "POST", data=AGAIN[kind](file))

    run(main())
    assert listener.tokens == ["t1", "t2", "t2"]
    refused, replayed, at_once = listener.heard
    assert (replayed.length, replayed.sha256) == (refused.length, refused.sha256)
    assert refused.length == at_once.length > 3
    assert refused.all("content-length") == replayed.all("content-length") == at_once.all("content-length")


class Pipe(io.BufferedReader):
    """A file that cannot go back, and closes itself."""

    def __init__(self) -> None:
        reading, writing = os.pipe()
        os.write(writing, b"once")
        os.close(writing)
        super().__init__(io.FileIO(reading))

    def __del__(self) -> None:
        self.close()


class Stuck(io.BytesIO):
    """A file that knows where it is, and cannot go back."""

    def seekable(self) -> bool:
        """It is not."""
        return False


class Odd(aiohttp.Payload):
    """A body of somebody's own make."""

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """As a text."""
        return f"{encoding} {errors}"

    async def write(self, writer: Any) -> None:
        """As bytes."""
        await writer.write(b"once")


ONCE: dict[str, Callable[[], Any]] = {
    "generator": made,
    "pipe": Pipe,
    "stuck": lambda: Stuck(b"once"),
    "form with a generator": lambda: form(b"1", made()),
    "parts with a pipe": lambda: parts(parts(Pipe())),
    "odd": lambda: Odd("once"),
}


@pytest.mark.parametrize("kind", ONCE)
def test_refused(listener: Listener, kind: str) -> None:
    """Scenario 40: what can be read once is sent once: the replay is refused clearly, and the token is fresh."""
    manager = counting_manager()

    async def main() -> None:
        async with session(manager) as client:
            with pytest.raises(ReplayRefused, match=r"POST to http://.* send the request again"):
                await get(client, listener.url, "POST", data=ONCE[kind]())
            assert len(listener.heard) == 1
            assert (await get(client, listener.url, "POST", data=ONCE[kind]())).status == 200

    run(main())
    assert listener.tokens == ["t1", "t2"]
    first, second = listener.heard
    assert first.length == second.length >= 4


def test_a_file_that_was_closed_meanwhile(listener: Listener, tmp_path: Path) -> None:
    """A file that its owner closes before the replay cannot be sent again: that is said, and no empty body goes out."""
    path = tmp_path / "body"
    path.write_bytes(BLOB)
    file = path.open("rb")

    async def closing(request: aiohttp.ClientRequest, handler: Any) -> Any:
        answer = await handler(request)
        file.close()
        return answer

    async def main() -> None:
        async with session(counting_manager()) as client:
            with pytest.raises(ReplayRefused):
                await get(client, listener.url, "POST", data=file, middlewares=[*client._middlewares, closing])

    run(main())
    assert [heard.length for heard in listener.heard] == [len(BLOB)]


def test_factory_of_something_else(listener: Listener) -> None:
    """A factory of what is no body is an error that says what it must make."""
    wrong: Any = lambda: 7  # noqa: E731

    async def main() -> None:
        async with session(counting_manager()) as client:
            with pytest.raises(aiohttp.ClientConnectionError, match="must return an iterable of bytes"):
                await get(client, listener.url, "POST", data=BodyFactory(wrong))

    run(main())
    assert listener.heard == []


def test_body_in_place_of_its_factory(file: Open) -> None:
    """A file where a function that opens one is wanted is refused at once, with an example."""
    wrong: Any = file("rb")
    with pytest.raises(
        ConfigurationError, match=r"takes a function .*, not _io\.BufferedReader: .*lambda: open"
    ) as caught:
        BodyFactory(wrong)
    assert wrong.name not in str(caught.value)


def test_factory_with_a_length() -> None:
    """A length that the caller announces is the length that is sent; a body made on the way is never a text."""
    body = BodyFactory(lambda: [b"one", b"two", b"three"])
    heard: list[tuple[str | None, bytes]] = []

    async def talk(wire: Wire) -> None:
        token = token_of(await wire.head())
        start = await wire.reader.readexactly(5)
        await wire.say(response(401 if token == "t1" else 200, Connection="close"))
        heard.append((token, start + await wire.reader.read()))

    async def main() -> None:
        async with serving(talk) as url, session(counting_manager()) as client:
            await get(client, url, "POST", data=body, headers={"Content-Length": "5"})
            await wait_for(lambda: len(heard) == 2)

    run(main())
    assert heard == [("t1", b"onetw"), ("t2", b"onetw")]
    with pytest.raises(TypeError, match="cannot be decoded"):
        body.decode()


def test_redirect_with_a_file(listener: Listener, tmp_path: Path) -> None:
    """A file goes along a redirect, and the hop that is refused gets it whole again."""
    path = tmp_path / "body"
    path.write_bytes(BLOB)
    listener.respond = lambda _, before: [(307, {"location": "/y"}, b""), REFUSED, OK][before]

    payload = aiohttp.get_payload(path.open("rb"))
    before = set(vars(payload))

    async def main() -> int:
        async with session(counting_manager()) as client:
            return (await get(client, listener.url, "PUT", data=payload)).status

    assert run(main()) == 200
    assert not [name for name in set(vars(payload)) - before if "write" in name]
    digest = hashlib.sha256(BLOB).hexdigest()
    assert [(heard.length, heard.sha256) for heard in listener.heard] == [(len(BLOB), digest)] * 3
    assert listener.tokens == ["t1", "t1", "t2"]
