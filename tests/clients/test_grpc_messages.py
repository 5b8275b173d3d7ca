"""gRPC: what is kept of a message while its call is under way, and on how many threads refused futures wait."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from typing import Any, Self

import grpc
import grpc.aio
import pytest

from tests.clients.contract.grpc_like import EXPIRED, OK, GrpcServer, Heard, Verdict, only
from tests.clients.grpc_parts import BOUND, ECHO, Gate, channel, run
from tests.clients.scripted import counting_manager
from unexpired import LoginRequired, ReplayRefused, Scheme, TemporarilyUnavailable
from unexpired.clients._grpc_futures import Line

LINE = "unexpired: calls of gRPC"
RESOURCE = "unexpired.resource"


def lines() -> list[threading.Thread]:
    """The threads on which refused futures wait."""
    return [thread for thread in threading.enumerate() if thread.name.startswith(LINE)]


def once(kind: str, api: GrpcServer, message: Any, serializer: Callable[[Any], bytes], then: Any = None) -> Any:
    """Send one message in one of three ways; *then* is called while its refresh is waited for."""
    gate = Gate()
    if then is None:
        gate.open.set()

    def between() -> None:
        if then is not None:
            assert gate.begun.wait(BOUND)
            then()
            gate.open.set()

    if kind == "asyncio":
        found: list[Any] = []

        async def work(channel: Any) -> None:
            call = asyncio.ensure_future(channel.unary_unary(ECHO, request_serializer=serializer)(message))
            await asyncio.sleep(0)
            await asyncio.to_thread(between)
            found.append(await call)

        run(api, gate.manager, work)
        return found[0]
    with channel(api, gate.manager) as opened:
        method = opened.unary_unary(ECHO, request_serializer=serializer)
        if kind == "blocking":
            return method(message)
        future = method.future(message)
        between()
        return future.result(BOUND)


@pytest.fixture
def api() -> Iterator[GrpcServer]:
    """Give a server that takes the second token."""
    with GrpcServer(only("t2")) as made:
        yield made


class Message:
    """A message as protobuf makes them: something to copy it into, and how it is sent."""

    def __init__(self) -> None:
        self.text = b""

    def CopyFrom(self, other: Self) -> None:  # noqa: N802 - protobuf's name
        """Be as *other* is."""
        self.text = other.text

    def SerializeToString(self) -> bytes:  # noqa: N802 - protobuf's name
        """Give what is sent."""
        return self.text


class Closed(Message):
    """A message that nobody can copy."""

    def CopyFrom(self, other: Self) -> None:  # noqa: N802, ARG002 - protobuf's name
        """Fail."""
        raise TypeError


@pytest.mark.parametrize("kind", ["asyncio", "future"])
def test_protobuf_message_that_is_written_anew(api: GrpcServer, kind: str) -> None:
    """P11: who writes the next message into the one it gave away does not change what is sent again."""
    message = Message()
    message.text = b"first"
    again = lambda: setattr(message, "text", b"second")  # noqa: E731 - said where it is used
    assert once(kind, api, message, lambda one: one.SerializeToString(), again) == b"first"
    assert [heard.message for heard in api.heard] == [b"first"] * 2


@pytest.mark.parametrize("kind", ["asyncio", "future"])
def test_message_that_cannot_be_kept(api: GrpcServer, kind: str) -> None:
    """P11: a message that cannot be kept is not sent again, and its caller is told so; a blocking call's is."""
    with pytest.raises(ReplayRefused, match="send a new one"):
        once(kind, api, Closed(), lambda _: b"x")
    assert once("blocking", api, Closed(), lambda _: b"x") == b"x"
    assert api.tokens == ["t1", "t1", "t2"]


@pytest.mark.parametrize("kind", ["asyncio", "future", "blocking"])
def test_message_that_is_read_once(api: GrpcServer, kind: str) -> None:
    """P11: a message that its serializer reads up, such as a file, is never sent again cut short or empty."""
    with pytest.raises(ReplayRefused, match="send a new one"):
        once(kind, api, iter([b"a", b"b"]), b"".join)
    assert [heard.message for heard in api.heard] == [b"ab"]


class Rows(list[int]):
    """A message of a program's own, big enough for a copy to be felt."""

    def __deepcopy__(self, _: Any) -> Any:
        pytest.fail("was copied")

    __copy__ = __deepcopy__


@pytest.mark.parametrize("kind", ["asyncio", "future", "blocking"])
def test_messages_are_not_copied(api: GrpcServer, kind: str) -> None:
    """A message of another kind is sent again as it is then: a copy would hold up the event loop."""
    rows = Rows(range(3))
    assert once(kind, api, rows, bytes) == bytes(range(3))
    assert [heard.message for heard in api.heard] == [bytes(range(3))] * 2


class Held:
    """A message whose end can be seen."""


def kept_by_failures(api: GrpcServer, kind: str, wanted: type[BaseException], scheme: Scheme | None = None) -> int:
    """How many of some messages are still there after their calls have failed, without the cyclic collector."""
    held: list[weakref.ref[Held]] = []

    def make() -> Held:
        message = Held()
        held.append(weakref.ref(message))
        return message

    manager = counting_manager()

    async def work(channel: Any) -> None:
        for _ in range(5):
            with pytest.raises(wanted):
                await channel.unary_unary(ECHO, request_serializer=lambda _: b"x")(make())

    if kind == "asyncio":
        run(api, manager, work, scheme=scheme)
    else:
        with channel(api, manager, scheme=scheme) as opened:
            for _ in range(5):
                with pytest.raises(wanted):
                    opened.unary_unary(ECHO, request_serializer=lambda _: b"x").future(make()).result(BOUND)
    return sum(one() is not None for one in held)


@pytest.mark.parametrize("kind", ["asyncio", "future"])
@pytest.mark.parametrize("wanted", [grpc.RpcError, LoginRequired])
def test_messages_of_failed_calls_are_let_go(kind: str, wanted: type[BaseException]) -> None:
    """P8: when a call has failed nothing holds its message, without waiting for the cyclic collector."""
    challenge = (("www-authenticate", 'Bearer error="insufficient_user_authentication"'),)
    code = grpc.StatusCode.NOT_FOUND if wanted is grpc.RpcError else grpc.StatusCode.UNAUTHENTICATED
    gc.collect()
    gc.disable()
    try:
        with GrpcServer(lambda _heard, _before: Verdict(code, "no", challenge)) as api:
            assert kept_by_failures(api, kind, wanted) == 0
    finally:
        gc.enable()


def test_refused_futures_wait_on_one_thread(api: GrpcServer) -> None:
    """100 refused futures wait for their token on one thread for each resource, and all are served."""
    gate = Gate()
    with channel(api, gate.manager) as opened:
        method = opened.unary_unary(ECHO)
        waiting = [method.future(b"%d" % number) for number in range(100)]
        api_heard(api, 100)
        assert gate.begun.wait(BOUND)
        assert len(lines()) == 1
        gate.open.set()
        assert [future.result(BOUND) for future in waiting] == [b"%d" % number for number in range(100)]
    for thread in lines():
        thread.join(BOUND)
    assert not lines()


def api_heard(api: GrpcServer, number: int) -> None:
    """Wait until *number* calls have come."""
    pause = threading.Event()
    for _ in range(int(BOUND / 0.005)):
        if len(api.heard) >= number:
            return
        pause.wait(0.005)
    pytest.fail("calls are missing")


def test_accepted_futures_start_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    """A judge of the user's own looks at accepted futures where they end: no thread is started for them."""
    started: list[str] = []
    real = threading.Thread.start

    def start(self: threading.Thread) -> None:
        started.append(self.name)
        real(self)

    with (
        GrpcServer() as api,
        channel(api, counting_manager(), scheme=Scheme.bearer(judge=lambda _: None)) as opened,
    ):
        monkeypatch.setattr(threading.Thread, "start", start)
        for _ in range(5):
            assert opened.unary_unary(ECHO).future(b"x").result(BOUND) == b"x"
    assert not [name for name in started if name.startswith(LINE)]


def test_judge_that_fails() -> None:
    """What a judge of the user's own raises is the error of a future; a RuntimeError too."""

    def judge(_: Any) -> None:
        raise RuntimeError("mine")

    with (
        GrpcServer() as api,
        channel(api, counting_manager(), scheme=Scheme.bearer(judge=judge)) as opened,
        pytest.raises(RuntimeError, match="mine"),
    ):
        opened.unary_unary(ECHO).future(b"x").result(BOUND)


def test_a_refresh_that_fails_fails_for_all_who_wait(api: GrpcServer) -> None:
    """Futures that wait together have one refresh and one failure: they do not wait for it one after the other."""
    manager, asked, go = counting_manager(), list[Any](), threading.Event()

    def replacement(*what: Any) -> Any:
        asked.append(what)
        assert go.wait(BOUND)
        raise TemporarilyUnavailable("not now", key="alice", retry_after=3)

    manager.exchange.replacement = replacement  # type: ignore[assignment, method-assign]
    api.judge = lambda heard, _: OK if heard.message == b"y" else EXPIRED
    with channel(api, manager) as opened:
        method = opened.unary_unary(ECHO)
        waiting = [method.future(b"x")]
        api_heard(api, 1)
        waiting += [method.future(b"x") for _ in range(20)]
        api_heard(api, 21)
        # A call that is not refused ends on gRPC's thread after those before it: all of them are in the line then.
        assert method.future(b"y").result(BOUND) == b"y"
        go.set()
        errors = [future.exception(BOUND) for future in waiting]
    assert [(type(error), error.retry_after) for error in errors] == [(TemporarilyUnavailable, 3)] * 21
    assert len({id(error) for error in errors}) == 21
    assert len(asked) <= 4


def test_a_callback_that_ends_its_thread() -> None:
    """What one future's callback raises, SystemExit included, does not keep the next ones waiting."""
    gate = Gate()

    def refuse(_: Any) -> None:
        raise SystemExit

    def judge(heard: Heard, _: int) -> Verdict:
        return EXPIRED if heard.token == "t1" else OK

    with GrpcServer(judge) as api, channel(api, gate.manager) as opened:
        first = opened.unary_unary(ECHO, request_serializer=lambda _: b"x").future(iter([b"x"]))
        first.add_done_callback(refuse)
        second = opened.unary_unary(ECHO).future(b"y")
        gate.open.set()
        assert isinstance(first.exception(BOUND), ReplayRefused)
        assert second.result(BOUND) == b"y"
        gate.manager.login({"access_token": "t1", "refresh_token": "r1"})
        assert opened.unary_unary(ECHO).future(b"z").result(BOUND) == b"z"


def test_line_in_a_forked_process() -> None:
    """A line whose threads stayed behind in the parent process starts its own."""
    line, taken = Line(), threading.Event()
    line._waiting = {None: []}
    line._process = -1
    assert line.put(None, lambda _: taken.set())
    assert taken.wait(BOUND)


def test_resources_wait_apart() -> None:
    """Who waits for the token of one resource does not keep those of another waiting."""
    line, go, taken = Line(), threading.Event(), threading.Event()
    assert line.put("a", lambda _: assert_waited(go))
    assert line.put("b", lambda _: taken.set())
    assert taken.wait(BOUND)
    go.set()


def assert_waited(event: threading.Event) -> None:
    """Wait for *event*."""
    assert event.wait(BOUND)
