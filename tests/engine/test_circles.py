from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping
from typing import Any

import pytest

from tests.engine.staging import EXPIRED, FRESH, KINDS, Attempt, Crowd, Kind, Server, aboard, manager_for
from tests.waiting import until
from unexpired import Session, TokenManager
from unexpired._engine.circles import CURRENT
from unexpired.errors import ConfigurationError, TemporarilyUnavailable
from unexpired.events import RefreshSucceeded
from unexpired.stores import MemoryStore

ANSWER: Mapping[str, Any] = {"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 60}


class Asking:
    """Grant functions that ask for a token themselves, of the managers by name."""

    def __init__(self) -> None:
        self.managers: dict[str, TokenManager] = {}

    def sync(self, name: str) -> Callable[[Session], Mapping[str, Any]]:
        """A sync grant that asks manager *name*."""

        def grant(session: Session) -> Mapping[str, Any]:
            self.managers[name].token()
            return {**ANSWER, "scope": session.key}

        return grant

    def asynchronous(self, name: str) -> Callable[[Session], Coroutine[Any, Any, Mapping[str, Any]]]:
        """An async grant that asks manager *name*."""

        async def grant(session: Session) -> Mapping[str, Any]:
            await self.managers[name].atoken()
            return {**ANSWER, "scope": session.key}

        return grant


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("form", ["sync", "asynchronous"])
def test_a_grant_that_asks_its_own_manager_is_told_so(form: str, kind: Kind) -> None:
    """A grant that waits for the flight it is part of gets ConfigurationError at once, and so do all callers."""
    asking = Asking()
    manager = asking.managers["self"] = manager_for(getattr(asking, form)("self"), deadline=60, wait=60)
    outcomes = Crowd(kind, 5, manager).outcomes()
    assert {type(outcome) for outcome in outcomes} <= {ConfigurationError}
    assert "itself, directly or in a circle" in str(outcomes[0])


@pytest.mark.parametrize("form", ["sync", "asynchronous"])
def test_a_circle_over_two_managers_is_broken(form: str) -> None:
    """Two grants that each need the other's token get ConfigurationError, whoever of them is asked first."""
    asking, store = Asking(), MemoryStore()
    for name, other in (("one", "two"), ("two", "one")):
        asking.managers[name] = manager_for(getattr(asking, form)(other), store=store, key=name)
    attempts = [Attempt(manager.token) for manager in asking.managers.values()]
    for attempt in attempts:
        with pytest.raises((ConfigurationError, TemporarilyUnavailable), match="in a circle"):
            attempt.result()


@pytest.mark.parametrize("form", ["sync", "asynchronous"])
def test_a_grant_may_ask_another_manager(form: str) -> None:
    """A grant that needs the token of another session, which is expired too, gets it: there is no circle."""
    asking, store = Asking(), MemoryStore()
    asking.managers["inner"] = manager_for(Server(), store=store, key="inner")
    outer = manager_for(getattr(asking, form)("inner"), store=store, key="outer")
    assert outer.token().scope == "outer"
    assert asking.managers["inner"].token().access_token == "access 1"


def test_a_circle_is_found_while_one_of_two_waits_has_ended() -> None:
    """A grant that waits twice for another flight, and gives up once, still waits for it."""
    store, timed_out = MemoryStore(), threading.Event()
    managers: dict[str, TokenManager] = {}

    async def outer(session: Session) -> Mapping[str, Any]:
        async def briefly() -> None:
            with pytest.raises(TemporarilyUnavailable):
                await managers["inner"].atoken(wait=0.01)
            timed_out.set()

        await asyncio.gather(briefly(), managers["inner"].atoken())
        return {**ANSWER, "scope": session.key}

    def inner(session: Session) -> Mapping[str, Any]:
        assert timed_out.wait(20)
        managers["outer"].token()
        return {**ANSWER, "scope": session.key}

    managers["outer"] = manager_for(outer, store=store, key="outer", deadline=60, wait=60)
    managers["inner"] = manager_for(inner, store=store, key="inner", deadline=60, wait=60)
    with pytest.raises(ConfigurationError, match="in a circle"):
        Attempt(managers["outer"].token).result()


def test_where_no_thread_can_be_started_a_circle_is_still_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A flight that runs on its caller's thread finds a grant that asks itself, too."""

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    asking = Asking()
    manager = asking.managers["self"] = manager_for(asking.sync("self"))
    monkeypatch.setattr(threading.Thread, "start", no_thread)
    with pytest.raises(ConfigurationError, match="in a circle"):
        manager.token()
    assert CURRENT.get() is None, "nothing of the flight stays in its caller's context"


def test_a_grant_is_served_the_token_that_is_still_good() -> None:
    """A grant that asks for its own token while that is valid gets it: there is nothing to wait for."""
    asking = Asking()
    manager = asking.managers["self"] = manager_for(asking.sync("self"), FRESH)
    assert manager.refresh().access_token == "access 1"


def test_a_listener_may_ask_for_tokens() -> None:
    """After the flight its listeners, on its thread, can ask its manager, and even refresh."""
    server = Server()
    manager = manager_for(server, EXPIRED)
    heard: list[str] = []

    def listener(event: RefreshSucceeded) -> None:
        if event.version == 2:
            heard.extend([manager.token().access_token, manager.refresh().access_token])

    manager.on(RefreshSucceeded, listener)
    manager.token()
    until(lambda: len(heard) == 2)
    assert heard == ["access 1", "access 2"]
    assert aboard(manager) == 0
