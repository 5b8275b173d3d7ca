"""pyreqwest, for the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, ClassVar
from urllib.parse import urlsplit

from pyreqwest.client import ClientBuilder, SyncClientBuilder
from pyreqwest.exceptions import ConnectError, ConnectTimeoutError
from pyreqwest.proxy import ProxyBuilder
from urllib3 import encode_multipart_formdata

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from unexpired import Scheme, TokenManager
from unexpired.clients.pyreqwest import (
    AsyncBodyFactory,
    BodyFactory,
    SyncTokenMiddleware,
    TokenMiddleware,
    token_client,
)

BELOW = "it follows redirects below its middlewares, which learn nothing of it: token_client follows them above"


class Pyreqwest(Fitting):
    """A `SyncClient` or `Client`, given tokens by a middleware, or built by `token_client`."""

    name = "pyreqwest"
    idioms = ("middleware", "client")
    modes = ("threads", "asyncio")
    without: ClassVar = {"trio": "it runs on asyncio only"}
    places: ClassVar = {"middleware": ("header",), "client": ("header", "custom", "query", "cookie")}
    discreet = ("middleware", "client")
    exempt: ClassVar = {
        "test_a_refusal_that_breaks_off": "pyreqwest reads an answer before it hands it on, and the error is its own"
    }
    timeout_error = ConnectTimeoutError  # its word for any time that is over before there is an answer
    connect_error = ConnectError

    def not_applicable(self, point: int, idiom: str, mode: str) -> str | None:  # noqa: ARG002 - the same in each mode
        """Redirects are what the two idioms differ in."""
        return BELOW if point == 11 and idiom == "middleware" else None

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:
        """Make a client of the kind that the mode needs."""
        client = _Client(cell, setup)
        if cell.blocking:
            with client.build(SyncClientBuilder()) as client.opened:
                yield client
        else:
            async with client.build(ClientBuilder()) as client.opened:
                yield client

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        went: list[Any] = []
        request = client.request(ask, went).build()
        response = request.send() if client.cell.blocking else await request.send()
        body = response.bytes() if client.cell.blocking else await response.bytes()
        held = f"{list(response.headers.items())} {response.extensions}"
        return Reply(response.status, response.headers, body.to_bytes(), went[-1], (response,), held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test; by itself pyreqwest collects 64 KiB before it lets go of any."""
        request = client.request(ask, []).streamed_read_buffer_limit(0).build_streamed()
        if client.cell.blocking:
            with request as response:
                yield Streaming(response.status, _blocking(response.body_reader))
        else:
            async with request as response:
                yield Streaming(response.status, _tasks(response.body_reader))


@dataclass(frozen=True)
class _Seen:
    """What a middleware sees of an answer, which is empty once it is handed on."""

    shown: str
    headers: Any
    extensions: Any


class _Client:
    """A client with what each of its requests is given."""

    opened: Any

    def __init__(self, cell: Cell, setup: Setup) -> None:
        self.cell, self.setup = cell, setup

    def build(self, builder: Any) -> Any:
        """Give it tokens."""
        setup = self.setup
        builder.danger_accept_invalid_certs(True).timeout(timedelta(seconds=setup.timeout))
        builder.max_connections(setup.connections).pool_timeout(timedelta(seconds=10))
        if setup.proxy:
            builder.proxy(ProxyBuilder.all(setup.proxy))
        if setup.http2:
            builder.http2_prior_knowledge()
        if setup.noted is not None:
            builder.with_middleware(self.hook(setup.noted))
        if self.cell.idiom == "client":
            scheme = setup.scheme or Scheme.bearer()
            others = [(manager, scheme.limited_to(origin)) for origin, manager in setup.others.items()]
            hops = 10 if setup.follow_redirects else 0
            return token_client(builder, setup.manager, setup.scheme, others=others, max_redirects=hops)
        if not setup.others:
            builder.with_middleware(self.tokens(setup.manager))
        return builder.build()

    def tokens(self, manager: TokenManager) -> Any:
        """Our middleware."""
        return (SyncTokenMiddleware if self.cell.blocking else TokenMiddleware)(manager, self.setup.scheme)

    def hook(self, noted: list[Any]) -> Any:
        """A middleware of the caller's own, which sees every request before ours and every answer after it."""

        def sync(request: Any, following: Any) -> Any:
            noted.append(request)
            response = following.run(request)
            noted.append(_Seen(repr(response), response.headers.copy(), response.extensions))
            return response

        async def tasks(request: Any, following: Any) -> Any:
            noted.append(request)
            response = await following.run(request)
            noted.append(_Seen(repr(response), response.headers.copy(), response.extensions))
            return response

        return sync if self.cell.blocking else tasks

    def request(self, ask: Ask, went: list[str]) -> Any:
        """Build it; *went* takes down where it goes."""
        made = self.opened.request(ask.method, ask.url).headers(dict(ask.headers))
        if ask.params:
            made.query(dict(ask.params))
        if ask.cookies:
            made.header("cookie", "; ".join(f"{name}={value}" for name, value in ask.cookies.items()))
        extensions: dict[str, Any] = {}
        if not ask.authenticated:
            extensions["unexpired.authenticated"] = False
        if ask.resource is not None:
            extensions["unexpired.resource"] = ask.resource
        if self.cell.idiom == "middleware" and self.setup.others:
            origin = f"{urlsplit(ask.url).scheme}://{urlsplit(ask.url).netloc}"
            made.with_middleware(self.tokens(self.setup.others.get(origin, self.setup.manager)))
        made.extensions(extensions).with_middleware(self.route(went))
        return made if ask.body is None else self.with_body(made, ask.body)

    def route(self, went: list[str]) -> Any:
        """A middleware below ours, since answers do not say where they come from."""

        def sync(request: Any, following: Any) -> Any:
            went.append(str(request.url))
            return following.run(request)

        async def tasks(request: Any, following: Any) -> Any:
            went.append(str(request.url))
            return await following.run(request)

        return sync if self.cell.blocking else tasks

    def with_body(self, made: Any, body: Body) -> Any:
        """Give it a body. A form of pyreqwest's own can be sent only once, so the multipart one is rendered before."""
        if body.kind == "json":
            return made.body_json(body.content)
        if body.kind == "form":
            return made.form(body.content)
        if body.kind == "bytes":
            return made.body_bytes(body.content)
        if body.kind == "multipart":
            fields, files = body.content
            content, kind = encode_multipart_formdata({**fields, **files}, boundary="b0undary")
            return made.header("content-type", kind).body_bytes(content)
        if body.kind == "file":
            factory = BodyFactory if self.cell.blocking else AsyncBodyFactory
            return made.body_stream(factory(lambda: open(body.content, "rb")))
        return made.body_stream(body.content() if self.cell.blocking else _each(body.content()))


async def _blocking(reader: Any) -> AsyncIterator[bytes]:
    while (chunk := reader.read_chunk()) is not None:
        yield chunk.to_bytes()


async def _tasks(reader: Any) -> AsyncIterator[bytes]:
    while (chunk := await reader.read_chunk()) is not None:
        yield chunk.to_bytes()


async def _each(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
