"""gRPC's futures: they are sent again behind their caller's back, and behave as gRPC's own."""

from __future__ import annotations

import threading
from typing import Any

import grpc
import pytest

from tests.clients.contract.grpc_like import EXPIRED, OK, GrpcServer, Heard, Verdict, only
from tests.clients.grpc_parts import BOUND, ECHO, Gate, Inner, channel
from tests.clients.scripted import counting_manager
from unexpired import LoginRequired, ReplayRefused, Session, TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore


def test_future() -> None:
    """A future behaves as gRPC's own before, during and after a replay, and calls back once, with itself."""
    called: list[Any] = []
    gate, told = Gate(), threading.Event()
    with GrpcServer(only("t2")) as api, channel(api, gate.manager) as opened:
        future = opened.unary_unary(ECHO).future(b"x", timeout=60)
        future.add_done_callback(called.append)
        assert future.add_callback(told.set)
        assert gate.begun.wait(BOUND)
        assert (future.done(), future.running(), future.is_active(), future.cancelled()) == (False, True, True, False)
        assert 0 < future.time_remaining() < 60
        with pytest.raises(grpc.FutureTimeoutError):
            future.result(timeout=0.01)
        with pytest.raises(grpc.FutureTimeoutError):
            future.exception(timeout=0.01)
        assert called == []
        gate.open.set()
        assert future.result(BOUND) == b"x"
        assert told.wait(BOUND)
        assert (future.done(), future.running(), future.is_active(), future.cancelled()) == (True, False, False, False)
        assert (future.exception(), future.traceback()) == (None, None)
        assert (future.code(), future.details()) == (grpc.StatusCode.OK, "")
        assert future.initial_metadata() is not None
        assert future.trailing_metadata() is not None
        assert called == [future]
        future.add_done_callback(called.append)
        assert called == [future] * 2
        assert not future.add_callback(told.set)
        assert not future.cancel()
        assert isinstance(future, grpc.Future)
        assert isinstance(future, grpc.Call)
        assert opened.unary_unary(ECHO).future(b"x").time_remaining() is None


def test_refresh_does_not_hold_up_the_channel() -> None:
    """While a future waits for a refresh, other futures of its channel are answered: gRPC's own thread is free."""
    gate = Gate()

    def judge(heard: Heard, _: int) -> Verdict:
        return EXPIRED if heard.message == b"late" and heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, gate.manager) as opened:
        method = opened.unary_unary(ECHO)
        late = method.future(b"late")
        assert gate.begun.wait(BOUND)
        assert [method.future(b"x").result(BOUND) for _ in range(3)] == [b"x"] * 3
        assert not late.done()
        gate.open.set()
        assert late.result(BOUND) == b"late"
    assert api.tokens == ["t1"] * 4 + ["t2"]


def test_beginning_a_future_does_not_wait_for_its_answer() -> None:
    """With a fresh token `future()` returns before the server has answered."""
    answer = threading.Event()

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return EXPIRED if heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, counting_manager()) as opened:
        futures = [opened.unary_unary(ECHO).future(b"%d" % number) for number in range(5)]
        assert not any(future.done() for future in futures)
        answer.set()
        assert [future.result(BOUND) for future in futures] == [b"%d" % number for number in range(5)]


class Waiting(grpc.UnaryUnaryClientInterceptor):
    """An interceptor that gives nothing on before it is done."""

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Wait for the answer."""
        call = continuation(client_call_details, request)
        call.exception()
        return call


def test_future_that_is_done_before_it_is_looked_at() -> None:
    """A refusal that is here before `future()` returns is no reason to keep its caller waiting for the refresh."""
    gate = Gate()
    with GrpcServer(only("t2")) as api, channel(api, gate.manager, Waiting()) as opened:
        future = opened.unary_unary(ECHO).future(b"x")
        assert not future.done()
        gate.open.set()
        assert future.result(BOUND) == b"x"
        assert opened.unary_unary(ECHO).future(b"y").result(BOUND) == b"y"
    assert api.tokens == ["t1", "t2", "t2"]


@pytest.mark.parametrize("method", ["unary_unary", "stream_unary"])
def test_a_future_without_a_way_on(method: str) -> None:
    """A future whose login is over raises LoginRequired; its code and metadata are those of the refusal."""

    def refresh(_: Session) -> dict[str, Any]:
        raise LoginRequired("over", reason="refused")

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login({"access_token": "t1", "refresh_token": "r1"})
    answer = threading.Event()

    def judge(_heard: Heard, _before: int) -> Verdict:
        assert answer.wait(BOUND)
        return Verdict(grpc.StatusCode.UNAUTHENTICATED, "no", (("x-why", "1"),))

    with GrpcServer(judge) as api, channel(api, manager) as opened:
        stub = getattr(opened, method)(ECHO if method == "unary_unary" else "/test.v1.Api/Sum")
        future = stub.future(b"x" if method == "unary_unary" else iter([b"x"]))
        answer.set()
        with pytest.raises(LoginRequired):
            future.result(BOUND)
        assert isinstance(future.exception(), LoginRequired)
        assert future.traceback() is not None
        assert (future.code(), future.details()) == (grpc.StatusCode.UNAUTHENTICATED, "no")
        assert ("x-why", "1") in tuple(future.trailing_metadata())
        # nothing is sent now, and a future says so in its own way
        for later in (stub.future(b"x"), stub.future(b"x")):
            assert isinstance(later.exception(), LoginRequired)
    assert len(api.heard) == 1


def test_future_of_an_upload() -> None:
    """A refused stream of messages is not sent again: its future says so, and the token is fresh."""
    answer, manager = threading.Event(), counting_manager()

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return EXPIRED if heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, manager) as opened:
        first = opened.stream_unary("/test.v1.Api/Sum").future(iter([b"a"]))
        answer.set()
        with pytest.raises(ReplayRefused, match="begin the stream again"):
            first.result(BOUND)
        assert opened.stream_unary("/test.v1.Api/Sum").future(iter([b"a", b"b"])).result(BOUND) == b"ab"


def test_error_of_a_future() -> None:
    """The server's own error is that of the future, and no refresh is made of it."""
    wrong, answer = Verdict(grpc.StatusCode.NOT_FOUND, "none"), threading.Event()

    def judge(_heard: Heard, _before: int) -> Verdict:
        assert answer.wait(BOUND)
        return wrong

    with GrpcServer(judge) as api, channel(api, counting_manager()) as opened:
        future = opened.unary_unary(ECHO).future(b"x")
        answer.set()
        with pytest.raises(grpc.RpcError) as caught:
            future.result(BOUND)
        assert future.exception() is caught.value
        assert future.traceback() is not None
        assert future.code() is grpc.StatusCode.NOT_FOUND
    assert api.tokens == ["t1"]


@pytest.mark.parametrize("when", ["sent", "waiting"])
def test_cancelled_future(when: str) -> None:
    """Scenario 57: a future that is cancelled is over at once; what it waited for goes on, and it is not sent again."""
    gate, answer, heard = Gate(), threading.Event(), threading.Event()

    def judge(_heard: Heard, before: int) -> Verdict:
        heard.set()
        assert before or when != "sent" or answer.wait(BOUND)
        return EXPIRED if _heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, gate.manager) as opened:
        future = opened.unary_unary(ECHO).future(b"x")
        called: list[Any] = []
        future.add_done_callback(called.append)
        assert heard.wait(BOUND)
        if when != "sent":
            assert gate.begun.wait(BOUND)
        assert future.cancel()
        assert not future.cancel()
        assert (future.cancelled(), future.done(), called) == (True, True, [future])
        for ask in (future.result, future.exception, future.traceback):
            with pytest.raises(grpc.FutureCancelledError):
                ask()
        assert (future.code(), future.details()) == (grpc.StatusCode.CANCELLED, "Locally cancelled by application!")
        gate.open.set()
        answer.set()
        if when == "sent":
            assert not gate.begun.is_set()
        else:
            assert gate.manager.refresh("t1").access_token == "t2"
        assert opened.unary_unary(ECHO)(b"y") == b"y"
    assert [one.message for one in api.heard if one.token == "t2"] == [b"y"]


def test_future_that_is_cancelled_as_it_is_sent_again() -> None:
    """A replay that begins while its future is being cancelled is cancelled too."""
    futures: list[Any] = []

    def act(_: Any) -> None:
        if len(inner.seen) == 2:
            assert futures[0].cancel()

    answer, inner = threading.Event(), Inner(act)

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return EXPIRED if heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, counting_manager(), inner) as opened:
        futures.append(opened.unary_unary(ECHO).future(b"x"))
        done = threading.Event()
        futures[0].add_done_callback(lambda _: done.set())
        answer.set()
        assert done.wait(BOUND)
        assert futures[0].code() is grpc.StatusCode.CANCELLED


def test_message_that_is_written_anew() -> None:
    """P11: who writes the next message into the one it gave away does not change what is sent again."""
    answer = threading.Event()

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return EXPIRED if heard.token == "t1" else OK

    message = bytearray(b"0")
    with GrpcServer(judge) as api, channel(api, counting_manager()) as opened:
        method, futures = opened.unary_unary(ECHO, request_serializer=bytes), []
        for number in range(3):
            message[:] = b"%d" % number
            futures.append(method.future(message))
        answer.set()
        assert [future.result(BOUND) for future in futures] == [b"0", b"1", b"2"]
    assert sorted(heard.message or b"" for heard in api.heard if heard.token == "t2") == [b"0", b"1", b"2"]


def test_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """P3: where no thread can be started, a refused future is over with its refusal; blocking calls need none."""
    answer = threading.Event()

    def judge(heard: Heard, _: int) -> Verdict:
        assert answer.wait(BOUND)
        return EXPIRED if heard.token == "t1" else OK

    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        if self.name.startswith("unexpired: calls of gRPC"):
            raise RuntimeError("can't start new thread")
        real(self)

    manager = counting_manager()
    with GrpcServer(judge) as api, channel(api, manager) as opened:
        monkeypatch.setattr(threading.Thread, "start", start)
        future = opened.unary_unary(ECHO).future(b"x")
        answer.set()
        assert future.exception(BOUND).code() is grpc.StatusCode.UNAUTHENTICATED
        assert opened.unary_unary(ECHO)(b"x") == b"x"
