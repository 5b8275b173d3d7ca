"""requests, for the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar

import requests
from requests.adapters import HTTPAdapter

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from tests.grants.endpoint import CERTIFICATE
from unexpired.clients.requests import TokenAdapter, TokenAuth, TokenOptions


class Requests(Fitting):
    """A `Session`, given tokens by ``auth`` or by an adapter that is mounted."""

    name = "requests"
    idioms = ("auth", "adapter")
    modes = ("threads",)
    without: ClassVar = dict.fromkeys(("asyncio", "trio"), "requests blocks")
    places: ClassVar = {"auth": ("header",), "adapter": ("header", "custom", "query", "cookie")}
    discreet = ("adapter",)
    exempt: ClassVar = {"test_http2": "requests has no HTTP/2"}
    timeout_error = requests.ReadTimeout
    connect_error = requests.ConnectionError

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:
        """Make a session; further managers are mounted, or go with the request."""
        with requests.Session() as session:
            session.trust_env = False
            client = _Client(cell, setup, session)
            for origin in ("http://", "https://", *setup.others):
                inner = HTTPAdapter(
                    pool_connections=setup.connections or 10,
                    pool_maxsize=setup.connections or 100,
                    pool_block=setup.connections is not None,
                    max_retries=setup.retries,
                )
                manager = setup.others.get(origin, setup.manager)
                session.mount(origin, inner if cell.idiom == "auth" else TokenAdapter(manager, setup.scheme, inner))
            if cell.idiom == "auth":
                session.auth = TokenAuth(setup.manager, setup.scheme)
            if setup.proxy:
                session.proxies = {"http": setup.proxy, "https": setup.proxy}
            if setup.noted is not None:
                session.hooks["response"].append(lambda response, **_: client.note(response))
            yield client

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        with ExitStack() as stack:
            response = client.request(ask, stack)
            answers = (*response.history, response)
            shown = (*answers, *(answer.request for answer in answers))
            held = " ".join(f"{one.url} {list(one.headers.items())} {dict(one.headers)}" for one in shown)
            held += " ".join(str(value) for one in shown for value in one.headers.values())
            return Reply(response.status_code, response.headers, response.content, response.url, shown, held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test."""
        with ExitStack() as stack, client.request(ask, stack, stream=True) as response:
            yield Streaming(response.status_code, _each(response.iter_content(None)))


class _Client:
    """A session with what each of its requests is given."""

    def __init__(self, cell: Cell, setup: Setup, session: requests.Session) -> None:
        self.cell, self.setup, self.session = cell, setup, session

    def note(self, response: requests.Response) -> None:
        """Take down what a hook is shown."""
        assert self.setup.noted is not None
        self.setup.noted.extend([response.request, response])

    def request(self, ask: Ask, stack: ExitStack, **more: Any) -> requests.Response:
        """Send it, without a look at its body."""
        setup = self.setup
        options: dict[str, Any] = {"headers": dict(ask.headers), "params": dict(ask.params)}
        options |= {
            "timeout": setup.timeout,
            "allow_redirects": setup.follow_redirects,
            "verify": str(CERTIFICATE),
            **more,
        }
        options |= {"cookies": dict(ask.cookies), "auth": self.auth(ask)}
        return self.session.request(ask.method, ask.url, **options, **_body(ask.body, stack))

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
