"""Request bodies at a refusal: sent again the same, or refused clearly, never cut or empty."""

from __future__ import annotations

import hashlib
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.clients.contract.crew import Caller, crew
from tests.clients.contract.fitting import Body, Cell, Reply
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.scripted import counting_manager
from unexpired import ReplayRefused, TokenManager
from unexpired.testing import ServerHandle

BLOB = bytes(range(256)) * 700
HUGE = 48 * 1024 * 1024
"""More than an upload may ever hold in memory."""
SMALL = 12 * 1024 * 1024


def pieces() -> Iterator[bytes]:
    """A body that can be read once."""
    yield b"one"
    yield b"two"


def body_of(kind: str, path: Path) -> Body:
    """A body of each kind."""
    path.write_bytes(BLOB)
    content: dict[str, Any] = {
        "json": {"a": 1, "b": ["grün"]},
        "form": {"a": "1 2", "b": "&"},
        "multipart": ({"a": "1"}, {"b": ("b.bin", BLOB), "c": ("c.bin", b"")}),
        "bytes": BLOB,
        "file": path,
        "generator": pieces,
    }
    return Body(kind, content[kind])


def whole(reply: Reply) -> bytes:
    """What the server received: a multipart form without the boundary that the client chose."""
    mark = re.match(rb"--(\S+)\r\n", reply.body)
    return reply.body.replace(mark[1], b"boundary") if mark else reply.body


@pytest.mark.contract(8)
@pytest.mark.parametrize("kind", ["json", "form", "multipart", "bytes", "file"])
def test_same_body(server: ServerHandle, manager: TokenManager, cell: Cell, kind: str, tmp_path: Path) -> None:
    """Scenario 40: the replay of a body that can be had again has the very same bytes as the body sent at once."""
    body = body_of(kind, tmp_path / "body")
    with crew(cell, manager) as callers:
        at_once = callers.send(f"{server.url}/api/echo", "POST", body)
        server.expire()
        replayed = callers.send(f"{server.url}/api/echo", "POST", body)
    assert (at_once.status, replayed.status) == (200, 200)
    assert whole(replayed) == whole(at_once) != b""
    stats = server.stats()
    assert (stats.refused, stats.token_posts, stats.api_calls) == (1, 1, 3)


@pytest.mark.contract(8)
def test_body_that_is_read_once(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 40: what can be read once is never sent empty or cut: the replay is refused, the token is fresh."""
    body = Body("generator", pieces)

    async def job(caller: Caller) -> Reply:
        with pytest.raises(ReplayRefused, match="send the request again") as caught:
            await caller.send(f"{server.url}/api/echo", "POST", body)
        assert caught.value.key == "alice"
        assert (await caller.blocking(server.stats)).api_calls == 1
        return await caller.send(f"{server.url}/api/echo", "POST", body)

    server.expire()
    with crew(cell, manager) as callers:
        assert callers.one(job).body == b"onetwo"
    assert server.stats().token_posts == 1


@pytest.mark.contract(8)
def test_nothing_is_read_ahead(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """With a good token a body that can be read once is simply sent."""
    with crew(cell, manager) as callers:
        assert callers.send(f"{server.url}/api/echo", "POST", Body("generator", pieces)).body == b"onetwo"
    assert server.stats().token_posts == 0


def refuse_first(_: Heard, before: int) -> Answer:
    """The token expires during the upload: it is refused after the whole body has arrived."""
    return OK if before else REFUSED


@pytest.mark.contract(17)
def test_upload_is_replayed_from_disk(listener: Listener, cell: Cell, tmp_path: Path) -> None:
    """A file bigger than the memory for it is sent again from the disk, whole, and never held in memory."""
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(HUGE)
        file.write(b"begin")
        file.seek(HUGE - 3)
        file.write(b"end")
    with path.open("rb") as file:
        wanted = hashlib.file_digest(file, "sha256").hexdigest()
    listener.respond = refuse_first
    with crew(cell, counting_manager()) as callers:
        tracemalloc.start()
        try:
            assert callers.send(f"{listener.url}/x", "POST", Body("file", path)).status == 200
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
    assert [(heard.length, heard.sha256) for heard in listener.heard] == [(HUGE, wanted)] * 2
    assert listener.tokens == ["t1", "t2"]
    assert peak < SMALL


@pytest.mark.contract(17)
def test_upload_that_is_made_on_the_way_is_refused(listener: Listener, cell: Cell) -> None:
    """A body of a generator, bigger than the memory for it, is not kept for a replay: that is refused, clearly."""
    listener.respond = refuse_first
    chunk = b"x" * 65536

    def made() -> Iterator[bytes]:
        return (chunk for _ in range(HUGE // len(chunk)))

    with crew(cell, counting_manager()) as callers:
        tracemalloc.start()
        try:
            with pytest.raises(ReplayRefused, match="send the request again"):
                callers.send(f"{listener.url}/x", "POST", Body("generator", made))
            peak = tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()
        assert callers.send(f"{listener.url}/x", "POST", Body("generator", made)).status == 200
    assert [heard.length for heard in listener.heard] == [HUGE] * 2
    assert listener.tokens == ["t1", "t2"]
    assert peak < SMALL
