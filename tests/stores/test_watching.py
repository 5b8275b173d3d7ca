from __future__ import annotations

import gc
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.stores.lines import Line, Store, hearing, listeners
from tests.stores.redis_server import BOUND, KEY
from tests.waiting import until
from unexpired._core.session import Session
from unexpired.stores import _listening
from unexpired.stores._listening import Run
from unexpired.stores._watching import FREED, NOTED, STORED, Board


@pytest.fixture
def line() -> Line:
    """A line that stands."""
    return Line()


@pytest.fixture
def board(line: Line) -> Iterator[Board]:
    """A board that hears."""
    with hearing(line) as board:
        yield board


def version(number: int) -> Session:
    """A session as it is stored."""
    return Session(KEY, "login", number)


def number(board: Board, load: Callable[[], Session]) -> int:
    """The version that Alice's session is found to have."""
    found = board.load("alice", load, BOUND)
    assert found is not None
    return found.version


@pytest.mark.parametrize("kind", [STORED, NOTED])
def test_each_change_is_a_new_mark(board: Board, line: Line, kind: str) -> None:
    """A stamp differs after each change that is heard of, and stays as it is without one, or for another session."""
    stamp, other = board.entry("alice"), board.entry("bob")
    seen, bobs = [stamp()], other()
    assert isinstance(seen[0], int)
    for _ in range(3):
        line.say(kind, "alice")
        until(lambda: stamp() != seen[-1], "the change is heard")
        seen.append(stamp())
    line.say(FREED, "alice")
    line.say("?", "alice")
    line.say(kind, "carol")
    until(line.messages.empty, "all is heard")
    assert len(set(seen)) == 4
    assert (stamp(), other()) == (seen[-1], bobs)


def test_what_one_did_oneself_is_no_news(board: Board, line: Line) -> None:
    """A change of this process changes its stamp once, when it is made, and its copy is known without a look."""
    stamp = board.entry("alice")
    before, message = stamp(), board.message(STORED, "alice")
    seen = board.before("alice")
    board.stored("alice", seen, version(2))
    after = stamp()
    assert after != before
    line.messages.put(message)
    line.say(STORED, "bob")
    until(line.messages.empty, "it is heard")
    assert stamp() == after
    assert number(board, lambda: version(3)) == 2


def test_what_may_have_been_done_counts(board: Board, line: Line) -> None:
    """After a change of which it is not known whether it was made the stamp differs, at once and when it is told of."""
    stamp = board.entry("alice")
    before, message = stamp(), board.message(STORED, "alice")
    board.failed(message, "alice")
    at_once = stamp()
    line.messages.put(message)
    until(lambda: stamp() != at_once, "it was made after all")
    assert at_once != before


def test_what_is_known_serves_while_nothing_can_be_read(board: Board, line: Line) -> None:
    """While the server is away a stamp stays, and no call looks for it: that is done by the thread that listens."""
    stamp = board.entry("alice")
    before = stamp()
    line.stands = line.readable = False
    until(lambda: line.looks > 3, "it is looked for")
    assert not board.live
    assert [stamp() for _ in range(10)] == [before] * 10
    assert threading.current_thread() not in line.looked_by
    line.stands = line.readable = True
    until(lambda: stamp() != before, "it is back, and everything is looked at again")
    until(lambda: board.live, "it hears again")


def test_copies_are_looked_at_again_while_nothing_is_heard(board: Board, line: Line) -> None:
    """While sessions can be read, but changes not be heard, all stamps change again and again, and nothing is known."""
    stamps = [board.entry("alice"), board.entry("bob")]
    assert all(isinstance(stamp(), int) for stamp in stamps)
    assert number(board, lambda: version(1)) == 1
    line.stands = False
    until(lambda: not board.live, "the cut is noticed")
    for _ in range(3):
        before = [stamp() for stamp in stamps]
        until(lambda before=before: all(a != b() for a, b in zip(before, stamps, strict=True)), "all are new")  # type: ignore[misc]
    assert [number(board, lambda: version(7)), number(board, lambda: version(8))] == [7, 8]


@pytest.mark.usefixtures("first_stamp_in_time")
def test_the_first_stamp_waits_a_little_for_a_silent_server(board: Board, line: Line) -> None:
    """A server that says nothing holds up the first stamp for half a second, and no other one; none is like another."""
    line.hangs, stamp = threading.Event(), board.entry("alice")
    began = time.monotonic()
    first = stamp()
    waited = time.monotonic() - began
    again = [stamp() for _ in range(100)]
    assert len({first, *again}) == 101
    assert waited < 10.0
    until(lambda: line.attempts > 0, "it is tried")
    assert line.attempts == 1
    line.hangs.set()
    until(lambda: stamp() == stamp(), "it hears")


def test_a_server_that_refuses_holds_up_nobody(board: Board, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where listening fails at once, the first stamp waits no longer than that."""
    monkeypatch.setattr(_listening, "_FIRST", 1000.0)
    line.stands = line.readable = False
    stamp = board.entry("alice")
    assert stamp() != stamp()
    line.readable = True
    until(lambda: isinstance(stamp(), int), "a session can be read")


def test_without_threads_the_clock_ticks(board: Board, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no thread can be started, a stamp changes with time, and changes are heard as soon as one can."""
    started = []

    def refuse(thread: threading.Thread) -> None:
        started.append(thread)
        raise RuntimeError("can't start new thread")

    stamp = board.entry("alice")
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        before = stamp()
        many = [stamp() for _ in range(1000)]
        assert len({before, *many}) < 100
        until(lambda: stamp() != before, "the clock ticks")
        assert len(started) < 200
    until(lambda: stamp() is not None and board.live, "it hears")


def test_a_line_that_falls_silent_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A silent line is asked once whether it stands; who answers is heard on, who does not counts as cut off."""
    for name, seconds in (("_BEAT", 0.01), ("_SILENCE", 0.02), ("PATIENCE", 30.0)):
        monkeypatch.setattr(_listening, name, seconds)
    asked: list[float] = []
    answers = True
    ended: list[BaseException] = []

    class Silent(Line):
        def __call__(self, run: Run) -> None:
            def hear(timeout: float) -> bool:
                time.sleep(timeout)
                said = bool(asked) and len(asked) > heard[0] and answers
                heard[0] = len(asked)
                return said

            heard = [0]
            run.up()
            try:
                run.follow(hear, lambda: asked.append(time.monotonic()))
            except TimeoutError as error:
                ended.append(error)
                self.stands = self.readable = False
                raise

    with hearing(Silent()) as board:
        board.entry("alice")()
        until(lambda: len(asked) >= 3, "it is asked, and answers")
        assert ended == []
        monkeypatch.setattr(_listening, "PATIENCE", 0.5)
        answers = False
        until(lambda: len(ended) > 0, "it counts as cut off")


def test_the_end_of_a_break_is_told(board: Board, line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """A line that is cut is warned of, and when changes are heard again that is told: once each, however often."""
    caplog.set_level(logging.INFO, "unexpired")
    stamp = board.entry("alice")
    for turn in (1, 2):
        line.stands = True
        board.listen()
        until(lambda: board.live, "it hears")
        assert isinstance(stamp(), int)
        until(lambda turn=turn: caplog.text.count("are heard again") == turn - 1, "it is told")  # type: ignore[misc]
        line.stands = False
        before = line.attempts
        until(lambda before=before: line.attempts >= before + 3, "it was tried again and again")  # type: ignore[misc]
        assert caplog.text.count("are not heard for now") == turn
    line.stands = True
    until(lambda: caplog.text.count("are heard again") == 2, "it is told")
    told = [record.levelname for record in caplog.records if "are heard again" in record.message]
    assert told == ["INFO"] * 2


def test_one_thread_for_all_and_none_for_nobody(line: Line, caplog: pytest.LogCaptureFixture) -> None:
    """One daemon thread listens for all stores, ends with the last one, closed or gone, and starts when used again."""
    board, stores = Board(line, "test"), [Store(), Store()]
    for one in stores:
        board.join(one)
    stamp = board.entry("alice")
    before = stamp()
    (thread,) = listeners()
    assert thread.daemon
    board.leave(stores.pop())
    assert stamp() == before
    board.leave(stores[0])
    until(lambda: not thread.is_alive(), "the thread ends")
    assert stamp() != stamp()
    assert listeners() == []
    board.join(stores[0])
    assert stamp() == stamp()
    stores.clear()
    gc.collect()
    until(lambda: not listeners(), "the thread ends")
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.usefixtures("first_stamp_in_time")
def test_a_thread_that_was_let_go_does_not_come_back(board: Board, line: Line) -> None:
    """One that was busy when the last store closed is not joined by a second one when a store is used again."""
    stamp, line.hangs = board.entry("alice"), threading.Event()
    stamp()
    until(lambda: line.attempts == 1, "one listens")
    (first,) = listeners()
    (store,) = board._users
    board.leave(store)
    board.join(store)
    stamp()
    until(lambda: line.attempts == 2, "another one listens")
    line.hangs.set()
    until(lambda: board.live and not first.is_alive(), "the first one ends")
    assert len(listeners()) == 1


def test_a_forked_child_hears_for_itself(board: Board, line: Line) -> None:
    """In a child nothing counts that the parent had heard; it listens with a thread of its own, under its own name."""
    stamp = board.entry("alice")
    board.load("alice", lambda: version(1), BOUND)
    before, message = stamp(), board.message(STORED, "alice")
    with board._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                assert not listeners()
                assert number(board, lambda: version(2)) == 2
                here = stamp()
                assert here == stamp()
                line.messages.put(message)
                until(lambda: stamp() != here, "what the parent did is news")
                code = 0
            finally:
                os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert stamp() == before


def test_of_many_who_ask_after_a_change_one_loads(board: Board, line: Line) -> None:
    """Twenty callers who ask after one change cost one look at the store, and the next change costs one more."""
    stamp = board.entry("alice")
    stamp()
    asked: list[int] = []

    def load() -> Session:
        asked.append(1)
        time.sleep(0.02)
        return version(len(asked))

    with ThreadPoolExecutor(20) as pool:
        for change in (1, 2):
            found = [pool.submit(number, board, load) for _ in range(20)]
            assert {one.result(BOUND) for one in found} == {change}
            before = stamp()
            line.say(STORED, "alice")
            until(lambda before=before: stamp() != before, "the change is heard")  # type: ignore[misc]
    assert len(asked) == 2


def test_what_is_being_loaded_does_not_outlive_a_lease(board: Board) -> None:
    """Who was granted the lease reads anew, though somebody began to read before that and is done only afterwards."""
    entry = board.entry("alice")
    entry()
    begun, granted = threading.Event(), threading.Event()

    def slow() -> Session:
        begun.set()
        assert granted.wait(BOUND)
        return version(1)

    with ThreadPoolExecutor(1) as pool:
        early = pool.submit(number, board, slow)
        assert begun.wait(BOUND)
        board.forget("alice")
        assert number(board, lambda: version(2)) == 2
        granted.set()
        assert early.result(BOUND) == 1
    assert number(board, lambda: version(3)) == 2
