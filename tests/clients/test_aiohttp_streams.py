"""aiohttp's answers after they were looked into, or read in advance: to their reader they are as they ever were."""

from __future__ import annotations

import asyncio
import gzip
import json
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import aiohttp
import pytest
from aiohttp import StreamReader
from aiohttp.base_protocol import BaseProtocol

from tests.clients.aiohttp_sessions import BOUND, Wire, get, response, run, serving, session, token_of
from tests.clients.contract.listener import OK, Listener
from tests.clients.scripted import counting_manager
from unexpired import Answer, ConfigurationError, ReplayRefused, Scheme, Verdict
from unexpired.clients import _aiohttp_bodies
from unexpired.clients._aiohttp_bodies import _look, _put_back
from unexpired.clients.aiohttp import TokenMiddleware

CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
ROWS = b",".join(b'{"n": %d}\n' % number for number in range(20_000))
LONG = b'{"data": [' + ROWS + b'], "code": 0}\nlast line'
SHORT = b'{"data": [1,\n2],\n "code": 0}'


def chunked(*pieces: bytes) -> list[bytes]:
    """An answer in these chunks, of which each goes out on its own."""
    chunks = [b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces]
    return [HEAD + b"Transfer-Encoding: chunked\r\n\r\n", *chunks, b"0\r\n\r\n"]


WIRE = {
    "short": [HEAD + b"Content-Length: %d\r\n\r\n" % len(SHORT), SHORT],
    "long": [HEAD + b"Content-Length: %d\r\n\r\n" % len(LONG), LONG],
    "to the end": [HEAD + b"Connection: close\r\n\r\n", LONG],
    "chunks": chunked(SHORT[:5], SHORT[5:6], SHORT[6:]),
    "long chunks": chunked(LONG[:70000], LONG[70000:]),
    "together": [b"".join(chunked(SHORT[:5], SHORT[5:6], SHORT[6:]))],
    "gzip": [
        HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(gzip.compress(LONG, mtime=0)),
        gzip.compress(LONG, mtime=0),
    ],
    "empty": [HEAD + b"Content-Length: 0\r\n\r\n"],
}


async def each(pieces: AsyncIterator[Any]) -> list[Any]:
    """All that comes."""
    return [piece async for piece in pieces]


def joined(pieces: list[bytes]) -> bytes:
    """What came, however the network cut it."""
    return b"".join(pieces)


async def lines_and_rest(content: aiohttp.StreamReader) -> list[bytes]:
    """A body in several ways."""
    found = [await content.readline(), await content.readuntil(b'"n": 1')] if not content.at_eof() else []
    found += [await content.read(7), await content.readexactly(5) if not content.at_eof() else b""]
    return [*found, *await each(aiter(content))]


READERS: dict[str, Callable[[aiohttp.ClientResponse], Awaitable[Any]]] = {
    "read": lambda answer: answer.read(),
    "text": lambda answer: answer.text(),
    "content.read": lambda answer: answer.content.read(),
    "lines": lambda answer: each(aiter(answer.content)),
}


@pytest.mark.parametrize("body", WIRE)
def test_read_as_ever(body: str) -> None:
    """P11: whoever reads an answer that was looked into gets what it gets without us, in each way to read."""

    async def talk(wire: Wire) -> None:
        while await wire.head():
            await wire.say(*WIRE[body])
            if body == "to the end":
                return

    async def main() -> None:
        tokens = [TokenMiddleware(counting_manager(), CODES)]
        async with serving(talk) as url, aiohttp.ClientSession() as client:
            for name, reader in READERS.items():
                found = []
                for middlewares in ((), tokens):
                    async with client.get(url, middlewares=middlewares) as answer:
                        found.append(await reader(answer))
                assert found[0] == found[1], name
            wanted = {"empty": b""}.get(body, LONG if body in ("long", "to the end", "gzip", "long chunks") else SHORT)
            async with client.get(url, middlewares=tokens) as answer:
                assert joined(await each(answer.content.iter_chunked(1000))) == wanted
            async with client.get(url, middlewares=tokens) as answer:
                assert joined(await each(answer.content.iter_any())) == wanted
            async with client.get(url, middlewares=tokens) as answer:
                assert joined(await lines_and_rest(answer.content) if wanted == LONG else [wanted]) == wanted

    run(main())


@pytest.mark.parametrize("body", ["chunks", "together", "long chunks"])
def test_chunks_end_where_they_ended(body: str) -> None:
    """`iter_chunks` tells the end of each chunk where the server had it."""

    async def talk(wire: Wire) -> None:
        while await wire.head():
            await wire.say(*WIRE[body])

    async def main() -> list[int]:
        async with serving(talk) as url, session(counting_manager(), CODES) as client, client.get(url) as answer:
            sizes, size = [], 0
            async for piece, ends in answer.content.iter_chunks():
                size += len(piece)
                if ends:
                    sizes.append(size)
            return sizes

    ends = [5, 6, len(SHORT)] if body != "long chunks" else [70000, len(LONG)]
    assert run(main()) == ends


def test_chunk_whose_end_comes_late() -> None:
    """A chunk that comes in two pieces, and its end after them, is read again as one chunk."""

    async def main() -> list[tuple[bytes, bool]]:
        protocol = BaseProtocol(asyncio.get_running_loop())
        protocol.connection_made(asyncio.Transport())
        content = StreamReader(protocol, 2**16)
        looking = asyncio.ensure_future(_look(content, lambda piece: piece == b"ef"))
        content.begin_http_chunk_receiving()
        for feed in (b"ab", b"cd", b"", b"ef", b""):
            if feed:
                content.feed_data(feed)
            else:
                content.end_http_chunk_receiving()
            await asyncio.sleep(0)
        await looking
        content.feed_eof()
        return [(piece, ends) async for piece, ends in content.iter_chunks()]

    assert run(main()) == [(b"abcd", True), (b"ef", True)]


def test_body_of_which_a_part_was_read() -> None:
    """What is put back comes before what is left of a piece that was read in part."""

    async def main() -> bytes:
        content = StreamReader(BaseProtocol(asyncio.get_running_loop()), 2**16)
        content.feed_data(b"abcdef")
        content.feed_eof()
        _put_back(content, [(await content.read(2), False)])
        return await content.read()

    assert run(main()) == b"abcdef"


def test_small_buffer() -> None:
    """A session that holds back what is not read yet is not stuck with a body that is looked into."""

    async def talk(wire: Wire) -> None:
        await wire.head()
        await wire.say(*WIRE["long"])
        await wire.gone()

    async def main() -> bytes:
        async with (
            serving(talk) as url,
            session(counting_manager(), CODES, read_bufsize=16) as client,
            client.get(url) as answer,
        ):
            return joined(await each(answer.content.iter_any()))

    assert run(main()) == LONG


def test_refused_in_a_packed_body() -> None:
    """Scenario 37: a code is found in a body that aiohttp unpacks."""
    packed = gzip.compress(b'{"code": 40009}')

    async def talk(wire: Wire) -> None:
        while head := await wire.head():
            if token_of(head) == "t1":
                await wire.say(response(200, packed, Content_Type="application/json", Content_Encoding="gzip"))
            else:
                await wire.say(response(200, b'{"code": 0}', Content_Type="application/json"))

    async def main() -> Any:
        async with serving(talk) as url, session(counting_manager(), CODES) as client, client.get(url) as answer:
            return await answer.json()

    assert run(main()) == {"code": 0}


def test_refused_after_another_has_read_it() -> None:
    """A body that a middleware further in has read already is judged by what it read."""

    async def talk(wire: Wire) -> None:
        while head := await wire.head():
            code = b'{"code": %d}' % (40009 if token_of(head) == "t1" else 0)
            await wire.say(response(200, code, Content_Type="application/json"))

    async def reading(request: aiohttp.ClientRequest, handler: Any) -> Any:
        answer = await handler(request)
        await answer.read()
        return answer

    async def main() -> bytes:
        tokens = TokenMiddleware(counting_manager(), CODES)
        async with serving(talk) as url, aiohttp.ClientSession(middlewares=[tokens, reading]) as client:
            return await (await client.get(url)).read()

    assert run(main()) == b'{"code": 0}'


@pytest.mark.parametrize("status", [200, 401])
def test_body_that_breaks_off(status: int) -> None:
    """An answer that breaks off is its reader's error, not the call's; of a refused one nobody hears."""

    async def talk(wire: Wire) -> None:
        head = await wire.head()
        if status == 401 and token_of(head) == "t2":
            await wire.say(response(200))
            return
        await wire.say(b"HTTP/1.1 %d Said\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n" % status)
        await wire.say(b'{"data": [')

    async def main() -> None:
        async with serving(talk) as url, session(counting_manager(), CODES) as client, client.get(url) as answer:
            assert answer.status == 200
            if status == 200:
                with pytest.raises(aiohttp.ClientPayloadError):
                    await answer.read()

    run(main())


@pytest.mark.usefixtures("reads_for_a_second")
def test_slow_refusal() -> None:
    """A refused answer whose body does not come is waited for no longer than a second; then it is let go."""
    gone: list[float] = []

    async def talk(wire: Wire) -> None:
        if token_of(await wire.head()) == "t2":
            await wire.say(response(200))
            return
        await wire.say(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nno")
        began = time.monotonic()
        await wire.gone()
        gone.append(time.monotonic() - began)

    async def main() -> int:
        async with serving(talk) as url, session(counting_manager()) as client:
            return (await get(client, url)).status

    assert run(main()) == 200
    assert len(gone) == 1
    assert 0.5 < gone[0] < BOUND / 2


@pytest.mark.usefixtures("reads_for_a_second")
def test_slow_refusal_that_stays() -> None:
    """A slow refusal that is the last answer is its caller's, the beginning that was read included."""
    manager = counting_manager()

    async def talk(wire: Wire) -> None:
        while await wire.head():
            await wire.say(b"HTTP/1.1 401 No\r\nContent-Length: 4\r\n\r\nno")
            await asyncio.sleep(1.3)
            await wire.say(b"pe")

    async def main() -> tuple[int, bytes]:
        async with serving(talk) as url, session(manager) as client, client.get(url) as answer:
            return answer.status, await answer.read()

    assert run(main()) == (401, b"nope")
    assert manager.token().access_token == "t2"


def test_total_ends_the_reading_of_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """Aiohttp's `total` is not forgotten while a refused answer is read: no refresh follows."""
    # or else a loop that stood still finds `total` and the end of this wait due at once, and either may come first
    monkeypatch.setattr(_aiohttp_bodies, "WORTH_WAITING", BOUND)
    manager = counting_manager()

    async def talk(wire: Wire) -> None:
        await wire.head()
        await wire.say(b"HTTP/1.1 401 No\r\nContent-Length: 9\r\n\r\nno")
        await wire.gone()

    async def main() -> None:
        async with serving(talk) as url, session(manager) as client:
            with pytest.raises(TimeoutError):
                await get(client, url, timeout=aiohttp.ClientTimeout(total=0.3))

    run(main())
    assert manager.token().access_token == "t1"


def test_judge_of_ones_own() -> None:
    """A judge of the user's own sees whole bodies; what it raises is the caller's, and no connection stays behind."""
    seen: list[bytes | None] = []

    def judge(answer: Answer) -> Verdict | None:
        seen.append(answer.body)
        body: Any = answer.json()
        if body == "broken":
            raise ConfigurationError("no such answer")
        return Verdict.EXPIRED if body == "old" else None

    bodies: Iterator[str] = iter(["old", "new", "broken", "new"])

    async def talk(wire: Wire) -> None:
        while await wire.head():
            await wire.say(response(200, json.dumps(next(bodies)).encode(), Content_Type="application/json"))

    async def main() -> None:
        scheme = Scheme.bearer(judge=judge)
        connector = aiohttp.TCPConnector(limit=1)
        async with serving(talk) as url, session(counting_manager(), scheme, connector=connector) as client:
            assert await (await client.get(url)).json() == "new"
            with pytest.raises(ConfigurationError, match="no such answer"):
                await client.get(url)
            assert await (await client.get(url)).json() == "new"

    run(main())
    assert seen == [b'"old"', b'"new"', b'"broken"', b'"new"']


def test_closed_when_nobody_gets_it() -> None:
    """A long refused answer whose caller gets an error in its place is closed: its connection is free at once."""
    manager = counting_manager()

    async def main() -> None:
        with Listener(respond=lambda _, before: OK if before else (401, {}, b"no" * 2_000_000)) as listener:
            async with session(manager, connector=aiohttp.TCPConnector(limit=1)) as client:
                with pytest.raises(ReplayRefused):
                    await get(client, listener.url, "POST", data=each_of(b"once"))
                assert (await get(client, listener.url)).status == 200

    run(main())


async def each_of(*pieces: bytes) -> AsyncIterator[bytes]:
    """A body that can be read once."""
    for piece in pieces:
        yield piece
