from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import FileStore, _lockfile, _private, file
from unexpired.stores._lockfile import FileLease, exclusive

KEY = "alice@example"
FIRST = Session.begin(KEY, "login", Token("access 1", refresh_token="refresh"))
SECOND = FIRST.minted(Token("access 2"))


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with one session, in a directory that it made itself."""
    store = FileStore(tmp_path / "sessions")
    assert store.swap(KEY, None, FIRST)
    return store


def only(directory: Path, pattern: str) -> Path:
    """The one file there is of that pattern."""
    (found,) = directory.glob(pattern)
    return found


def mode(path: Path) -> int:
    """The permission bits of *path*."""
    return path.stat().st_mode & 0o7777


def failing(error: int) -> Callable[..., Any]:
    """A function of module os that fails."""

    def fail(*_: object, **__: object) -> None:
        raise OSError(error, os.strerror(error))

    return fail


def take(store: FileStore, wait: float, stop: Callable[[], bool] = lambda: False) -> FileLease | None:
    """The lease on the one key of these tests."""
    return store.lease(KEY, owner="test", seconds=1.0, wait=wait, stop=stop)


def test_looking_leaves_no_trace(tmp_path: Path) -> None:
    """Creating a store, loading, stamping and asking who it is make nothing on disk."""
    store = FileStore(tmp_path / "a" / "sessions")
    assert store.load(KEY) is None
    assert store.stamp(KEY)() is None
    assert store.identity == ("file", str((tmp_path / "a" / "sessions").resolve()))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_everything_made_is_closed_to_others(tmp_path: Path, umask: int) -> None:
    """Directories are made 0700, session and lock files 0600, whatever the umask."""
    before = os.umask(umask)
    try:
        store = FileStore(tmp_path / "a" / "sessions")
        assert store.swap(KEY, None, FIRST)
        lease = take(store, 0.0)
    finally:
        os.umask(before)
    assert lease is not None
    assert [mode(path) for path in (tmp_path / "a", tmp_path / "a" / "sessions")] == [0o700, 0o700]
    files = sorted((tmp_path / "a" / "sessions").iterdir())
    assert [path.suffix for path in files] == [".json", ".lease", ".swap"]
    assert [mode(path) for path in files] == [0o600, 0o600, 0o600]


def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """Only what the store makes gets a mode from it."""
    (tmp_path / "shown").mkdir(mode=0o755)
    (tmp_path / "shown").chmod(0o755)
    assert FileStore(tmp_path / "shown").swap(KEY, None, FIRST)
    assert mode(tmp_path / "shown") == 0o755


def test_the_environment_names_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a directory it is UNEXPIRED_HOME, as it is at first use, else the user's data directory."""
    store = FileStore()
    monkeypatch.setenv("UNEXPIRED_HOME", str(tmp_path / "home"))
    assert store.swap(KEY, None, FIRST)
    monkeypatch.delenv("UNEXPIRED_HOME")
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.setenv("HOME", str(tmp_path / "data"))
    assert FileStore().load(KEY) is None
    assert store.load(KEY) is not None
    assert FileStore().swap(KEY, None, FIRST)
    assert only(tmp_path / "home", "*.json").is_file()
    assert only(tmp_path / "data", "**/unexpired/*.json").is_file()


def test_a_relative_directory_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path, or one from the home directory, means the same for the store's whole life."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    relative, home = FileStore("sessions"), FileStore("~/sessions")
    monkeypatch.chdir("/")
    assert relative.identity == home.identity == FileStore(tmp_path / "sessions").identity
    assert relative.swap(KEY, None, FIRST)
    assert home.load(KEY) is not None


@pytest.mark.parametrize(
    ("key", "slug"),
    [
        ("alice@crm", "alice@crm"),
        ("../../etc/passwd", "etc-passwd"),
        ("", "session"),
        ("…", "session"),
        ("..", "session"),
        ("a" * 300, "a" * 40),
        ("two\nlines\0", "two-lines"),
        ("\ud800", "session"),
    ],
)
def test_a_file_name_is_readable_and_safe(tmp_path: Path, key: str, slug: str) -> None:
    """A file is named by what is harmless of its key, cut short, and a digest of the whole key."""
    path = Path(FileStore(tmp_path)._path(key))
    assert path.parent == tmp_path
    assert re.fullmatch(re.escape(slug) + r"-[0-9a-f]{16}\.json", path.name)


def test_a_record_is_on_disk_before_it_has_its_name(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file is synced before it is renamed, and the directory after: no crash finds a torn one (scenario 31)."""
    steps: list[str] = []

    def watch(name: str) -> None:
        real = getattr(os, name)

        def note(target: int | str, *rest: Any, **options: Any) -> Any:
            kind = "directory" if stat.S_ISDIR(os.stat(target).st_mode) else "file"
            steps.append(f"{name} {kind}")
            return real(target, *rest, **options)

        monkeypatch.setattr(os, name, note)

    for name in ("fsync", "replace"):
        watch(name)
    assert store.swap(KEY, FIRST, SECOND)
    assert steps == ["fsync file", "replace file", "fsync directory"]


@pytest.mark.parametrize("step", ["utime", "fsync", "replace"])
def test_a_failed_swap_leaves_the_old_record(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Whatever step fails, the error names the file and the reason, the old session stays, nothing is left over."""
    with monkeypatch.context() as broken:
        broken.setattr(os, step, failing(errno.ENOSPC))
        with pytest.raises(StoreError, match=r"cannot write .*\.json: No space left on device; free some space"):
            store.swap(KEY, FIRST, SECOND)
    assert FIRST.same_version(store.load(KEY))
    assert list(tmp_path.glob("sessions/*.tmp")) == []
    assert store.swap(KEY, FIRST, SECOND)


def test_an_interrupted_swap_leaves_nothing_over(
    store: FileStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in the middle of a swap passes through; the lock is free and the old session stored."""

    def interrupt(_: int) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", interrupt)
        with pytest.raises(KeyboardInterrupt):
            store.swap(KEY, FIRST, SECOND)
    assert list(tmp_path.glob("sessions/*.tmp")) == []
    assert store.swap(KEY, FIRST, SECOND)


@pytest.mark.parametrize(("error", "fails"), [(errno.EINVAL, False), (errno.ENOTSUP, False), (errno.EIO, True)])
def test_a_directory_that_cannot_be_synced(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, error: int, fails: bool
) -> None:
    """A file system that cannot sync directories is no reason to fail; one that fails to is."""
    real = os.fsync

    def sync(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            failing(error)()
        real(descriptor)

    monkeypatch.setattr(os, "fsync", sync)
    if fails:
        with pytest.raises(StoreError, match="check the file system"):
            store.swap(KEY, FIRST, SECOND)
    else:
        assert store.swap(KEY, FIRST, SECOND)


def test_what_a_dead_writer_left_is_cleared(store: FileStore, tmp_path: Path) -> None:
    """A temporary file, or a link laid in its place, is removed by the next swap and never written through."""
    temporary = only(tmp_path, "sessions/*.json").with_suffix(".json.tmp")
    victim = tmp_path / "victim"
    victim.write_text("untouched")
    temporary.symlink_to(victim)
    assert store.swap(KEY, FIRST, SECOND)
    assert not os.path.lexists(temporary)
    assert victim.read_text() == "untouched"
    temporary.write_text("half a rec")
    assert store.swap(KEY, SECOND, SECOND.minted(Token("access 3")))
    assert not temporary.exists()


def test_a_clock_that_is_set_back_hides_no_change(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """The file's time grows with each swap, even when the clock does not."""
    stamp, before, seen = store.stamp(KEY), FIRST, []
    monkeypatch.setattr(time, "time_ns", lambda: 1_000_000_000)
    for number in range(5):
        after = before.minted(Token(f"access {number}"))
        assert store.swap(KEY, before, after)
        before = after
        seen.append(stamp())
    times = [found[0] for found in seen if isinstance(found, tuple)]
    assert times == sorted(set(times))
    assert len(times) == 5


def test_coarse_file_times_hide_no_change(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the file system keeps seconds only, quick swaps still differ in their time."""
    real = os.utime

    def coarse(path: str, *, ns: tuple[int, int]) -> None:
        real(path, ns=(ns[0], ns[1] // 2_000_000_000 * 2_000_000_000))

    monkeypatch.setattr(os, "utime", coarse)
    stamp, before, times = store.stamp(KEY), FIRST, []
    for number in range(5):
        after = before.minted(Token(f"access {number}"))
        assert store.swap(KEY, before, after)
        before = after
        found = stamp()
        assert isinstance(found, tuple)
        times.append(found[0])
    assert times == sorted(set(times))


def test_threads_queue_up_for_a_swap(store: FileStore) -> None:
    """Eight threads that add ten versions each lose none, and none of them is turned away."""

    def add() -> None:
        for _ in range(10):
            done = False
            while not done:
                before = store.load(KEY)
                assert before is not None
                done = store.swap(KEY, before, before.minted(Token("access")))

    with ThreadPoolExecutor(8) as pool:
        for future in [pool.submit(add) for _ in range(8)]:
            future.result(30)
    found = store.load(KEY)
    assert found is not None
    assert found.version == FIRST.version + 80


@pytest.mark.parametrize("by", ["thread", "process"])
def test_a_swap_that_cannot_have_its_lock_is_an_error(
    store: FileStore, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    """When somebody does not let go of the lock of a swap, the swap fails in bounded time and changes nothing."""
    monkeypatch.setattr(file, "_SWAP_WAIT", 0.05)
    path = store._path(KEY, ".swap")
    # As another process: past the mutex that the threads of one process share.
    other = exclusive(path, KEY, 1.0) if by == "thread" else FileLock(path)
    with other, pytest.raises(StoreError, match=r"somebody has held .*\.swap for 0\.05 s"):
        store.swap(KEY, FIRST, SECOND)
    assert store.swap(KEY, FIRST, SECOND)


@pytest.mark.parametrize("wait", [0.0, -1.0])
def test_a_lease_without_waiting_is_asked_for_once(store: FileStore, wait: float) -> None:
    """With no time left, also with less than none, one try is made."""
    held = take(store, wait)
    assert held is not None
    assert take(store, wait) is None
    held.release()


def test_a_lease_that_was_dropped_is_free(store: FileStore) -> None:
    """A lease that nobody refers to any more does not stay held."""
    assert take(store, 0.0) is not None
    again = take(store, 5.0)
    assert again is not None
    again.release()


def test_the_age_of_a_lease_counts_from_before_the_grant(store: FileStore) -> None:
    """The time spent waiting is no part of the age, but for the last step of it."""
    held = take(store, 0.0)
    assert held is not None
    asked: list[float] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        if len(asked) == 20:
            held.release()
        return False

    mine = take(store, 30.0, stop)
    assert mine is not None
    assert mine.age() >= 0.0
    assert mine.age() < time.monotonic() - asked[10]
    mine.release()


def test_a_machine_without_a_clock_for_suspend(monkeypatch: pytest.MonkeyPatch, store: FileStore) -> None:
    """Where no clock runs during suspend, the age is told by the monotonic one."""
    monkeypatch.setattr(_lockfile, "_CLOCK", None)
    monkeypatch.setattr(time, "monotonic", lambda: 5.0)
    held = take(store, 0.0)
    assert held is not None
    monkeypatch.setattr(time, "monotonic", lambda: 7.0)
    assert held.age() == 2.0
    held.release()


def test_a_file_system_without_locks_is_an_error(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files cannot be locked, nothing weaker is used in their place."""
    with monkeypatch.context() as broken:
        broken.setattr(fcntl, "flock", failing(errno.ENOSYS))
        with pytest.raises(StoreError, match="the file system cannot lock files"):
            take(store, 0.0)
        with pytest.raises(StoreError, match="the file system cannot lock files"):
            store.swap(KEY, FIRST, SECOND)
    assert FIRST.same_version(store.load(KEY))


def test_a_lock_that_cannot_be_given_back_is_an_error(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A release that the system refuses is told, and can be repeated."""
    held = take(store, 0.0)
    assert held is not None
    with monkeypatch.context() as broken:
        broken.setattr(fcntl, "flock", failing(errno.EIO))
        with pytest.raises(StoreError, match=r"cannot unlock .*\.lease"):
            held.release()
    held.release()
    assert take(store, 0.0) is not None


def test_a_system_without_posix_takes_the_same_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without owners, modes and directory syncs, sessions are stored and found all the same."""
    monkeypatch.setattr(_private, "_POSIX", False)
    store = FileStore(tmp_path / "sessions")
    assert store.swap(KEY, None, FIRST)
    only(tmp_path, "sessions/*.json").chmod(0o644)
    assert FIRST.same_version(store.load(KEY))


def test_two_processes_may_make_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that another process makes at the same moment is used."""
    real = os.mkdir

    def twice(path: str, mode: int) -> None:
        real(path, mode)
        real(path, mode)

    monkeypatch.setattr(os, "mkdir", twice)
    assert FileStore(tmp_path / "sessions").swap(KEY, None, FIRST)


def test_mutexes_come_and_go() -> None:
    """Threads that swap the same path share a mutex, which is forgotten when nobody uses it."""
    mutexes = _lockfile._Mutexes()
    one = mutexes.of("path")
    assert mutexes.of("path") is one
    assert mutexes.of("other path") is not one
    assert isinstance(one, type(threading.Lock()))
    del one
    assert len(mutexes._by_path) == 0


@pytest.mark.parametrize("directory", ["/var/a\0b", b"/var/a\0b"])
def test_a_path_that_cannot_be_is_refused_at_once(directory: Any) -> None:
    """Not at the first use, with whatever the system says then."""
    with pytest.raises(ConfigurationError, match="NUL"):
        FileStore(directory)
