"""Sessions of aiohttp that carry tokens, and a server in the same loop that says what a test wants, byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import aiohttp

from unexpired import Scheme, TokenManager
from unexpired.clients.aiohttp import TokenMiddleware

T = TypeVar("T")
BOUND = 25.0
"""Seconds in which everything must be over."""


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run *work* in a loop of its own, within `BOUND`."""

    async def bounded() -> T:
        return await asyncio.wait_for(work, BOUND)

    return asyncio.run(bounded())


@asynccontextmanager
async def session(
    manager: TokenManager, scheme: Scheme | None = None, **options: Any
) -> AsyncIterator[aiohttp.ClientSession]:
    """Open a session whose requests carry tokens of *manager*."""
    settings: dict[str, Any] = {"middlewares": [TokenMiddleware(manager, scheme)]} | options
    async with aiohttp.ClientSession(**settings) as opened:
        yield opened


async def get(client: aiohttp.ClientSession, url: str, method: str = "GET", **options: Any) -> aiohttp.ClientResponse:
    """One request, its answer read."""
    async with client.request(method, url, **options) as answer:
        await answer.read()
    return answer


class Wire:
    """One connection of a client, as bytes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    async def head(self) -> str:
        """The next request, up to its body; nothing when the client is gone."""
        try:
            return (await self.reader.readuntil(b"\r\n\r\n")).decode()
        except asyncio.IncompleteReadError:
            return ""

    async def chunked(self) -> bytes:
        """A body that comes in chunks."""
        # grows in place: bytes would be copied whole for each chunk
        body = bytearray()
        while size := int(await self.reader.readline(), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readline()
        return bytes(body)

    async def say(self, *pieces: bytes) -> None:
        """Send these bytes, each on its own."""
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def gone(self) -> None:
        """Wait until the client has hung up."""
        try:
            while await self.reader.read(65536):
                pass
        except ConnectionError:
            pass


def response(status: int, body: bytes = b"", **headers: str) -> bytes:
    """An answer, as bytes."""
    lines = [f"HTTP/1.1 {status} Said", f"Content-Length: {len(body)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    return "\r\n".join([*lines, "", ""]).encode() + body


@asynccontextmanager
async def serving(talk: Callable[[Wire], Awaitable[None]]) -> AsyncIterator[str]:
    """Serve each connection by *talk*; the address."""
    failures: list[Exception] = []

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await talk(Wire(reader, writer))
        except Exception as error:  # noqa: BLE001 - told below
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0)
    async with server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    assert failures == []


def token_of(head: str) -> str | None:
    """The bearer token of a request."""
    for line in head.splitlines():
        name, _, value = line.partition(": ")
        if name.lower() == "authorization":
            return value.removeprefix("Bearer ")
    return None


async def wait_for(state: Callable[[], bool], times: int = 1) -> None:
    """Wait until *state* holds, *times* looks in a row."""
    held = 0
    async with asyncio.timeout(BOUND):
        while held < times:
            held = held + 1 if state() else 0
            await asyncio.sleep(0.002)
