from __future__ import annotations

import asyncio
import logging
import threading
from contextvars import ContextVar
from pathlib import Path

import pytest
import trio

from tests.engine.staging import EXPIRED, FRESH, KINDS, Attempt, Kind, Server, aboard, manager_for
from tests.engine.test_flights_told import Ends, others_log_out, others_refresh
from tests.waiting import until
from unexpired import LoginRequired, Session, TemporarilyUnavailable, TokenManager
from unexpired.events import CallerWaited, Event, SessionSeen
from unexpired.stores import FileStore, MemoryStore

NAME: ContextVar[str] = ContextVar("NAME", default="nobody")


def call_from_everywhere(kind: Kind, manager: TokenManager, names: list[str]) -> threading.Thread:
    """Callers that each have a name in their context."""

    def call(name: str) -> None:
        NAME.set(name)
        manager.token()

    async def acall(name: str) -> None:
        NAME.set(name)
        await manager.atoken()

    async def in_asyncio() -> None:
        await asyncio.gather(*(acall(name) for name in names))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(acall, name)

    def in_threads() -> None:
        threads = [threading.Thread(target=call, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)

    runners = {"threads": in_threads, "asyncio": lambda: asyncio.run(in_asyncio()), "trio": lambda: trio.run(in_trio)}
    thread = threading.Thread(target=runners[kind])
    thread.start()
    return thread


@pytest.mark.parametrize("kind", KINDS)
def test_each_wait_is_told_where_its_caller_is(kind: Kind) -> None:
    """Once for each caller, in that caller's own context, and with the number of the one flight."""
    server = Server(gated=True)
    manager = manager_for(server)
    ends = Ends(manager)
    told: list[tuple[str, CallerWaited]] = []
    manager.on(CallerWaited, lambda event: told.append((NAME.get(), event)))
    callers = call_from_everywhere(kind, manager, ["ada", "bob", "cyd"])
    until(lambda: aboard(manager) == 3)
    assert told == []
    server.gate.set()
    callers.join(20)
    assert sorted(name for name, _ in told) == ["ada", "bob", "cyd"]
    assert {event.flight for _, event in told} == {ends.only().flight}
    assert all(event.served and event.seconds > 0 for _, event in told)


def test_a_wait_that_was_too_short_is_told_as_such() -> None:
    """The caller goes on without a token, while the flight is still under way."""
    server = Server(gated=True)
    manager = manager_for(server)
    told: list[CallerWaited] = []
    manager.on(CallerWaited, told.append)
    with pytest.raises(TemporarilyUnavailable):
        manager.token(wait=1.0)
    (event,) = told
    assert not event.served
    assert 0.01 < event.seconds < 20
    server.gate.set()
    until(lambda: manager._cell.flying is None)


def test_a_wait_is_no_line_of_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """There are as many as callers: who wants to hear of them subscribes."""
    caplog.set_level(logging.DEBUG, "unexpired")
    manager = manager_for(Server())
    ends, told = Ends(manager), list[CallerWaited]()
    manager.on(CallerWaited, told.append)
    manager.token()
    ends.only()
    assert len(told) == 1
    assert "FlightEnded" in caplog.text
    assert "CallerWaited" not in caplog.text


def heard_by(manager: TokenManager) -> list[SessionSeen]:
    """What it sees in its store from now on."""
    heard: list[SessionSeen] = []
    manager.on(SessionSeen, heard.append)
    return heard


def test_what_is_found_at_the_first_look_is_told(tmp_path: Path) -> None:
    """A program that starts finds a session in its store: that is news, and no adoption. It is told once."""
    TokenManager(Server(), store=FileStore(tmp_path)).login(FRESH)
    manager = TokenManager(Server(), store=MemoryStore(), key="nobody")
    heard = heard_by(manager)
    assert manager.session() is None
    assert heard == []
    store = MemoryStore()
    found = FileStore(tmp_path).load("default")
    assert found is not None
    assert store.swap("default", None, found)
    manager = TokenManager(Server(), store=store)
    heard = heard_by(manager)
    manager.token()
    manager.token()
    (seen,) = heard
    assert (seen.version, seen.ended, seen.adopted) == (1, False, False)
    assert seen.expires_at == found.tokens[None].expires_at


def test_a_token_that_somebody_else_stored_is_told_as_adopted() -> None:
    """Another process refreshed: whoever looks next adopts it, without a flight."""
    store, server = MemoryStore(), Server()
    manager = manager_for(server, FRESH, store=store)
    ends, heard = Ends(manager), heard_by(manager)
    assert manager.token().access_token == "access 0"
    others_refresh(store)
    assert manager.token().access_token == "access 9"
    (seen,) = heard
    assert (seen.version, seen.ended, seen.adopted) == (2, False, True)
    assert (ends.told, server.calls) == ([], 0)


def test_the_end_that_somebody_else_stored_is_told() -> None:
    """Another process logged out: whoever looks next knows."""
    store = MemoryStore()
    manager = manager_for(Server(), FRESH, store=store)
    heard = heard_by(manager)
    others_log_out(store)
    with pytest.raises(LoginRequired):
        manager.token()
    (seen,) = heard
    assert (seen.version, seen.ended, seen.adopted, seen.expires_at) == (2, True, False, None)


class Curious(MemoryStore):
    """A memory in which somebody of this process looks the moment that something is stored."""

    manager: TokenManager | None = None

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store, and look."""
        stored = super().swap(key, expected, new)
        if self.manager is not None:
            self.manager.session()
        return stored


def test_what_this_process_stores_is_no_news_to_it() -> None:
    """Not even to a caller that finds a refresh, a login or a logout in the store before it is over."""
    store = Curious()
    manager = store.manager = TokenManager(Server(), store=store)
    heard = heard_by(manager)
    ends = Ends(manager)
    manager.login(EXPIRED)
    manager.token()
    ends.only()
    manager.logout()
    assert heard == []


def test_a_seed_that_changes_nothing_tells_what_is_there() -> None:
    """A program that is started again with its first token sees what has become of it."""
    store = MemoryStore()
    first = TokenManager(Server(), store=store)
    first.seed(FRESH)
    session = store.load("default")
    assert session is not None
    again = MemoryStore()
    assert again.swap("default", None, session)
    manager = TokenManager(Server(), store=again)
    heard: list[Event] = []
    manager.on(Event, heard.append)
    manager.seed(FRESH)
    (seen,) = heard
    assert isinstance(seen, SessionSeen)
    assert (seen.version, seen.adopted) == (1, False)


def test_a_listener_may_look_again() -> None:
    """Who is told of what was seen can ask for it there and then."""
    store = MemoryStore()
    manager = manager_for(Server(), FRESH, store=store)
    got: list[str] = []
    manager.on(SessionSeen, lambda _: got.append(manager.token().access_token))
    others_refresh(store)
    assert Attempt(manager.token).result().access_token == "access 9"
    assert got == ["access 9"]
