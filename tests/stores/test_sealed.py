from __future__ import annotations

import base64
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from unexpired._core.session import Ended, Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import FileStore, MemoryStore, Store, sealed
from unexpired.stores.sealed import Sealed
from unexpired.stores.sqlite import SQLiteStore

KEY = "alice@example"
SECRET = "very-secret"
PRIVATE = "nobody-elses-business"
OLD, NEW, OTHER = (bytes([number]) * 32 for number in (1, 2, 3))
FIRST = Session.begin(KEY, "login", Token(f"access {SECRET}", refresh_token=f"refresh {SECRET}"))
SECOND = FIRST.minted(Token(f"access 2 {SECRET}", refresh_token=f"refresh 2 {SECRET}"))


def complaint(store: Store, key: str = KEY) -> str:
    """What the StoreError of loading says; it holds no secret, in itself, its cause or what it names."""
    with pytest.raises(StoreError) as caught:
        store.load(key)
    shown = f"{caught.value!r} {caught.value.__dict__!r} {caught.value.__cause__!r} {store!r}"
    for secret in (SECRET, *(shape for one in (OLD, NEW, OTHER) for shape in (one.hex(), str(one)[2:-1]))):
        assert secret not in shown
    return str(caught.value)


@pytest.fixture(params=["file", "sqlite"])
def inner(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[FileStore | SQLiteStore]:
    """What is sealed."""
    store = FileStore(tmp_path / "s") if request.param == "file" else SQLiteStore(tmp_path / "s" / "s.db")
    with store:
        yield store


def whole() -> Session:
    """A session with a secret in every field that can hold one."""
    token = Token(
        f"access {SECRET}", refresh_token=f"refresh {SECRET}", id_token=SECRET, scope=PRIVATE,
        extra=MappingProxyType({"more": SECRET}),
    )  # fmt: skip
    return replace(
        Session.begin(KEY, "login", token),
        intent=Intent("login", 1, PRIVATE, 1, 1.0),
        failure=Failure("lost", PRIVATE, 1.0, 2.0),
        seeds=(f"seed {SECRET}",),
    )


def test_nothing_lies_in_the_clear(inner: FileStore | SQLiteStore, tmp_path: Path) -> None:
    """No byte of a token, a note or a seed can be found on the disk, in any form (scenario 69)."""
    store = Sealed(inner, OLD)
    assert store.swap(KEY, None, whole())
    assert store.swap(KEY, whole(), whole().minted(Token(f"access 2 {SECRET}")))
    inner.close()
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    content = b"".join(path.read_bytes() for path in files)
    assert KEY.encode() in content
    for secret in (
        SECRET.encode(),
        PRIVATE.encode(),
        base64.b64encode(SECRET.encode())[:-2],
        OLD,
        base64.b64encode(OLD)[:40],
    ):
        assert secret not in content


FLIPS: list[dict[str, Any]] = [
    {"login": "another login"},
    {"version": 2},
    {"notes": 1},
    {"ended": Ended("logout", 1.0)},
    {"seeds": ("seed",)},
    {"tokens": MappingProxyType({None: Token("forged", login="login", minted=1)})},
    {"intent": Intent("login", 1, "owner", 1, 1.0)},
    {"failure": Failure("lost", "why", 1.0, 2.0)},
    {"refresh_token": "sealed:1:"},
    {"refresh_token": "sealed:2:aaaa"},
    {"refresh_token": "refresh"},
    {"refresh_token": None},
]


@pytest.mark.parametrize("flip", FLIPS, ids=lambda flip: next(iter(flip)))
def test_a_field_that_was_changed_is_noticed(flip: dict[str, Any]) -> None:
    """Whichever field of the stored record is changed, it is refused, and left as it is (scenario 69)."""
    inner = MemoryStore()
    assert Sealed(inner, OLD).swap(KEY, None, FIRST)
    good = inner.load(KEY)
    assert good is not None
    forged = replace(good, **flip)
    inner._sessions[KEY] = forged
    text = complaint(Sealed(inner, OLD))
    assert "was changed" in text or "not sealed" in text or "another key" in text
    assert inner.load(KEY) is forged


def test_a_bit_that_was_changed_is_noticed() -> None:
    """Each byte of what is sealed counts, its nonce and its seal too."""
    inner = MemoryStore()
    assert Sealed(inner, OLD).swap(KEY, None, Session.begin(KEY, "login", "refresh"))
    good = inner.load(KEY)
    assert good is not None
    assert good.refresh_token is not None
    head, _, text = good.refresh_token.rpartition(":")
    packed = bytearray(base64.b64decode(text))
    for place in range(len(packed)):
        forged = packed[:]
        forged[place] ^= 1
        inner._sessions[KEY] = replace(good, refresh_token=f"{head}:{base64.b64encode(forged).decode()}")
        assert "was changed" in complaint(Sealed(inner, OLD))
    for short in (b"", bytes(packed[:12]), bytes(packed[:-1]), b"%%%"):
        inner._sessions[KEY] = replace(good, refresh_token=f"{head}:{base64.b64encode(short).decode()}")
        assert "was changed" in complaint(Sealed(inner, OLD))
    inner._sessions[KEY] = replace(good, refresh_token=f"{head}:no base64")
    assert "was changed" in complaint(Sealed(inner, OLD))


def test_records_cannot_be_exchanged() -> None:
    """A record put in the place of another session's is refused, with that session's name written into it too."""
    inner = MemoryStore()
    store = Sealed(inner, OLD)
    for key in ("alice", "bob"):
        assert store.swap(key, None, Session.begin(key, f"login of {key}", f"refresh {SECRET}"))
    stolen = inner.load("bob")
    assert stolen is not None
    for forged in (stolen, replace(stolen, key="alice")):
        inner._sessions["alice"] = forged
        assert "put in the place of another one" in complaint(store, "alice")


def test_an_older_record_is_refused_by_who_saw_a_newer() -> None:
    """Rolled back to an older version, notes or login, a session is refused by any object that saw the newer one."""
    inner = MemoryStore()
    store, watcher = Sealed(inner, OLD), Sealed(inner, OLD)
    noted = FIRST.noted(intent=None, failure=None)
    again = Session.begin(KEY, "login 2", "refresh")
    history: list[Session] = []
    before = None
    for session in (FIRST, noted, noted.minted(Token("2")), again, again.over("logout", 1.0)):
        assert store.swap(KEY, before, session)
        assert watcher.load(KEY) is not None
        kept = inner.load(KEY)
        assert kept is not None
        history.append(kept)
        before = session
    for old in history[:-1]:
        inner._sessions[KEY] = old
        for each in (store, watcher):
            assert "an older one was put back" in complaint(each)
        assert Sealed(inner, OLD).load(KEY) is not None
    inner._sessions[KEY] = history[-1]
    for each in (store, watcher):
        found = each.load(KEY)
        assert found is not None
        assert found.ended is not None


class Slow(MemoryStore):
    """Its loads can be held up after they have read."""

    def __init__(self) -> None:
        super().__init__()
        self.read, self.go_on = threading.Event(), threading.Event()
        self.slow = False

    def load(self, key: str) -> Session | None:
        """As ever, and then perhaps wait."""
        found, slow, self.slow = super().load(key), self.slow, False
        if slow:
            self.read.set()
            assert self.go_on.wait(30)
        return found


@pytest.mark.parametrize("logins", [0, 1, 2])
def test_a_load_that_began_before_a_swap_is_no_roll_back(logins: int) -> None:
    """A slow load that brings what was stored before somebody's swap or login is no crime, and hides none later."""
    inner = Slow()
    store = Sealed(inner, OLD)
    assert store.swap(KEY, None, FIRST)
    inner.slow = True
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(store.load, KEY)
        assert inner.read.wait(30)
        before, after = FIRST, SECOND
        for number in range(logins + 1):
            assert store.swap(KEY, before, after)
            before, after = after, Session.begin(KEY, f"login {number + 2}", "refresh")
        inner.go_on.set()
        assert FIRST.same_version(late.result(30))
    for _ in range(3):
        assert before.same_version(store.load(KEY))
    stored = inner._sessions[KEY]
    assert Sealed(inner, OLD).load(KEY) is not None
    assert store.swap(KEY, before, before.minted(Token("newer")))
    inner._sessions[KEY] = stored
    assert "an older one was put back" in complaint(store)


def test_logins_of_another_process_are_no_roll_back_in_whatever_order_they_are_met() -> None:
    """A slow load that brings a login between two others does not make the last one look like an old one."""
    inner = Slow()
    store, elsewhere = Sealed(inner, OLD), Sealed(inner, OLD)
    first, second, third = (Session.begin(KEY, f"login {number}", "refresh") for number in range(3))
    assert elsewhere.swap(KEY, None, first)
    assert first.same_version(store.load(KEY))
    assert elsewhere.swap(KEY, first, second)
    inner.slow = True
    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(store.load, KEY)
        assert inner.read.wait(30)
        assert elsewhere.swap(KEY, second, third)
        assert third.same_version(store.load(KEY))
        inner.go_on.set()
        assert second.same_version(late.result(30))
    for _ in range(3):
        assert third.same_version(store.load(KEY))


def test_many_threads_that_log_in_at_once_are_no_roll_back() -> None:
    """Eight threads that log in and load again and again never see an alarm."""
    store = Sealed(MemoryStore(), OLD)

    def work(number: int) -> None:
        for turn in range(200):
            before = store.load(KEY)
            store.swap(KEY, before, Session.begin(KEY, f"login {number}.{turn}", "refresh"))

    with ThreadPoolExecutor(8) as pool:
        assert len([*pool.map(work, range(8))]) == 8


def test_only_so_many_sessions_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of newest versions is bounded: the first is forgotten, the last is not."""
    monkeypatch.setattr(sealed, "_REMEMBERED", 3)
    store = Sealed(MemoryStore(), OLD)
    for number in range(5):
        assert store.swap(str(number), None, Session.begin(str(number), "login", "refresh"))
    assert list(store._seen) == ["2", "3", "4"]


def test_it_shows_no_secret_and_knows_what_it_seals(inner: FileStore | SQLiteStore) -> None:
    """Its repr names the store only; a store without keys() is told when sessions are to be listed."""
    store = Sealed(inner, OLD)
    assert repr(store) == f"Sealed({inner!r})"
    assert store.swap(KEY, None, FIRST)
    assert list(store.keys()) == [KEY]
    assert SECRET not in repr(store.load(KEY))
    bare = MemoryStore()
    bare.keys = None  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError, match=r"has no keys\(\)"):
        Sealed(bare, OLD).keys()
