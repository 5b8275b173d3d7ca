from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import FileStore, MemoryStore, Sealed, SQLiteStore

NAMES = ["alice", "a/b", "../x", "ä\u0301😀", "\ud800", "a" * 300, "two\nlines"]
Keeping = FileStore | MemoryStore | Sealed | SQLiteStore
MAKERS: dict[str, Callable[[Path], Keeping]] = {
    "file": lambda place: FileStore(place / "s"),
    "memory": lambda _: MemoryStore(),
    "sealed": lambda place: Sealed(FileStore(place / "s"), bytes(32)),
    "sqlite": lambda place: SQLiteStore(place / "s" / "s.db"),
}


def begin(key: str) -> Session:
    """A session under that key."""
    return Session.begin(key, "login", "refresh")


@pytest.mark.parametrize("kind", MAKERS)
def test_all_keys_are_listed(tmp_path: Path, kind: str) -> None:
    """Every session is listed by its own key, whatever it is, an ended one too; an empty store lists none."""
    with MAKERS[kind](tmp_path) as store:
        assert list(store.keys()) == []
        assert list(tmp_path.iterdir()) == []
        for name in NAMES:
            assert store.swap(name, None, begin(name))
        assert store.swap("alice", begin("alice"), begin("alice").over("logout", 1.0))
        assert sorted(store.keys()) == sorted(NAMES)


@pytest.mark.parametrize("kind", MAKERS)
def test_sessions_may_come_and_go_meanwhile(tmp_path: Path, kind: str) -> None:
    """A listing that is under way survives whatever is stored meanwhile, and misses nothing that was there before."""
    with MAKERS[kind](tmp_path) as store:
        for number in range(5):
            assert store.swap(f"before {number}", None, begin(f"before {number}"))
        seen: list[str] = []
        listing = store.keys()
        for key in listing:
            seen.append(key)
            more = f"meanwhile {len(seen)}"
            assert store.swap(more, None, begin(more))
        assert {f"before {number}" for number in range(5)} <= set(seen)
        assert len(seen) == len(set(seen))


def test_files_that_are_no_sessions_are_counted(tmp_path: Path) -> None:
    """What cannot be read, or lies under a wrong name, is told at the end; lock files and leftovers are no sessions."""
    store = FileStore(tmp_path)
    for name in ("alice", "bob", "carol"):
        assert store.swap(name, None, begin(name))
    Path(store._path("bob")).write_bytes(b"[]")
    Path(store._path("carol")).chmod(0o644)
    shutil.copy2(store._path("alice"), tmp_path / "copy.json")
    (tmp_path / "nothing.json").touch(mode=0o600)
    (tmp_path / "alice.json.tmp").touch(mode=0o600)
    listing = store.keys()
    assert next(listing) == "alice"
    with pytest.raises(StoreError, match=f"4 session files in {tmp_path} cannot be read"):
        next(listing)


def test_a_directory_that_cannot_be_listed_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An error of the disk is not taken for an empty store."""

    def fail(_: str) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", fail)
    with pytest.raises(StoreError, match=f"cannot list {tmp_path}: Permission denied; let this user write there"):
        list(FileStore(tmp_path).keys())
    tmp_path.chmod(0o777)
    with pytest.raises(StoreError, match="chmod go-w"):
        list(FileStore(tmp_path).keys())


@pytest.mark.parametrize("kind", MAKERS)
def test_a_manager_takes_every_key(tmp_path: Path, kind: str) -> None:
    """Whatever a session is called, broken surrogates included, a login is stored and its token is served."""
    with MAKERS[kind](tmp_path) as store:
        for name in NAMES:
            manager = TokenManager(lambda _: {"access_token": "2"}, store=store, key=name)
            manager.login({"access_token": "1", "refresh_token": "refresh", "expires_in": 300})
            assert manager.token().access_token == "1"
            assert manager.refresh().access_token == "2"
