"""aiohttp, for the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar

import aiohttp

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from unexpired.clients.aiohttp import TokenMiddleware


class Aiohttp(Fitting):
    """A `ClientSession`, given tokens by a middleware."""

    name = "aiohttp"
    idioms = ("middleware",)
    modes = ("asyncio",)
    without: ClassVar = {"threads": "it does not block", "trio": "it runs on asyncio only"}
    places: ClassVar = {"middleware": ("header", "custom", "query", "cookie")}
    discreet = ("middleware",)
    exempt: ClassVar = {"test_http2": "aiohttp speaks HTTP/1.1 only"}
    timeout_error = aiohttp.SocketTimeoutError
    connect_error = aiohttp.ClientConnectorError

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:  # noqa: ARG002 - there is one idiom
        """Make a session; further managers go with the request."""
        connector = aiohttp.TCPConnector(limit=setup.connections or 100, ssl=False)
        # aiohttp's `total` is for all that a call takes, the wait for a token included
        timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=setup.timeout)
        tokens = TokenMiddleware(setup.manager, setup.scheme)
        traces = [] if setup.noted is None else [_hooks(setup.noted)]
        async with aiohttp.ClientSession(
            connector=connector, timeout=timeout, middlewares=[tokens], trace_configs=traces, proxy=setup.proxy
        ) as session:
            yield _Client(session, setup, tokens)

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        with ExitStack() as stack:
            async with client.request(ask, stack) as response:
                body = await response.read()
        answers = (*response.history, response)
        shown = (*answers, *(answer.request_info for answer in answers))
        values = [value for one in shown for value in one.headers.values()]
        held = " ".join(map(str, [*values, *(one.url for one in shown), *(answer.real_url for answer in answers)]))
        return Reply(response.status, response.headers, body, str(response.url), shown, held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test."""
        with ExitStack() as stack:
            async with client.request(ask, stack) as response:
                yield Streaming(response.status, response.content.iter_any())


class _Client:
    """A session with what each of its requests is given."""

    def __init__(self, session: aiohttp.ClientSession, setup: Setup, tokens: TokenMiddleware) -> None:
        self.session, self.setup, self.tokens = session, setup, tokens

    def request(self, ask: Ask, stack: ExitStack) -> Any:
        """Send it."""
        options: dict[str, Any] = {"headers": dict(ask.headers), "allow_redirects": self.setup.follow_redirects}
        options |= {"params": dict(ask.params), "cookies": dict(ask.cookies)}
        if not ask.authenticated:
            options["middlewares"] = ()
        elif ask.resource is not None:
            options["middlewares"] = (self.tokens.for_resource(ask.resource),)
        for origin, manager in self.setup.others.items():
            if ask.url.startswith(origin):
                options["middlewares"] = (TokenMiddleware(manager, self.setup.scheme),)
        return self.session.request(ask.method, ask.url, **options, **_body(ask.body, stack))


def _hooks(noted: list[Any]) -> aiohttp.TraceConfig:
    """A trace that takes down what each of its hooks is shown of requests and answers."""
    config = aiohttp.TraceConfig()

    async def note(_session: Any, _context: Any, shown: Any) -> None:
        noted.append(shown)
        if isinstance(shown, aiohttp.TraceRequestEndParams):
            noted.append(shown.response)

    config.on_request_start.append(note)
    config.on_request_headers_sent.append(note)
    config.on_request_end.append(note)
    return config


def _body(body: Body | None, stack: ExitStack) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "json":
        return {"json": body.content}
    if body.kind == "multipart":
        form = aiohttp.FormData()
        fields, files = body.content
        for name, value in fields.items():
            form.add_field(name, value)
        for name, (filename, content) in files.items():
            form.add_field(name, content, filename=filename)
        return {"data": form}
    if body.kind == "file":
        return {"data": stack.enter_context(open(body.content, "rb"))}
    return {"data": _each(body.content()) if body.kind == "generator" else body.content}


async def _each(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
