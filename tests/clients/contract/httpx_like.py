"""httpx2 and httpx, for the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from types import MappingProxyType, ModuleType
from typing import Any

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from unexpired import TokenManager


class HttpxLike(Fitting):
    """A client library of httpx's make, and the adapter module that is for it."""

    one_at_a_time = MappingProxyType(
        {"threads": "it mixes up what threads begin at the same moment (github.com/pydantic/httpx2/issues/908)"}
    )

    def __init__(self, library: ModuleType, adapter: ModuleType) -> None:
        self.name = library.__name__
        self.library: Any = library
        self.adapter: Any = adapter
        self.timeout_error = library.ReadTimeout
        self.connect_error = library.ConnectError

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:
        """Make a client of the kind that the mode needs; further managers are mounted, or go with the request."""
        # a short timeout is for the answer: connecting takes as long as it takes
        timeout = self.library.Timeout(20.0, read=setup.timeout)
        options: dict[str, Any] = {"follow_redirects": setup.follow_redirects, "timeout": timeout}
        if setup.noted is not None:
            options["event_hooks"] = {kind: [self._hook(cell, setup.noted)] for kind in ("request", "response")}
        inner = self._transport(cell, setup)
        if cell.idiom == "auth":
            options |= {"transport": inner, "auth": self.adapter.TokenAuth(setup.manager, setup.scheme)}
        else:
            options["transport"] = self._around(cell, setup, setup.manager, inner)
            options["mounts"] = {
                origin: self._around(cell, setup, manager, self._transport(cell, setup))
                for origin, manager in setup.others.items()
            }
        auths = {
            origin: self.adapter.TokenAuth(manager, setup.scheme)
            for origin, manager in setup.others.items()
            if cell.idiom == "auth"
        }
        if cell.blocking:
            with self.library.Client(**options) as blocking:
                blocking.auths = auths
                yield blocking
        else:
            async with self.library.AsyncClient(**options) as client:
                client.auths = auths
                yield client

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        async with AsyncExitStack() as stack:
            options = self._options(client, ask, stack)
            if isinstance(client, self.library.Client):
                response = client.request(ask.method, ask.url, **options)
            else:
                response = await client.request(ask.method, ask.url, **options)
        answers = (*response.history, response)
        shown = (*answers, *(answer.request for answer in answers))
        held = " ".join(f"{one.url} {one.headers.raw}" for one in shown)
        return Reply(response.status_code, response.headers, response.content, str(response.url), shown, held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test."""
        async with AsyncExitStack() as stack:
            options = self._options(client, ask, stack)
            if isinstance(client, self.library.Client):
                with client.stream(ask.method, ask.url, **options) as response:
                    yield Streaming(response.status_code, _each(response.iter_raw()))
            else:
                async with client.stream(ask.method, ask.url, **options) as response:
                    yield Streaming(response.status_code, response.aiter_raw())

    def _transport(self, cell: Cell, setup: Setup) -> Any:
        limits = self.library.Limits(max_connections=setup.connections)
        options: dict[str, Any] = {"verify": False, "retries": setup.retries, "limits": limits, "proxy": setup.proxy}
        if setup.http2:
            options |= {"http1": False, "http2": True}
        return (self.library.HTTPTransport if cell.blocking else self.library.AsyncHTTPTransport)(**options)

    def _around(self, cell: Cell, setup: Setup, manager: TokenManager, inner: Any) -> Any:
        kind = self.adapter.TokenTransport if cell.blocking else self.adapter.AsyncTokenTransport
        return kind(manager, setup.scheme, inner)

    def _hook(self, cell: Cell, noted: list[Any]) -> Any:
        async def hook(subject: Any) -> None:
            noted.append(subject)

        return noted.append if cell.blocking else hook

    def _options(self, client: Any, ask: Ask, stack: AsyncExitStack) -> dict[str, Any]:
        extensions: dict[str, Any] = {}
        if not ask.authenticated:
            extensions["unexpired.authenticated"] = False
        if ask.resource is not None:
            extensions["unexpired.resource"] = ask.resource
        headers = dict(ask.headers)
        if ask.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in ask.cookies.items())
        options: dict[str, Any] = {"headers": headers, "extensions": extensions}
        if ask.params:
            options["params"] = dict(ask.params)
        for origin, auth in client.auths.items():
            if ask.url.startswith(origin):
                options["auth"] = auth
        if ask.body is not None:
            options |= self._body(client, ask.body, stack)
        return options

    def _body(self, client: Any, body: Body, stack: AsyncExitStack) -> dict[str, Any]:
        blocking = isinstance(client, self.library.Client)
        if body.kind == "json":
            return {"json": body.content}
        if body.kind == "form":
            return {"data": body.content}
        if body.kind == "multipart":
            fields, files = body.content
            return {"data": fields, "files": files}
        if body.kind == "bytes":
            return {"content": body.content}
        if body.kind == "file":
            if not blocking:
                # an asynchronous client takes no file that blocks
                return {"content": self.adapter.AsyncBodyFactory(lambda: open(body.content, "rb"))}
            return {"content": stack.enter_context(open(body.content, "rb"))}
        assert body.kind == "generator"
        return {"content": body.content() if blocking else _each(body.content())}


async def _each(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
