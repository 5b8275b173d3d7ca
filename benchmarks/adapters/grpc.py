"""gRPC: the interceptors, alone in the process and on a channel outside of it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Generator
from functools import partial
from typing import Any

import grpc
import grpc.aio

from benchmarks.rig import HEADER, Adapter, Opened, Tokens
from tests.clients.contract.grpc_like import SERVICE
from unexpired.clients.grpc import TokenInterceptor, aio_interceptors

__all__ = ["ADAPTERS"]

_METHOD = f"/{SERVICE}/Echo"
_PAIR = ("authorization", HEADER)


class _Details(
    namedtuple("_Details", ("method", "timeout", "metadata", "credentials", "wait_for_ready", "compression")),  # noqa: PYI024
    grpc.ClientCallDetails,
):
    """How a call is to be sent."""


class _Constant(grpc.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        how = client_call_details
        metadata = (*(how.metadata or ()), _PAIR)
        details = _Details(how.method, how.timeout, metadata, how.credentials, how.wait_for_ready, how.compression)
        return continuation(details, request)


class _AioConstant(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        how = client_call_details
        metadata = grpc.aio.Metadata(*(how.metadata or ()), _PAIR)
        details = grpc.aio.ClientCallDetails(how.method, how.timeout, metadata, how.credentials, how.wait_for_ready)
        return await continuation(details, request)


class _Done:
    """A call that was answered at once."""

    def done(self) -> bool:
        return True

    def exception(self) -> None:
        return None

    def result(self) -> bytes:
        return b"x"

    def __await__(self) -> Generator[Any, None, bytes]:
        yield from ()
        return b"x"


_DONE = _Done()
_AIO_DETAILS = grpc.aio.ClientCallDetails(_METHOD, None, None, None, None)


def _open(blocking: bool, tokens: Tokens, address: str | None) -> Opened:
    channels: list[Any] = []
    calls: dict[str, Callable[[], Any]] = {}
    for name, manager in tokens.items():
        if blocking:
            interceptor: Any = TokenInterceptor(manager) if manager else _Constant()
            calls[name] = _over_channel(interceptor, address, channels) if address else _alone(interceptor)
        else:
            interceptors: list[Any] = aio_interceptors(manager) if manager else [_AioConstant()]
            calls[name] = (
                _over_aio_channel(interceptors, address, channels) if address else partial(_aio_alone, interceptors[0])
            )

    def close() -> None:
        for channel in channels:
            channel.close()

    async def aclose() -> None:
        for channel in channels:
            await channel.close()

    return Opened(calls, close if blocking else aclose)


def _alone(interceptor: Any) -> Callable[[], int]:
    details = _Details(_METHOD, None, None, None, None, None)
    return lambda: _status(interceptor.intercept_unary_unary(lambda *_: _DONE, details, b"x").result())


async def _aio_alone(interceptor: Any) -> int:
    return _status(await (await interceptor.intercept_unary_unary(_answering, _AIO_DETAILS, b"x")))


async def _answering(*_: Any) -> _Done:
    return _DONE


def _over_channel(interceptor: Any, address: str, channels: list[Any]) -> Callable[[], int]:
    channel = grpc.insecure_channel(address)
    channels.append(channel)
    echo: Any = grpc.intercept_channel(channel, interceptor).unary_unary(_METHOD)
    return lambda: _status(echo(b"x", timeout=30))


def _over_aio_channel(interceptors: list[Any], address: str, channels: list[Any]) -> Callable[[], Any]:
    channel = grpc.aio.insecure_channel(address, interceptors=interceptors)
    channels.append(channel)
    echo: Any = channel.unary_unary(_METHOD)

    async def call() -> int:
        return _status(await echo(b"x", timeout=30))

    return call


def _status(answer: bytes) -> int:
    return 200 if answer == b"x" else 500


ADAPTERS = [
    Adapter("grpc interceptor", blocking, partial(_open, blocking), "an interceptor", speaks="grpc")
    for blocking in (True, False)
]
