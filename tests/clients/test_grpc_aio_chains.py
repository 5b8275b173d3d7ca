"""gRPC's asyncio channels: what a call is sent with, between the channel's other interceptors and on several loops."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.clients.contract.grpc_like import GrpcServer, Verdict, only
from tests.clients.grpc_parts import ECHO, Result, run
from tests.clients.scripted import counting_manager
from unexpired import LoginRequired, ReplayRefused, Scheme


@pytest.fixture
def api() -> Iterator[GrpcServer]:
    """Give a server that takes the second token."""
    with GrpcServer(only("t2")) as made:
        yield made


class Inner(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor of a program's own, which sees each sending."""

    def __init__(self, answers: str = "call") -> None:
        self.seen: list[Any] = []
        self.answers = answers

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Note how it is sent, and give the call, or what it brought."""
        self.seen.append(client_call_details)
        if self.answers == "raises":
            raise Result
        call = await continuation(client_call_details, request)
        return call if self.answers == "call" else await call


@pytest.mark.parametrize("judge", [None, lambda _: None])
def test_interceptor_nearer_to_the_wire_that_unpacks(api: GrpcServer, judge: Any) -> None:
    """Where another interceptor gives the bare response, or raises gRPC's error, a refusal is seen all the same."""

    async def work(channel: Any) -> None:
        assert await channel.unary_unary(ECHO)(b"x") == b"x"
        api.judge = lambda _heard, _before: Verdict(grpc.StatusCode.NOT_FOUND)
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.unary_unary(ECHO)(b"x")
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND

    run(api, counting_manager(), work, Inner("response"), scheme=Scheme.bearer(judge=judge))
    assert api.tokens == ["t1", "t2", "t2"]


def test_error_of_an_interceptor_nearer_to_the_wire(api: GrpcServer) -> None:
    """What another interceptor raises is the caller's."""

    async def work(channel: Any) -> None:
        with pytest.raises(Result):
            await channel.unary_unary(ECHO)(b"x")

    run(api, counting_manager(), work, Inner("raises"))
    assert api.heard == []


def test_how_a_call_is_sent() -> None:
    """What its caller set for a call is the same at a replay; its own metadata is not changed; its time is less."""
    own = grpc.aio.Metadata(("x-own", "1"), ("x-own", "2"))
    inner, outer, manager = Inner(), Inner(), counting_manager()
    assert manager.token().access_token == "t1"

    async def work(channel: Any) -> None:
        await channel.unary_unary(ECHO)(b"x", metadata=own, timeout=60, wait_for_ready=True)

    with GrpcServer(only("t2")) as api:
        run(api, manager, work, inner, outer=(outer,))
    first, second = inner.seen
    for sent in (first, second):
        assert (sent.method, sent.credentials, sent.wait_for_ready) == (ECHO.encode(), None, True)
        assert sent.metadata.get_all("x-own") == ["1", "2"]
        assert "Bearer" not in repr(sent)
    assert first.timeout == 60 > second.timeout > 0
    assert own == grpc.aio.Metadata(("x-own", "1"), ("x-own", "2"))
    assert [list(sent.metadata) for sent in outer.seen] == [list(own)]


def test_two_event_loops(api: GrpcServer) -> None:
    """Channels of two event loops, one after the other, share one manager."""

    async def work(channel: Any) -> None:
        assert await channel.unary_unary(ECHO)(b"x") == b"x"

    manager = counting_manager()
    for _ in range(2):
        run(api, manager, work)
    assert api.tokens == ["t1", "t2", "t2"]


class Reading(grpc.aio.UnaryStreamClientInterceptor):
    """An interceptor of a program's own that reads a stream itself."""

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Give the responses, read one by one."""
        call = await continuation(client_call_details, request)

        async def responses() -> Any:
            while (response := await call.read()) is not grpc.aio.EOF:
                yield response

        return responses()


def test_interceptor_further_out_that_reads(api: GrpcServer) -> None:
    """Who reads a stream by its call object is told of a refusal, too."""

    async def work(channel: Any) -> None:
        with pytest.raises(ReplayRefused):
            await channel.unary_stream("/test.v1.Api/Count")(b"2").read()
        stream = channel.unary_stream("/test.v1.Api/Count")(b"2")
        assert [message async for message in stream] == [b"0", b"1"]

    run(api, counting_manager(), work, outer=(Reading(),))
    assert api.tokens == ["t1", "t2"]


class Counting(grpc.aio.UnaryUnaryClientInterceptor):
    """An interceptor of a program's own that counts what is over, as those that measure do."""

    def __init__(self) -> None:
        self.over: list[Any] = []

    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Be told when the call is over."""
        call = await continuation(client_call_details, request)
        call.add_done_callback(self.over.append)
        return call


def test_interceptor_further_out_that_counts(api: GrpcServer) -> None:
    """A call that is over with an error of ours calls back like any other."""
    manager, counting = counting_manager(), Counting()

    async def work(channel: Any) -> None:
        assert await channel.unary_unary(ECHO)(b"x") == b"x"
        manager.logout()
        with pytest.raises(LoginRequired):
            await channel.unary_unary(ECHO)(b"x")

    run(api, manager, work, outer=(counting,))
    assert len(counting.over) == 2
    assert api.tokens == ["t1", "t2"]
