"""The MCP SDK's client, unmodified, over an `http_client` that carries our token, against the SDK's own server.

The server runs the SDK's own check of bearer tokens; its verifier asks the embedded server.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Literal

import anyio
import httpx2
import pytest
import uvicorn
from mcp import Client
from mcp.client.streamable_http import streamable_http_client
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from mcp.server.mcpserver import MCPServer
from pydantic import AnyHttpUrl

from tests.clients.modes import BOUND, Via
from tests.docs.test_documentation import ROOT, blocks
from unexpired import LoginRequired, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth
from unexpired.testing import ServerHandle

CROWD = 50
# trio tells of generators that the SDK and httpx2 leave behind, without us too, when a stream is closed early
left_behind = pytest.mark.filterwarnings(
    "ignore:.*async_generator object (EventSource|Response|BoundAsyncStream|PoolByteStream|AsyncResponseStream"
    "|AsyncHTTP11Connection|HTTP11ConnectionByteStream)[.]:pytest.PytestUnraisableExceptionWarning"
)
Era = Literal["auto", "legacy"]


class Verifier:
    """Believes in the tokens that the embedded server takes; remembers what it was asked."""

    def __init__(self, server: ServerHandle) -> None:
        self._url = f"{server.url}/api/gate"
        self.http = httpx2.AsyncClient(timeout=BOUND, limits=httpx2.Limits(max_connections=2 * CROWD))
        self.refused = 0

    async def verify_token(self, token: str) -> AccessToken | None:
        """Whose token it is; None if it is not good."""
        answer = await self.http.get(self._url, headers={"authorization": f"Bearer {token}"})
        if answer.status_code == 200:
            return AccessToken(token=token, client_id="crm", scopes=["api"])
        self.refused += 1
        return None


class Meeting:
    """A tool that answers nobody before all are there, and its server."""

    def __init__(self, verifier: Verifier) -> None:
        issuer = AnyHttpUrl("https://id.example.com")
        auth = AuthSettings(issuer_url=issuer, resource_server_url=None, required_scopes=["api"])
        self.server = MCPServer("meeting", log_level="ERROR", token_verifier=verifier, auth=auth)
        self.together = 0
        self._all = anyio.Event()
        self.server.tool()(self.meet)
        self.server.tool()(self.echo)
        self.server.tool("order")(self.echo)

    async def meet(self, number: int) -> int:
        """Wait until `CROWD` callers are here at the same time."""
        self.together += 1
        if self.together >= CROWD:
            self._all.set()
        with anyio.fail_after(BOUND):
            await self._all.wait()
        return number

    async def echo(self, number: int) -> int:
        """Answer at once."""
        return number


@contextmanager
def running(server: ServerHandle) -> Iterator[tuple[str, Meeting, Verifier]]:
    """The MCP server on a real socket, on a thread and a loop of its own."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=2 * CROWD)
    verifier = Verifier(server)
    meeting = Meeting(verifier)
    config = uvicorn.Config(meeting.server.streamable_http_app(), log_level="error", timeout_graceful_shutdown=1)
    http = uvicorn.Server(config)

    async def serve() -> None:
        async with verifier.http:
            await http.serve(sockets=[listening])

    thread = threading.Thread(target=asyncio.run, args=(serve(),), name="mcp server")
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/mcp", meeting, verifier
    finally:
        http.should_exit = True
        thread.join(BOUND)
        listening.close()


@pytest.fixture
def mcp_server(server: ServerHandle) -> Iterator[tuple[str, Meeting, Verifier]]:
    """Give a running MCP server behind a check of tokens."""
    logging.getLogger("mcp").setLevel(logging.CRITICAL)
    with running(server) as found:
        yield found


@asynccontextmanager
async def client(url: str, manager: TokenManager, via: Via, era: Era) -> AsyncIterator[Client]:
    """The SDK's client over our token."""
    options: dict[str, Any] = {"auth": TokenAuth(manager)}
    if via == "transport":
        options = {"transport": AsyncTokenTransport(manager)}
    async with (
        httpx2.AsyncClient(timeout=BOUND, **options) as http,
        Client(streamable_http_client(url, http_client=http), mode=era) as opened,
    ):
        yield opened


async def together(opened: Client, tool: str, count: int) -> list[Any]:
    """Call *tool* *count* times at once; what came back, in order."""
    found: list[Any] = [None] * count

    async def one(number: int) -> None:
        answer = await opened.call_tool(tool, {"number": number})
        assert answer.structured_content is not None
        found[number] = answer.structured_content["result"]

    with anyio.fail_after(BOUND):
        async with anyio.create_task_group() as group:
            for number in range(count):
                group.start_soon(one, number)
    return found


def run(backend: str, main: Callable[[], Coroutine[Any, Any, Any]]) -> Any:
    """Run *main* on an event loop."""
    return anyio.run(main, backend=backend)


@left_behind
@pytest.mark.parametrize("era", ["auto", "legacy"])
@pytest.mark.parametrize("via", ["auth", "transport"])
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_calls_in_parallel_across_an_expiry(
    server: ServerHandle,
    manager: TokenManager,
    mcp_server: tuple[str, Meeting, Verifier],
    *,
    backend: str,
    via: Via,
    era: Era,
) -> None:
    """Scenario 14: 50 tool calls refused together cost one refresh, and then all 50 are in the server at once."""
    url, meeting, verifier = mcp_server

    async def main() -> None:
        async with client(url, manager, via, era) as opened:
            assert await together(opened, "echo", 2) == [0, 1]
            before = verifier.refused
            server.expire()
            server.api_faults([{"kind": "hold_refusals", "name": "all"}])
            async with anyio.create_task_group() as group:
                group.start_soon(_release, server)
                assert await together(opened, "meet", CROWD) == list(range(CROWD))
            assert verifier.refused - before == CROWD

    run(backend, main)
    assert meeting.together == CROWD
    assert (server.stats().token_posts, server.stats().reuse_detected) == (1, 0)


async def _release(server: ServerHandle) -> None:
    await anyio.to_thread.run_sync(server.wait, "api_call_held", CROWD, BOUND)
    server.release("all")


def test_the_page_s_example(
    server: ServerHandle, manager: TokenManager, mcp_server: tuple[str, Meeting, Verifier]
) -> None:
    """What the documentation shows calls a tool across an expiry."""
    (block,) = [block for block in blocks(ROOT / "docs/how-to/sdks.md") if "streamable_http_client" in block]
    names: dict[str, Any] = {"manager": manager, "TokenAuth": TokenAuth}
    exec(block, names)
    server.expire()
    answer = asyncio.run(names["orders"](mcp_server[0], 7))
    assert answer.structured_content == {"result": 7}
    assert server.stats().token_posts == 1


def test_login_is_over(server: ServerHandle, manager: TokenManager, mcp_server: tuple[str, Meeting, Verifier]) -> None:
    """When the login ends, the SDK closes its client, and LoginRequired is in the group that it raises."""
    url, _, _ = mcp_server

    async def main() -> None:
        async with client(url, manager, "auth", "auto") as opened:
            assert await together(opened, "echo", 2) == [0, 1]
            server.revoke_family()
            await together(opened, "echo", 3)

    with pytest.raises(BaseExceptionGroup) as caught:
        run("asyncio", main)
    over = caught.value.subgroup(LoginRequired)
    assert over is not None
    assert server.stats().token_posts == 1
