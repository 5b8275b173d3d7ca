"""What the tests of gRPC's channels are made of."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio

from tests.clients.contract.grpc_like import GrpcServer
from unexpired import Scheme, Session, TokenManager
from unexpired.clients.grpc import TokenInterceptor, aio_interceptors
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

BOUND = 25.0
"""Seconds in which everything must have come about."""
ECHO = "/test.v1.Api/Echo"


@contextmanager
def channel(
    api: GrpcServer, manager: TokenManager, *inner: Any, scheme: Scheme | None = None, outer: tuple[Any, ...] = ()
) -> Iterator[Any]:
    """A channel that carries tokens, with other interceptors on either side."""
    with grpc.insecure_channel(api.address) as plain:
        yield grpc.intercept_channel(plain, *outer, TokenInterceptor(manager, scheme), *inner)


class Gate:
    """A manager whose refresh waits until it is let through."""

    def __init__(self) -> None:
        self.begun, self.open = threading.Event(), threading.Event()
        self.manager = TokenManager(FunctionGrant(self._refresh), store=MemoryStore(), key="alice")
        self.manager.login({"access_token": "t1", "refresh_token": "r1"})

    def _refresh(self, session: Session) -> dict[str, Any]:
        self.begun.set()
        assert self.open.wait(BOUND)
        return {"access_token": f"t{session.version + 1}", "refresh_token": f"r{session.version + 1}"}


class Result(Exception):
    """What an interceptor of a program's own raises."""


class Inner(grpc.UnaryUnaryClientInterceptor):
    """An interceptor of a program's own, which sees each sending."""

    def __init__(self, act: Callable[[Any], Any] = lambda _: None) -> None:
        self.seen: list[Any] = []
        self.act = act

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Note how it is sent."""
        self.seen.append(client_call_details)
        self.act(request)
        return continuation(client_call_details, request)


Work = Callable[[Any], Awaitable[Any]]


def run(
    api: GrpcServer,
    manager: TokenManager,
    work: Work,
    *inner: Any,
    scheme: Scheme | None = None,
    outer: tuple[Any, ...] = (),
) -> None:
    """Do *work* with a channel that carries tokens, with other interceptors on either side."""

    async def main() -> None:
        interceptors = [*outer, *aio_interceptors(manager, scheme), *inner]
        async with grpc.aio.insecure_channel(api.address, interceptors=interceptors) as channel:
            await asyncio.wait_for(work(channel), BOUND)

    asyncio.run(main())
