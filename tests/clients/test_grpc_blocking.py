"""gRPC's blocking channels: streams, the channel's other interceptors, and what a call is sent with."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.clients.contract.grpc_like import OK, GrpcServer, Verdict, only
from tests.clients.grpc_parts import BOUND, ECHO, Inner, Result, channel
from tests.clients.scripted import counting_manager
from unexpired import LoginRequired, ReplayRefused, Scheme


def test_stream_object() -> None:
    """A refused stream raises to its reader; all else of it is as gRPC made it."""
    called: list[Any] = []
    told = threading.Event()
    no = Verdict(grpc.StatusCode.UNAUTHENTICATED, "no", (("x-why", "1"),))
    with (
        GrpcServer(lambda heard, _: no if heard.token == "t1" else OK) as api,
        channel(api, counting_manager()) as opened,
    ):
        method = opened.unary_stream("/test.v1.Api/Count")
        stream = method(b"2", timeout=60)
        stream.add_done_callback(called.append)
        stream.add_done_callback(lambda _: told.set())
        for _ in range(2):
            with pytest.raises(ReplayRefused) as caught:
                next(stream)
            assert caught.value.__cause__ is caught.value.__context__ is None
        assert (stream.code(), stream.details()) == (grpc.StatusCode.UNAUTHENTICATED, "no")
        assert ("x-why", "1") in tuple(stream.trailing_metadata())
        assert stream.initial_metadata() is not None
        assert (stream.is_active(), stream.done()) == (False, True)
        assert stream.time_remaining() <= 60
        assert isinstance(stream, grpc.Call)
        assert isinstance(stream, grpc.Future)
        assert told.wait(BOUND)
        assert called == [stream]
        second = method(b"2")
        assert (next(second), second.next(), list(second)) == (b"0", b"1", [])
    assert api.tokens == ["t1", "t2"]


def test_stream_that_is_refused_in_its_midst() -> None:
    """Messages that came before the refusal are the reader's, then it is told to begin again."""

    class Late(GrpcServer):
        def _count(self, message: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
            yield from super()._count(message, context)
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "now expired")

    with Late() as api, channel(api, counting_manager()) as opened:
        stream = opened.unary_stream("/test.v1.Api/Count")(b"2")
        assert [next(stream), next(stream)] == [b"0", b"1"]
        with pytest.raises(ReplayRefused):
            next(stream)


def test_cancelled_stream() -> None:
    """A stream that its reader cancels ends with gRPC's own error, and no refresh is made of it."""
    pause, manager = threading.Event(), counting_manager()
    with GrpcServer() as api, channel(api, manager) as opened:
        api.pause = pause
        stream = opened.unary_stream("/test.v1.Api/Count")(b"2")
        assert next(stream) == b"0"
        assert stream.cancel()
        with pytest.raises(grpc.RpcError):
            next(stream)
        assert stream.code() is grpc.StatusCode.CANCELLED
        assert stream.cancelled()
    assert manager.token().access_token == "t1"


def test_how_a_call_is_sent() -> None:
    """What its caller set for a call is the same at a replay: credentials, waiting, compression; its time is less."""
    inner, manager = Inner(), counting_manager()
    assert manager.token().access_token == "t1"
    with GrpcServer(only("t2")) as api, channel(api, manager, inner) as opened:
        options: dict[str, Any] = {"wait_for_ready": True, "compression": grpc.Compression.Gzip, "timeout": 60}
        assert opened.unary_unary(ECHO)(b"x" * 5000, metadata=(("x-own", "1"),), **options) == b"x" * 5000
        assert opened.unary_unary(ECHO)(b"x") == b"x"
    first, second, bare = inner.seen
    for sent in (first, second):
        assert (sent.method, sent.credentials, sent.wait_for_ready) == (ECHO, None, True)
        assert sent.compression is grpc.Compression.Gzip
        assert "Bearer" not in repr(sent)
    assert first.timeout == 60 > second.timeout > 0
    assert bare.timeout is None


@pytest.mark.parametrize("judge", [None, lambda _: None])
def test_error_of_an_interceptor_nearer_to_the_wire(judge: Any) -> None:
    """What another interceptor raises is the caller's, and no answer for a judge to see."""

    def act(_: Any) -> None:
        raise Result

    def look(_: Any) -> None:
        pytest.fail("there was no answer")

    scheme = Scheme.bearer(judge=look) if judge else None
    with GrpcServer() as api, channel(api, counting_manager(), Inner(act), scheme=scheme) as opened:
        with pytest.raises(Result):
            opened.unary_unary(ECHO)(b"x")
        assert isinstance(opened.unary_unary(ECHO).future(b"x").exception(BOUND), Result)
    assert api.heard == []


def test_errors_pass_an_interceptor_further_out() -> None:
    """Our errors reach the caller through interceptors around ours."""
    manager = counting_manager()
    manager.logout()
    outer = Inner()
    with GrpcServer() as api, channel(api, manager, outer=(outer,)) as opened, pytest.raises(LoginRequired):
        opened.unary_unary(ECHO)(b"x")
    assert len(outer.seen) == 1
    assert "authorization" not in str(outer.seen[0].metadata)
