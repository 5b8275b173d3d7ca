"""Looks at a store on another machine that meet each other, a login, a signal, or a thousand of their kind."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from typing import Any

import pytest

from tests.engine.staging import FRESH, PATIENCE, Server, manager_for
from tests.engine.test_looking import Far, newer
from tests.waiting import until
from unexpired import Session, TokenManager, TokenManagers
from unexpired._engine import looking
from unexpired._engine.clock import Bell
from unexpired._engine.looking import Looking


@pytest.fixture
def store() -> Far:
    """The store of a test."""
    return Far()


def answer(name: str) -> dict[str, Any]:
    """A login."""
    return {"access_token": f"token of {name}", "refresh_token": f"refresh of {name}", "expires_in": 3600}


class Silent:
    """An event that never comes, and the clock that runs while it is waited for."""

    def __init__(self) -> None:
        self.now = 1000.0

    def is_set(self) -> bool:
        """Never."""
        return False

    def wait(self, seconds: float) -> bool:
        """Time goes by."""
        self.now += seconds
        return False


def test_a_hundred_silent_looks_hold_a_thread_up_for_no_longer_than_one(
    store: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its waits add up to a share of its time, however many sessions it asks for: it may be that of an event loop."""
    silent = Silent()
    monkeypatch.setattr(looking, "boot", lambda: silent.now)
    monkeypatch.setattr(looking, "_credit", looking._Credit())
    cell = manager_for(Server(), FRESH, store=store)._cell
    for _ in range(100):
        look = Looking(cell)
        monkeypatch.setattr(look, "_over", silent)
        assert look.wait(silent.now) is None
    assert 0.1 <= silent.now - 1000.0 <= 0.12
    silent.now += 10.0
    look = Looking(cell)
    monkeypatch.setattr(look, "_over", silent)
    began = silent.now
    assert look.wait(began) is None
    assert silent.now - began == pytest.approx(0.1)


@pytest.mark.parametrize("rejected", [None, "access 0"])
def test_a_refresh_behind_a_slow_first_look_is_a_refresh(store: Far, rejected: str | None) -> None:
    """What it is to be newer than is read first, however long that takes: the stored token is no answer."""
    server = Server()
    manager_for(server, FRESH, store=store)
    for again in range(2):
        manager = manager_for(server, None, store=store)
        until(lambda: not Looking.under_way)
        manager._cell.view = None
        store.gate.clear()
        late = threading.Timer(0.3, store.gate.set)
        late.start()
        refused = rejected and f"access {again}"
        token = asyncio.run(manager.arefresh(refused)) if again else manager.refresh(refused)
        late.join()
        assert token.access_token == f"access {again + 1}"
    assert (server.calls, server.reused) == (2, 0)


def test_a_look_that_began_before_a_login_here_does_not_undo_it(store: Far) -> None:
    """Somebody else's token is never served after that login, however late the old record comes."""
    manager = TokenManager(Server(), store=store)
    manager.login(answer("alice"))
    assert manager.token().access_token == "token of alice"
    until(lambda: manager._cell._looking is None)
    old = store.load("default")
    assert old is not None
    assert store.swap("default", old, old.noted(intent=None, failure=None))
    store.only_looks = True
    while store.asked.acquire(blocking=False):
        pass
    store.gate.clear()
    assert manager.token().access_token == "token of alice"
    assert store.asked.acquire(timeout=PATIENCE)
    first = manager._cell._looking
    manager.login(answer("bob"))
    store.gate.set()
    until(lambda: manager._cell._looking is not first or first is None)
    store.gate.clear()
    assert manager.token().access_token == "token of bob"
    store.gate.set()


def test_a_signal_handler_may_wait_for_what_it_interrupts() -> None:
    """It may come in the very moment in which the wait holds its lock."""
    bell, rung = Bell(), []

    def handle(*_: object) -> None:
        rung.append(bell.wait(0.01))

    before = signal.signal(signal.SIGUSR1, handle)
    try:
        with bell._cond:
            os.kill(os.getpid(), signal.SIGUSR1)
            until(lambda: rung)
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert rung == [False]
    bell.set()
    assert bell.wait(0.0)


def test_ctrl_c_before_a_look_begins_leaves_room_for_the_next(store: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """A session whose look never ran would never be looked at again."""
    manager = manager_for(Server(), FRESH, store=store)
    assert manager.token().access_token == "access 0"
    until(lambda: not Looking.under_way)
    store.elsewhere(newer)
    start = threading.Thread.start

    def interrupted(_: threading.Thread) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(threading.Thread, "start", interrupted)
    with pytest.raises(KeyboardInterrupt):
        manager.token()
    monkeypatch.setattr(threading.Thread, "start", start)
    assert not Looking.under_way
    until(lambda: manager.token().access_token == "access new")


def test_no_more_than_so_many_looks_are_under_way(store: Far, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who comes then is served what is known, and looks the next time."""
    monkeypatch.setattr(looking, "_MOST", 1)
    managers = TokenManagers(Server(), store=store)
    for name in ("alice", "bob"):
        managers.manager(name).login(answer(name))
        assert managers.manager(name).token().access_token == f"token of {name}"
    until(lambda: not Looking.under_way)
    store.gate.clear()
    for name in ("alice", "bob"):
        held = store._sessions[name]
        assert isinstance(held, Session)
        assert store.swap(name, held, newer(held))
        assert managers.manager(name).token().access_token == f"token of {name}"
    assert len(Looking.under_way) == 1
    store.gate.set()
    for name in ("alice", "bob"):
        until(lambda name=name: managers.manager(name).token().access_token == "access new")  # type: ignore[misc]


def test_a_look_that_is_over_is_not_waited_for(store: Far) -> None:
    """Who comes when it has ended has what it saw."""
    look = Looking(manager_for(Server(), FRESH, store=store)._cell)
    look.start()
    until(lambda: not Looking.under_way)
    until(look._over.is_set)
    view = look.wait(0.0)
    assert view is not None
    assert view.held[None].token.access_token == "access 0"
