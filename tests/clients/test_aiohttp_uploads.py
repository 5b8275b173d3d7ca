"""aiohttp's uploads that are refused, cancelled or broken off while they are on their way."""

from __future__ import annotations

import asyncio
import io
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.clients.aiohttp_sessions import BOUND, Wire, get, response, run, serving, session, token_of, wait_for
from tests.clients.scripted import counting_manager
from unexpired import ReplayRefused, Session, TokenManager
from unexpired.clients.aiohttp import BodyFactory
from unexpired.stores import MemoryStore

BLOB = bytes(range(256)) * 2000
LARGE = 32 * 1024 * 1024
"""More than fits into the sockets on the way."""


async def made() -> AsyncIterator[bytes]:
    """A body that can be read once."""
    yield BLOB


def form(*contents: Any) -> aiohttp.FormData:
    """A form with these as its files."""
    data = aiohttp.FormData()
    for number, content in enumerate(contents):
        data.add_field(f"f{number}", content, filename=f"f{number}")
    return data


@pytest.mark.parametrize("kind", ["bytes", "generator"])
def test_expect_100(kind: str) -> None:
    """Refused in place of a "100 Continue", the replay waits for one of its own; a body not yet begun is not lost."""
    bodies: list[bytes] = []

    async def talk(wire: Wire) -> None:
        while head := await wire.head():
            assert "100-continue" in head
            if token_of(head) == "t1":
                await wire.say(response(401, Connection="close"))
                await wire.gone()
                return
            await wire.say(b"HTTP/1.1 100 Continue\r\n\r\n")
            bodies.append(await (wire.chunked() if kind == "generator" else wire.reader.readexactly(4)))
            await wire.say(response(200))

    async def main() -> None:
        async with serving(talk) as url, session(counting_manager()) as client:
            if kind == "generator":
                with pytest.raises(ReplayRefused):
                    await get(client, url, "POST", data=made(), expect100=True)
            data: Any = made() if kind == "generator" else b"body"
            assert (await get(client, url, "POST", data=data, expect100=True)).status == 200

    run(main())
    assert bodies == [BLOB if kind == "generator" else b"body"]


class Slow(io.FileIO):
    """A file of which one read, of the first sending, takes until its connection is gone, and then still a while."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.reads = 0
        self.under_way, self.hung_up, self.begun_anew = threading.Event(), threading.Event(), threading.Event()

    def read(self, size: int | None = -1) -> bytes:
        """The next piece."""
        self.reads += 1
        if self.reads == 2:
            self.under_way.set()
            assert self.hung_up.wait(BOUND)
            self.begun_anew.wait(0.5)  # nobody may begin anew now: that nobody does takes a while to be seen
        elif self.reads > 2:
            self.begun_anew.set()
        return super().read(size) or b""


def slow_manager() -> TokenManager:
    """As `counting_manager`, with a refresh that takes as long as over a network: the event loop goes on meanwhile."""

    def refresh(session: Session) -> dict[str, Any]:
        time.sleep(0.05)
        return {"access_token": f"t{session.version + 1}", "refresh_token": "r"}

    manager = TokenManager(refresh, store=MemoryStore())
    manager.login({"access_token": "t1", "refresh_token": "r"})
    return manager


@pytest.mark.parametrize("kind", ["file", "form"])
def test_read_that_comes_late(tmp_path: Path, kind: str) -> None:
    """A read under way on another thread when the upload is refused takes nothing from the replay's body."""
    path = tmp_path / "body"
    path.write_bytes(BLOB * 8)
    bodies: list[bytes] = []

    async def main(file: Slow) -> int:
        async def talk(wire: Wire) -> None:
            while head := await wire.head():
                if token_of(head) == "t1":
                    await asyncio.to_thread(file.under_way.wait, BOUND)
                    await wire.say(response(401))
                    await wire.gone()
                    file.hung_up.set()
                    return
                length = re.search(r"Content-Length: (\d+)", head)
                assert length
                bodies.append(await wire.reader.readexactly(int(length[1])))
                await wire.say(response(200))

        async with serving(talk) as url, session(slow_manager()) as client:
            return (await get(client, url, "PUT", data=file if kind == "file" else form(b"1", file))).status

    with Slow(path) as file:
        assert run(main(file)) == 200
    (body,) = bodies
    assert BLOB * 8 in body
    assert kind == "form" or len(body) == len(BLOB) * 8


class Elsewhere(io.FileIO):
    """A file that tells what is done to it, and where; its second read lasts until its connection is gone."""

    def __init__(self, path: Path, story: list[str], hung_up: threading.Event, under_way: threading.Event) -> None:
        super().__init__(path)
        self.story, self.hung_up, self.under_way = story, hung_up, under_way

    def tell(self, what: str) -> None:  # type: ignore[override]  # nobody asks where it is
        """Note it."""
        self.story.append(f"{what} on the loop" if threading.current_thread() is threading.main_thread() else what)

    def read(self, size: int | None = -1) -> bytes:
        """The next piece, a short one."""
        assert size
        self.tell("read")
        if self.story.count("read") == 2:
            self.under_way.set()
            assert self.hung_up.wait(BOUND)
        piece = super().read(1000) or b""
        self.tell("was read")
        return piece

    def __exit__(self, *_: object) -> None:
        self.tell("closed")
        self.close()


def test_factory_of_a_slow_file(tmp_path: Path) -> None:
    """P14: a file that a factory opens is not read on the loop; given up, it is closed after the read under way."""
    path = tmp_path / "body"
    path.write_bytes(BLOB[:1500])
    hung_up, under_way = threading.Event(), threading.Event()
    bodies: list[bytes] = []
    stories: list[list[str]] = []

    def opened() -> Elsewhere:
        if stories:
            hung_up.set()
        stories.append([])
        return Elsewhere(path, stories[-1], hung_up, under_way)

    async def talk(wire: Wire) -> None:
        if token_of(await wire.head()) == "t1":
            await asyncio.to_thread(under_way.wait, BOUND)
            await wire.say(response(401))
            await wire.gone()
            hung_up.set()
            return
        bodies.append(await wire.chunked())
        await wire.say(response(200))

    async def main() -> None:
        async with serving(talk) as url, session(counting_manager()) as client:
            assert (await get(client, url, "POST", data=BodyFactory(opened))).status == 200
            await wait_for(lambda: "closed" in stories[0])

    run(main())
    assert bodies == [BLOB[:1500]]
    refused, sent = stories
    assert refused == ["read", "was read", "read", "was read", "closed"]
    assert [*sent[:-1], sent[-1].removesuffix(" on the loop")] == [*["read", "was read"] * 3, "closed"]


async def stuck(client: aiohttp.ClientSession) -> None:
    """Wait until the client cannot go on sending: its connection has taken no more for a while."""
    connector: Any = client.connector
    await wait_for(lambda: any(getattr(one, "_paused", False) for one in connector._acquired), times=100)


@pytest.mark.parametrize("kind", ["file", "bytes", "form", "factory"])
def test_refused_and_read_no_more(tmp_path: Path, kind: str) -> None:
    """An upload that is refused by a server that reads no more of it, and does not hang up, is sent again at once."""
    path = tmp_path / "body"
    with path.open("wb") as file:
        file.truncate(LARGE)
    sizes: list[int] = []

    async def main(file: Any) -> None:
        over = asyncio.Event()

        async def talk(wire: Wire) -> None:
            head = await wire.head()
            if token_of(head) == "t1":
                await stuck(client)
                await wire.say(response(401))
                await over.wait()
                return
            if "chunked" in head:
                sizes.append(len(await wire.chunked()))
            else:
                sizes.append(len(await wire.reader.readexactly(LARGE)))
            await wire.say(response(200))

        data: dict[str, Callable[[], Any]] = {
            "file": lambda: file,
            "bytes": lambda: io.BytesIO(bytes(LARGE)),
            "form": lambda: form(file, BodyFactory(lambda: [b"x"])),
            "factory": lambda: BodyFactory(lambda: path.open("rb")),
        }
        async with serving(talk) as url, session(counting_manager()) as client:
            try:
                assert (await get(client, url, "PUT", data=data[kind]())).status == 200
            finally:
                over.set()

    with path.open("rb") as opened:
        run(main(opened))
    (size,) = sizes
    assert size >= LARGE


def test_cancelled_upload(tmp_path: Path) -> None:
    """Scenario 58: an upload whose caller is cancelled ends at once, although its server neither reads nor hangs up."""
    path = tmp_path / "body"
    with path.open("wb") as file:
        file.truncate(LARGE)

    async def main(file: Any) -> None:
        over = asyncio.Event()

        async def talk(wire: Wire) -> None:
            await wire.head()
            await over.wait()

        async with serving(talk) as url, session(counting_manager()) as client:
            before = asyncio.all_tasks()
            task = asyncio.ensure_future(get(client, url, "PUT", data=file))
            await stuck(client)
            served = {one for one in asyncio.all_tasks() - before if "connected" in repr(one)}
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            left = asyncio.all_tasks() - before - served
            try:
                assert not left or not (await asyncio.wait(left, timeout=BOUND / 2))[1]
            finally:
                over.set()

    with path.open("rb") as opened:
        run(main(opened))


def test_upload_that_is_not_taken(tmp_path: Path) -> None:
    """A server that hangs up during an upload without a word is the client's own error, of no business of the token."""
    path = tmp_path / "body"
    with path.open("wb") as file:
        file.truncate(LARGE)
    manager = counting_manager()

    async def talk(wire: Wire) -> None:
        await wire.head()
        wire.writer.transport.abort()

    async def main() -> None:
        with path.open("rb") as file:
            async with serving(talk) as url, session(manager) as client:
                with pytest.raises(aiohttp.ClientConnectionError):
                    await get(client, url, "POST", data=file)

    run(main())
    assert manager.token().access_token == "t1"
