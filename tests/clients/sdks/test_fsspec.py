"""fsspec's file system over HTTP, unmodified: aiohttp's middleware carries our token on its own event loop."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fsspec.implementations.http import HTTPFileSystem  # type: ignore[import-untyped]

from tests.clients.contract.listener import Answer, Heard, Listener
from tests.clients.sdks.gate import Gate, admitted
from unexpired import LoginRequired, ReplayRefused, TokenManager
from unexpired.clients.aiohttp import TokenMiddleware
from unexpired.testing import ServerHandle

CONTENT = bytes(range(256)) * 1024
BLOCK = 64 * 1024


@pytest.fixture
def service(server: ServerHandle) -> Iterator[Listener]:
    """Give a server of one file, in whole or in parts, behind a gate."""
    gate = Gate(server)

    def respond(heard: Heard, _: int) -> Answer:
        return admitted(gate, heard) or _part(heard)

    with Listener(respond=respond) as listener:
        yield listener


def _part(heard: Heard) -> Answer:
    about = {"accept-ranges": "bytes", "content-type": "application/octet-stream", "content-encoding": "identity"}
    if heard.method == "HEAD":
        return 200, about | {"content-length": str(len(CONTENT))}, b""
    (wanted, *_) = [*heard.all("range"), ""]
    if not wanted:
        return 200, about, CONTENT
    first, _, last = wanted.removeprefix("bytes=").partition("-")
    piece = CONTENT[int(first) : int(last) + 1]
    place = f"bytes {first}-{int(first) + len(piece) - 1}/{len(CONTENT)}"
    return 206, about | {"content-range": place}, piece


@pytest.fixture
def files(manager: TokenManager) -> Iterator[Any]:
    """Give a file system that carries the token, with a session of its own."""
    opened: Any = HTTPFileSystem(
        client_kwargs={"middlewares": (TokenMiddleware(manager),)}, skip_instance_cache=True, block_size=BLOCK
    )
    yield opened
    if opened._session is not None:
        HTTPFileSystem.close_session(opened.loop, opened._session)


def test_expiry_within_a_file(server: ServerHandle, service: Listener, files: Any) -> None:
    """A file that is read block by block goes on after an expiry, without a gap and without an error."""
    with files.open(f"{service.url}/file") as file:
        read = file.read(BLOCK)
        server.expire()
        read += file.read()
    assert read == CONTENT
    assert server.stats().token_posts == 1
    assert len([heard for heard in service.heard if heard.all("range")]) > 2


def test_download(server: ServerHandle, service: Listener, files: Any, tmp_path: Path) -> None:
    """A download that begins with an expired token ends with the whole file."""
    server.expire()
    files.get(f"{service.url}/file", str(tmp_path / "file"))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert server.stats().token_posts == 1


def test_many_files_at_once(server: ServerHandle, service: Listener, files: Any) -> None:
    """30 files that are refused together cost one refresh, and come whole."""
    server.expire()
    found = files.cat([f"{service.url}/{number}" for number in range(30)])
    assert len(found) == 30
    assert set(found.values()) == {CONTENT}
    assert (server.stats().token_posts, server.stats().reuse_detected) == (1, 0)


def test_upload(server: ServerHandle, service: Listener, files: Any, tmp_path: Path) -> None:
    """An upload, which fsspec streams once, is refused clearly at an expiry, and goes through when sent again."""
    path = tmp_path / "file"
    path.write_bytes(CONTENT)
    server.expire()
    with pytest.raises(ReplayRefused):
        files.put_file(str(path), f"{service.url}/file", method="put")
    files.put_file(str(path), f"{service.url}/file", method="put")
    assert service.heard[-1].length == len(CONTENT)
    assert server.stats().token_posts == 1


def test_login_is_over(server: ServerHandle, service: Listener, files: Any) -> None:
    """LoginRequired comes out of fsspec as it is."""
    server.revoke_family()
    for _ in range(2):
        with pytest.raises(LoginRequired):
            files.cat(f"{service.url}/file")
    assert server.stats().token_posts == 1
