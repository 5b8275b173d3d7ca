from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stores import worker
from tests.stores.test_file_processes import Start, Worker
from tests.stores.worker import KEY, version
from unexpired.stores.sqlite import SQLiteStore


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SQLiteStore]:
    """The store of this test, with version 1 in it."""
    with SQLiteStore(tmp_path / "sessions.db") as store:
        assert store.swap(KEY, None, version(1))
        yield store


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts workers on the store of this test, and leaves none behind."""
    started: list[Worker] = []

    def one(task: str) -> Worker:
        started.append(Worker(task, f"sqlite:{tmp_path / 'sessions.db'}"))
        return started[-1]

    yield one
    for process in started:
        process.kill()
        process.stdin.close()
        process.stdout.close()


def stored(store: SQLiteStore) -> int:
    """The number of the stored version."""
    found = store.load(KEY)
    assert found is not None
    return found.version


def is_leased(store: SQLiteStore) -> bool:
    """Whether somebody holds the lease now."""
    lease = store.lease(KEY, owner="test", seconds=1.0, wait=0.0, stop=lambda: False)
    if lease is not None:
        lease.release()
    return lease is None


def test_no_update_of_four_processes_is_lost(start: Start, store: SQLiteStore) -> None:
    """Four processes that add 50 versions each end at 200 more: each swap saw the one before it."""
    workers = [start("count") for _ in range(4)]
    assert [process.hear() for process in workers] == ["ready"] * 4
    for process in workers:
        process.say("go")
    assert [process.hear() for process in workers] == ["done"] * 4
    assert [process.end() for process in workers] == [0] * 4
    assert stored(store) == 201


def test_processes_that_make_the_database_together_have_one(start: Start, store: SQLiteStore, tmp_path: Path) -> None:
    """Of four processes that find no database and store the first version at once, one wins; nothing is lost."""
    store.close()
    for path in tmp_path.glob("sessions.db*"):
        if path.is_file():
            path.unlink()
    workers = [start("first") for _ in range(4)]
    assert [process.hear() for process in workers] == ["ready"] * 4
    for process in workers:
        process.say("go")
    assert sorted(process.hear() for process in workers) == ["False"] * 3 + ["True"]
    assert stored(store) == 1


def test_a_reader_never_sees_an_older_record_after_a_newer(start: Start, store: SQLiteStore) -> None:
    """While one process swaps, another reads whole records, never an older after a newer (scenario 31)."""
    reader = start("read")
    assert reader.hear() == "ready"
    reader.say("150")
    for number in range(1, 150):
        assert store.swap(KEY, version(number), version(number + 1))
    assert reader.hear().startswith("seen ")
    assert reader.end() == 0


def test_each_change_by_another_process_shows_in_the_stamp(start: Start, store: SQLiteStore) -> None:
    """What another process says it has stored shows in the next stamp, a hundred times (scenario 15)."""
    stamp = store.stamp(KEY)
    before = stamp()
    writer = start("answer")
    for number in range(2, 102):
        writer.say("go on")
        assert writer.hear() == str(number)
        after = stamp()
        assert after != before
        assert stamp() == after
        before = after


@pytest.mark.parametrize(("step", "left"), [("before", 1), ("after", 1), ("committed", 2)])
def test_a_writer_killed_at_any_step_leaves_no_stale_memory(
    start: Start, store: SQLiteStore, step: str, left: int
) -> None:
    """Killed around its commit, a writer leaves the old record or the new one, and stamps that tell which it is."""
    stamp = store.stamp(KEY)
    known = stamp(), stored(store)
    writer = start(f"change {step}")
    assert writer.hear() == "stopped"
    during = stamp(), stored(store)
    writer.kill()
    after = stamp(), stored(store)
    assert after[1] == left
    for (one, seen), (other, then) in ((known, during), (known, after), (during, after)):
        assert one != other or seen == then, "the record changed, and the stamp did not"
    assert stamp() == after[0], "the stamp changes by itself"
    assert store.swap(KEY, version(left), version(3))
    settled = stamp()
    assert settled != after[0]
    assert isinstance(settled, bytes), "after the next swap a stamp is cheap again"


def test_what_was_seen_before_the_commit_is_not_kept_after_it(start: Start, store: SQLiteStore) -> None:
    """Who looks between a writer's announcement and its commit looks again after, though the writer dies in between."""
    stamp = store.stamp(KEY)
    writer = start("change after")
    assert writer.hear() == "stopped"
    announced = stamp(), stored(store)
    writer.say("go on")
    assert writer.hear() == "stopped"
    committed = stamp(), stored(store)
    writer.kill()
    assert (announced[1], committed[1]) == (1, 2)
    assert announced[0] != committed[0]
    assert stamp() == committed[0]


def test_a_record_is_whole_whenever_its_writer_is_killed(start: Start, store: SQLiteStore) -> None:
    """Killed at twelve different moments of its work, a writer leaves what it said it stored, or one more."""
    stamp = store.stamp(KEY)
    last = stamp()
    for turn in range(12):
        writer = start("write")
        said = 0
        for _ in range(1 + turn % 5):
            said = int(writer.hear())
        writer.kill()
        rest = writer.stdout.read().split()
        said = int(rest[-1]) if rest else said
        assert stamp() != last
        found = store.load(KEY)
        assert found is not None
        assert found.version in (said, said + 1)
        assert found.tokens[None].extra["fill"] == worker.FILL
        last = stamp()


def test_the_lease_of_a_killed_process_passes_on(start: Start, store: SQLiteStore) -> None:
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


def test_a_forked_child_has_connections_of_its_own(start: Start, store: SQLiteStore) -> None:
    """A child forked with open connections, under a lease, stores by itself and holds no lease (scenario 60)."""
    parent = start("fork")
    assert [parent.hear() for _ in range(3)] == ["child: not mine", "child: refused", "child: stored True"]
    assert parent.hear() == "held"
    assert stored(store) == 2
    parent.say("release")
    assert parent.hear() == "released"


def test_children_forked_in_the_middle_of_swaps_do_not_hang(start: Start, store: SQLiteStore) -> None:
    """Twenty children forked while another thread swaps each store a version, and none is lost (scenario 60)."""
    parent = start("forks")
    assert parent.hear() == "done"
    assert parent.end() == 0
    assert stored(store) >= 21


def test_a_stopped_writer_does_not_stop_readers(start: Start, store: SQLiteStore) -> None:
    """While a process is stopped in the middle of a swap, others read, and their stamps stay what they are."""
    writer = start("change after")
    assert writer.hear() == "stopped"
    stamp = store.stamp(KEY)
    seen: list[object] = []

    def read() -> None:
        seen.extend([stored(store), stamp() == stamp()])

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    thread.join(30)
    assert seen == [1, True]
