"""urllib3, for the contract suite."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager
from typing import Any, ClassVar
from urllib.parse import urlencode, urljoin

import urllib3

from tests.clients.contract.fitting import Ask, Body, Cell, Fitting, Reply, Setup, Streaming
from tests.grants.endpoint import CERTIFICATE
from unexpired.clients.urllib3 import TokenPool


class Urllib3(Fitting):
    """A pool manager that is wrapped in a `TokenPool`, one for each manager."""

    name = "urllib3"
    idioms = ("pool",)
    modes = ("threads",)
    without: ClassVar = dict.fromkeys(("asyncio", "trio"), "urllib3 blocks")
    places: ClassVar = {"pool": ("header", "custom", "query", "cookie")}
    discreet = ("pool",)
    exempt: ClassVar = {
        "test_http2": "what urllib3 has of HTTP/2 is an experiment of its own",
        "test_a_refusal_that_breaks_off": "urllib3 reads an answer before it hands it on, and the error is its own",
    }
    timeout_error = urllib3.exceptions.MaxRetryError
    connect_error = urllib3.exceptions.MaxRetryError

    @asynccontextmanager
    async def client(self, cell: Cell, setup: Setup) -> AsyncIterator[Any]:  # noqa: ARG002 - there is one idiom
        """Make a pool manager; further managers get their own view of it."""
        options: dict[str, Any] = {
            "retries": urllib3.Retry(None, connect=setup.retries, read=setup.retries, status=setup.retries, redirect=9),
            "timeout": setup.timeout,
            "maxsize": setup.connections or 100,
            "block": setup.connections is not None,
            "ca_certs": str(CERTIFICATE),
        }
        pool = urllib3.ProxyManager(setup.proxy, **options) if setup.proxy else urllib3.PoolManager(**options)
        with pool:
            yield _Client(setup, pool)

    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send, and read."""
        with ExitStack() as stack:
            response = client.request(ask, stack)
            url = urljoin(ask.url, response.url or ask.url)
            shown = (response, response.retries)
            held = f"{response.url} {response.headers} {response.retries} {response.retries.history}"
            return Reply(response.status, response.headers, response.data, url, shown, held)

    @asynccontextmanager
    async def stream(self, client: Any, ask: Ask) -> AsyncIterator[Streaming]:
        """Send, and leave the reading to the test."""
        with ExitStack() as stack:
            response = client.request(ask, stack, preload_content=False)
            try:
                yield Streaming(response.status, _each(response.stream()))
            finally:
                response.close()
                response.release_conn()


class _Client:
    """Pools for all managers, over one pool manager."""

    def __init__(self, setup: Setup, pool: urllib3.PoolManager) -> None:
        self.setup = setup
        self.first = TokenPool(setup.manager, setup.scheme, pool)
        self.others = {url: TokenPool(manager, setup.scheme, pool) for url, manager in setup.others.items()}

    def request(self, ask: Ask, stack: ExitStack, **more: Any) -> urllib3.BaseHTTPResponse:
        """Send it, without a look at its body."""
        url = f"{ask.url}{'&' if '?' in ask.url else '?'}{urlencode(ask.params)}" if ask.params else ask.url
        headers = dict(ask.headers)
        if ask.cookies:
            headers["cookie"] = "; ".join(f"{name}={value}" for name, value in ask.cookies.items())
        options: dict[str, Any] = {"headers": headers, "redirect": self.setup.follow_redirects, **more}
        if not ask.authenticated:
            options["authenticated"] = False
        if ask.resource is not None:
            options["resource"] = ask.resource
        pool = next((one for start, one in self.others.items() if ask.url.startswith(start)), self.first)
        response = pool.request(ask.method, url, **options, **_body(ask.body, stack))
        if self.setup.noted is not None:
            # urllib3 has no hooks: all that is handed out is the answer, and what that was made of
            self.setup.noted.extend([response, getattr(response, "_original_response")])  # noqa: B009 - private
        return response


def _body(body: Body | None, stack: ExitStack) -> dict[str, Any]:
    if body is None:
        return {}
    if body.kind == "json":
        return {"json": body.content}
    if body.kind == "form":
        return {"fields": body.content, "encode_multipart": False}
    if body.kind == "multipart":
        fields, files = body.content
        return {"fields": fields | files}
    if body.kind == "file":
        return {"body": stack.enter_context(open(body.content, "rb"))}
    return {"body": body.content() if body.kind == "generator" else body.content}


async def _each(chunks: Iterator[bytes]) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
