"""gRPC: what of a call stays as its caller wrote it, what its channel can do beside, and what shows no token."""

from __future__ import annotations

import logging
import socket
import threading
from typing import Any

import grpc
import pytest

from tests.clients.contract.crew import BOUND
from tests.clients.contract.fitting import Cell
from tests.clients.contract.grpc_like import (
    EXPIRED,
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
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager
from unexpired import TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

SECRET = "a-very-marked-token"


@pytest.mark.contract(12, row=GRPC)
def test_not_authenticated(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """A call marked as not to be authenticated carries no token and no mark, and its refusal is the caller's."""
    mark = (("x-own", "1"), ("unexpired.authenticated", "false"))
    own = (*mark, ("authorization", "Basic abc"))
    calls = [
        echo(metadata=mark),
        job(lambda api: api.count(1, metadata=mark)),
        job(lambda api: api.sum(b"a", metadata=mark)),
        job(lambda api: api.chat(b"a", metadata=mark)),
    ]
    with GrpcServer(lambda _heard, _before: EXPIRED) as api, stub(cell, api, manager) as callers:
        for error in callers.run(*calls):
            assert isinstance(error, grpc.RpcError)
        callers.run(echo(metadata=own))
        callers.run(echo(metadata=(("unexpired.authenticated", "true"),)))
    *bare, basic, good, replayed = api.heard
    assert [heard.token for heard in bare] == [None] * 4
    assert basic.all("authorization") == ["Basic abc"]
    assert None not in (good.token, replayed.token)
    assert not [key for heard in api.heard for key, _ in heard.metadata if key.startswith("unexpired")]
    assert server.stats().token_posts == 1


@pytest.mark.contract(12, row=GRPC)
def test_resource(server: ServerHandle, cell: Cell) -> None:
    """A call that names a resource gets that resource's own token."""
    manager = manager_for(server)
    before = manager.token().access_token
    there = (("unexpired.resource", "https://api.test/b"),)

    async def calls(stub: Api) -> None:
        for metadata in ((), there, there, ()):
            await stub.echo(metadata=metadata)
        await stub.count(1, metadata=there)

    with GrpcServer() as api, stub(cell, api, manager) as callers:
        callers.one(job(calls))
    first, second, third, fourth, fifth = api.tokens
    assert first == fourth == before
    assert second == third == fifth == manager.token("https://api.test/b").access_token != before
    assert server.stats().token_posts == 1


@pytest.mark.contract(13, row=GRPC)
def test_own_metadata(cell: Cell) -> None:
    """Scenario 44: the caller's own metadata is kept, text and binary; a token that it put there gives way to ours."""
    metadata = (("x-own", "1"), ("authorization", "Bearer stale"), ("x-own", "2"), ("x-own-bin", b"\x00\xff"))
    with GrpcServer(only("t2")) as api, stub(cell, api, counting_manager()) as callers:
        callers.one(echo(metadata=metadata))
        callers.one(job(lambda api: api.count(1, metadata=metadata)))
    assert api.tokens == ["t1", "t2", "t2"]
    for heard in api.heard:
        assert heard.all("x-own") == ["1", "2"]
        assert heard.binary == (("x-own-bin", b"\x00\xff"),)
        assert "stale" not in str(heard.metadata)


@pytest.mark.contract(14, row=GRPC)
def test_deadline(cell: Cell) -> None:
    """The caller's deadline is gRPC's error as ever, and a replay has what is left of it; no refresh is made of it."""
    release, never = threading.Event(), threading.Event()

    def judge(heard: Heard, before: int) -> Verdict:
        if before == 1:
            release.wait(BOUND)
        elif before == 2:
            never.wait(1.5)
        return EXPIRED if before and heard.token == "t1" else OK

    with GrpcServer(judge) as api, stub(cell, api, counting_manager()) as callers:
        # the channel stands before a deadline runs, so that the call that is late has arrived
        callers.one(echo())
        (error,) = callers.run(echo(timeout=2))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        release.set()
        callers.one(echo(timeout=20))
        _, _, refused, replay = api.heard
    assert api.tokens == ["t1", "t1", "t1", "t2"]
    # gRPC sends deadlines that differ by 3 % as the same one
    assert 0 < replay.left < refused.left - 0.5 < 21


@pytest.mark.contract(14, row=GRPC)
@pytest.mark.parametrize("known", [True, False])
def test_deadline_passes_during_the_refresh(server: ServerHandle, cell: Cell, known: bool) -> None:
    """A refresh that outlasts the deadline is finished; the call ends with gRPC's own error, not sent any more."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1 if known else 300})
    # the deadline leaves a slow machine time to refuse the call first
    server.configure(refresh_latency=4.5)
    with GrpcServer(lambda _heard, _before: EXPIRED) as api, stub(cell, api, manager) as callers:
        (error,) = callers.run(echo(timeout=4))
        assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert len(api.heard) == (not known)
    assert server.stats().token_posts == 1


@pytest.mark.contract(14, row=GRPC)
def test_retries_do_not_multiply(cell: Cell) -> None:
    """With a retry policy of the channel's, a call that is refused for good is still sent twice."""
    policy = """{"methodConfig": [{"name": [{}], "retryPolicy": {"maxAttempts": 4, "initialBackoff": "0.01s",
        "maxBackoff": "0.01s", "backoffMultiplier": 1, "retryableStatusCodes": ["UNAVAILABLE"]}}]}"""
    busy = Verdict(grpc.StatusCode.UNAVAILABLE, "busy")

    def judge(_: Heard, before: int) -> Verdict:
        return EXPIRED if before < 2 else busy if before < 4 else OK

    options = (("grpc.service_config", policy), ("grpc.enable_retries", 1))
    with GrpcServer(judge) as api, stub(cell, api, counting_manager(), options=options) as callers:
        (error,) = callers.run(echo())
        assert error.code() is grpc.StatusCode.UNAUTHENTICATED
        assert api.tokens == ["t1", "t2"]
        # while gRPC's own tries are its own affair
        assert callers.one(echo()).message == b"x"
        assert api.tokens[2:] == ["t2"] * 3


@pytest.mark.contract(14, row=GRPC)
def test_no_connection(cell: Cell) -> None:
    """Scenario 53: where nobody listens, gRPC's own error comes through, and no refresh is made of it."""
    manager = counting_manager()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with stub(cell, f"127.0.0.1:{taken.getsockname()[1]}", manager) as callers:
            (error,) = callers.run(echo())
            assert error.code() is grpc.StatusCode.UNAVAILABLE
            # a call that waits for a server waits for its deadline
            (late,) = callers.run(echo(wait_for_ready=True, timeout=0.3))
            assert late.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert manager.token().access_token == "t1"


@pytest.mark.contract(15, row=GRPC)
def test_nothing_shows_a_token(cell: Cell, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    """P13: what gRPC logs, and all that it hands out, calls and errors, show no token in their `repr`."""
    manager = counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})
    caplog.set_level(logging.DEBUG)
    shown: list[Any] = []

    async def calls(stub: Api) -> None:
        reply = await stub.echo()
        stream = stub.begin("Count", b"1")
        await stub.read(stream)
        shown.extend([reply, reply.call, stream, stub.channel])
        for metadata in ((), (("Not-A-Key", "1"),)):
            with pytest.raises(Exception, match=r".") as caught:
                await stub.echo(b"no", metadata=metadata)
            shown.append(caught.value)

    def judge(heard: Heard, _: int) -> Verdict:
        return EXPIRED if heard.token == SECRET else OK if heard.message != b"no" else Verdict(grpc.StatusCode.ABORTED)

    with GrpcServer(judge) as api, stub(cell, api, manager) as callers:
        callers.one(job(calls))
        assert api.tokens == [SECRET, "t2", "t2", "t2"]
    told = caplog.text + "".join(capfd.readouterr()) + "".join(repr(one) + str(one) for one in shown)
    assert len(shown) == 6
    assert SECRET not in told
    assert "t2" not in told


@pytest.mark.contract(16, row=GRPC)
def test_two_managers(cell: Cell) -> None:
    """Two managers on two channels refresh for themselves, and neither server sees the other's token."""
    answer = {"access_token": "b2", "refresh_token": "q2"}
    second = TokenManager(FunctionGrant(lambda _: answer), store=MemoryStore(), key="bob")
    second.login({"access_token": "b1", "refresh_token": "q1"})
    with (
        GrpcServer(only("t2")) as here,
        GrpcServer(only("b2")) as there,
        stub(cell, here, counting_manager()) as one,
        stub(cell, there, second) as other,
    ):
        for callers in (one, other, one, other):
            assert callers.one(echo()).message == b"x"
        assert here.tokens == ["t1", "t2", "t2"]
        assert there.tokens == ["b1", "b2", "b2"]
