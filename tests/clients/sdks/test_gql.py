"""gql's transports, unmodified, over httpx2, requests and aiohttp: our idiom goes where its client's options go."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import pytest
from gql import Client, FileVar, GraphQLRequest, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.exceptions import TransportConnectionFailed
from gql.transport.httpx import HTTPXAsyncTransport, HTTPXTransport
from gql.transport.requests import RequestsHTTPTransport

import unexpired.clients.requests
from tests.clients.contract.listener import Answer, Heard, Listener
from tests.clients.modes import BOUND
from tests.clients.sdks.gate import Gate, admitted, asked, document, kinds
from unexpired import LoginRequired, ReplayRefused, TokenManager
from unexpired.clients.aiohttp import TokenMiddleware
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport
from unexpired.testing import ServerHandle

CROWD = 20
QUERY = gql("query word { word }")
UPLOAD = "mutation keep($file: Upload!) { keep(file: $file) }"
Transport = Callable[[str, TokenManager], Any]
BLOCKING: dict[str, Transport] = {
    "httpx2-auth": lambda url, manager: HTTPXTransport(url, auth=TokenAuth(manager)),
    "httpx2-transport": lambda url, manager: HTTPXTransport(url, transport=TokenTransport(manager)),
    "requests": lambda url, manager: RequestsHTTPTransport(url, auth=unexpired.clients.requests.TokenAuth(manager)),
}
TASKS: dict[str, Transport] = {
    "httpx2-auth": lambda url, manager: HTTPXAsyncTransport(url, auth=TokenAuth(manager)),
    "httpx2-transport": lambda url, manager: HTTPXAsyncTransport(url, transport=AsyncTokenTransport(manager)),
    "aiohttp": lambda url, manager: AIOHTTPTransport(
        url, client_session_args={"middlewares": [TokenMiddleware(manager)]}
    ),
}


@pytest.fixture
def service(server: ServerHandle) -> Iterator[Listener]:
    """Give a GraphQL service, of one word per query, behind a gate."""
    gate = Gate(server)

    def respond(heard: Heard, _: int) -> Answer:
        return admitted(gate, heard) or document({"data": {"word": asked(heard).get("n"), "keep": heard.length}})

    with Listener(respond=respond) as listener:
        yield listener


def words(found: list[Any]) -> list[str]:
    """What each query got."""
    return [result["word"] for result in found]


def held(server: ServerHandle) -> None:
    """Let the token expire, and hold all refusals until the whole crowd is there."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])


@pytest.mark.parametrize("made", BLOCKING.values(), ids=BLOCKING)
def test_threads(server: ServerHandle, manager: TokenManager, service: Listener, made: Transport) -> None:
    """20 queries of threads that are refused together cost one refresh, and each gets its own data."""
    held(server)
    with (
        Client(transport=made(f"{service.url}/graphql", manager), execute_timeout=BOUND) as session,
        ThreadPoolExecutor(CROWD) as pool,
    ):
        batch = [
            pool.submit(session.execute, QUERY, extra_args={"params": {"n": str(number)}}) for number in range(CROWD)
        ]
        server.wait("api_call_held", CROWD)
        server.release("all")
        assert words([each.result(BOUND) for each in batch]) == [str(number) for number in range(CROWD)]
    assert (server.stats().token_posts, server.stats().refused, len(service.heard)) == (1, CROWD, 2 * CROWD)


@pytest.mark.parametrize("made", TASKS.values(), ids=TASKS)
def test_tasks(server: ServerHandle, manager: TokenManager, service: Listener, made: Transport) -> None:
    """20 queries of tasks that are refused together cost one refresh, and each gets its own data."""
    held(server)
    found: list[Any] = [None] * CROWD

    async def main() -> None:
        async with Client(transport=made(f"{service.url}/graphql", manager), execute_timeout=BOUND) as session:

            async def one(number: int) -> None:
                found[number] = await session.execute(QUERY, extra_args={"params": {"n": str(number)}})

            async with anyio.create_task_group() as group:
                for number in range(CROWD):
                    group.start_soon(one, number)
                await anyio.to_thread.run_sync(server.wait, "api_call_held", CROWD)
                server.release("all")

    anyio.run(main)
    assert words(found) == [str(number) for number in range(CROWD)]
    assert (server.stats().token_posts, server.stats().refused, len(service.heard)) == (1, CROWD, 2 * CROWD)


def upload(session: Any) -> Any:
    """Send a file as a form."""
    file = FileVar(io.BytesIO(bytes(range(256)) * 300))
    return session.execute(GraphQLRequest(UPLOAD, variable_values={"file": file}), upload_files=True)


@pytest.mark.parametrize("name", ["httpx2-auth", "httpx2-transport"])
def test_uploads(server: ServerHandle, manager: TokenManager, service: Listener, name: str) -> None:
    """A file that gql uploads over httpx2 is sent again byte for byte."""
    server.expire()
    with Client(transport=BLOCKING[name](f"{service.url}/graphql", manager)) as session:
        answer = upload(session)
    first, second = service.heard
    assert (first.sha256, first.length) == (second.sha256, second.length)
    assert answer["keep"] == first.length > 256 * 300


def test_uploads_over_requests(server: ServerHandle, manager: TokenManager, service: Listener) -> None:
    """Over requests gql streams its forms once: a refused upload says so, and succeeds when it is sent again."""
    server.expire()
    with Client(transport=BLOCKING["requests"](f"{service.url}/graphql", manager)) as session:
        with pytest.raises(TransportConnectionFailed) as caught:
            upload(session)
        assert isinstance(caught.value.__cause__, ReplayRefused)
        assert upload(session)["keep"] > 256 * 300
    first, second = service.heard
    assert first.length == second.length
    assert server.stats().token_posts == 1


@pytest.mark.parametrize("made", BLOCKING.values(), ids=BLOCKING)
def test_login_is_over(server: ServerHandle, manager: TokenManager, service: Listener, made: Transport) -> None:
    """Whoever uses gql gets a TransportConnectionFailed whose cause is LoginRequired."""
    server.revoke_family()
    causes = []
    with Client(transport=made(f"{service.url}/graphql", manager)) as session:
        for _ in range(2):
            with pytest.raises(TransportConnectionFailed) as caught:
                session.execute(QUERY)
            causes.append(caught.value.__cause__)
    assert kinds(causes) == {LoginRequired.__name__}
    assert server.stats().token_posts == 1


@pytest.mark.parametrize("made", TASKS.values(), ids=TASKS)
def test_login_is_over_for_tasks(
    server: ServerHandle, manager: TokenManager, service: Listener, made: Transport
) -> None:
    """The same for tasks: the cause of gql's error is LoginRequired, and the endpoint is asked once."""
    server.revoke_family()
    causes = []

    async def main() -> None:
        async with Client(transport=made(f"{service.url}/graphql", manager)) as session:
            for _ in range(2):
                with pytest.raises(TransportConnectionFailed) as caught:
                    await session.execute(QUERY)
                causes.append(caught.value.__cause__)

    anyio.run(main)
    assert kinds(causes) == {LoginRequired.__name__}
    assert server.stats().token_posts == 1
