"""gRPC, for the contract suite: its row of the matrix, a small server beside the HTTP one, and how to call it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Self

import grpc
import grpc.aio
import httpx2
from anyio.from_thread import start_blocking_portal

from tests.clients.contract.crew import Caller, Crew
from tests.clients.contract.fitting import Cell, Row, at_once
from unexpired import Scheme, TokenManager
from unexpired.clients.grpc import TokenInterceptor, aio_interceptors
from unexpired.testing import ServerHandle

SERVICE = "test.v1.Api"
EXAMPLE = "crm.v1.Customers"
"""The service of the documentation: its ``Get`` and ``List`` are ``Echo`` and ``Count``, its ``Prices`` are for all."""
Pairs = tuple[tuple[str, str], ...]
Answered = tuple[tuple[str, str | bytes], ...]


class Grpc(Row):
    """Interceptors on a channel."""

    name = "grpc"
    idioms = ("interceptor",)
    modes = ("threads", "asyncio")
    without: ClassVar = {"trio": "grpc.aio needs asyncio"}

    def not_applicable(self, point: int, idiom: str, mode: str) -> str | None:  # noqa: ARG002
        """Give what there is not in gRPC."""
        return "gRPC has no redirects" if point == 11 else None


GRPC = Grpc()


@dataclass(frozen=True)
class Heard:
    """One call, as it came over the wire."""

    method: str
    metadata: Pairs
    binary: tuple[tuple[str, bytes], ...]
    message: bytes | None
    peer: str
    left: float

    def all(self, name: str) -> list[str]:
        """Every value that one key was sent with."""
        return [value for key, value in self.metadata if key == name]

    @property
    def token(self) -> str | None:
        """What came in ``authorization``, without its scheme; it comes once or not at all."""
        values = self.all("authorization")
        assert len(values) <= 1
        return values[0].removeprefix("Bearer ") if values else None


@dataclass(frozen=True)
class Verdict:
    """How a call is to end: *headers* are sent before the answer, *trailers* after it."""

    code: grpc.StatusCode = grpc.StatusCode.OK
    words: str = ""
    trailers: Answered = ()
    headers: Answered = ()


OK = Verdict()
EXPIRED = Verdict(grpc.StatusCode.UNAUTHENTICATED, "expired")
Judge = Callable[[Heard, int], Verdict]


class GrpcServer:
    """Answers by `judge`, which is told how many calls were heard before this one; by default `OK`.

    ``Echo`` gives back its message, ``Count`` gives the messages 0 to n - 1, ``Sum`` gives back its messages in one
    piece, ``Chat`` one by one; ``Size`` counts their bytes before it judges. While `pause` holds an event, streams wait
    for it before their second message.
    """

    def __init__(self, judge: Judge | None = None, credentials: grpc.ServerCredentials | None = None) -> None:
        self.judge = judge or (lambda _heard, _before: OK)
        self.heard: list[Heard] = []
        self.pause: threading.Event | None = None
        self._lock = threading.Lock()
        self._pool = ThreadPoolExecutor(80)
        self._server = grpc.server(self._pool)
        handlers: dict[str, Any] = {
            "Echo": grpc.unary_unary_rpc_method_handler(self._echo),
            "Count": grpc.unary_stream_rpc_method_handler(self._count),
            "Sum": grpc.stream_unary_rpc_method_handler(self._sum),
            "Size": grpc.stream_unary_rpc_method_handler(self._size),
            "Chat": grpc.stream_stream_rpc_method_handler(self._chat),
        }
        prices: Any = grpc.unary_unary_rpc_method_handler(lambda message, _: message)
        example = {"Get": handlers["Echo"], "List": handlers["Count"], "Prices": prices}
        services = {SERVICE: handlers, EXAMPLE: example}
        self._server.add_generic_rpc_handlers(
            tuple(grpc.method_handlers_generic_handler(name, methods) for name, methods in services.items())
        )
        if credentials is None:
            self.port = self._server.add_insecure_port("127.0.0.1:0")
        else:
            self.port = self._server.add_secure_port("127.0.0.1:0", credentials)
        self.address = f"127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pause is not None:
            self.pause.set()
        self._server.stop(None).wait()
        self._pool.shutdown()

    @property
    def tokens(self) -> list[str | None]:
        """The token of each call."""
        return [heard.token for heard in self.heard]

    @property
    def connections(self) -> int:
        """Over how many connections the calls came."""
        return len({heard.peer for heard in self.heard})

    def _admit(
        self, method: str, message: bytes | None, context: grpc.ServicerContext, rest: Iterable[bytes] = ()
    ) -> None:
        sent = context.invocation_metadata()
        pairs = tuple((key, value) for key, value in sent if isinstance(value, str))
        binary = tuple((key, value) for key, value in sent if isinstance(value, bytes))
        heard = Heard(method, pairs, binary, message, context.peer(), context.time_remaining())
        with self._lock:
            before = len(self.heard)
            self.heard.append(heard)
        verdict = self.judge(heard, before)
        if verdict.headers:
            context.send_initial_metadata(verdict.headers)
        context.set_trailing_metadata(verdict.trailers)
        if verdict.code is not grpc.StatusCode.OK:
            # grpc.aio says INTERNAL of a call that is refused while it is still being written, now and then.
            for _ in rest:
                pass
            context.abort(verdict.code, verdict.words)

    def _echo(self, message: bytes, context: grpc.ServicerContext) -> bytes:
        self._admit("Echo", message, context)
        return message

    def _count(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        self._admit("Count", message, context)
        for number in range(int(message)):
            if number == 1 and self.pause is not None:
                self.pause.wait(30)
            yield b"%d" % number

    def _sum(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        self._admit("Sum", None, context, messages)
        return b"".join(messages)

    def _size(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        size = b"%d" % sum(len(message) for message in messages)
        self._admit("Size", size, context)
        return size

    def _chat(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Iterator[bytes]:
        self._admit("Chat", None, context, messages)
        yield from messages


@contextmanager
def beside(server: ServerHandle, credentials: grpc.ServerCredentials | None = None) -> Iterator[GrpcServer]:
    """A gRPC server for which tokens are good when *server* says so, which holds back and counts what it refuses."""
    limits = httpx2.Limits(max_connections=None)
    with httpx2.Client(timeout=40, verify=False, limits=limits) as client:

        def judge(heard: Heard, _: int) -> Verdict:
            answer = client.get(f"{server.url}/api/x", headers={"Authorization": f"Bearer {heard.token}"})
            return OK if answer.status_code == 200 else EXPIRED

        with GrpcServer(judge, credentials) as api:
            yield api


def only(*good: str, no: grpc.StatusCode = EXPIRED.code, trailers: Answered = ()) -> Judge:
    """The tokens that are good, and what is said of others."""
    return lambda heard, _: OK if heard.token in good else Verdict(no, "no", trailers)


@dataclass(frozen=True)
class Reply:
    """One response, and the call it came by."""

    message: Any
    call: Any


@dataclass
class Api:
    """The stub of one channel in the words of both modes; the awaits of a blocking one never wait."""

    channel: Any
    blocks: bool
    serializers: dict[str, Any] = field(default_factory=dict)

    async def echo(self, message: Any = b"x", **options: Any) -> Reply:
        """One message, one response."""
        method = self.channel.unary_unary(f"/{SERVICE}/Echo", **self.serializers)
        if self.blocks:
            return Reply(*method.with_call(message, **options))
        call = method(message, **options)
        return Reply(await call, call)

    def begin(self, method: str, messages: Any, **options: Any) -> Any:
        """The call of a stream."""
        kinds = {"Count": "unary_stream", "Chat": "stream_stream", "Sum": "stream_unary", "Size": "stream_unary"}
        return getattr(self.channel, kinds[method])(f"/{SERVICE}/{method}")(messages, **options)

    async def read(self, call: Any) -> list[bytes]:
        """All responses of a stream."""
        return list(call) if self.blocks else [message async for message in call]

    async def count(self, number: int, **options: Any) -> list[bytes]:
        """One message, many responses."""
        return await self.read(self.begin("Count", b"%d" % number, **options))

    async def chat(self, *messages: bytes, **options: Any) -> list[bytes]:
        """Many messages, many responses."""
        return await self.read(self.begin("Chat", iter(messages), **options))

    async def sum(self, *messages: bytes, **options: Any) -> bytes:
        """Many messages, one response."""
        return await self._upload("Sum", iter(messages), **options)

    async def size(self, messages: Iterator[bytes]) -> bytes:
        """Many messages, of which the response says how long they are."""
        return await self._upload("Size", messages)

    async def _upload(self, method: str, messages: Iterator[bytes], **options: Any) -> bytes:
        sent = self.begin(method, messages, **options)
        response: bytes = sent if self.blocks else await sent
        return response


Job = Callable[[Api], Coroutine[Any, Any, Any]]


def job(work: Job) -> Callable[[Caller], Coroutine[Any, Any, Any]]:
    """A job for a crew: *work* with the stub of its channel."""
    return lambda caller: work(caller.client)


def echo(message: Any = b"x", **options: Any) -> Callable[[Caller], Coroutine[Any, Any, Any]]:
    """The job of one call."""
    return job(lambda api: api.echo(message, **options))


@asynccontextmanager
async def _open(
    cell: Cell, address: str, manager: TokenManager, scheme: Scheme | None, options: Any
) -> AsyncIterator[Api]:
    if cell.blocking:
        with grpc.insecure_channel(address, options) as channel:
            yield Api(grpc.intercept_channel(channel, TokenInterceptor(manager, scheme)), blocks=True)
    else:
        async with grpc.aio.insecure_channel(
            address, options, interceptors=aio_interceptors(manager, scheme)
        ) as channel:
            yield Api(channel, blocks=False)


@contextmanager
def stub(
    cell: Cell,
    server: GrpcServer | str,
    manager: TokenManager,
    scheme: Scheme | None = None,
    options: tuple[tuple[str, Any], ...] = (),
) -> Iterator[Crew]:
    """Open a channel that carries tokens of *manager*, and callers for it."""
    address = server if isinstance(server, str) else server.address
    with _running(cell, _open(cell, address, manager, scheme, options)) as opened:
        yield opened


@contextmanager
def _running(cell: Cell, opened: AbstractAsyncContextManager[Api]) -> Iterator[Crew]:
    if cell.blocking:
        made = Crew(cell, at_once(opened.__aenter__()), None)
        try:
            yield made
        finally:
            made.close()
            at_once(_leave(opened))
    else:
        with start_blocking_portal(cell.mode) as portal, portal.wrap_async_context_manager(opened) as client:
            yield Crew(cell, client, portal)


async def _leave(opened: AbstractAsyncContextManager[Any]) -> None:
    await opened.__aexit__(None, None, None)
