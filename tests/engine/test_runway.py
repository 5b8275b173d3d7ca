"""How many flights are under way at a time: those that are too many wait for a place, and nobody loses by it."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from tests.engine.staging import EXPIRED, Attempt
from tests.waiting import until
from unexpired import Session, TokenManager, TokenManagers
from unexpired._engine import flying
from unexpired._engine.runway import Runway, Start
from unexpired.errors import StoreError, TemporarilyUnavailable
from unexpired.stores import MemoryStore

Places = Callable[[int], None]


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch) -> Places:
    """Sets how many there are."""
    return lambda number: monkeypatch.setattr(Start, "runway", Runway(number))


class Endpoint:
    """A token endpoint that sees how many ask at a time, and answers while *gate* is set."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.gate = threading.Event()
        self.inside: set[str] = set()
        self.most_threads = 0

    def __call__(self, session: Session) -> dict[str, Any]:
        """Answer for one session."""
        self.asked[session.key] += 1
        self.inside.add(session.key)
        self.most_threads = max(self.most_threads, threading.active_count())
        assert self.gate.wait(20)
        self.inside.discard(session.key)
        return {"access_token": f"new {session.key}", "refresh_token": "refresh 1", "expires_in": 3600}


def expired(grant: Any, keys: list[str], store: MemoryStore | None = None) -> TokenManagers:
    """Managers whose sessions all need a refresh."""
    managers = TokenManagers(grant, store=store or MemoryStore(), patience=0.0)
    for key in keys:
        managers.manager(key).login(EXPIRED)
    return managers


def test_a_thousand_expiries_at_once(places: Places) -> None:
    """A burst of a thousand sessions takes no more threads than there are places; each refreshes once, all are served.

    The event loop meanwhile does not stand still for each of them.
    """
    places(8)
    endpoint, keys = Endpoint(), [f"user {number}" for number in range(1000)]
    managers = expired(endpoint, keys)
    before = threading.active_count()

    async def main() -> list[str]:
        calls = asyncio.gather(*(managers.manager(key).atoken() for key in keys))
        # All others wait for a place by then: no thread starts while another one ends.
        while len(Start.runway._waiting) < 1000 - 8:  # noqa: ASYNC110 - nobody tells of it
            await asyncio.sleep(0.001)
        endpoint.gate.set()
        return [token.access_token for token in await calls]

    assert asyncio.run(main()) == [f"new {key}" for key in keys]
    assert endpoint.asked == dict.fromkeys(keys, 1)
    assert endpoint.most_threads <= before + 8


def test_the_loop_gives_its_turns_away_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many sessions are refreshed at once, one in a while gets a head start."""
    endpoint, keys = Endpoint(), [f"user {number}" for number in range(50)]
    endpoint.gate.set()
    managers = expired(endpoint, keys)
    sleeps: list[float] = []
    monkeypatch.setattr(flying, "_BETWEEN_HEAD_STARTS", 1e6)
    monkeypatch.setattr(flying.Flying, "last_head_start", -1e7)
    monkeypatch.setattr(time, "sleep", sleeps.append)

    async def main() -> None:
        await asyncio.gather(*(managers.manager(key).atoken() for key in keys))

    asyncio.run(main())
    assert sleeps.count(flying._HEAD_START) == 1


def test_the_others_follow_in_their_turn(places: Places) -> None:
    """Who waits for a place has no thread, can be joined, and is refreshed when one is free."""
    places(2)
    others = set(threading.enumerate())
    endpoint, keys = Endpoint(), [f"user {number}" for number in range(6)]
    managers = expired(endpoint, keys)
    calls = [Attempt(managers.manager(key).token) for key in keys for _ in range(3)]
    until(lambda: sum(_aboard(managers.manager(key)) for key in keys) == 18)
    until(lambda: len(endpoint.inside) == 2)
    until(lambda: sum(one.name.startswith("unexpired:") for one in set(threading.enumerate()) - others) == 2)
    assert len(endpoint.asked) == 2
    endpoint.gate.set()
    assert Counter(call.result().access_token for call in calls) == {f"new {key}": 3 for key in keys}
    assert endpoint.asked == dict.fromkeys(keys, 1)


def _aboard(manager: TokenManager) -> int:
    flight = manager._cell.flying
    return 0 if flight is None else flight._callers


@pytest.mark.parametrize("others_wait_too", [True, False])
def test_a_grant_that_needs_another_session_is_not_kept_waiting(places: Places, *, others_wait_too: bool) -> None:
    """A flight that another one waits for starts at once, also when it has been waiting for a place already."""
    people = ["alice", "bob"] if others_wait_too else ["alice"]
    places(len(people))
    gate, waiting = threading.Event(), threading.Barrier(len(people) + 1)

    def grant(session: Session) -> dict[str, Any]:
        if session.key != "service":
            waiting.wait(20)
            assert gate.wait(20)
            managers.manager("service").token()
        return {"access_token": f"new {session.key}", "refresh_token": "refresh 1", "expires_in": 3600}

    managers = expired(grant, [*people, "service"])
    calls = [Attempt(managers.manager(key).token) for key in people]
    waiting.wait(20)
    if others_wait_too:
        calls.append(Attempt(managers.manager("service").token))
        until(lambda: _aboard(managers.manager("service")) == 1)
    gate.set()
    served = [*people, "service"][: len(calls)]
    assert [call.result().access_token for call in calls] == [f"new {key}" for key in served]


class Refusing(MemoryStore):
    """A memory that takes no new version of Alice's session while it *refuses*."""

    refuses = False

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store it."""
        if self.refuses and key == "alice" and (expected is None or new.version > expected.version):
            raise StoreError("full", key=key)
        return super().swap(key, expected, new)


def test_what_cannot_be_stored_takes_no_place(places: Places) -> None:
    """A flight that serves its callers and goes on trying to store its token does not keep the others waiting."""
    places(1)
    endpoint, store = Endpoint(), Refusing()
    endpoint.gate.set()
    managers = expired(endpoint, ["alice", "bob", "carol"], store)
    store.refuses = True
    calls = [Attempt(managers.manager(key).token) for key in ("alice", "bob", "carol")]
    assert [call.result().access_token for call in calls] == ["new alice", "new bob", "new carol"]
    assert managers.manager("alice")._cell.flying is not None
    store.refuses = False
    until(lambda: managers.manager("alice")._cell.flying is None)


def test_a_forked_child_has_all_its_places(places: Places) -> None:
    """Flights of the parent take no place in its child."""
    places(1)
    endpoint = Endpoint()
    managers = expired(endpoint, ["alice", "bob"])
    call = Attempt(managers.manager("alice").token)
    until(lambda: len(endpoint.inside) == 1)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        endpoint.gate = threading.Event()
        endpoint.gate.set()
        os._exit(0 if managers.manager("bob").token().access_token == "new bob" else 1)
    endpoint.gate.set()
    call.result()
    assert os.waitpid(child, 0)[1] == 0


def test_where_no_thread_starts_the_callers_fly(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without threads each caller drives its own flight, and gives its place back."""
    places(1)
    endpoint, keys = Endpoint(), ["alice", "bob", "carol"]
    endpoint.gate.set()
    managers = expired(endpoint, keys)

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as no_threads:
        no_threads.setattr(threading.Thread, "start", refuse)
        assert [managers.manager(key).token().access_token for key in keys] == [f"new {key}" for key in keys]
    assert Start.runway.take(Start(lambda: None, "next"), at_once=False)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_flight_that_ends_its_thread_takes_no_other_along(places: Places) -> None:
    """Somebody's store that raises SystemExit: whoever waits for the place gets it."""

    class Leaving(MemoryStore):
        """Ends the thread of alice's flight, when another one waits for its place."""

        def load(self, key: str) -> Session | None:
            if threading.current_thread().name == "unexpired:alice":
                until(lambda: Start.runway._waiting)
                raise SystemExit
            return super().load(key)

    places(1)
    endpoint = Endpoint()
    endpoint.gate.set()
    managers = expired(endpoint, ["alice", "bob"], Leaving())
    alice = Attempt(managers.manager("alice").token)
    until(lambda: Start.runway._taken)
    bob = Attempt(managers.manager("bob").token)
    assert bob.result().access_token == "new bob"
    with pytest.raises(TemporarilyUnavailable):
        alice.result()


def test_a_place_for_which_no_thread_starts_is_given_to_it_again(
    places: Places, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It stays the first of those who wait, and flies when the next place is free."""
    places(1)
    first, second, third = (Start(lambda: None, name) for name in ("first", "second", "third"))
    assert Start.runway.take(first, at_once=False)
    assert not Start.runway.take(second, at_once=False)
    assert not Start.runway.take(third, at_once=False)

    def refuse(_: Start) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Start, "_start_thread", refuse)
    first.leave()
    another = Start(lambda: None, "another")
    assert Start.runway.take(another, at_once=True)
    assert Start.runway.leave(another) is second
