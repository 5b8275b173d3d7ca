"""gRPC's asyncio channels: call objects, both styles of streams, cancelling, and the channel's other interceptors."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.clients.contract.grpc_like import OK, GrpcServer, Heard, Verdict
from tests.clients.grpc_parts import BOUND, ECHO, Gate, run
from tests.clients.scripted import counting_manager
from unexpired import Answer, LoginRequired, ReplayRefused, Scheme, Session, TokenManager
from unexpired import Verdict as Means
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

COUNT, SUM, CHAT = (f"/test.v1.Api/{name}" for name in ("Count", "Sum", "Chat"))
NO = Verdict(grpc.StatusCode.UNAUTHENTICATED, "no", (("x-why", "1"),))


def refuses_first(heard: Heard, _: int) -> Verdict:
    """The first token is no longer good."""
    return NO if heard.token == "t1" else OK


@pytest.fixture
def api() -> Iterator[GrpcServer]:
    """Give a server that takes any token but the first."""
    with GrpcServer(refuses_first) as made:
        yield made


def test_call_object(api: GrpcServer) -> None:
    """The object of a call that was sent again tells of its last answer, and calls back once, with itself."""

    async def work(channel: Any) -> None:
        called: list[Any] = []
        call = channel.unary_unary(ECHO)(b"x", timeout=60)
        call.add_done_callback(called.append)
        assert not call.done()
        assert await call == await call == b"x"
        assert (await call.code(), await call.details()) == (grpc.StatusCode.OK, "")
        assert await call.initial_metadata() is not None
        assert await call.trailing_metadata() is not None
        assert (call.done(), call.cancelled(), call.cancel()) == (True, False, False)
        assert called == [call]

    run(api, counting_manager(), work)
    assert api.tokens == ["t1", "t2"]


def test_error_of_a_call() -> None:
    """The server's own error is raised, with what it said; no refresh is made of it."""

    async def work(channel: Any) -> None:
        call = channel.unary_unary(ECHO)(b"x")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await call
        assert caught.value.code() is await call.code() is grpc.StatusCode.NOT_FOUND
        assert await call.details() == "none"

    with GrpcServer(lambda _heard, _before: Verdict(grpc.StatusCode.NOT_FOUND, "none")) as api:
        run(api, counting_manager(), work)
    assert api.tokens == ["t1"]


def test_cancelled_while_it_is_sent(api: GrpcServer) -> None:
    """Cancelling a task cancels its call at the server's, too; the next call is served."""

    async def work(channel: Any) -> None:
        task = asyncio.ensure_future(channel.unary_unary(ECHO)(b"x"))
        assert await asyncio.to_thread(begun.wait, BOUND)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        hold.set()
        assert await channel.unary_unary(ECHO)(b"y") == b"y"

    begun, hold = threading.Event(), threading.Event()

    def judge(_heard: Heard, before: int) -> Verdict:
        begun.set()
        return OK if before or hold.wait(BOUND) else NO

    api.judge = judge
    run(api, counting_manager(), work)
    assert len(api.heard) == 2


@pytest.mark.parametrize("by", ["call", "task"])
def test_cancelled_while_it_waits(api: GrpcServer, by: str) -> None:
    """Scenario 57: who is cancelled while waiting for a refresh is gone at once, and is not sent again."""
    gate = Gate()

    async def work(channel: Any) -> None:
        call = channel.unary_unary(ECHO)(b"x")
        task = asyncio.ensure_future(call)
        assert await asyncio.to_thread(gate.begun.wait, BOUND)
        assert call.cancel() if by == "call" else task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await call.code() is grpc.StatusCode.CANCELLED
        gate.open.set()
        assert await channel.unary_unary(ECHO)(b"y") == b"y"

    run(api, gate.manager, work)
    assert [heard.message for heard in api.heard if heard.token == "t2"] == [b"y"]


def test_message_that_is_written_anew(api: GrpcServer) -> None:
    """P11: who writes the next message into the one it gave away does not change what is sent again."""

    async def work(channel: Any) -> None:
        message = bytearray(b"first")
        call = channel.unary_unary(ECHO, request_serializer=bytes)(message)
        assert await asyncio.to_thread(gate.begun.wait, BOUND)
        message[:] = b"second"
        gate.open.set()
        assert await call == b"first"

    gate = Gate()
    run(api, gate.manager, work)
    assert [heard.message for heard in api.heard] == [b"first"] * 2


def test_refused_download(api: GrpcServer) -> None:
    """A refused stream raises to its reader, in both styles; its code and metadata are those of the refusal."""

    async def work(channel: Any) -> None:
        for style in ("iterate", "read"):
            stream = channel.unary_stream(COUNT)(b"2")
            with pytest.raises(ReplayRefused, match="begin the stream again") as caught:
                await (stream.read() if style == "read" else anext(aiter(stream)))
            assert caught.value.__cause__ is caught.value.__context__ is None
            assert (await stream.code(), await stream.details()) == (grpc.StatusCode.UNAUTHENTICATED, "no")
            assert (await stream.trailing_metadata())["x-why"] == "1"
            assert stream.done()
            manager.login({"access_token": "t1", "refresh_token": "r1"})
        manager.refresh("t1")
        stream = channel.unary_stream(COUNT)(b"2")
        assert [await stream.read(), await stream.read(), await stream.read()] == [b"0", b"1", grpc.aio.EOF]
        assert await stream.code() is grpc.StatusCode.OK

    manager = counting_manager()
    run(api, manager, work)
    assert len(api.heard) == 3


@pytest.mark.parametrize("scheme", [None, Scheme.bearer(judge=lambda _: None)])
def test_refused_upload(api: GrpcServer, scheme: Scheme | None) -> None:
    """A refused upload raises to who awaits it, in both styles; its call object works as gRPC's own."""

    async def begin(channel: Any, style: str) -> Any:
        async def messages() -> AsyncIterator[bytes]:
            yield b"a"
            yield b"b"

        if style == "iterate":
            return channel.stream_unary(SUM)(messages(), timeout=60)
        call = channel.stream_unary(SUM)(timeout=60)
        await call.wait_for_connection()
        return call

    async def work(channel: Any) -> None:
        for style in ("iterate", "write"):
            manager.login({"access_token": "t1", "refresh_token": "r1"})
            called: list[Any] = []
            call = await begin(channel, style)
            call.add_done_callback(called.append)
            if style == "write":
                await call.done_writing()
            for _ in range(2):
                with pytest.raises(ReplayRefused, match="begin the stream again"):
                    await call
            assert (await call.code(), await call.details()) == (grpc.StatusCode.UNAUTHENTICATED, "no")
            assert (await call.trailing_metadata())["x-why"] == "1"
            assert await call.initial_metadata() is not None
            assert (set(called), call.done(), call.cancelled(), call.cancel()) == ({call}, True, False, False)
            call = await begin(channel, style)
            if style == "write":
                await call.write(b"a")
                await call.write(b"b")
                await call.done_writing()
            assert await call == b"ab"
            assert await call.code() is grpc.StatusCode.OK

    manager = counting_manager()
    run(api, manager, work, scheme=scheme)
    assert [token == "t1" for token in api.tokens] == [True, False] * 2


@pytest.mark.parametrize("over", ["before", "after"])
def test_call_objects_of_a_login_that_is_over(api: GrpcServer, over: str) -> None:
    """Without a way on, each call object raises LoginRequired when it is awaited or read, and is done in all else."""

    def refresh(_: Session) -> dict[str, Any]:
        raise LoginRequired("over", reason="refused")

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login({"access_token": "t1", "refresh_token": "r1"})
    if over == "before":
        manager.logout()

    async def work(channel: Any) -> None:
        called: list[Any] = []
        one = channel.unary_unary(ECHO)(b"x")
        one.add_done_callback(called.append)
        for _ in range(2):
            with pytest.raises(LoginRequired):
                await one
        one.add_done_callback(called.append)
        assert called == [one] * 2
        sent = over == "after"
        assert await one.code() is (grpc.StatusCode.UNAUTHENTICATED if sent else grpc.StatusCode.INTERNAL)
        assert await one.details() == ("no" if sent else "Exception raised while intercepting the RPC")
        assert (await one.trailing_metadata()).get("x-why") == ("1" if sent else None)
        assert await one.initial_metadata() is not None
        assert (one.done(), one.cancel(), one.cancelled()) == (True, False, False)
        manager.logout()
        down, up, both = channel.unary_stream(COUNT)(b"1"), channel.stream_unary(SUM)(), channel.stream_stream(CHAT)()
        for read in (down.read, aiter(channel.unary_stream(COUNT)(b"1")).__anext__, both.read):
            with pytest.raises(LoginRequired):
                await read()
        with pytest.raises(LoginRequired):
            await up
        with pytest.raises(LoginRequired):
            await up.wait_for_connection()
        for writer in (up, both):
            with pytest.raises(asyncio.InvalidStateError):
                await writer.write(b"x")

    run(api, manager, work)
    assert len(api.heard) == (over == "after")


def test_error_of_an_upload() -> None:
    """The server's own error is that of the upload, and cancelling it is no answer."""

    async def work(channel: Any) -> None:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await channel.stream_unary(SUM)(iter([b"a"]))
        assert caught.value.code() is grpc.StatusCode.NOT_FOUND
        call = channel.stream_unary(SUM)()
        await call.wait_for_connection()
        assert call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert call.cancelled()

    with GrpcServer(lambda _, before: OK if before else Verdict(grpc.StatusCode.NOT_FOUND)) as api:
        run(api, counting_manager(), work)
    assert set(api.tokens) == {"t1"}


def test_refused_conversation(api: GrpcServer) -> None:
    """A refused stream in both directions is over for its writer, and its reader is told to begin again."""

    async def work(channel: Any) -> None:
        stream = channel.stream_stream(CHAT)()
        await stream.done_writing()
        with pytest.raises(ReplayRefused, match="begin the stream again"):
            await stream.read()
        with pytest.raises(asyncio.InvalidStateError):
            await stream.write(b"a")
        assert [word async for word in channel.stream_stream(CHAT)(iter([b"a", b"b"]))] == [b"a", b"b"]

    run(api, counting_manager(), work)
    assert api.tokens == ["t1", "t2"]


def test_stream_that_is_left() -> None:
    """A reader that leaves in the midst of a stream, and one that cancels it, meet no error of ours."""

    async def work(channel: Any) -> None:
        async for message in channel.unary_stream(COUNT)(b"3"):
            assert message == b"0"
            break
        stream = channel.unary_stream(COUNT)(b"3")
        reader = aiter(stream)
        assert await anext(reader) == b"0"
        assert stream.cancel()
        with pytest.raises(asyncio.CancelledError):
            await anext(reader)
        assert stream.cancelled()

    manager = counting_manager()
    with GrpcServer() as api:
        run(api, manager, work)
    assert set(api.tokens) == {"t1"}


def test_over_in_the_midst_of_a_stream() -> None:
    """A code in the metadata after a stream that means the end of the login ends it."""

    def judge(answer: Answer) -> Means | None:
        return Means.LOGIN_REQUIRED if answer.headers.get("x-code") == "40005" else None

    async def work(channel: Any) -> None:
        stream = channel.unary_stream(COUNT)(b"2")
        assert [await stream.read(), await stream.read()] == [b"0", b"1"]
        with pytest.raises(LoginRequired):
            await stream.read()

    with GrpcServer(lambda _heard, _before: Verdict(trailers=(("x-code", "40005"),))) as api:
        run(api, counting_manager(), work, scheme=Scheme.bearer(judge=judge))
