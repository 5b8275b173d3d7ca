"""A websocket server of the client's own library, and one way to use `connect`, `sync_connect` and `trio_connect`."""

from __future__ import annotations

import asyncio
import logging
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import aclosing, asynccontextmanager, closing, contextmanager
from http import HTTPStatus
from importlib import import_module
from typing import Any, Self, TypeVar

from anyio.from_thread import start_blocking_portal
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from tests.clients.contract.crew import BOUND, Caller, Crew, Job
from tests.clients.contract.fitting import Cell, Row
from tests.clients.contract.listener import Heard
from tests.grants.endpoint import CERTIFICATE
from unexpired import TokenManager
from unexpired.clients import websockets as ours

T = TypeVar("T")
Refusal = tuple[int, Mapping[str, str], bytes]
"""Status, headers and body of a handshake that is not accepted."""
REFUSED: Refusal = (401, {}, b"no")


class Websockets(Row):
    """websockets, for the matrix."""

    name = "websockets"
    idioms = ("connect",)

    def not_applicable(self, point: int, idiom: str, mode: str) -> str | None:  # noqa: ARG002 - the same for all
        """What a handshake has not."""
        return "a handshake has no body" if point in (8, 17) else None


WEBSOCKETS = Websockets()


class Sockets:
    """Takes every handshake that `respond` does not refuse, tells it what it carried, and echoes what comes then.

    `respond` is told how many handshakes were heard before; it may block.
    """

    def __init__(self, *, tls: bool = False, respond: Callable[[Heard, int], Refusal | None] | None = None) -> None:
        self.heard: list[Heard] = []
        self.respond = respond or (lambda _heard, _before: None)
        self.open: dict[ServerConnection, Heard] = {}
        self.at_close: list[int | None] = []
        self._changed = threading.Condition()
        self._tls = tls
        self._loop = asyncio.new_event_loop()
        self._started: Future[int] = Future()
        self._over = asyncio.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), name="sockets")

    def __enter__(self) -> Self:
        self._thread.start()
        self.port = self._started.result(BOUND)
        self.url = f"{'wss' if self._tls else 'ws'}://127.0.0.1:{self.port}"
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(BOUND)
        self._loop.close()

    @property
    def tokens(self) -> list[str | None]:
        """The bearer token of each handshake."""
        return [heard.token for heard in self.heard]

    def close(self, code: int, count: int, *, token: str | None = None) -> None:
        """Close the connections with *code*, of one token or all, once there are *count* of them."""
        chosen = self.wait(count, lambda heard: token in (None, heard.token))
        for done in [self._on_loop(connection.close(code)) for connection in chosen]:
            done.result(BOUND)

    def close_one(self, code: int, connection: ServerConnection) -> None:
        """Close this one."""
        self._on_loop(connection.close(code)).result(BOUND)

    def wait(self, count: int, wanted: Callable[[Heard], bool] = lambda _: True) -> list[ServerConnection]:
        """The open connections that were answered, once there are *count* of those that are wanted."""

        def found() -> list[ServerConnection]:
            return [connection for connection, heard in list(self.open.items()) if wanted(heard)]

        with self._changed:
            assert self._changed.wait_for(lambda: len(found()) == count, BOUND), f"{len(found())} open, not {count}"
            return found()

    def closed(self, count: int) -> list[int | None]:
        """With which codes connections were closed, once there are *count* of them."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.at_close) >= count, BOUND)
            return list(self.at_close)

    def asked(self, count: int) -> None:
        """Wait until *count* handshakes were heard."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.heard) >= count, BOUND)

    def _on_loop(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    async def _serve(self) -> None:
        context = None
        if self._tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
        quiet = logging.getLogger("tests.sockets")
        quiet.setLevel(logging.CRITICAL)
        server: Server
        async with serve(
            self._handle, "127.0.0.1", 0, ssl=context, process_request=self._process, logger=quiet, backlog=256,
            compression=None, open_timeout=60,
        ) as server:  # fmt: skip
            self._started.set_result(server.sockets[0].getsockname()[1])
            await self._over.wait()

    async def _process(self, _: ServerConnection, request: Request) -> Response | None:
        heard = Heard("GET", request.path, tuple(request.headers.raw_items()), "", 0)
        with self._changed:
            before = len(self.heard)
            self.heard.append(heard)
            self._changed.notify_all()
        refusal = await asyncio.to_thread(self.respond, heard, before)
        if refusal is None:
            return None
        status, headers, body = refusal
        return Response(status, HTTPStatus(status).phrase, Headers(headers, **{"content-length": str(len(body))}), body)

    async def _handle(self, connection: ServerConnection) -> None:
        request = connection.request
        assert request is not None
        heard = Heard("GET", request.path, tuple(request.headers.raw_items()), "", 0)
        try:
            async for message in connection:
                await connection.send(f"{heard.token} {message!s}")
                with self._changed:
                    self.open[connection] = heard
                    self._changed.notify_all()
        finally:
            with self._changed:
                self.open.pop(connection, None)
                self.at_close.append(connection.close_code)
                self._changed.notify_all()


class Socket:
    """A connection, in the words of all three kinds; what a blocking one does never waits."""

    def __init__(self, connection: Any, *, blocks: bool) -> None:
        self.connection = connection
        self._blocks = blocks

    async def echo(self, message: str) -> str:
        """Send, and return what comes back."""
        await self.send(message)
        return await self.recv()

    async def send(self, message: str) -> None:
        """Send a message."""
        sent = self.connection.send(message)
        await self._done(sent)

    async def recv(self) -> str:
        """The next message."""
        received: str = await self._done(self.connection.recv())
        return received

    async def close(self, code: int) -> None:
        """Close it ourselves."""
        await self._done((getattr(self.connection, "aclose", None) or self.connection.close)(code))

    async def _done(self, work: Any) -> Any:
        return work if self._blocks else await work


class Dialler:
    """What a caller connects with: a manager, and the `connect` of its mode."""

    def __init__(self, cell: Cell, manager: TokenManager) -> None:
        self.blocks = cell.blocking
        self.manager = manager
        kinds = {"threads": "sync_connect", "asyncio": "connect", "trio": "trio_connect"}
        self.kind: Any = getattr(ours, kinds[cell.mode])
        homes = {"threads": "sync", "asyncio": "asyncio", "trio": "trio"}
        self.bare: Any = import_module(f"websockets.{homes[cell.mode]}.client").connect

    def dial(self, uri: str, *arguments: Any, **options: Any) -> Any:
        """A ``connect`` of ours, not begun."""
        manager = options.pop("manager", self.manager)
        if options.pop("bare", False):
            return self.bare(uri, proxy=None)
        return self.kind(manager, uri, *arguments, **{"proxy": None, **options})

    @asynccontextmanager
    async def open(self, uri: str, *arguments: Any, **options: Any) -> AsyncIterator[Socket]:
        """``with connect(…)``."""
        dialled = self.dial(uri, *arguments, **options)
        if self.blocks:
            with dialled as connection:
                yield Socket(connection, blocks=True)
        else:
            async with dialled as connection:
                yield Socket(connection, blocks=False)

    @asynccontextmanager
    async def each(self, uri: str, *arguments: Any, **options: Any) -> AsyncIterator[AsyncIterator[Socket]]:
        """``for websocket in connect(…)``; the loop is ended with the block."""
        dialled = self.dial(uri, *arguments, **options)
        if self.blocks:
            with closing(iter(dialled)) as connections:
                yield _Each(lambda: next(connections, None), blocks=True)
        else:
            async with aclosing(aiter(dialled)) as connections:
                yield _Each(lambda: anext(connections, None), blocks=False)


class _Each:
    """Connections one after another; no generator, which trio wants closed by hand."""

    def __init__(self, ask: Callable[[], Any], *, blocks: bool) -> None:
        self._ask = ask
        self._blocks = blocks

    def __aiter__(self) -> AsyncIterator[Socket]:
        return self

    async def __anext__(self) -> Socket:
        connection = self._ask() if self._blocks else await self._ask()
        return Socket(connection, blocks=self._blocks)


@contextmanager
def dialling(cell: Cell, manager: TokenManager) -> Iterator[Crew]:
    """Callers whose client is a `Dialler`."""
    dialler = Dialler(cell, manager)
    if cell.blocking:
        made = Crew(cell, dialler, None)
        try:
            yield made
        finally:
            made.close()
    else:
        with start_blocking_portal(cell.mode) as portal:
            yield Crew(cell, dialler, portal)


def only(*good: str) -> Any:
    """What refuses a handshake with other tokens."""
    return lambda heard, _: None if heard.token in good else REFUSED


def echo(uri: str, message: str = "x", **options: Any) -> Job:
    """The job to connect, and to return what comes back for *message*."""

    async def job(caller: Caller) -> str:
        async with caller.client.open(uri, **options) as websocket:
            answer: str = await websocket.echo(message)
            return answer

    return job
