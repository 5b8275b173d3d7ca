"""How gRPC's refused streams end: whatever tells of it has the token refreshed, so that the next stream is served."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.clients.contract.grpc_like import OK, GrpcServer, Heard, Verdict
from tests.clients.grpc_parts import BOUND, ECHO, Gate, Result, channel, run
from tests.clients.scripted import counting_manager
from unexpired import LoginRequired, ReplayRefused, Scheme, Session, TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

COUNT = "/test.v1.Api/Count"
UNAUTHENTICATED = grpc.StatusCode.UNAUTHENTICATED
NO = Verdict(UNAUTHENTICATED, "no", (("x-why", "1"),))
QUIET = ["code", "details", "trailing_metadata", "debug_error_string"]


def refuses_first(heard: Heard, _: int) -> Verdict:
    """The first token is no longer good."""
    return NO if heard.token == "t1" else OK


@pytest.fixture
def api() -> Iterator[GrpcServer]:
    """Give a server that takes any token but the first."""
    with GrpcServer(refuses_first) as made:
        yield made


def over() -> TokenManager:
    """A login whose refresh is refused."""

    def refresh(_: Session) -> dict[str, Any]:
        raise LoginRequired("over", reason="refused")

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login({"access_token": "t1", "refresh_token": "r1"})
    return manager


def test_waiting_for_the_connection(api: GrpcServer) -> None:
    """Who waits for the connection of a refused asyncio stream is told to begin again, and is served then."""

    async def work(channel: Any) -> None:
        for _ in range(2):
            manager.login({"access_token": "t1", "refresh_token": "r1"})
            call = channel.unary_stream(COUNT)(b"1")
            for _ in range(2):
                with pytest.raises(ReplayRefused, match="begin the stream again") as caught:
                    await call.wait_for_connection()
                assert caught.value.__cause__ is caught.value.__context__ is None
            call = channel.unary_stream(COUNT)(b"1")
            await call.wait_for_connection()
            assert [message async for message in call] == [b"0"]

    manager = counting_manager()
    run(api, manager, work)
    assert [token == "t1" for token in api.tokens] == [True, False] * 2


@pytest.mark.parametrize("ask", QUIET)
def test_asking_an_asyncio_stream_how_it_ended(api: GrpcServer, ask: str) -> None:
    """Each way to ask a refused asyncio stream how it ended gives gRPC's answer, and the next stream is served."""

    async def work(channel: Any) -> None:
        call = channel.unary_stream(COUNT)(b"1")
        found = await getattr(call, ask)()
        assert manager.token().access_token == "t2"
        if ask == "code":
            assert found is UNAUTHENTICATED
        if ask == "trailing_metadata":
            assert found["x-why"] == "1"
        assert await call.details() == "no"
        with pytest.raises(ReplayRefused):
            await call.read()
        assert [message async for message in channel.unary_stream(COUNT)(b"1")] == [b"0"]

    manager = counting_manager()
    run(api, manager, work)
    assert api.tokens == ["t1", "t2"]


def test_asking_an_asyncio_stream_whose_login_is_over(api: GrpcServer) -> None:
    """Without a way on its code is gRPC's, and only reading it raises, each time anew."""

    async def work(channel: Any) -> None:
        call = channel.unary_stream(COUNT)(b"1")
        assert await call.code() is UNAUTHENTICATED
        for ask in (call.wait_for_connection, call.wait_for_connection):
            with pytest.raises(LoginRequired):
                await ask()
        with pytest.raises(LoginRequired):
            await call.read()
        assert await call.code() is UNAUTHENTICATED

    run(api, over(), work)
    assert len(api.heard) == 1


class Noting(grpc.aio.UnaryStreamClientInterceptor):
    """An interceptor of a program's own that asks each stream how it ended, when it is over."""

    def __init__(self) -> None:
        self.codes: list[Any] = []
        self.told = asyncio.Event()

    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Be told when the call is over."""
        call = await continuation(client_call_details, request)
        call.add_done_callback(self.over)
        return call

    def over(self, call: Any) -> None:
        """Ask how it ended."""
        self.codes.append(asyncio.ensure_future(call.code()))
        self.told.set()


def test_interceptor_further_out_that_asks(api: GrpcServer) -> None:
    """An interceptor around ours that is told of the end, and asks for the code, has the token refreshed too."""
    noting, manager = Noting(), counting_manager()

    async def work(channel: Any) -> None:
        call = channel.unary_stream(COUNT)(b"1")
        await noting.told.wait()
        assert await noting.codes[0] is UNAUTHENTICATED
        assert manager.token().access_token == "t2"
        call.cancel()

    run(api, manager, work, outer=(noting,))


@pytest.mark.parametrize("ask", [*QUIET, "exception", "result", "traceback"])
def test_asking_a_blocking_stream_how_it_ended(api: GrpcServer, ask: str) -> None:
    """Each way to ask a refused stream how it ended has the token refreshed; its error is the one of its reader."""
    manager = counting_manager()
    with channel(api, manager) as opened:
        call = opened.unary_stream(COUNT)(b"1")
        if ask == "result":
            with pytest.raises(ReplayRefused):
                call.result(BOUND)
        else:
            assert getattr(call, ask)() is not None
        assert manager.token().access_token == "t2"
        error = call.exception(BOUND)
        assert isinstance(error, ReplayRefused)
        assert error.__cause__ is error.__context__ is None
        with pytest.raises(ReplayRefused):
            next(call)
        assert (call.code(), call.details()) == (UNAUTHENTICATED, "no")
        assert ("x-why", "1") in tuple(call.trailing_metadata())
        assert list(opened.unary_stream(COUNT)(b"1")) == [b"0"]
    assert api.tokens == ["t1", "t2"]


def test_asking_a_blocking_stream_that_is_well(api: GrpcServer) -> None:
    """A stream that is served, cancelled or still under way answers as gRPC's own does."""
    manager = counting_manager()
    manager.refresh("t1")
    with channel(api, manager) as opened:
        call = opened.unary_stream(COUNT)(b"1")
        with pytest.raises(grpc.FutureTimeoutError):
            call.exception(0.01)
        assert list(call) == [b"0"]
        assert (call.exception(), call.traceback(), call.result(), call.code()) == (
            None,
            None,
            None,
            grpc.StatusCode.OK,
        )
        call = opened.unary_stream(COUNT)(b"1")
        call.cancel()
        for ask in (call.exception, call.result, call.traceback):
            with pytest.raises(grpc.FutureCancelledError):
                ask()
        api.judge = lambda _heard, _before: Verdict(grpc.StatusCode.NOT_FOUND)
        call = opened.unary_stream(COUNT)(b"1")
        with pytest.raises(grpc.RpcError) as caught:
            call.result(BOUND)
        assert caught.value is call.exception()
        assert call.traceback() is not None
    assert set(api.tokens) == {"t2"}


class Raising(grpc.UnaryStreamClientInterceptor):
    """An interceptor of a program's own that fails."""

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:  # noqa: ARG002
        """Fail."""
        raise Result


def test_error_of_an_interceptor_nearer_to_the_wire(api: GrpcServer) -> None:
    """What another interceptor raises is the error of a stream, and no answer for a judge to see."""
    scheme = Scheme.bearer(judge=lambda _: pytest.fail("there was no answer"))
    with channel(api, counting_manager(), Raising(), scheme=scheme) as opened:
        assert isinstance(opened.unary_stream(COUNT)(b"1").exception(), Result)
    assert api.heard == []


def test_judge_that_fails(api: GrpcServer) -> None:
    """What a judge of the user's own raises is for who reads the stream; its code is the answer's."""

    def judge(_: Any) -> None:
        raise Result

    with channel(api, counting_manager(), scheme=Scheme.bearer(judge=judge)) as opened:
        call = opened.unary_stream(COUNT)(b"1")
        told = threading.Event()
        call.add_done_callback(lambda _: told.set())
        assert call.code() is UNAUTHENTICATED
        assert told.wait(BOUND)
        with pytest.raises(Result):
            next(call)


def asked(told: list[Any], done: threading.Event) -> Any:
    """A callback that asks a call all that it can be asked."""

    def callback(call: Any) -> None:
        told.append((threading.current_thread().name, call.code(), type(call.exception()), call.details()))
        done.set()

    return callback


def test_callback_of_a_refused_stream(api: GrpcServer) -> None:
    """A callback may ask how a stream ended: gRPC's thread does not wait for the refresh, and others are answered."""
    gate, told, done, also = Gate(), list[Any](), threading.Event(), threading.Event()
    answer = threading.Event()

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return NO if heard.method == "Count" and heard.token == "t1" else OK

    api.judge = judge
    with channel(api, gate.manager) as opened:
        call = opened.unary_stream(COUNT)(b"1")
        call.add_done_callback(asked(told, done))
        assert call.add_callback(also.set)
        answer.set()
        assert gate.begun.wait(BOUND)
        assert [opened.unary_unary(ECHO).future(b"x").result(BOUND) for _ in range(3)] == [b"x"] * 3
        assert not told
        gate.open.set()
        assert done.wait(BOUND)
        assert also.wait(BOUND)
        assert [one[1:] for one in told] == [(UNAUTHENTICATED, ReplayRefused, "no")]
        assert list(opened.unary_stream(COUNT)(b"1")) == [b"0"]


@pytest.mark.parametrize("judge", [None, lambda _: None])
def test_callback_of_a_stream_that_is_served(api: GrpcServer, judge: Any) -> None:
    """The callback of a stream that needs no refresh is called by gRPC, at once if the stream is over."""
    manager, told, done = counting_manager(), list[Any](), threading.Event()
    manager.refresh("t1")
    with channel(api, manager, scheme=Scheme.bearer(judge=judge)) as opened:
        call = opened.unary_stream(COUNT)(b"1")
        call.add_done_callback(asked(told, done))
        assert list(call) == [b"0"]
        assert done.wait(BOUND)
        call.add_done_callback(asked(told, done))
        assert not call.add_callback(done.set)
    assert [one[1:] for one in told] == [(grpc.StatusCode.OK, type(None), "")] * 2
    assert not any("unexpired" in one[0] for one in told)


def test_callback_of_a_stream_whose_login_is_over(api: GrpcServer) -> None:
    """Its callback is called all the same, and is given the reason."""
    told, done = list[Any](), threading.Event()
    with channel(api, over()) as opened:
        opened.unary_stream(COUNT)(b"1").add_done_callback(asked(told, done))
        assert done.wait(BOUND)
    assert [one[1:] for one in told] == [(UNAUTHENTICATED, LoginRequired, "no")]


def test_callback_without_threads(api: GrpcServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: where no thread can be started, the callback of a refused stream is called all the same."""
    real, told = threading.Thread.start, threading.Event()

    def start(self: threading.Thread) -> None:
        if self.name.startswith("unexpired: calls of gRPC"):
            raise RuntimeError("can't start new thread")
        real(self)

    with channel(api, counting_manager()) as opened:
        monkeypatch.setattr(threading.Thread, "start", start)
        call = opened.unary_stream(COUNT)(b"1")
        call.add_done_callback(lambda _: told.set())
        assert told.wait(BOUND)
        with contextlib.suppress(ReplayRefused):
            next(call)
        assert list(opened.unary_stream(COUNT)(b"1")) == [b"0"]
