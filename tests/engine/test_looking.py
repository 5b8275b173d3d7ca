"""A store on another machine: nobody whose token is good waits for it, and no event loop does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from unittest import mock

import pytest

from tests.engine.staging import FRESH, PATIENCE, Attempt, Server, manager_for
from tests.waiting import until
from unexpired import LoginRequired, Session, Token, TokenManager
from unexpired._engine import looking
from unexpired._engine.clock import boot
from unexpired._engine.looking import Looking
from unexpired.errors import StoreError, TemporarilyUnavailable
from unexpired.stores import MemoryStore


class Far(MemoryStore):
    """A store on another machine, which answers what it had when it was asked, when *gate* is open."""

    remote = True

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.asked = threading.Semaphore(0)
        self.only_looks = False
        self.error: StoreError | None = None

    def load(self, key: str) -> Session | None:
        """Answer late."""
        found = super().load(key)
        self.asked.release()
        if not self.only_looks or threading.current_thread().name == "unexpired:look":
            assert self.gate.wait(PATIENCE)
        if self.error is not None:
            raise self.error
        return found

    def elsewhere(self, change: Callable[[Session], Session]) -> None:
        """Another process stores something."""
        held = MemoryStore.load(self, "default")
        assert held is not None
        assert self.swap("default", held, change(held))


@pytest.fixture
def store() -> Far:
    """The store of a test."""
    return Far()


@pytest.fixture
def manager(store: Far) -> TokenManager:
    """A manager that has a good token in memory."""
    manager = manager_for(Server(), FRESH, store=store)
    assert manager.token().access_token == "access 0"
    return manager


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    """A look is waited for as long as the test lasts: what is tried is not the clock, nor what other tests waited."""
    monkeypatch.setattr(looking, "_PATIENCE", PATIENCE)
    monkeypatch.setattr(looking, "_credit", looking._Credit())


def newer(held: Session) -> Session:
    """A refresh by another process."""
    return held.minted(Token("access new", refresh_token="refresh new", expires_at=time.time() + 3600.0))


def ended(held: Session) -> Session:
    """A logout by another process."""
    return held.over("logout", time.time())


@pytest.mark.usefixtures("long")
def test_what_changed_elsewhere_is_seen_at_the_next_call(store: Far, manager: TokenManager) -> None:
    """Where the store answers, no caller gets what was replaced or ended (scenario 62)."""
    store.elsewhere(newer)
    assert manager.token().access_token == "access new"
    store.elsewhere(ended)
    with pytest.raises(LoginRequired):
        manager.token()


def test_a_good_token_is_served_while_the_store_is_silent(store: Far, manager: TokenManager) -> None:
    """What has changed there is seen when it answers again (scenario 19)."""
    store.gate.clear()
    store.elsewhere(newer)
    assert [manager.token().access_token for _ in range(5)] == ["access 0"] * 5
    store.gate.set()
    until(lambda: manager.token().access_token == "access new")


def test_no_event_loop_stands_still_for_a_silent_store(store: Far) -> None:
    """Also where there is nothing to serve, other tasks go on: a flight waits in their place."""
    manager_for(Server(), FRESH, store=store)
    another = manager_for(Server(), None, store=store)
    another._cell.view = None
    store.gate.clear()

    async def main() -> str:
        turns = 0
        call = asyncio.ensure_future(another.atoken(wait=PATIENCE))
        while turns < 100:
            turns += 1
            await asyncio.sleep(0.001)
        assert not call.done()
        store.gate.set()
        return (await call).access_token

    assert asyncio.run(main()) == "access 0"


def test_a_call_that_knows_nothing_waits_no_longer_than_it_was_told(store: Far) -> None:
    """The first look of a process at a silent store ends with the caller's own bound."""
    manager_for(Server(), FRESH, store=store)
    another = manager_for(Server(), None, store=store, patience=0)
    another._cell.view = None
    store.gate.clear()
    with pytest.raises(TemporarilyUnavailable):
        another.token(wait=0.3)
    store.gate.set()
    until(lambda: another._cell.flying is None)


@pytest.mark.usefixtures("long")
def test_a_look_that_had_begun_before_a_change_is_followed_by_another(store: Far, manager: TokenManager) -> None:
    """Who asks after the change gets what was stored before he asked."""
    store.elsewhere(lambda held: held.noted(intent=None, failure=None))
    while store.asked.acquire(blocking=False):
        pass
    store.gate.clear()
    first = Attempt(manager.token)
    assert store.asked.acquire(timeout=PATIENCE)
    store.elsewhere(newer)
    second = Attempt(manager.token)
    store.gate.set()
    assert second.result().access_token == "access new"
    first.result()


def test_a_login_made_elsewhere_is_found_behind_a_slow_store(store: Far, manager: TokenManager) -> None:
    """That the last one was over says nothing while the store has not answered: a flight waits to see (scenario 63)."""
    store.elsewhere(ended)
    until(lambda: manager._cell.glance() is not None)
    with pytest.raises(LoginRequired):
        manager.token()
    store.only_looks = True
    store.gate.clear()
    held = MemoryStore.load(store, "default")
    begun = Session.begin("default", "anew", Token("access anew", refresh_token="r", expires_at=time.time() + 3600.0))
    assert store.swap("default", held, begun)
    assert manager.token().access_token == "access anew"
    store.gate.set()


@pytest.mark.usefixtures("long")
def test_a_look_that_fails_is_an_error_to_those_who_have_no_token(store: Far, manager: TokenManager) -> None:
    """Who has one is served, as with any store."""
    store.error = StoreError("the far store is away")
    store.elsewhere(newer)
    assert manager.token().access_token == "access 0"
    another = manager_for(Server(), None, store=store)
    another._cell.view = None
    with pytest.raises(StoreError, match="far store is away"):
        another.token()


@pytest.mark.usefixtures("long")
def test_where_no_thread_can_be_started_the_caller_looks(
    store: Far, manager: TokenManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the end of the interpreter, or at a limit of threads."""

    def refuse(_: Looking) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Looking, "start", refuse)
    store.elsewhere(newer)
    assert manager.token().access_token == "access new"


def test_two_looks_are_waited_for_no_longer_than_one(store: Far, manager: TokenManager) -> None:
    """Who has waited for one look that came too early waits for the next only as long as is left (scenario 19)."""
    store.gate.clear()
    store.elsewhere(newer)
    look = Looking(manager._cell)
    look.start()
    with mock.patch.object(look, "_over") as over:
        over.is_set.return_value = False
        assert look.wait(boot() - looking._PATIENCE) is None
        assert not over.wait.called
    store.gate.set()
