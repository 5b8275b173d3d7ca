from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.stores.test_file_bad_input import (
    FIRST,
    KEY,
    NOBODY,
    SECOND,
    SECRET,
    complaint,
    in_child,
    open_place,
    said,
)
from unexpired._core.record import encode
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import _private
from unexpired.stores.sqlite import SQLiteStore

__all__ = ["open_place"]

# Newer Pythons warn of a fork beside other threads; these children touch nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the database of this test is."""
    return tmp_path / "sessions" / "sessions.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    """A store with one session."""
    with SQLiteStore(path) as store:
        assert store.swap(KEY, None, FIRST)
        yield store


def every_use(store: SQLiteStore) -> list[Callable[[], object]]:
    """All that looks into the database."""
    return [
        lambda: store.load(KEY),
        lambda: store.swap(KEY, FIRST, SECOND),
        lambda: store.set_aside(KEY),
        lambda: list(store.keys()),
    ]


def raw(path: Path) -> sqlite3.Connection:
    """The database as another program opens it."""
    return sqlite3.connect(path, isolation_level=None)


def complaint_of_any(action: Callable[[], object]) -> str:
    """As `complaint`, where no session is asked for."""
    with pytest.raises(StoreError) as caught:
        action()
    assert SECRET not in f"{caught.value!r} {caught.value.__cause__!r}"
    return str(caught.value)


WRONG_RECORDS: list[tuple[object, str]] = [
    (b"", "not JSON"),
    (encode(FIRST)[:-1], "truncated"),
    (encode(SECOND).replace(KEY.encode(), b"bob"), "another key"),
    (encode(FIRST).replace(b'"unexpired":1', b'"unexpired":99'), "newer unexpired"),
    (10**12, "not JSON"),
    (1.5, "not JSON"),
    ("text " + SECRET, "not JSON"),
]


@pytest.mark.parametrize(("record", "why"), WRONG_RECORDS)
def test_a_record_that_cannot_be_read_is_left_alone(store: SQLiteStore, path: Path, record: object, why: str) -> None:
    """Damaged, foreign and newer records, of any type, are refused with the reason, and set aside whole."""
    with closing(raw(path)) as other:
        other.execute("UPDATE sessions SET record = ?", (record,))
        for action in (
            lambda: store.load(KEY),
            lambda: store.swap(KEY, None, FIRST),
            lambda: store.swap(KEY, FIRST, SECOND),
        ):
            text = complaint(action)
            assert why in text
            assert str(path) in text
        assert other.execute("SELECT record FROM sessions").fetchone() == (record,)
        stamp = store.stamp(KEY)
        before = stamp()
        store.set_aside(KEY)
        assert stamp() != before
        assert store.load(KEY) is None
        assert other.execute("SELECT key, record FROM aside").fetchall() == [(KEY.encode(), record)]
    assert store.swap(KEY, None, SECOND)
    assert SECOND.same_version(store.load(KEY))


@pytest.mark.parametrize("content", [b"mine", b"SQLite format 3\0" + bytes(5000), bytes(4096), b"\x5e\x01\xff" * 3000])
def test_a_file_that_is_no_database_is_left_alone(path: Path, content: bytes) -> None:
    """A file of another kind is refused, and stays as it is."""
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    path.write_bytes(content)
    for action in every_use(SQLiteStore(path)):
        assert "move it away, and log in again" in complaint_of_any(action)
    assert path.read_bytes() == content


@pytest.mark.parametrize("mark", ["", "PRAGMA user_version = 7", "PRAGMA application_id = 7"])
@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_a_database_of_another_program_is_left_alone(path: Path, mark: str, journal: str) -> None:
    """Another program's database is refused; not one byte of it changes, its kind of journal neither."""
    path.parent.mkdir(mode=0o700)
    path.touch(mode=0o600)
    with closing(raw(path)) as other:
        other.execute(f"PRAGMA journal_mode = {journal}")
        other.execute("CREATE TABLE accounts (name TEXT)")
        other.execute(mark)
    before = path.read_bytes()
    for action in every_use(SQLiteStore(path)):
        assert "database of another program; name another file" in complaint_of_any(action)
    assert path.read_bytes() == before
    assert not Path(f"{path}-changes").exists()


def test_a_database_of_a_newer_version_is_left_alone(store: SQLiteStore, path: Path) -> None:
    """What a newer unexpired wrote is refused, and stays as it is."""
    store.close()
    with closing(raw(path)) as other:
        other.execute("PRAGMA user_version = 99")
    before = path.read_bytes()
    for action in every_use(store):
        assert "written by a newer unexpired" in complaint_of_any(action)
    store.close()
    assert path.read_bytes() == before


def test_a_database_without_our_tables_is_told(store: SQLiteStore, path: Path) -> None:
    """A database that lost its tables is an error with what to do, not an empty store."""
    with closing(raw(path)) as other:
        other.execute("DROP TABLE sessions")
    for action in every_use(store):
        assert "SQLITE_ERROR; it is not as unexpired made it: move it away" in complaint_of_any(action)


def test_a_damaged_page_is_told(store: SQLiteStore, path: Path) -> None:
    """A page that the disk garbled is an error, not an empty store."""
    store.close()
    with open(path, "r+b") as file:
        file.seek(4096)
        file.write(os.urandom(4096 * 2))
    answers = [complaint_of_any(action) for action in every_use(store)]
    assert all("it is damaged" in answer or "move it away" in answer for answer in answers), answers


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-changes"])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666])
def test_a_file_that_others_can_reach_is_refused(store: SQLiteStore, path: Path, suffix: str, mode: int) -> None:
    """With any right for others on the database, or on a file beside it, it is not opened; the error says which."""
    with closing(raw(path)) as keeper:
        keeper.execute("SELECT count(*) FROM sessions").fetchone()
        store.close()
        os.chmod(f"{path}{suffix}", mode)
        for action in every_use(store):
            assert f"chmod 600 {path}{suffix}" in complaint_of_any(action)
        assert store.stamp(KEY)() is None
        os.chmod(f"{path}{suffix}", 0o600)
        assert FIRST.same_version(store.load(KEY))


@pytest.mark.parametrize("suffix", ["", "-wal", "-changes"])
def test_a_file_of_somebody_else_is_refused(
    store: SQLiteStore, path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A database that another user owns, or a file beside it, is not opened, even by root."""
    store.close()
    Path(f"{path}{suffix}").touch(mode=0o600)
    if os.geteuid() == 0:
        os.chown(f"{path}{suffix}", NOBODY, NOBODY)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        monkeypatch.setattr(_private, "lock_down", lambda *_, **__: None)
    for action in every_use(store):
        assert "belongs to another user" in complaint_of_any(action)


@pytest.mark.parametrize("suffix", ["", "-wal", "-changes"])
@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "fifo"])
def test_a_file_that_is_no_plain_file_is_refused(path: Path, tmp_path: Path, suffix: str, kind: str) -> None:
    """A link, a directory or a pipe in the place of the database, or of a file beside it, is not followed or opened."""
    with SQLiteStore(path) as store:
        assert store.swap(KEY, None, FIRST)
    place, elsewhere = Path(f"{path}{suffix}"), tmp_path / "elsewhere"
    place.touch(mode=0o600)
    place.rename(elsewhere)
    if kind == "dangling link":
        elsewhere.unlink()
    if "link" in kind:
        place.symlink_to(elsewhere)
    elif kind == "directory":
        place.mkdir(mode=0o700)
    else:
        os.mkfifo(place, 0o600)
    for action in every_use(store):
        assert "not a plain file" in complaint_of_any(action)
    assert elsewhere.exists() == (kind != "dangling link")


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_can_write_in_is_refused(store: SQLiteStore, path: Path, mode: int) -> None:
    """Where others could put a journal beside the database, with the sticky bit too, nothing is read or stored."""
    store.close()
    path.parent.chmod(mode)
    for action in every_use(store):
        text = complaint_of_any(action)
        assert f"chmod go-w {path.parent}" in text or "name one in a directory of your own" in text
    path.parent.chmod(0o755)
    assert FIRST.same_version(store.load(KEY))


def test_a_directory_that_is_a_link_is_refused(store: SQLiteStore, path: Path, tmp_path: Path) -> None:
    """A symbolic link in the place of the directory is not followed; the error names what it points to."""
    (tmp_path / "link").symlink_to(path.parent)
    for action in every_use(SQLiteStore(tmp_path / "link" / path.name)):
        assert str(path.parent) in complaint_of_any(action)
    assert FIRST.same_version(store.load(KEY))


def test_a_directory_that_may_not_be_entered(open_place: Path) -> None:
    """Where an unprivileged user may not look it is told so, by new and old objects: nobody counts as logged out."""
    store = SQLiteStore(open_place / "in" / "sessions.db")
    assert in_child(NOBODY, lambda: said(lambda: store.swap(KEY, None, FIRST))) == "True"

    def look() -> str:
        """What it says before and after the directory is closed to it."""
        before = said(lambda: store.load(KEY) is None)
        open_place.chmod(0o000)
        answers = [said(action) for each in (store, SQLiteStore(store._path)) for action in every_use(each)]
        open_place.chmod(0o700)
        return "\n".join([before, *answers, said(lambda: store.load(KEY) is None)])

    first, *answers, last = in_child(NOBODY, look).splitlines()
    assert (first, last) == ("False", "False")
    assert len(answers) == 8
    assert all("Permission denied" in answer for answer in answers), answers


def test_a_directory_that_is_read_only(open_place: Path) -> None:
    """SQLite writes to read: in a read-only directory an unprivileged user is told so, and nothing is lost."""
    store = SQLiteStore(open_place / "sessions.db")
    assert in_child(NOBODY, lambda: said(lambda: store.swap(KEY, None, FIRST)) + said(store.close)) == "TrueNone"
    open_place.chmod(0o500)
    answers = in_child(NOBODY, lambda: "\n".join(map(said, every_use(store)))).splitlines()
    assert all("let this user write there" in answer for answer in answers), answers
    open_place.chmod(0o700)
    assert in_child(NOBODY, lambda: said(lambda: store.swap(KEY, FIRST, SECOND))) == "True"


FILL_UP = """
import pathlib, resource, sys
from tests.stores.test_sqlite_bad_input import FIRST, KEY, SECOND, said
from unexpired._core.session import Session
from unexpired.stores.sqlite import SQLiteStore
directory, by = pathlib.Path(sys.argv[1]), sys.argv[2]
store = SQLiteStore(directory / "sessions" / "sessions.db")
assert store.swap(KEY, None, FIRST)
stamp = store.stamp(KEY)
before = stamp()
if by == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (66_000, resource.RLIM_INFINITY))
else:
    with open(directory / "fill", "wb", buffering=0) as fill:
        try:
            while True:
                fill.write(bytes(4096))
        except OSError:
            pass
stored, answer = 0, "True"
while answer == "True" and stored < 1000:
    answer = said(lambda: store.swap(f"k{stored}", None, Session.begin(f"k{stored}", "login", "x" * 8000)))
    stored += answer == "True"
print(answer)
assert FIRST.same_version(store.load(KEY))
assert len(list(store.keys())) == stored + 1
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
(directory / "fill").unlink(missing_ok=True)
print(said(lambda: store.swap(KEY, FIRST, SECOND)))
assert stamp() != before
"""


@pytest.mark.parametrize("by", ["disk", "limit"])
def test_no_space_is_left(tmp_path: Path, by: str) -> None:
    """On a full disk, or at the limit of a file's size, a swap fails, what was stored stays, and it goes on after."""
    private = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=512k,mode=700 tmpfs "$1"'
    if by == "disk" and subprocess.run([*private, mount, "sh", str(tmp_path)], check=False).returncode != 0:
        by = "limit"  # this user may not mount a small disk here
    python = f'exec "$0" -c "$2" "$1" {by}'
    shell = [*private, f"{mount} && {python}"] if by == "disk" else ["sh", "-c", python]
    done = subprocess.run(
        [*shell, sys.executable, str(tmp_path), FILL_UP],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert "free some space there" in first
    assert SECRET not in first
    assert second == "True"


@pytest.mark.parametrize("place", ["", "nul\0in it", ":memory:"])
def test_what_is_no_path_is_told(place: str) -> None:
    """What cannot be the path of a file is refused at once."""
    with pytest.raises(ConfigurationError, match="the path of a file"):
        SQLiteStore(place)
