from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import pytest

from tests.stores import worker
from tests.stores.worker import KEY, version
from unexpired.stores import FileStore


class Worker:
    """A process that runs one task of `worker`; `say` and `hear` are the other ends of its own."""

    def __init__(self, task: str, directory: Path | str) -> None:
        command = [sys.executable, "-W", "error", worker.__file__, task, str(directory)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout

    def say(self, word: str = "") -> None:
        """One line to the process."""
        self.stdin.write(f"{word}\n")
        self.stdin.flush()

    def hear(self) -> str:
        """The next line of the process; empty when it has ended."""
        return self.stdout.readline().strip()

    def kill(self) -> None:
        """As `kill -9` does."""
        self.process.kill()
        self.process.wait(10)

    def end(self) -> int:
        """Wait for its own end."""
        self.stdin.close()
        return self.process.wait(30)


Start = Callable[[str], Worker]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers on the store of this test, and leaves none behind."""
    started: list[Worker] = []

    def one(task: str) -> Worker:
        started.append(Worker(task, tmp_path))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.stdin.close()
        process.stdout.close()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """The store of this test, with version 1 in it."""
    store = FileStore(tmp_path)
    assert store.swap(KEY, None, version(1))
    return store


def is_leased(store: FileStore) -> bool:
    """Whether somebody holds the lease now."""
    lease = store.lease(KEY, owner="test", seconds=1.0, wait=0.0, stop=lambda: False)
    if lease is not None:
        lease.release()
    return lease is None


def test_no_update_of_four_processes_is_lost(start: Start, store: FileStore) -> None:
    """Four processes that add 50 versions each end at 200 more: each swap saw the one before it."""
    workers = [start("count") for _ in range(4)]
    assert [process.hear() for process in workers] == ["ready"] * 4
    for process in workers:
        process.say("go")
    assert [process.hear() for process in workers] == ["done"] * 4
    assert [process.end() for process in workers] == [0] * 4
    found = store.load(KEY)
    assert found is not None
    assert found.version == 201


def test_a_reader_never_sees_a_torn_record(start: Start, store: FileStore) -> None:
    """While one process swaps, another reads whole records, never an older after a newer (scenario 31)."""
    reader = start("read")
    assert reader.hear() == "ready"
    reader.say("150")
    for number in range(1, 150):
        assert store.swap(KEY, version(number), version(number + 1))
    assert reader.hear().startswith("seen ")
    assert reader.end() == 0


def test_a_change_by_another_process_shows_in_the_stamp(start: Start, store: FileStore) -> None:
    """The stamp tells of a swap in another process before its next one."""
    stamp = store.stamp(KEY)
    before = stamp()
    writer = start("write")
    assert writer.hear() == "2"
    assert stamp() != before


@pytest.mark.parametrize("step", ["utime", "fsync", "replace"])
def test_a_writer_killed_at_any_step_changes_nothing(start: Start, store: FileStore, tmp_path: Path, step: str) -> None:
    """Killed before its record is in place, a writer leaves the old one, no lock, and nothing that stays."""
    writer = start(f"until {step}")
    assert writer.hear() == "stopped"
    left = list(tmp_path.glob("*.tmp"))
    assert [path.stat().st_mode & 0o777 for path in left] == [0o600]
    writer.kill()
    found = store.load(KEY)
    assert found is not None
    assert found.version == 1
    assert store.swap(KEY, found, version(2))
    assert list(tmp_path.glob("*.tmp")) == []


def test_a_record_is_whole_whenever_its_writer_is_killed(start: Start, store: FileStore) -> None:
    """Killed at twenty different moments of its work, a writer leaves what it said it stored, or one more."""
    for turn in range(20):
        writer = start("write")
        said = 0
        for _ in range(1 + turn % 5):
            said = int(writer.hear())
        writer.kill()
        rest = writer.stdout.read().split()
        said = int(rest[-1]) if rest else said
        found = store.load(KEY)
        assert found is not None
        assert found.version in (said, said + 1)
        assert found.tokens[None].extra["fill"] == worker.FILL


def test_the_lease_of_a_killed_process_passes_on(start: Start, store: FileStore) -> None:
    """The holder dies by `kill -9`: whoever waits gets the lease (scenario 21)."""
    holder = start("hold")
    assert holder.hear() == "held"
    waiter = start("hold")
    assert waiter.hear() == "waiting"
    assert is_leased(store)
    holder.kill()
    assert waiter.hear() == "held"
    waiter.say("release")
    assert waiter.hear() == "released"
    assert not is_leased(store)


def test_waiting_for_a_lease_of_another_process_ends_with_none(start: Start, store: FileStore) -> None:
    """A wait that runs out brings no lease, and the next try after the release does (scenario 18)."""
    holder = start("hold")
    assert holder.hear() == "held"
    assert store.lease(KEY, owner="test", seconds=1.0, wait=0.05, stop=lambda: False) is None
    holder.say("release")
    assert holder.hear() == "released"
    assert not is_leased(store)


def test_a_forked_child_does_not_hold_the_lease(start: Start, store: FileStore) -> None:
    """A child forked under a lease neither has it nor can free it, alive or gone (scenario 60)."""
    parent = start("fork")
    assert [parent.hear() for _ in range(3)] == ["child: not mine", "child: refused", "child: stored True"]
    assert parent.hear() == "held"
    assert is_leased(store)
    parent.say("release")
    assert parent.hear() == "released"
    assert not is_leased(store)


def test_a_child_forked_during_a_swap_waits_for_the_parent_only(start: Start, store: FileStore) -> None:
    """A child forked in the middle of another thread's swap swaps after it, and does not hang (scenario 60)."""
    parent = start("fork in swap")
    assert parent.hear() == "child: asks"
    parent.say("go on")
    assert parent.hear() == "child: False, True"
    assert parent.end() == 0
    found = store.load(KEY)
    assert found is not None
    assert found.version == 3
