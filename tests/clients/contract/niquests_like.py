"""niquests, for the contract suite: its blocking and its asynchronous sessions."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar

import niquests
from niquests.adapters import AsyncHTTPAdapter, HTTPAdapter

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from tests.grants.endpoint import CERTIFICATE
from unexpired.clients.niquests import AsyncTokenAdapter, TokenAdapter, TokenAuth, TokenOptions


class Niquests(Fitting):
    """A `Session` or an `AsyncSession`, given tokens by ``auth`` or by an adapter that is mounted."""

    name = "niquests"
    idioms = ("auth", "adapter")
    modes = ("threads", "asyncio")
    without: ClassVar = {"trio": "niquests runs on asyncio"}
    exempt: ClassVar = {"test_http2": "niquests opens a connection for each call that finds the others busy"}
    places: ClassVar = {"auth": ("header",), "adapter": ("header", "custom", "query", "cookie")}
    discreet = ("adapter",)
    timeout_error = niquests.ReadTimeout
    connect_error = niquests.ConnectionError

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:
        """Make a session; further managers are mounted, or go with the request."""
        session: Any = niquests.Session() if cell.blocking else niquests.AsyncSession()
        kind: Any = HTTPAdapter if cell.blocking else AsyncHTTPAdapter
        carrier: Any = TokenAdapter if cell.blocking else AsyncTokenAdapter
        client = _Client(cell, setup, session)
        session.trust_env = False
        for prefix in session.adapters:
            replaced = session.adapters[prefix].close()
            _ = replaced if cell.blocking else await replaced
        for origin in ("http://", "https://", *setup.others):
            inner = kind(
                pool_connections=setup.connections or 10,
                pool_maxsize=setup.connections or 100,
                pool_block=setup.connections is not None,
                max_retries=setup.retries,
                disable_http1=setup.http2,
                disable_http3=True,
            )
            manager = setup.others.get(origin, setup.manager)
            session.mount(origin, inner if cell.idiom == "auth" else carrier(manager, setup.scheme, inner))
        if cell.idiom == "auth":
            session.auth = TokenAuth(setup.manager, setup.scheme)
        if setup.proxy:
            session.proxies = {"http": setup.proxy, "https": setup.proxy}
        if setup.noted is not None:
            session.hooks["response"].append(lambda response, **_: client.note(response))
        try:
            yield client
        finally:
            closed = session.close()
            _ = closed if cell.blocking else await closed

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        with ExitStack() as stack:
            response = await client.request(ask, stack)
            answers = (*response.history, response)
            shown = (*answers, *(answer.request for answer in answers))
            held = " ".join(f"{one.url} {list(one.headers.items())} {dict(one.headers)}" for one in shown)
            held += " ".join(str(value) for one in shown for value in one.headers.values())
            return Reply(response.status_code, response.headers, response.content or b"", response.url, shown, held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test."""
        with ExitStack() as stack:
            response = await client.request(ask, stack, stream=True)
            if client.cell.blocking:
                with response:
                    yield Streaming(response.status_code, _each(response.iter_content(-1)))
            else:
                async with response:
                    yield Streaming(response.status_code, await response.iter_content(-1))


class _Client:
    """A session with what each of its requests is given."""

    def __init__(self, cell: Cell, setup: Setup, session: Any) -> None:
        self.cell, self.setup, self.session = cell, setup, session

    def note(self, response: Any) -> None:
        """Take down what a hook is shown."""
        assert self.setup.noted is not None
        self.setup.noted.extend((response.request, response))

    async def request(self, ask: Ask, stack: ExitStack, **more: Any) -> Any:
        """Send it, without a look at its body."""
        setup = self.setup
        options: dict[str, Any] = {"headers": dict(ask.headers), "params": dict(ask.params)}
        options |= {"timeout": setup.timeout, "allow_redirects": setup.follow_redirects, **more}
        options |= {"cookies": dict(ask.cookies), "auth": self.auth(ask), "verify": str(CERTIFICATE)}
        sent = self.session.request(ask.method, ask.url, **options, **_body(ask.body, stack))
        return sent if self.cell.blocking else await sent

    def auth(self, ask: Ask) -> Any:
        """What says whether and which token this request carries."""
        if not ask.authenticated:
            return TokenOptions(authenticated=False)
        if self.cell.idiom == "adapter":
            return TokenOptions(resource=ask.resource) if ask.resource else None
        for origin, manager in self.setup.others.items():
            if ask.url.startswith(origin):
                return TokenAuth(manager, self.setup.scheme)
        return TokenAuth(self.setup.manager, self.setup.scheme, resource=ask.resource) if ask.resource else None


def _body(body: Body | None, stack: ExitStack) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "json":
        return {"json": body.content}
    if body.kind == "multipart":
        fields, files = body.content
        return {"data": fields, "files": files}
    if body.kind == "file":
        return {"data": stack.enter_context(open(body.content, "rb"))}
    return {"data": body.content() if body.kind == "generator" else body.content}


async def _each(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
