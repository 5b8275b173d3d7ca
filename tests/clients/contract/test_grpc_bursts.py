"""gRPC: many callers when the token expires. One refresh, and everybody gets the answer to its own call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import grpc
import pytest

from tests.clients.contract.crew import CROWD, outcomes, told
from tests.clients.contract.fitting import Cell
from tests.clients.contract.grpc_like import GRPC, OK, Api, GrpcServer, Heard, Reply, Verdict, beside, echo, job, stub
from tests.clients.modes import grant_for, manager_for
from unexpired import LoginRequired, ReplayRefused, TemporarilyUnavailable, TokenManager
from unexpired.events import RequestReplayed, SessionEnded
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle


@pytest.fixture
def api(server: ServerHandle) -> Iterator[GrpcServer]:
    """Give a gRPC server beside the HTTP one."""
    with beside(server) as made:
        yield made


def crowd(count: int = CROWD) -> list[Any]:
    """Calls whose answers can be told apart."""
    return [echo(b"%d" % number) for number in range(count)]


def own(count: int = CROWD) -> list[bytes]:
    """What `messages` gives when everybody got its own."""
    return [b"%d" % number for number in range(count)]


def messages(found: list[Any]) -> list[Any]:
    """The response to each call, or what was raised instead."""
    return [outcome.message if isinstance(outcome, Reply) else outcome for outcome in found]


def refused(error: object) -> bool:
    """Whether this is the server's own refusal."""
    return isinstance(error, grpc.RpcError) and error.code() is grpc.StatusCode.UNAUTHENTICATED


@pytest.mark.contract(1, row=GRPC)
def test_expiry_known_to_the_client(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Scenarios 1 and 2: 50 callers with a token past its time cost one refresh and no refused call."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1})
    with stub(cell, api, manager) as callers:
        assert messages(callers.run(*crowd())) == own()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, 0)


@pytest.mark.contract(1, row=GRPC)
def test_streams_begin_with_a_fresh_token(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Streams of each kind wait for the one refresh, and none of them is refused."""
    manager = manager_for(server)
    manager.login({**server.login(), "expires_in": -1})
    jobs = [
        job(lambda api: api.count(3)),
        job(lambda api: api.sum(b"a", b"b")),
        job(lambda api: api.chat(b"a", b"b")),
    ]
    with stub(cell, api, manager) as callers:
        assert callers.run(*jobs * 5) == [[b"0", b"1", b"2"], b"ab", [b"a", b"b"]] * 5
    stats = server.stats()
    assert (stats.token_posts, stats.refused) == (1, 0)


@pytest.mark.contract(2, row=GRPC)
def test_expiry_only_the_server_knows(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 1, 2, 36, 41: 50 callers are refused at once; one refresh, and each gets its own replayed answer."""
    replays: list[RequestReplayed] = []
    manager.on(RequestReplayed, replays.append)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with stub(cell, api, manager) as callers:
        batch = callers.start(*crowd())
        server.wait("api_call_held", CROWD)
        server.release("all")
        assert messages(outcomes(batch)) == own()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, CROWD)
    assert [event.replays for event in told(replays, CROWD)] == [1] * CROWD
    assert {event.origin for event in replays} == {"grpc://test.v1.Api"}


@pytest.mark.contract(2, row=GRPC)
def test_refused_streams(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Streams that are refused at once cost one refresh; their readers are told to begin again, and then are served."""

    def kinds() -> list[Callable[[Api], Any]]:
        return [lambda api: api.count(2), lambda api: api.sum(b"a"), lambda api: api.chat(b"a")]

    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with stub(cell, api, manager) as callers:
        batch = callers.start(*[job(kind) for kind in kinds() * 5])
        server.wait("api_call_held", 15)
        server.release("all")
        found = outcomes(batch)
        assert {type(error) for error in found} == {ReplayRefused}
        assert all("begin the stream again" in str(error) and error.key == "alice" for error in found)
        assert callers.run(*[job(kind) for kind in kinds()]) == [[b"0", b"1"], b"a", [b"a"]]
    stats = server.stats()
    assert (stats.token_posts, stats.refused) == (1, 15)


@pytest.mark.contract(2, row=GRPC)
def test_calls_during_the_refresh(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenario 10: calls refused during the refresh, and calls begun during it, wait and are replayed."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with stub(cell, api, manager) as callers:
        first = callers.start(*crowd(10))
        server.wait("token_request_held")
        second = callers.start(*crowd(10))
        server.wait("api_call_refused", 20)
        server.release("refresh")
        assert messages(outcomes(first)) == messages(outcomes(second)) == own(10)
    assert server.stats().token_posts == 1


@pytest.mark.contract(2, row=GRPC)
def test_channel_and_manager_per_call(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Scenario 6: 10 channels with managers of their own, on one store and key, cost one refresh."""
    store = MemoryStore()
    manager_for(server, store=store)
    server.expire()
    managers = [TokenManager(grant_for(server), store=store, key="alice") for _ in range(10)]
    with ExitStack() as stack:
        stubs = [stack.enter_context(stub(cell, api, manager)) for manager in managers]
        found = outcomes([future for one in stubs for future in one.start(echo())])
    assert messages(found) == [b"x"] * 10
    assert server.stats().token_posts == 1


@pytest.mark.contract(2, row=GRPC)
@pytest.mark.usefixtures("no_pause_passes")
def test_a_server_that_refuses_everything(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 36: a refused fresh token is the caller's answer: no loop of refreshes, other servers unharmed."""
    bad = Verdict(grpc.StatusCode.UNAUTHENTICATED, "never")

    def judge(heard: Heard, _: int) -> Verdict:
        return bad if heard.method != "Chat" else OK

    async def insist(stub: Api) -> list[Any]:
        found: list[Any] = []
        for kind in (stub.echo, lambda: stub.count(1)):
            for _ in range(8):
                with pytest.raises((grpc.RpcError, ReplayRefused)) as caught:
                    await kind()
                found.append(caught.value)
        return found

    with GrpcServer(judge) as broken, stub(cell, broken, manager) as callers:
        for errors in callers.run(*[job(insist)] * 3):
            assert all(refused(error) for error in errors[:8])
            # the last stream is not told to begin again: a token that is refused when it is fresh stays where it is
            assert refused(errors[-1])
        assert server.stats().token_posts == 1
        assert callers.one(job(lambda api: api.chat(b"a"))) == [b"a"]


@pytest.mark.contract(3, row=GRPC)
def test_late_refusals(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenario 9: refusals of the old token that arrive after the refresh are replayed without another one."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late"}])
    with stub(cell, api, manager) as callers:
        late = callers.start(*crowd(10), job(lambda api: api.count(1)))
        server.wait("api_call_held", 11)
        assert manager.refresh().minted
        server.release("late")
        found = outcomes(late)
    assert messages(found[:10]) == own(10)
    assert type(found[10]) is ReplayRefused
    assert server.stats().token_posts == 1


@pytest.mark.contract(3, row=GRPC)
def test_refusals_spread_over_a_second(
    server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell
) -> None:
    """Scenario 9: refusals that trickle in over a second, before, during and after the refresh, cost one."""
    server.expire()
    server.api_faults([{"kind": "delay_refusals", "seconds": 1.0}])
    with stub(cell, api, manager) as callers:
        assert messages(callers.run(*crowd())) == own()
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


@pytest.mark.contract(6, row=GRPC)
def test_refused_refresh(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Scenarios 48 and 49: all waiters get LoginRequired with the way back, one end is told, later calls ask nobody."""
    manager = manager_for(server, login_url="/login")
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    server.revoke_family()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with stub(cell, api, manager) as callers:
        batch = callers.start(*crowd(20), *[job(lambda api: api.count(1)), job(lambda api: api.sum(b"a"))] * 5)
        server.wait("api_call_held", 30)
        server.release("all")
        found = outcomes(batch)
        later = callers.run(*crowd(5), job(lambda api: api.chat(b"a")))
    assert {(type(error), error.reason, error.login_url) for error in found} == {(LoginRequired, "refused", "/login")}
    assert {(type(error), error.login_url) for error in later} == {(LoginRequired, "/login")}
    assert [event.reason for event in told(ended)] == ["refused"]
    assert (server.stats().token_posts, len(api.heard)) == (1, 30)


@pytest.mark.contract(6, row=GRPC)
def test_failure_is_one_for_the_group(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Scenarios 48 and 50: a busy token endpoint is asked once for 50 callers, who are told for how long."""
    manager = manager_for(server, patience=0.0)
    server.expire()
    server.faults([{"kind": "503", "retry_after": 60, "times": 9}])
    with stub(cell, api, manager) as callers:
        found = callers.run(*crowd())
    assert {type(error) for error in found} == {TemporarilyUnavailable}
    assert server.stats().token_posts == 1


@pytest.mark.contract(6, row=GRPC)
def test_hiccup_is_sat_out(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenario 50: after a passing failure the group waits and asks once more, and all 50 callers are served."""
    server.expire()
    server.faults([{"kind": "429", "retry_after": 0}])
    with stub(cell, api, manager) as callers:
        assert messages(callers.run(*crowd())) == own()
    assert server.stats().token_posts == 2


@pytest.mark.contract(6, row=GRPC)
def test_nobody_is_logged_in(api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Without a login nothing is sent: the caller is told to log in."""
    manager.logout()
    with stub(cell, api, manager) as callers:
        found = callers.run(echo(), job(lambda api: api.count(1)), job(lambda api: api.sum(b"a")))
    assert [(type(error), error.reason) for error in found] == [(LoginRequired, "logout")] * 3
    assert api.heard == []


@pytest.mark.contract(7, row=GRPC, modes=("asyncio",))
def test_cancelled_callers(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenarios 57 and 58: cancelling the first caller, and another, changes nothing for the rest nor the refresh."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with stub(cell, api, manager) as callers:
        leader = callers.start(*crowd(1))
        server.wait("token_request_held")
        others = callers.start(*crowd(3))
        server.wait("api_call_refused", 4)
        assert leader[0].cancel()
        assert others[0].cancel()
        server.release("refresh")
        found = outcomes([*leader, *others])
        assert found[:2] == ["cancelled"] * 2
        assert messages(found[2:]) == [b"1", b"2"]
    assert server.stats().token_posts == 1


@pytest.mark.contract(7, row=GRPC)
def test_cancelled_calls(server: ServerHandle, api: GrpcServer, manager: TokenManager, cell: Cell) -> None:
    """Scenario 57: a call that is cancelled by its own object while it waits is over at once; the others are served."""
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    begun: list[Any] = []

    async def give_up(stub: Api) -> Any:
        method = stub.channel.unary_unary("/test.v1.Api/Echo")
        call = method.future(b"x") if stub.blocks else method(b"x")
        begun.append(call)
        if stub.blocks:
            with pytest.raises(grpc.FutureCancelledError):
                call.result(25)
        code = call.code() if stub.blocks else await call.code()
        assert call.cancelled()
        assert call.done()
        return code

    with stub(cell, api, manager) as callers:
        gone = callers.start(job(give_up))
        server.wait("token_request_held")
        others = callers.start(*crowd(2))
        server.wait("api_call_refused", 3)
        callers.one(job(lambda _: cancel(begun[0])))
        assert outcomes(gone) == [grpc.StatusCode.CANCELLED]
        server.release("refresh")
        assert messages(outcomes(others)) == own(2)
    assert server.stats().token_posts == 1
    assert len(api.heard) == 5


async def cancel(call: Any) -> None:
    """Cancel *call* where it runs."""
    assert call.cancel()


@pytest.mark.contract(7, row=GRPC)
def test_impatient_caller(server: ServerHandle, api: GrpcServer, cell: Cell) -> None:
    """Scenario 57: callers whose time is over get an error that says so; the refresh they began serves the next."""
    store = MemoryStore()
    manager = manager_for(server, store=store)
    hasty = TokenManager(grant_for(server), store=store, key="alice", wait=0.2)
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    with stub(cell, api, hasty) as callers, stub(cell, api, manager) as patient:
        found = callers.run(*crowd(3))
        assert [type(outcome) for outcome in found] == [TemporarilyUnavailable] * 3
        server.release("refresh")
        assert messages(patient.run(echo())) == [b"x"]
    assert server.stats().token_posts == 1
