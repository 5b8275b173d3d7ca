from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from unexpired._core.record import SCHEMA, encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import FileStore, _private

# Newer Pythons warn of a fork beside other threads; these children touch nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

KEY = "alice@example"
SECRET = "very-secret"
FIRST = Session.begin(KEY, "login", Token(f"access {SECRET}", refresh_token=f"refresh {SECRET}"))
SECOND = FIRST.minted(Token(f"access 2 {SECRET}"))
WHOLE = encode(FIRST)
NOBODY = 65534


def changed(**fields: object) -> bytes:
    """The good record with other fields."""
    return json.dumps({**json.loads(WHOLE), **fields}).encode()


@pytest.fixture
def store(tmp_path: Path) -> FileStore:
    """A store with one session."""
    store = FileStore(tmp_path / "sessions")
    assert store.swap(KEY, None, FIRST)
    return store


def session_file(store: FileStore) -> Path:
    """Where the one session of these tests lies."""
    return Path(store._path(KEY))


def spoil(path: Path, data: bytes) -> None:
    """Other content for a session file, which else is as it should be."""
    path.touch(mode=0o600)
    path.write_bytes(data)


def complaint(action: Callable[[], object]) -> str:
    """What the StoreError of *action* says; it must hold the key and no secret, in itself or its cause."""
    with pytest.raises(StoreError) as caught:
        action()
    error = caught.value
    assert error.key == KEY
    for text in (str(error), repr(error), repr(error.__dict__), str(error.__cause__), repr(error.__cause__)):
        assert SECRET not in text
    return str(error)


def in_child(user: int | None, action: Callable[[], str]) -> str:
    """What *action* returns in a forked child that runs as *user*, where this process may change that."""
    here, there = os.pipe()
    child = os.fork()
    if child == 0:
        answer = "died"
        try:
            if user is not None and os.geteuid() == 0:
                os.setgroups([])
                os.setgid(user)
                os.setuid(user)
            answer = action()
        finally:
            os.write(there, answer.encode())
            os._exit(0)
    os.close(there)
    with open(here, "rb") as answers:
        answer = answers.read().decode()
    os.waitpid(child, 0)
    return answer


def said(action: Callable[[], object]) -> str:
    """What *action* returned, or what its StoreError says."""
    try:
        return repr(action())
    except StoreError as error:
        return str(error)


@pytest.fixture
def open_place() -> Iterator[Path]:
    """A directory that an unprivileged user can reach and owns; pytest's own are closed to others."""
    with tempfile.TemporaryDirectory(dir="/tmp") as place:
        os.chmod(place, 0o755)
        (Path(place) / "sessions").mkdir(mode=0o700)
        if os.geteuid() == 0:
            os.chown(Path(place) / "sessions", NOBODY, NOBODY)
        yield Path(place) / "sessions"


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "not JSON"),
        (WHOLE[:-1], "truncated"),
        (WHOLE[: len(WHOLE) // 2], "truncated"),
        (WHOLE + WHOLE, "not JSON"),
        (b"\0" * 4096, "not JSON"),
        (b"\xff\xfe" + WHOLE, "not JSON"),
        (b"[" * 100_000, "not JSON"),
        (b"[]", "not a session of unexpired"),
        (b'{"access_token": "very-secret"}', "not a session of unexpired"),
        (changed(unexpired=SCHEMA + 1, more=SECRET), "newer unexpired"),
        (changed(key=f"bob {SECRET}"), "another key"),
        (changed(version=SECRET), "damaged"),
        (changed(tokens=[SECRET]), "damaged"),
    ],
)
def test_a_record_that_cannot_be_read_is_left_alone(store: FileStore, data: bytes, why: str) -> None:
    """Truncated, foreign and newer records are refused with the reason and the path, and never overwritten."""
    path = session_file(store)
    spoil(path, data)
    for action in (
        lambda: store.load(KEY),
        lambda: store.swap(KEY, None, FIRST),
        lambda: store.swap(KEY, FIRST, SECOND),
    ):
        text = complaint(action)
        assert why in text
        assert str(path) in text
        assert path.read_bytes() == data
    assert [found.suffix for found in sorted(path.parent.iterdir())] == [".json", ".swap"]


def test_what_cannot_be_read_is_set_aside_whole(store: FileStore) -> None:
    """Setting aside renames the file, with the time and a number: none is lost, and a login goes through."""
    path = session_file(store)
    for number in (1, 2):
        spoil(path, b"damaged %d" % number)
        store.set_aside(KEY)
        assert not path.exists()
        assert store.load(KEY) is None
    aside = sorted(path.parent.glob(f"{path.name}.set-aside-*Z-*"))
    assert sorted(found.read_bytes() for found in aside) == [b"damaged 1", b"damaged 2"]
    assert [found.stat().st_mode & 0o777 for found in aside] == [0o600, 0o600]
    assert store.swap(KEY, None, SECOND)
    assert SECOND.same_version(store.load(KEY))


def test_names_of_what_was_set_aside_are_not_taken_twice(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two records set aside within the same second both stay."""
    now = time.gmtime()
    monkeypatch.setattr(time, "gmtime", lambda: now)
    path = session_file(store)
    for number in (1, 2, 3):
        spoil(path, b"damaged %d" % number)
        store.set_aside(KEY)
    assert sorted(found.name[-2:] for found in path.parent.glob("*.set-aside-*")) == ["-1", "-2", "-3"]


def test_setting_aside_that_fails_is_told(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """When the file cannot be renamed, the error says so and the file stays."""
    path = session_file(store)
    spoil(path, b"damaged")

    def fail(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "rename", fail)
    assert "cannot rename" in complaint(lambda: store.set_aside(KEY))
    assert path.read_bytes() == b"damaged"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610, 0o644, 0o666])
def test_a_record_that_others_can_reach_is_refused(store: FileStore, mode: int) -> None:
    """A file with any right for group or others is not read, replaced or moved; the error says how to close it."""
    path = session_file(store)
    path.chmod(mode)
    for action in (
        lambda: store.load(KEY),
        lambda: store.swap(KEY, FIRST, SECOND),
        lambda: store.set_aside(KEY),
    ):
        assert f"chmod 600 {path}" in complaint(action)
    assert path.read_bytes() == WHOLE
    path.chmod(0o600)
    assert FIRST.same_version(store.load(KEY))


def test_a_record_of_somebody_else_is_refused(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that another user owns is not read, replaced or moved, even by root."""
    path = session_file(store)
    if os.geteuid() == 0:
        os.chown(path, NOBODY, NOBODY)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
        monkeypatch.setattr(_private, "lock_down", lambda *_, **__: None)
    for action in (
        lambda: store.load(KEY),
        lambda: store.swap(KEY, FIRST, SECOND),
        lambda: store.set_aside(KEY),
    ):
        assert "belongs to another user" in complaint(action)
    assert path.read_bytes() == WHOLE


def test_a_disk_that_cannot_be_read_is_told(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk while reading is not taken for an empty or a damaged record."""

    def fail(_: int) -> None:
        raise OSError(5, "Input/output error")

    with monkeypatch.context() as broken:
        broken.setattr(os, "fstat", fail)
        text = complaint(lambda: store.load(KEY))
    assert f"cannot read {session_file(store)}: Input/output error; check the file system" in text
    assert FIRST.same_version(store.load(KEY))


@pytest.mark.parametrize("kind", ["link", "dangling link", "directory", "fifo"])
def test_a_record_that_is_no_plain_file_is_refused(store: FileStore, tmp_path: Path, kind: str) -> None:
    """A symbolic link, a directory or a pipe in the place of a session file is not followed, opened or replaced."""
    path = session_file(store)
    elsewhere = path.rename(tmp_path / "elsewhere.json")
    if kind == "dangling link":
        elsewhere.unlink()
    if "link" in kind:
        path.symlink_to(elsewhere)
    elif kind == "directory":
        path.mkdir(mode=0o700)
    else:
        os.mkfifo(path, 0o600)
    for action in (
        lambda: store.load(KEY),
        lambda: store.swap(KEY, None, SECOND),
        lambda: store.set_aside(KEY),
    ):
        text = complaint(action)
        assert "symbolic link" in text if "link" in kind else "not a plain file" in text
    assert path.is_symlink() == ("link" in kind)
    assert elsewhere.exists() == (kind != "dangling link")


@pytest.mark.parametrize("suffix", [".lease", ".swap"])
def test_a_lock_file_that_is_a_link_is_refused(store: FileStore, tmp_path: Path, suffix: str) -> None:
    """A lock is not taken through a symbolic link."""
    with suppress(FileNotFoundError):
        os.unlink(store._path(KEY, suffix))
    os.symlink(tmp_path / "elsewhere", store._path(KEY, suffix))
    action: Callable[[], object] = {
        ".lease": lambda: store.lease(KEY, owner="me", seconds=1.0, wait=0.0, stop=lambda: False),
        ".swap": lambda: store.swap(KEY, FIRST, SECOND),
    }[suffix]
    assert "symbolic link" in complaint(action)
    assert not (tmp_path / "elsewhere").exists()


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o720, 0o777])
def test_a_directory_that_others_can_write_in_is_refused(store: FileStore, mode: int) -> None:
    """Where others could put their files in the place of ours, nothing is read or stored."""
    directory = session_file(store).parent
    directory.chmod(mode)
    for action in every_use(store):
        assert f"chmod go-w {directory}" in complaint(action)
    directory.chmod(0o1777)
    assert FIRST.same_version(store.load(KEY))


def every_use(store: FileStore) -> list[Callable[[], object]]:
    """All that looks into the directory."""
    return [
        lambda: store.load(KEY),
        lambda: store.swap(KEY, FIRST, SECOND),
        lambda: store.lease(KEY, owner="me", seconds=1.0, wait=0.0, stop=lambda: False),
        lambda: store.set_aside(KEY),
    ]


def test_a_directory_of_somebody_else_is_refused(store: FileStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory that belongs to neither this user nor root is not used."""
    directory = session_file(store).parent
    if os.geteuid() == 0:
        os.chown(directory, NOBODY, NOBODY)
    else:
        mine = os.geteuid()
        monkeypatch.setattr(os, "geteuid", lambda: mine + 1)
    for action in every_use(store):
        assert "belongs to another user" in complaint(action)


def test_a_directory_that_is_a_link_is_refused(store: FileStore, tmp_path: Path) -> None:
    """A symbolic link in the place of the directory is not followed; the error names what it points to."""
    directory = session_file(store).parent
    (tmp_path / "link").symlink_to(directory)
    for action in every_use(FileStore(tmp_path / "link")):
        text = complaint(action)
        assert "symbolic link" in text
        assert str(directory) in text


def test_a_directory_that_is_a_file_is_refused(tmp_path: Path) -> None:
    """A file in the place of the directory, or of one above it, is told and left alone."""
    (tmp_path / "file").write_text("mine")
    for action in every_use(FileStore(tmp_path / "file")):
        assert "not a directory" in complaint(action)
    for action in every_use(FileStore(tmp_path / "file" / "sessions")):
        assert "Not a directory" in complaint(action)
    assert (tmp_path / "file").read_text() == "mine"


def test_a_directory_that_is_read_only(open_place: Path) -> None:
    """An unprivileged user reads sessions in a read-only directory; storing fails and says what to do."""
    store = FileStore(open_place)
    assert in_child(NOBODY, lambda: said(lambda: store.swap(KEY, None, FIRST))) == "True"
    open_place.chmod(0o500)
    answers = in_child(NOBODY, lambda: "\n".join(map(said, every_use(store)))).splitlines()
    assert answers[0].startswith("Session(")
    assert "Permission denied; let this user write there" in answers[1]
    assert "Permission denied; let this user write there" in answers[2]
    assert answers[3] == "None"
    assert SECRET not in "".join(answers)
    assert Path(store._path(KEY)).read_bytes() == WHOLE


def test_a_directory_that_cannot_be_made(open_place: Path) -> None:
    """Where this user may not make the directory, the error names it."""
    open_place.chmod(0o500)
    store = FileStore(open_place / "a" / "b")
    answer = in_child(NOBODY, lambda: said(lambda: store.swap(KEY, None, FIRST)))
    assert f"cannot create {open_place / 'a'}: Permission denied" in answer


def test_a_directory_that_may_not_be_entered(open_place: Path) -> None:
    """Where this user may not look, the error is not mistaken for an empty store."""
    store = FileStore(open_place / "sessions")
    open_place.chmod(0o000)
    for answer in in_child(NOBODY, lambda: "\n".join(map(said, every_use(store)))).splitlines():
        assert "Permission denied" in answer


FILL_UP = """
import pathlib, resource, sys
from tests.stores.test_file_bad_input import FIRST, KEY, SECOND, said
from unexpired.stores import FileStore
directory, by = pathlib.Path(sys.argv[1]), sys.argv[2]
store = FileStore(directory / "sessions")
assert store.swap(KEY, None, FIRST)
if by == "limit":
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
else:
    with open(directory / "fill", "wb", buffering=0) as fill:
        try:
            while True:
                fill.write(bytes(4096))
        except OSError:
            pass
print(said(lambda: store.swap(KEY, FIRST, SECOND)))
assert FIRST.same_version(store.load(KEY))
assert list(directory.glob("*/*.tmp")) == []
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
(directory / "fill").unlink(missing_ok=True)
print(said(lambda: store.swap(KEY, FIRST, SECOND)))
"""


@pytest.mark.parametrize("by", ["disk", "limit"])
def test_no_space_is_left(tmp_path: Path, by: str) -> None:
    """On a full disk, or at the limit of a file's size, a swap fails and the old session stays."""
    private = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m", "sh", "-c"]
    mount = 'mount -t tmpfs -o size=64k,mode=700 tmpfs "$1"'
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
    assert {"disk": "No space left on device", "limit": "File too large"}[by] + "; free some space" in first
    assert SECRET not in first
    assert second == "True"
