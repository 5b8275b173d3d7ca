from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stores.lines import Line, hearing
from tests.stores.redis_server import BOUND
from tests.waiting import until
from unexpired._core.session import Session
from unexpired.stores import _watched
from unexpired.stores._watched import boot, take_turns
from unexpired.stores._watching import FREED, STORED, UNTOLD, Board


@pytest.fixture
def line() -> Line:
    """A line that stands."""
    return Line()


@pytest.fixture
def board(line: Line) -> Iterator[Board]:
    """A board that hears."""
    with hearing(line) as board:
        yield board


class Lease:
    """A lease as a store has it: how often it was asked for, and whether it is free."""

    def __init__(self) -> None:
        self.free = False
        self.asked = 0

    def ask(self) -> tuple[str | None, float]:
        """Ask for it."""
        self.asked += 1
        return ("granted", 0.0) if self.free else (None, 100.0)


def wait_for(board: Board, lease: Lease, *, look: float = 50.0, stop: Callable[[], bool] = lambda: False) -> str | None:
    """Wait for it."""
    return take_turns(board, "alice", lease.ask, wait=2 * BOUND, stop=stop, look=look)


@pytest.fixture
def asleep(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits looks at nothing until he is woken."""
    monkeypatch.setattr(_watched, "_STEP", 2 * BOUND)


@pytest.mark.usefixtures("asleep")
def test_who_waits_is_woken_by_the_end_of_the_lease(board: Board, line: Line) -> None:
    """Scenario 22: who waits for a lease asks once, is woken when it is given back, and asks once more."""
    lease, stamp = Lease(), board.entry("alice")
    stamp()
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(wait_for, board, lease)
        until(lambda: lease.asked == 1 and stamp.held_until > 0.0, "it waits")
        line.say(FREED, "bob")
        line.say(UNTOLD, "alice")
        before = stamp()
        line.say(STORED, "alice")
        until(lambda: stamp() != before, "the change is heard")
        lease.free = True
        assert not waiter.done()
        line.say(FREED, "alice")
        assert waiter.result(BOUND) == "granted"
    assert lease.asked == 2


@pytest.mark.usefixtures("asleep")
def test_who_comes_back_to_wait_need_not_ask_again(board: Board, line: Line) -> None:
    """A record that changed ends a wait, and who then waits on, or joins, does not ask what was answered just now."""
    lease, stamp = Lease(), board.entry("alice")
    for _ in range(3):
        before = stamp()
        with ThreadPoolExecutor(2) as pool:
            waiters = [pool.submit(wait_for, board, lease, stop=lambda before=before: stamp() != before)]  # type: ignore[misc]
            until(lambda: stamp.held_until > 0.0, "it waits")
            waiters.append(pool.submit(wait_for, board, lease, stop=lambda before=before: stamp() != before))  # type: ignore[misc]
            until(lambda: len(stamp.waiting) == 2, "both wait")
            line.say(STORED, "alice")
            assert [waiter.result(BOUND) for waiter in waiters] == [None, None]
    assert lease.asked == 1
    line.say(FREED, "alice")
    until(lambda: stamp.held_until == 0.0, "the end is heard")
    lease.free = True
    assert wait_for(board, lease) == "granted"
    assert lease.asked == 2


def test_who_does_not_wait_asks(board: Board) -> None:
    """Whoever wants a lease at once asks for it, whatever was answered a moment ago."""
    lease, stamp = Lease(), board.entry("alice")
    stamp()
    for _ in range(3):
        assert take_turns(board, "alice", lease.ask, wait=0.0, stop=lambda: False, look=50.0) is None
    assert lease.asked == 3


def test_a_lease_whose_end_was_not_told_is_found(board: Board, line: Line) -> None:
    """Every so often it is asked for again; and at once when changes are heard again, because its end may be missed."""
    lease, stamp = Lease(), board.entry("alice")
    stamp()
    with ThreadPoolExecutor(1) as pool:
        waiter = pool.submit(wait_for, board, lease, look=0.02)
        until(lambda: lease.asked > 3, "it is asked for again and again")
        lease.free = True
        assert waiter.result(BOUND) == "granted"
        lease.free = False
        waiter = pool.submit(wait_for, board, lease)
        until(lambda: stamp.held_until > boot() + 10.0, "it waits for long")
        line.stands = line.readable = False
        until(lambda: not board.live, "the cut is noticed")
        lease.free = line.stands = True
        assert waiter.result(BOUND) == "granted"


def test_an_end_that_is_told_while_it_is_asked_for_is_not_missed(board: Board) -> None:
    """A lease that is given back while the answer is under way that it is held is asked for again at once."""

    class Crossed(Lease):
        def ask(self) -> tuple[str | None, float]:
            answer = super().ask()
            board.heard(f"{FREED} alice other.1")
            self.free = True
            return answer

    lease, stamp = Crossed(), board.entry("alice")
    stamp()
    assert wait_for(board, lease, look=1000.0) == "granted"
    assert lease.asked == 2


def test_who_has_waited_in_vain_reads_anew(board: Board) -> None:
    """Scenario 18: after a wait that was too long what was known does not count, though no change was told."""
    stamp, found = board.entry("alice"), [Session("alice", "login", number) for number in (1, 2, 3)]
    stamp()
    for one in found:
        assert board.load("alice", lambda one=one: one, BOUND) is one  # type: ignore[misc]
        assert board.load("alice", lambda: None, BOUND) is one
        assert take_turns(board, "alice", Lease().ask, wait=0.02, stop=lambda: False, look=50.0) is None
