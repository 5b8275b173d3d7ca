"""Every Python block of the README and the docs runs, in its page's order, against the embedded server."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from unexpired import LoginRequired, TokenManager
from unexpired.testing import API_FAULT_KINDS, FAULT_KINDS, ServerConfig, ServerHandle, running_server

ROOT = Path(__file__).parents[2]
PAGES = sorted([ROOT / "README.md", *(page for page in (ROOT / "docs").rglob("*.md") if page.stem != "template")])
BLOCK = re.compile(r"^```python\n(.*?)^```$", re.MULTILINE | re.DOTALL)
DEFINED = re.compile(r"^def (test_\w+)", re.MULTILINE)
TEST = re.compile(r"`(test_\w+)`")
LINK = re.compile(r"\]\(((?!https?:)[^)#]+)(?:#[^)]*)?\)")
CloseLater = Callable[[dict[str, Any]], object]
ADDRESSES = ("https://id.example.com", "https://crm.example.com")


def blocks(page: Path) -> list[str]:
    """The Python blocks of a page, in order."""
    return BLOCK.findall(page.read_text())


# niquests has an environment of its own, where its page is the only one.
BESIDE_NIQUESTS = find_spec("niquests") is not None
WITH_CODE = [page for page in PAGES if blocks(page) and (page.stem == "niquests") == BESIDE_NIQUESTS]


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServerHandle]:
    """A server for the addresses in the text, and a home for the sessions."""
    monkeypatch.setenv("UNEXPIRED_HOME", str(tmp_path / "home"))
    with running_server(ServerConfig()) as handle:
        yield handle


@pytest.fixture
def close_later() -> Iterator[CloseLater]:
    """Takes the names of a block, and closes the clients among them when the page is done."""
    with ExitStack() as stack:
        yield lambda names: [
            stack.callback(value.close)
            for value in names.values()
            if callable(getattr(value, "close", None)) and not isinstance(value, type | TokenManager)
        ]


@pytest.fixture
def beside(page: Path, server: ServerHandle, tmp_path: Path) -> Iterator[dict[str, str]]:
    """What stands on a page for a server of another kind, and a real one for it."""
    if page.stem == "grpc":
        import grpc

        from tests.clients.contract.grpc_like import beside

        with beside(server, grpc.local_server_credentials()) as api:
            yield {"crm.example.com:443": api.address, "ssl_channel_credentials": "local_channel_credentials"}
    elif page.stem == "from-one-process-to-a-fleet":
        from tests.stores.redis_server import RedisServer

        redis = RedisServer(tmp_path / "redis", "--appendonly", "yes").start()
        try:
            yield {"redis://cache.internal:6379/0": redis.url}
        finally:
            redis.kill()
    else:
        yield {}


def made_real(source: str, server: ServerHandle, tmp_path: Path) -> str:
    """The block with the example's addresses, tokens and directory replaced by real ones."""
    for address in ADDRESSES:
        source = source.replace(address, server.url)
    answer = server.login()
    for name in ("access_token", "refresh_token"):
        source = source.replace(f'"{name}": "..."', f'"{name}": "{answer[name]}"')
    return source.replace("/tmp/unexpired-example", str(tmp_path / "elsewhere"))


@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.stem)
def test_blocks_run(
    page: Path, server: ServerHandle, beside: dict[str, str], tmp_path: Path, close_later: CloseLater
) -> None:
    """What a page shows works when it is copied, block after block."""
    names: dict[str, Any] = {"__name__": "docs"}
    for number, block in enumerate(blocks(page)):
        source = made_real(block, server, tmp_path)
        for text, real in beside.items():
            source = source.replace(text, real)
        code = compile(source, f"{page.name}[{number}]", "exec")
        exec(code, names)
        if "main" in names:
            assert asyncio.run(names.pop("main")()) in (200, b"17")
        close_later(names)
    assert server.stats().reuse_detected == 0


def test_the_readme_dialects_reach_their_apis(server: ServerHandle, tmp_path: Path, close_later: CloseLater) -> None:
    """The README's two dialects are served by the server's two dialects, after an expiry that only it knows."""
    names: dict[str, Any] = {"__name__": "docs"}
    served = 0
    for block in blocks(ROOT / "README.md"):
        exec(made_real(block, server, tmp_path), names)
        close_later(names)
        if "Scheme(" in block:
            names["manager"].login(server.login())
            for _ in range(2):
                server.expire()
                assert names["client"].get("/list").json()["code"] == 0
            served += 1
    assert served == 2
    assert server.stats().reuse_detected == 0


def test_the_readme_s_own_function_ends_a_dead_login(
    server: ServerHandle, tmp_path: Path, close_later: CloseLater
) -> None:
    """When the server has revoked the login, the function of the README ends it, and says where to log in."""
    names: dict[str, Any] = {"__name__": "docs"}
    for block in blocks(ROOT / "README.md"):
        exec(made_real(block, server, tmp_path), names)
        close_later(names)
        if "FunctionGrant(" in block:
            break
    names["manager"].login(server.login())
    server.revoke_family()
    before = server.stats().token_posts
    for _ in range(2):
        with pytest.raises(LoginRequired) as over:
            names["client"].get("/list")
        assert (over.value.reason, over.value.login_url) == ("refused", "/login?redirect=%2Flist%3Fa%3D1&code=C1")
    assert names["manager"].session().ended.reason == "refused"
    assert server.stats().token_posts == before + 1


def test_the_readme_s_program_run_eight_times_at_once(server: ServerHandle, tmp_path: Path) -> None:
    """Eight processes of the first program, and two later ones, spend the seeded login on one refresh."""
    program = tmp_path / "program.py"
    source = made_real(blocks(ROOT / "README.md")[0], server, tmp_path)
    program.write_text(f"{source}assert client.get('/api/customers').status_code == 200\n")
    server.expire()
    for count in (8, 1, 1):
        programs = [subprocess.Popen([sys.executable, str(program)], env=os.environ) for _ in range(count)]
        assert [each.wait(50) for each in programs] == [0] * count
    assert (server.stats().refreshes, server.stats().reuse_detected) == (1, 0)


def test_each_fault_of_the_server_is_explained() -> None:
    """The page for test authors has every kind of fault in its two tables."""
    page = (ROOT / "docs/how-to/test-your-program.md").read_text()
    rows = re.findall(r"^\| (`[^|]*) \|", page.partition("## Bad days")[2], re.MULTILINE)
    assert set(re.findall(r"`(\w+)`", " ".join(rows))) == FAULT_KINDS | API_FAULT_KINDS


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """A link to a file of the repository leads to one."""
    missing = [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()]
    assert missing == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tests_that_are_named_exist(page: Path) -> None:
    """A test that a page gives as proof is there."""
    named = set(TEST.findall(page.read_text()))
    written = {name for path in (ROOT / "tests").rglob("test_*.py") for name in DEFINED.findall(path.read_text())}
    assert named - written == set()
