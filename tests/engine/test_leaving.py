from __future__ import annotations

import asyncio
import functools
import gc
import threading
from collections.abc import Callable
from typing import Any

import pytest
import trio

from tests.engine.staging import EXPIRED, KINDS, Attempt, Crowd, Kind, Server, aboard, all_aboard, manager_for
from tests.waiting import until
from unexpired import TokenManager
from unexpired._engine import rooms
from unexpired._engine.clock import boot
from unexpired._engine.flying import Flying
from unexpired._engine.rooms import AsyncioRoom, ThreadRoom, TrioRoom
from unexpired.errors import TemporarilyUnavailable
from unexpired.stores import MemoryStore


def _cancelled_in_asyncio(manager: TokenManager) -> None:
    async def main() -> None:
        task = asyncio.create_task(manager.atoken())
        await all_aboard(manager, 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())


def _timed_out_in_asyncio(manager: TokenManager) -> None:
    async def main() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(manager.atoken(), 0.01)

    asyncio.run(main())


def _cancelled_in_trio(manager: TokenManager) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(manager.atoken)
            while aboard(manager) == 0:
                await trio.lowlevel.checkpoint()
            nursery.cancel_scope.cancel()

    trio.run(main)


def _interrupted_thread(manager: TokenManager) -> None:
    def ctrl_c(room: ThreadRoom, until: float) -> None:
        raise KeyboardInterrupt(room, until)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ThreadRoom, "wait", ctrl_c)
        with pytest.raises(KeyboardInterrupt):
            manager.token()


LEAVING = [_cancelled_in_asyncio, _timed_out_in_asyncio, _cancelled_in_trio, _interrupted_thread]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("leave", LEAVING, ids=lambda leave: leave.__name__.strip("_"))
def test_the_first_caller_leaves_and_the_refresh_goes_on(leave: Callable[[TokenManager], None], kind: Kind) -> None:
    """Whoever started the refresh is cancelled, times out or gets Ctrl-C: it is stored, all others are served.

    Scenario 57, P9.
    """
    server = Server(gated=True)
    manager = manager_for(server)
    leave(manager)
    crowd = Crowd(kind, 10, manager)
    until(lambda: aboard(manager) >= 11)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 10
    session = manager.session()
    assert session is not None
    assert (session.refresh_token, server.calls) == ("refresh 1", 1)


def test_nobody_stays_and_the_refresh_is_stored_all_the_same() -> None:
    """With its only caller cancelled the flight still stores the rotated token (scenario 57)."""
    server = Server(gated=True)
    manager = manager_for(server)
    _cancelled_in_asyncio(manager)
    server.gate.set()
    until(lambda: manager._cell.flying is None)
    session = manager._cell.store.load("default")
    assert session is not None
    assert session.refresh_token == "refresh 1"


@pytest.mark.parametrize("kind", KINDS)
def test_waiters_that_give_up_leave_the_others_alone(kind: Kind) -> None:
    """A waiter with a short bound gets TemporarilyUnavailable at its end, the others the token (scenario 58)."""
    server = Server(gated=True)
    manager = manager_for(server)
    patient = Crowd(kind, 5, manager)
    until(lambda: aboard(manager) == 5)
    hasty = Crowd(kind, 20, manager, wait=0.02).outcomes()
    assert {type(outcome) for outcome in hasty} == {TemporarilyUnavailable}
    server.gate.set()
    assert patient.tokens() == ["access 1"] * 5
    assert server.calls == 1


def test_cancelled_waiters_leave_nothing_behind() -> None:
    """After 1 000 cancelled waiters the flight's room for that loop is empty and its timer is off (scenario 58)."""
    server = Server(gated=True)
    manager = manager_for(server)

    async def main() -> None:
        tasks = [asyncio.create_task(manager.atoken()) for _ in range(1000)]
        await all_aboard(manager, 1000)
        flying = manager._cell.flying
        assert flying is not None
        room = flying._rooms[asyncio.get_running_loop()]
        assert isinstance(room, AsyncioRoom)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert not room._bounds
        assert room._alarm is None
        server.gate.set()

    asyncio.run(main())
    assert manager.token().access_token == "access 1"


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_an_event_loop_that_ends_mid_flight_is_skipped(kind: Kind) -> None:
    """A loop that is gone when the flight ends harms nobody: stored, others woken (scenario 59)."""
    server = Server(gated=True)
    manager = manager_for(server)
    if kind == "asyncio":
        loop = asyncio.new_event_loop()
        task = loop.create_task(manager.atoken())
        loop.run_until_complete(all_aboard(manager, 1))
        loop.close()
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        del task
    else:
        _cancelled_in_trio(manager)
    crowd = Crowd("threads", 5, manager)
    until(lambda: aboard(manager) == 6)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 5
    gc.collect()


def test_ctrl_c_between_joining_and_starting_leaves_no_dead_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller interrupted before it started the flight's thread leaves that to the next one who comes."""
    server = Server()
    manager = manager_for(server)
    with monkeypatch.context() as patch:

        def interrupted(_: Flying) -> None:
            raise KeyboardInterrupt

        patch.setattr(Flying, "start", interrupted)
        with pytest.raises(KeyboardInterrupt):
            manager.token()
    assert Crowd("threads", 10, manager).tokens() == ["access 1"] * 10
    assert server.calls == 1


def test_ctrl_c_right_after_the_thread_started_starts_no_second_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller interrupted when the thread already ran: the next one's thread finds it running and ends."""
    server = Server(gated=True)
    manager = manager_for(server)
    start = threading.Thread.start

    def start_and_stop(thread: threading.Thread) -> None:
        start(thread)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start_and_stop)
        with pytest.raises(KeyboardInterrupt):
            manager.token()
    attempts = [Attempt(manager.token) for _ in range(5)]
    until(lambda: aboard(manager) == 6)
    server.gate.set()
    assert {attempt.result().access_token for attempt in attempts} == {"access 1"}
    assert server.calls == 1


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_thread_can_be_started_the_caller_flies(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the process out of threads, one caller drives the flight itself and all are served."""
    server = Server()
    manager = manager_for(server)
    start = threading.Thread.start

    def start_ours(thread: threading.Thread) -> None:
        if thread.name.startswith("unexpired:"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", start_ours)
    assert Crowd(kind, 10, manager).tokens() == ["access 1"] * 10
    assert server.calls == 1


def test_bounds_are_kept_one_by_one_with_one_timer() -> None:
    """Tasks with bounds of their own, in any order, are each let go when theirs is over, none before."""

    async def main() -> None:
        room = AsyncioRoom()
        begun = boot()

        async def wait(seconds: float) -> tuple[float, float]:
            await room.wait(begun + seconds)
            return seconds, boot() - begun

        long = [asyncio.create_task(wait(bound)) for bound in (19.0, float("inf"))]
        short = [asyncio.create_task(wait(bound)) for bound in (0.06, 0.02, 0.04, 0.021)]
        for seconds, waited in await asyncio.gather(*short):
            assert seconds <= waited < 10
        assert not any(task.done() for task in long)
        room.wake()
        await asyncio.gather(*long)
        assert room._alarm is None

    asyncio.run(main())


def test_an_alarm_that_rings_for_nobody_falls_silent() -> None:
    """The timer rings while its only waiter has just been woken, twice even: it is not set again."""

    async def main() -> None:
        room = AsyncioRoom()
        task = asyncio.create_task(room.wait(boot() + 20))
        await asyncio.sleep(0)
        room._release()
        room._release()
        room._ring()
        assert room._alarm is None
        await task

    asyncio.run(main())


def test_waking_a_loop_that_is_gone_does_nothing() -> None:
    """A room whose loop has closed, or whose trio run is over, can be woken."""

    async def in_asyncio() -> AsyncioRoom:
        return AsyncioRoom()

    async def in_trio() -> TrioRoom:
        return TrioRoom()

    asyncio.run(in_asyncio()).wake()
    trio.run(in_trio).wake()


def test_trio_as_a_guest_of_asyncio_is_trio() -> None:
    """Where a trio run is hosted by an asyncio loop, tasks of both wait, each in its own way."""
    server = Server(gated=True)
    manager = manager_for(server)

    async def host() -> tuple[str, str]:
        loop, done = asyncio.get_running_loop(), asyncio.Event()
        ended: list[Any] = []

        def over(outcome: Any) -> None:
            ended.append(outcome)
            done.set()

        trio.lowlevel.start_guest_run(
            manager.atoken, run_sync_soon_threadsafe=loop.call_soon_threadsafe, done_callback=over
        )
        task = asyncio.create_task(manager.atoken())
        await all_aboard(manager, 2)
        server.gate.set()
        mine = (await task).access_token
        await done.wait()
        return mine, ended[0].unwrap().access_token

    assert Attempt(lambda: asyncio.run(host())).result() == ("access 1", "access 1")


@pytest.mark.parametrize("kind", ["asyncio", "trio"])
def test_sleeping_suits_the_loop(kind: Kind) -> None:
    """Patience is slept in the caller's own event loop."""
    if kind == "asyncio":
        asyncio.run(rooms.async_sleep(0))
    else:
        trio.run(rooms.async_sleep, 0)


def test_a_flight_keeps_its_cell_alive() -> None:
    """A refresh whose manager is gone is still joined by the next manager of that store and key (scenario 6)."""
    server, store = Server(gated=True), MemoryStore()
    manager_for(server, EXPIRED, store=store)
    assert isinstance(Attempt(functools.partial(_try_briefly, server, store)).result(), TemporarilyUnavailable)
    gc.collect()
    second = TokenManager(server, store=store)
    waiting = Attempt(second.token)
    until(lambda: aboard(second) == 2)
    server.gate.set()
    assert waiting.result().access_token == "access 1"
    assert server.calls == 1


def _try_briefly(server: Server, store: MemoryStore) -> BaseException | None:
    try:
        TokenManager(server, store=store).token(wait=0.01)
    except TemporarilyUnavailable as error:
        return error
    return None
