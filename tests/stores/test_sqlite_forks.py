from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.stores.test_file_bad_input import in_child, said
from tests.stores.test_sqlite_processes import store, stored
from tests.stores.worker import KEY, add, version
from unexpired.stores.sqlite import SQLiteStore

__all__ = ["store"]

# Newer Pythons warn of a fork beside other threads; these children touch nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

# The master of a pre-forking server: it uses the store, forks one worker, and then goes, closes its store, or stays.
ONE_WORKER = """
import os, signal, sys
from tests.stores.worker import KEY, add, hear, say, version
from unexpired.stores import SQLiteStore
path, how = sys.argv[1:]
signal.alarm(100)
store = SQLiteStore(path)
assert store.swap(KEY, None, version(1))
assert store.load(KEY).version == 1
worker = os.fork()
if worker == 0:
    signal.alarm(100)
    while hear():
        add(store)
        say(str(store.load(KEY).version))
    os._exit(0)
if how == "close":
    store.close()
say(how)
if how != "exit":
    os.waitpid(worker, 0)
os._exit(0)
"""
# Two workers, which begin when their master has ended.
TWO_WORKERS = """
import os, signal, sys, time
from tests.stores.worker import KEY, add, say, version
from unexpired.stores import SQLiteStore
store = SQLiteStore(sys.argv[1])
assert store.swap(KEY, None, version(1))
master = os.getpid()
for _ in range(2):
    if os.fork() == 0:
        signal.alarm(100)
        while os.getppid() == master:
            time.sleep(0.001)
        for _ in range(60):
            add(store)
        say("done")
        os._exit(0)
os._exit(0)
"""


class Forking:
    """A program that forks; `say` and `hear` reach its workers too."""

    def __init__(self, program: str, *arguments: str) -> None:
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
        self.process = subprocess.Popen(
            [sys.executable, "-c", program, *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment,
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self._stdin: IO[str] = self.process.stdin
        self._stdout: IO[str] = self.process.stdout

    def say(self, word: str) -> None:
        """One line to whoever reads."""
        self._stdin.write(f"{word}\n")
        self._stdin.flush()

    def hear(self) -> str:
        """The next line of anybody; empty when all have ended."""
        return self._stdout.readline().strip()

    def end(self) -> None:
        """No word more: the worker ends, and the master behind it."""
        self._stdin.close()
        self._stdout.read()
        self._stdout.close()
        self.process.wait(30)


Start = Callable[..., Forking]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts programs, and sees them end."""
    started: list[Forking] = []

    def one(program: str, *arguments: str) -> Forking:
        started.append(Forking(program, *arguments))
        return started[-1]

    yield one
    for each in started:
        each.end()


def looked_up(path: Path) -> int:
    """The stored version, as another program sees it that opens the database and closes it again."""
    with SQLiteStore(path) as other:
        return stored(other)


@pytest.mark.parametrize("how", ["exit", "close", "stay"])
def test_what_a_forked_worker_stores_is_there(start: Start, tmp_path: Path, how: str) -> None:
    """A worker whose master used the store and has gone loses no swap when others open and close it (scenario 60)."""
    path = tmp_path / "sessions.db"
    server = start(ONE_WORKER, str(path), how)
    assert server.hear() == how
    if how == "exit":
        server.process.wait(30)
    for first in (2, 6, 10):
        for number in range(first, first + 4):
            server.say("go on")
            assert server.hear() == str(number), "the worker is gone, or lost a swap"
        assert looked_up(path) == first + 3, "what the worker was told to be stored is not"


def test_forked_workers_and_another_program_lose_no_swap(start: Start, tmp_path: Path) -> None:
    """Two workers that outlive their master and a third process add 60 versions each: all are there (scenario 60)."""
    path = tmp_path / "sessions.db"
    server = start(TWO_WORKERS, str(path))
    server.process.wait(30)
    for _ in range(60):
        with SQLiteStore(path) as here:
            add(here)
    assert [server.hear(), server.hear()] == ["done", "done"]
    assert looked_up(path) == 181


def test_connections_are_closed_before_a_fork(store: SQLiteStore) -> None:
    """Neither side has the other's: SQLite would take the parent's locks for the child's. Both open their own."""
    assert stored(store) == 1
    database = store._database

    def look() -> str:
        signal.alarm(20)  # a child that hangs ends
        before = database._reader, database._writer
        return repr((*before, stored(store), store.swap(KEY, version(1), version(2))))

    stamp = store.stamp(KEY)
    before = stamp()
    assert in_child(None, look) == "(None, None, 1, True)"
    assert (database._reader, database._writer) == (None, None)
    assert stamp() != before
    assert stored(store) == 2
    assert store.swap(KEY, version(2), version(3))


def refused(store: SQLiteStore) -> str:
    """What a child forked now is told at every use, by another object too: a line each."""

    def use() -> str:
        signal.alarm(20)
        again = SQLiteStore(store._path)
        swapped = said(lambda: store.swap(KEY, version(1), version(2)))
        return "\n".join([said(lambda: store.load(KEY)), swapped, said(lambda: again.load(KEY))])

    return in_child(None, use)


def test_a_child_forked_while_another_thread_writes_is_refused(store: SQLiteStore) -> None:
    """Where a thread cannot be waited for, the child is told and stores nothing; its parent goes on (scenario 60)."""
    writes, enough = threading.Event(), threading.Event()

    def write() -> None:
        with store._database.written("another"):
            writes.set()
            assert enough.wait(60)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        assert writes.wait(30)
        answers = refused(store).splitlines()
    finally:
        enough.set()
        thread.join(30)
    assert len(answers) == 3
    assert all("forked while another thread used it" in answer for answer in answers), answers
    assert stored(store) == 1
    assert store.swap(KEY, version(1), version(2))
    assert in_child(None, lambda: str(stored(store))) == "2", "the next child is well again"


@pytest.mark.parametrize("turn", ["_read_turn", "_write_turn"])
def test_a_signal_handler_that_forks_breaks_nothing_off(store: SQLiteStore, turn: str) -> None:
    """Forking in the middle of a look or a swap of the same thread, the parent keeps its connections (scenario 60)."""
    assert stored(store) == 1
    database = store._database
    before = database._reader, database._writer
    with getattr(database, turn):
        assert "was forked while" in refused(store)
    assert (database._reader, database._writer) == before
    assert store.swap(KEY, version(1), version(2))
