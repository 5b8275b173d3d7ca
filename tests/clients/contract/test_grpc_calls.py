"""gRPC: what answers mean, what of a call is sent again, and what becomes of its streams."""

from __future__ import annotations

import gc
import threading
import tracemalloc
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from tests.clients.contract.crew import BOUND, CROWD, told
from tests.clients.contract.fitting import Cell
from tests.clients.contract.grpc_like import (
    GRPC,
    OK,
    Api,
    GrpcServer,
    Heard,
    Verdict,
    echo,
    job,
    only,
    stub,
)
from tests.clients.scripted import counting_manager
from unexpired import Answer, LoginRequired, ReplayRefused, Scheme
from unexpired import Verdict as Means
from unexpired.clients._grpc_calls import Asked
from unexpired.events import SessionEnded

HUGE = 48 * 1024 * 1024
"""More than an upload may ever hold in memory."""
SMALL = 12 * 1024 * 1024


def by_code(answer: Answer) -> Means | None:
    """How an API with codes in its metadata says what it means."""
    return {"40009": Means.EXPIRED, "40005": Means.LOGIN_REQUIRED}.get(answer.headers.get("X-Code") or "")


CODES = Scheme.bearer(judge=by_code)


def coded(code: str, place: str) -> Verdict:
    """An answer that is OK, but for its metadata."""
    pairs = (("x-code", code),)
    return Verdict(trailers=pairs) if place == "trailers" else Verdict(headers=pairs)


@pytest.mark.contract(4, row=GRPC)
@pytest.mark.parametrize("place", ["headers", "trailers"])
def test_expired_by_code(cell: Cell, place: str) -> None:
    """Scenario 37: 50 callers whose OK answer says "expired" in its metadata cost one refresh, and are replayed."""
    with (
        GrpcServer(lambda heard, _: coded("40009" if heard.token == "t1" else "0", place)) as api,
        stub(cell, api, counting_manager(), CODES) as callers,
    ):
        found = callers.run(*[echo(b"%d" % number) for number in range(CROWD)])
        assert [reply.message for reply in found] == [b"%d" % number for number in range(CROWD)]
        assert set(api.tokens) == {"t1", "t2"}
        assert api.tokens.count("t2") == CROWD


@pytest.mark.contract(4, row=GRPC)
def test_codes_that_are_none(cell: Cell) -> None:
    """Scenario 38: other codes, and none at all, start no refresh, of calls and of streams."""
    verdicts = [coded("7", "trailers"), OK] * 3
    with (
        GrpcServer(lambda _, before: verdicts[before]) as api,
        stub(cell, api, counting_manager(), CODES) as callers,
    ):
        for _ in range(2):
            assert callers.one(echo()).message == b"x"
            assert callers.one(job(lambda api: api.count(2))) == [b"0", b"1"]
            assert callers.one(job(lambda api: api.sum(b"a"))) == b"a"
        assert api.tokens == ["t1"] * 6


@pytest.mark.contract(4, row=GRPC)
def test_what_a_judge_is_shown(cell: Cell) -> None:
    """A judge of the program's own sees the code as HTTP and as gRPC has it, the details and all metadata."""
    shown: list[Answer] = []

    def look(answer: Answer) -> None:
        shown.append(answer)

    verdict = Verdict(
        grpc.StatusCode.NOT_FOUND, "no such", (("x-both", "2"), ("x-raw-bin", b"\x00")), (("x-both", "1"),)
    )
    with (
        GrpcServer(lambda _heard, _before: verdict) as api,
        stub(cell, api, counting_manager(), Scheme.bearer(judge=look)) as callers,
    ):
        (error,) = callers.run(echo())
    assert error.code() is grpc.StatusCode.NOT_FOUND
    (answer,) = shown
    assert (answer.status, answer.body) == (404, None)
    wanted = {"grpc-status": "5", "grpc-message": "no such", "x-both": "1, 2", "x-raw-bin": None}
    assert {name: answer.headers.get(name.upper()) for name in wanted} == wanted


@pytest.mark.contract(5, row=GRPC)
def test_login_is_over_by_code(cell: Cell) -> None:
    """Scenarios 37 and 48: a code for an invalid login ends the session once, for all, without a refresh."""
    manager = counting_manager(login_url="/")
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    ready = threading.Barrier(10)

    def judge(_heard: Heard, _before: int) -> Verdict:
        ready.wait(BOUND)
        return coded("40005", "trailers")

    with GrpcServer(judge) as api, stub(cell, api, manager, CODES) as callers:
        found = callers.run(*[echo()] * 8, job(lambda api: api.count(1)), job(lambda api: api.sum(b"a")))
        assert len(api.heard) == 10
    assert {(type(error), error.login_url) for error in found} == {(LoginRequired, "/")}
    assert [event.reason for event in told(ended)] == ["login_required"]


@pytest.mark.contract(8, row=GRPC)
@pytest.mark.parametrize("size", [0, 1, 500_000])
def test_same_message(cell: Cell, size: int) -> None:
    """Scenario 40: the replay has the very same message and metadata as the refused call, but for the token."""
    message = b"m" * size
    with GrpcServer(only("t2")) as api, stub(cell, api, counting_manager()) as callers:
        assert callers.one(echo(message, metadata=(("x-own", "1"), ("x-own", "2")))).message == message
        first, second = api.heard
    assert first.message == second.message == message
    assert first.all("x-own") == second.all("x-own") == ["1", "2"]
    assert (first.token, second.token) == ("t1", "t2")


@pytest.mark.contract(8, row=GRPC)
def test_streams_are_never_sent_twice(cell: Cell) -> None:
    """Scenario 40: messages that can be read once are never sent again or cut: the caller is told to begin again."""

    async def twice(stub: Api) -> bytes:
        with pytest.raises(ReplayRefused, match="begin the stream again") as caught:
            await stub.sum(b"a", b"b")
        assert caught.value.key == "alice"
        return await stub.sum(b"a", b"b")

    manager = counting_manager()
    with GrpcServer(only("t2")) as api, stub(cell, api, manager) as callers:
        assert callers.one(job(twice)) == b"ab"
        assert api.tokens == ["t1", "t2"]


@pytest.mark.contract(9, row=GRPC)
@pytest.mark.parametrize("scheme", [None, CODES])
def test_first_message_is_not_held_back(cell: Cell, scheme: Scheme | None) -> None:
    """The first message of a stream is here before the second is sent, in both directions."""

    async def read(stub: Api) -> list[bytes]:
        found: list[bytes] = []
        call = stub.begin("Count", b"3")
        if stub.blocks:
            for message in call:
                found.append(message)
                pause.set()
        else:
            async for message in call:
                found.append(message)
                pause.set()
        return found

    async def talk(stub: Api) -> list[bytes]:
        if stub.blocks:
            answered = threading.Event()

            def words() -> Any:
                yield b"1"
                assert answered.wait(BOUND)
                yield b"2"

            call = stub.begin("Chat", words())
            first = next(call)
            answered.set()
            return [first, *call]
        call = stub.begin("Chat", None)
        await call.write(b"1")
        first = await call.read()
        await call.write(b"2")
        await call.done_writing()
        return [first, await call.read()]

    pause = threading.Event()
    with GrpcServer() as api, stub(cell, api, counting_manager(), scheme) as callers:
        api.pause = pause
        assert callers.one(job(read)) == [b"0", b"1", b"2"]
        assert callers.one(job(talk)) == [b"1", b"2"]


@pytest.mark.contract(10, row=GRPC)
def test_no_connection_leaks(cell: Cell) -> None:
    """Scenario 43: 1,000 refused calls, and streams among them, leave no connection, thread or call behind."""

    def judge(_: Heard, before: int) -> Verdict:
        # each is refused once, a tenth of them as expired; what wants a nonce is sent again with the same token
        nonce = (("www-authenticate", 'DPoP error="use_dpop_nonce"'),) if before % 20 else ()
        return OK if before % 2 else Verdict(grpc.StatusCode.UNAUTHENTICATED, "no", nonce)

    async def a_tenth(stub: Api) -> int:
        served = 0
        for number in range(100):
            message = b"%d" % number
            served += (await stub.echo(message)).message == message
        for _ in range(5):
            with pytest.raises(ReplayRefused):
                await stub.count(1)
            served += await stub.count(1) == [b"0"]
        return served

    with GrpcServer(judge) as api, stub(cell, api, counting_manager()) as callers:
        callers.one(job(lambda stub: stub.echo()))
        before = threading.active_count()
        # in parts, so that each has `BOUND` for itself: a slow machine may need longer for them all
        assert [callers.one(job(a_tenth)) for _ in range(10)] == [105] * 10
        assert threading.active_count() - before < 60
        gc.collect()
        assert sum(isinstance(one, Asked) for one in gc.get_objects()) < 10
        assert api.connections == 1
        assert len(api.heard) == 2102


@pytest.mark.contract(17, row=GRPC)
def test_upload_bigger_than_memory(cell: Cell) -> None:
    """A stream of messages bigger than the memory for it is not kept for a replay: that is refused, clearly."""
    chunk = b"x" * 65536

    def made() -> Iterator[bytes]:
        return (chunk for _ in range(HUGE // len(chunk)))

    async def twice(stub: Api) -> bytes:
        tracemalloc.start()
        try:
            with pytest.raises(ReplayRefused, match="begin the stream again"):
                await stub.size(made())
            peaks.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
        return await stub.size(made())

    peaks: list[int] = []
    with GrpcServer(only("t2")) as api, stub(cell, api, counting_manager()) as callers:
        assert callers.one(job(twice)) == b"%d" % HUGE
        assert api.tokens == ["t1", "t2"]
        assert [heard.message for heard in api.heard] == [b"%d" % HUGE] * 2
    assert peaks[0] < SMALL
