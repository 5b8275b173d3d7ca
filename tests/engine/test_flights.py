"""The parts of a flight that only its process sees: its thread, who keeps the process, what a cell is told."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest

from tests.engine.staging import Attempt, Server, aboard, manager_for
from tests.waiting import until
from unexpired import Session, Token
from unexpired._core.effects import Publish, Result
from unexpired._core.flight import Plan
from unexpired._core.policy import Policy
from unexpired._core.session import Failure
from unexpired._engine import clock
from unexpired._engine import flying as flights
from unexpired._engine.cell import Cell, Reading
from unexpired._engine.clock import boot, keeper_here
from unexpired._engine.flying import Flying
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

KNOWN = Session.begin("alice", "login-1", Token("access 0", refresh_token="refresh 0"))
NEWER = KNOWN.minted(Token("access 1", refresh_token="refresh 1"))


@pytest.fixture
def flying() -> Flying:
    """A flight that nobody has started, of a cell that knows a session."""
    cell = Cell(MemoryStore(), "alice")
    cell.adopt(KNOWN)
    return Flying(cell, Plan("alice", Policy(), "me"), FunctionGrant(Server()), Reading(cell))


def _known(flying: Flying) -> Session | None:
    view = flying._cell.view
    assert view is not None
    return view.session


def test_a_flight_has_a_thread_that_the_process_waits_for() -> None:
    """It is named after its key, and no daemon."""
    server = Server(gated=True)
    manager = manager_for(server)
    call = Attempt(manager.token)
    until(lambda: aboard(manager) == 1 and server.arrived.is_set())
    threads = [thread for thread in threading.enumerate() if thread.name == "unexpired:default"]
    server.gate.set()
    assert call.result().access_token == "access 1"
    assert [thread.daemon for thread in threads] == [False]


def _on_a_thread(work: Callable[[], object], *, daemon: bool) -> tuple[threading.Thread, object]:
    """What *work* says on a thread of its own."""
    said: list[object] = []
    thread = threading.Thread(target=lambda: said.append(work()), daemon=daemon)
    thread.start()
    thread.join(20.0)
    return thread, said[0]


def test_a_thread_keeps_the_process_unless_it_is_a_daemon(monkeypatch: pytest.MonkeyPatch) -> None:
    """The main one does so in an exit handler only: before that, other threads outlive it."""
    thread, keeper = _on_a_thread(keeper_here, daemon=False)
    assert keeper is thread
    assert _on_a_thread(keeper_here, daemon=True)[1] is None
    assert keeper_here() is None
    monkeypatch.setattr(clock, "main_is_over", lambda: True)
    assert keeper_here() is threading.main_thread()


def test_an_event_loop_stands_still_for_a_flight_once(flying: Flying, monkeypatch: pytest.MonkeyPatch) -> None:
    """For a few milliseconds, however many tasks wait for it."""
    slept: list[float] = []
    monkeypatch.setattr(Flying, "last_head_start", 0.0)
    monkeypatch.setattr(time, "sleep", slept.append)
    for _ in range(3):
        flying._get_away()
    assert slept == [flights._HEAD_START]


def test_an_unsaved_token_is_an_answer_with_a_failure(flying: Flying) -> None:
    """Who needs a later one is told to come again in a second; the last word is what it is."""
    assert flying._answer() is None
    flying._publish(Publish(Result(NEWER), last=False))
    early = flying._answer()
    assert early is not None
    assert early.session is NEWER
    assert early.failure is not None
    assert (early.failure.kind, early.failure.retry_at - early.failure.since) == ("unsaved", 1.0)
    assert early.failure.since == pytest.approx(time.time(), abs=15.0)
    failure = Failure("lost", "gone", 0.0, 5.0)
    flying._publish(Publish(Result(NEWER, failure), last=False))
    salvaged = flying._answer()
    assert salvaged is not None
    assert (salvaged.session, salvaged.failure) == (NEWER, failure)
    last = Result(NEWER)
    flying._publish(Publish(last))
    assert flying._answer() is last


def test_what_a_flight_ends_with_is_known_to_the_process(flying: Flying) -> None:
    """A session is, with or without a failure; a failure alone leaves what was known, and no session is one."""
    failure = Failure("store", "the store refuses", 1000.0, 1005.0)
    flying._publish(Publish(Result(None, failure)))
    assert _known(flying) is KNOWN
    flying._publish(Publish(Result(NEWER, failure)))
    assert _known(flying) is NEWER
    flying._publish(Publish(Result(None)))
    assert _known(flying) is None


@pytest.mark.parametrize(("pause", "quiet"), [(40.0, 40.0), (0.2, 1.0)])
def test_after_a_failure_nothing_is_refreshed_ahead_for_its_pause(pause: float, quiet: float, flying: Flying) -> None:
    """Of a second at least, by the clock that never jumps."""
    before = boot()
    flying._publish(Publish(Result(None, Failure("store", "", 1000.0, 1000.0 + pause))))
    assert before + quiet <= flying._cell.quiet_until <= boot() + quiet + 0.001
