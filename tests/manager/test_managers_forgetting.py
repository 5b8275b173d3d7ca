"""What `TokenManagers` forgets for want of room is only forgotten: nobody loses anything."""

from __future__ import annotations

import gc
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from tests.engine.staging import aboard
from tests.manager.test_managers import ANSWER, answer, many
from tests.waiting import until
from unexpired import Session, TokenManagers
from unexpired.errors import StoreError
from unexpired.events import LoggedIn, RefreshSucceeded
from unexpired.stores import MemoryStore


class Gated:
    """A grant that answers when it may."""

    def __init__(self) -> None:
        self.asked = threading.Event()
        self.gate = threading.Event()

    def __call__(self, session: Session) -> dict[str, Any]:
        """Wait, then answer."""
        self.asked.set()
        assert self.gate.wait(20)
        return answer(session)


def test_a_refresh_under_way_survives_being_forgotten() -> None:
    """Forgetting a manager in the middle of a flight takes its token from nobody: one request, everybody is served.

    The listeners hear of its end, once.
    """
    grant = Gated()
    managers = TokenManagers(grant, store=MemoryStore(), limit=1)
    heard: list[tuple[str, int]] = []
    managers.on(RefreshSucceeded, lambda event: heard.append((event.key, event.callers)))
    managers.manager("alice").login({**ANSWER, "expires_in": -1})
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: managers.manager("alice").token())
        assert grant.asked.wait(20)
        managers.manager("bob")
        again = managers.manager("alice")
        second = pool.submit(again.token)
        until(lambda: aboard(again) == 2)
        managers.manager("carol")
        grant.gate.set()
        assert [first.result(20).access_token, second.result(20).access_token] == ["alice-2", "alice-2"]
    until(lambda: heard == [("alice", 2)])


def test_a_listener_keeps_its_manager() -> None:
    """A listener to one session hears of it also when its manager was forgotten and nobody else holds it."""
    managers = many(limit=1)
    heard: list[str] = []
    managers.manager("alice").on(LoggedIn, lambda event: heard.append(event.key))
    managers.manager("bob")
    gc.collect()
    managers.manager("alice").login({"refresh_token": "r"})
    assert heard == ["alice"]


def test_a_listener_keeps_it_no_longer_than_it_lasts() -> None:
    """Listeners of forgotten managers end as those of any other, one by one or by closing it; then nothing is kept."""
    managers = many(limit=1)
    heard: list[str] = []
    alice = managers.manager("alice")
    end = alice.on(LoggedIn, lambda event: heard.append(f"1 {event.key}"))
    alice.on(LoggedIn, lambda event: heard.append(f"2 {event.key}"))
    bob = managers.manager("bob")
    end_his = bob.on(LoggedIn, lambda event: heard.append(f"3 {event.key}"))
    for _ in range(2):
        end()
    managers.manager("alice").login({"refresh_token": "r"})
    alice.close()
    for key in ("alice", "bob", "carol"):
        managers.manager(key).login({"refresh_token": "r"})
    end_his()
    managers.manager("bob").login({"refresh_token": "r"})
    managers.manager("carol")
    assert heard == ["2 alice", "3 bob"]
    forgotten = [weakref.ref(alice), weakref.ref(bob)]
    del alice, bob, end, end_his
    gc.collect()
    assert [one() for one in forgotten] == [None, None]


def test_who_holds_a_forgotten_manager_is_heard_once() -> None:
    """A forgotten manager and the one that took its place act as one: each event is told once."""
    managers = many(limit=1)
    heard: list[str] = []
    managers.on(LoggedIn, lambda event: heard.append(event.key))
    old = managers.manager("alice")
    managers.manager("bob")
    new = managers.manager("alice")
    assert new is not old
    old.login(ANSWER)
    new.login(ANSWER)
    assert heard == ["alice", "alice"]
    assert old.token().access_token == new.token().access_token == "alice-1"


def test_what_cannot_be_stored_is_not_forgotten() -> None:
    """A rotated token that is still unsaved is served by the manager that is made anew."""
    store = Refusing()
    managers = TokenManagers(answer, store=store, limit=1)
    managers.manager("alice").login({**ANSWER, "expires_in": -1})
    store.refuses = True
    assert managers.manager("alice").token().access_token == "alice-2"
    managers.manager("bob")
    again = managers.manager("alice")
    assert again.token().access_token == "alice-2"
    assert store.load("alice").version == 1  # type: ignore[union-attr]
    store.refuses = False
    until(lambda: store.load("alice").version == 2)  # type: ignore[union-attr]


class Refusing(MemoryStore):
    """A memory that may refuse new versions."""

    refuses = False

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store what is no new version, or all."""
        if self.refuses and (expected is None or new.version > expected.version):
            raise StoreError("full", key=key)
        return super().swap(key, expected, new)
