from __future__ import annotations

import gc
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import pytest

from unexpired import LoginRequired, TokenManager
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import _sqlite_database, _sqlite_talk
from unexpired.stores import sqlite as sqlite_module
from unexpired.stores._changes import Changes
from unexpired.stores.sqlite import SQLiteStore

KEY = "alice@example"
FIRST = Session.begin(KEY, "login", Token("access 1", refresh_token="refresh"))
SECOND = FIRST.minted(Token("access 2"))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of this test is."""
    return tmp_path / "sessions" / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """A store with one session, in a directory that it made itself."""
    with SQLiteStore(path) as store:
        assert store.swap(KEY, None, FIRST)
        yield store


def raw(path: Path) -> sqlite3.Connection:
    """The database as another program opens it."""
    return sqlite3.connect(path, isolation_level=None)


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    """Creating a store, loading, stamping, listing and asking who it is make nothing on disk."""
    store = SQLiteStore(tmp_path / "a" / "sessions.db")
    assert store.load(KEY) is None
    assert store.stamp(KEY)() is None
    assert list(store.keys()) == []
    assert store.identity == ("sqlite", str((tmp_path / "a" / "sessions.db").resolve()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_made_is_closed_to_others(path: Path, umask: int) -> None:
    """Directories are made 0700, the database and all files beside it 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        with SQLiteStore(path) as store:
            assert store.swap(KEY, None, FIRST)
            lease = store.lease(KEY, owner="test", seconds=1.0, wait=0.0, stop=lambda: False)
            assert lease is not None
            modes = {found.name: found.stat().st_mode & 0o7777 for found in path.parent.iterdir()}
            leases = [found.stat().st_mode & 0o7777 for found in Path(f"{path}-leases").iterdir()]
            lease.release()
    finally:
        os.umask(before)
    assert path.parent.stat().st_mode & 0o7777 == 0o700
    assert modes.pop("sessions.db-leases") == 0o700
    assert modes == dict.fromkeys(["sessions.db", "sessions.db-changes", "sessions.db-shm", "sessions.db-wal"], 0o600)
    assert leases == [0o600]


def test_a_relative_path_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, or one from the home directory, or one as bytes, means the same for the store's whole life."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    stores = [SQLiteStore("s.db"), SQLiteStore("~/s.db"), SQLiteStore(os.fsencode(tmp_path / "s.db"))]  # type: ignore[arg-type]
    monkeypatch.chdir("/")
    assert {store.identity for store in stores} == {("sqlite", str(tmp_path / "s.db"))}


def test_a_commit_is_synced(store: SQLiteStore, path: Path) -> None:
    """The journal is write-ahead, and every commit is synced: no crash loses what was reported as stored."""
    assert store._database._writer is not None
    connection = store._database._writer.connection
    assert connection.execute("PRAGMA synchronous").fetchone() == (2,)
    with closing(raw(path)) as other:
        assert other.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_opening_again_writes_nothing(store: SQLiteStore, path: Path) -> None:
    """What only looks does not commit: a database that is up to date is left as it is."""
    with closing(raw(path)) as watcher:
        before = watcher.execute("PRAGMA data_version").fetchone()
        with SQLiteStore(path) as other:
            assert FIRST.same_version(other.load(KEY))
            other.stamp(KEY)()
        assert watcher.execute("PRAGMA data_version").fetchone() == before
    assert FIRST.same_version(store.load(KEY))


def test_keys_are_listed_in_pages(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """All keys are listed, of ended sessions too, page by page, while others are stored."""
    monkeypatch.setattr(sqlite_module, "_NEXT", sqlite_module._NEXT.replace("1000", "2"))
    names = [f"user {number}" for number in range(7)] + ["ä\u0301😀", "\ud800"]
    for name in names:
        assert store.swap(name, None, Session.begin(name, "login", "refresh"))
    assert store.swap(KEY, FIRST, FIRST.over("logout", 1.0))
    assert sorted(store.keys()) == sorted([KEY, *names])


def test_a_stamp_is_one_small_read(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """While nothing changes, the database is not asked: the stamp comes out of the file of changes."""
    stamp = store.stamp(KEY)
    before = stamp()
    monkeypatch.setattr(store._database, "find", None)
    assert [stamp() for _ in range(100)] == [before] * 100
    assert isinstance(before, bytes)


def test_a_system_without_positioned_reads_asks_the_database(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where there is no pread, as on Windows, the database itself tells of changes."""
    monkeypatch.setattr(_sqlite_database, "_HAS_PREAD", False)
    monkeypatch.delattr(os, "pread")
    with SQLiteStore(path) as store, SQLiteStore(path) as other:
        assert store.swap(KEY, None, FIRST)
        stamp = store.stamp(KEY)
        before = stamp()
        assert stamp() == before
        assert other.swap(KEY, FIRST, SECOND)
        assert stamp() != before
    assert not Path(f"{path}-changes").exists()


def test_the_file_of_changes_holds_nothing_of_a_session(store: SQLiteStore, path: Path) -> None:
    """It is made of random numbers, and made anew when it is missing; stamps then differ from all before."""
    stamp = store.stamp(KEY)
    before = stamp()
    changes = Path(f"{path}-changes")
    assert len(changes.read_bytes()) == 65_536
    changes.unlink()
    with SQLiteStore(path) as other:
        assert other.swap(KEY, FIRST, SECOND)
    until = time.monotonic() + 10
    while stamp() == before and time.monotonic() < until:
        time.sleep(0.005)
    assert stamp() != before
    assert SECOND.same_version(store.load(KEY))


@pytest.mark.parametrize("size", [0, 8, 16])
def test_a_file_of_changes_that_was_cut_short_costs_time_only(store: SQLiteStore, path: Path, size: int) -> None:
    """Emptied or cut short, it hides no change: the database is asked."""
    os.truncate(f"{path}-changes", size)
    stamp = store.stamp(KEY)
    before = stamp()
    with SQLiteStore(path) as other:
        assert other.swap(KEY, FIRST, SECOND)
    assert stamp() != before


def test_a_file_of_changes_that_cannot_be_written(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap that cannot announce itself is not done; one that cannot say that it is over costs time only."""
    real, stamp = os.pwrite, store.stamp(KEY)

    def fail(descriptor: int, data: bytes, place: int) -> int:
        if place % 16 == which:
            raise OSError(28, "No space left on device")
        return real(descriptor, data, place)

    monkeypatch.setattr(os, "pwrite", fail)
    which = 0
    with pytest.raises(StoreError, match=r"cannot write .*-changes: No space left on device; free some space"):
        store.swap(KEY, FIRST, SECOND)
    assert FIRST.same_version(store.load(KEY))
    which = 8
    assert store.swap(KEY, FIRST, SECOND)
    before = stamp()
    assert stamp() == before
    assert store.swap(KEY, SECOND, SECOND.minted(Token("access 3")))
    assert stamp() != before
    monkeypatch.setattr(os, "pwrite", lambda *_: 3)
    with pytest.raises(StoreError, match="no space is left"):
        store.swap("bob", None, Session.begin("bob", "login", "refresh"))


def test_its_descriptors_are_closed(path: Path) -> None:
    """A store that is closed, or dropped unclosed, leaves no file open, and warns of nothing."""

    def open_files() -> list[str]:
        found = []
        for descriptor in Path("/proc/self/fd").iterdir():
            with suppress(FileNotFoundError):
                found.append(os.readlink(descriptor))
        return [name for name in found if name.startswith(str(path))]

    for close in (True, False):
        store = SQLiteStore(path)
        assert store.swap(str(close), None, Session.begin(str(close), "login", "refresh"))
        store.stamp(KEY)()
        if close:
            store.close()
        else:
            assert open_files()
        del store
        gc.collect()
        assert open_files() == []


@pytest.mark.parametrize("what", ["all", "database", "replaced"])
def test_a_database_that_was_removed_or_replaced_is_noticed(store: SQLiteStore, path: Path, what: str) -> None:
    """A running manager that remembers a login sees within seconds that it is gone, or another one, and goes on."""
    manager = TokenManager(lambda _: {"access_token": "new"}, store=store, key=KEY)
    manager.login({"access_token": "first", "refresh_token": "refresh"})
    assert manager.token().access_token == "first"
    for found in path.parent.glob("*.db*" if what == "all" else "*.db"):
        if found.is_file():
            found.unlink()
    if what == "replaced":
        with SQLiteStore(path) as other:
            assert other.swap(KEY, None, Session.begin(KEY, "login 2", Token("second", refresh_token="refresh 2")))
    until, seen = time.monotonic() + 10, "first"
    while seen == "first" and time.monotonic() < until:
        try:
            seen = manager.token().access_token
        except LoginRequired as error:
            seen = error.reason
    assert seen == ("second" if what == "replaced" else "no_session")
    manager.login({"access_token": "third", "refresh_token": "refresh 3"})
    with SQLiteStore(path) as other:
        found_there = other.load(KEY)
        assert found_there is not None
        assert found_there.tokens[None].access_token == "third"


def test_closing_while_others_use_it(store: SQLiteStore) -> None:
    """Threads that read, stamp and swap while another one closes again and again meet no error and lose nothing."""
    enough = threading.Event()
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)

    def read() -> int:
        stamp, count = store.stamp(KEY), 0
        while not enough.is_set():
            assert store.load(KEY) is not None
            assert stamp() is not None
            count += 1
        return count

    def write(name: str) -> int:
        session, count = Session.begin(name, "login", "refresh"), 0
        assert store.swap(name, None, session)
        while not enough.is_set():
            following = session.minted(Token("access"))
            assert store.swap(name, session, following)
            session, count = following, count + 1
        found = store.load(name)
        assert found is not None
        assert found.version == session.version
        return count

    try:
        with ThreadPoolExecutor(4) as pool:
            running = [pool.submit(read), pool.submit(read), pool.submit(write, "a"), pool.submit(write, "b")]
            for _ in range(50):
                store.close()
                time.sleep(0.002)
            enough.set()
            assert all(each.result(30) > 0 for each in running)
    finally:
        enough.set()
        sys.setswitchinterval(interval)


def test_a_database_that_somebody_holds(store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While another program writes, reading goes on; a swap waits, then says who to look for, and works after."""
    store.close()
    monkeypatch.setattr(_sqlite_database, "BUSY", 0.1)
    with closing(raw(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert FIRST.same_version(store.load(KEY))
        with pytest.raises(StoreError, match="look for a process that is stopped"):
            store.swap(KEY, FIRST, SECOND)
        other.execute("ROLLBACK")
    assert store.swap(KEY, FIRST, SECOND)


def test_a_thread_that_holds_it_is_not_waited_for_without_end(
    store: SQLiteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A swap waits for a swap of another thread, and no longer than for another process."""
    monkeypatch.setattr(_sqlite_database, "BUSY", 0.1)
    said: list[str] = []

    def swap() -> None:
        try:
            store.swap(KEY, FIRST, SECOND)
        except StoreError as error:
            said.append(str(error))

    with store._database.written(KEY):
        thread = threading.Thread(target=swap)
        thread.start()
        thread.join(10)
    assert len(said) == 1
    assert "another thread has been writing" in said[0]


def test_an_interrupted_swap_leaves_the_old_record(store: SQLiteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C in the middle of a swap passes through; nothing is held, and the old session is stored."""

    def interrupt(*_: object) -> bytes:
        raise KeyboardInterrupt

    stamp = store.stamp(KEY)
    with monkeypatch.context() as broken:
        broken.setattr(Changes, "begin", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.swap(KEY, FIRST, SECOND)
    assert FIRST.same_version(store.load(KEY))
    before = stamp()
    assert store.swap(KEY, FIRST, SECOND)
    assert stamp() != before


def test_an_older_database_is_brought_up_to_date(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A newer version of the schema is reached step by step, keeping what is stored, while an older program is told."""
    newer = (*_sqlite_database._MIGRATIONS, ("ALTER TABLE sessions ADD COLUMN more TEXT", "CREATE TABLE made_up (x)"))
    with monkeypatch.context() as next_year:
        next_year.setattr(_sqlite_database, "_MIGRATIONS", newer)
        with SQLiteStore(path) as updated:
            assert FIRST.same_version(updated.load(KEY))
            assert updated.swap(KEY, FIRST, SECOND)
    with closing(raw(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (2,)
        assert other.execute("SELECT count(more) FROM sessions").fetchone() == (0,)
    store.close()
    with pytest.raises(StoreError, match="newer unexpired"):
        store.load(KEY)


def test_a_step_of_the_schema_that_fails_changes_nothing(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A migration is done as a whole or not at all."""
    broken = (*_sqlite_database._MIGRATIONS, ("CREATE TABLE made_up (x)", "CREATE TABLE made_up (x)"))
    monkeypatch.setattr(_sqlite_database, "_MIGRATIONS", broken)
    with SQLiteStore(path) as updated, pytest.raises(StoreError, match="SQLITE_ERROR"):
        updated.load(KEY)
    monkeypatch.undo()
    assert FIRST.same_version(store.load(KEY))
    with closing(raw(path)) as other:
        assert other.execute("PRAGMA user_version").fetchone() == (1,)
        assert other.execute("SELECT count(*) FROM sqlite_master WHERE name = 'made_up'").fetchone() == (0,)


def test_what_does_not_wait_by_itself_is_tried_again() -> None:
    """A statement that finds the database busy is repeated until the time is up; any other error is not."""
    busy = sqlite3.OperationalError("database is locked")
    busy.sqlite_errorcode = sqlite3.SQLITE_BUSY

    class Connection:
        tries = 0

        def execute(self, _: str) -> None:
            self.tries += 1
            if self.tries < 3:
                raise busy

    connection = Connection()
    _sqlite_talk.patiently(connection, "…", 10.0)  # type: ignore[arg-type]
    assert connection.tries == 3
    connection.tries = 0
    with pytest.raises(sqlite3.OperationalError):
        _sqlite_talk.patiently(connection, "…", 0.0)  # type: ignore[arg-type]
