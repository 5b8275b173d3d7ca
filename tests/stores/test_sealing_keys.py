from __future__ import annotations

import base64
import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.stores.test_file_bad_input import NOBODY, in_child
from tests.stores.test_sealed import FIRST, KEY, NEW, OLD, OTHER, SECOND, SECRET, Slow, complaint, inner
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import FileStore, MemoryStore, _sealing_keys, _sealing_ring
from unexpired.stores.sealed import KeySource, Sealed, key_from_environ, key_from_file, new_key
from unexpired.stores.sqlite import SQLiteStore

__all__ = ["inner"]


class Source:
    """A source of keys that counts how often it is asked, and can be slow or broken."""

    def __init__(self, *keys: bytes) -> None:
        self.keys: Any = list(keys)
        self.asked = 0
        self.open = threading.Event()
        self.open.set()

    def __call__(self) -> Any:
        """The keys, or what is wrong with them."""
        self.asked += 1
        assert self.open.wait(30)
        if isinstance(self.keys, BaseException):
            raise self.keys
        return self.keys


def test_a_wrong_key_opens_nothing_and_deletes_nothing(inner: FileStore | SQLiteStore) -> None:
    """Another key is a clear error that names which are known, stays one when setting aside, and loses nothing."""
    assert Sealed(inner, OLD).swap(KEY, None, FIRST)
    wrong = Sealed(inner, OTHER)
    assert "sealed with another key" in complaint(wrong)
    wrong.set_aside(KEY)
    assert "give that one as well" in complaint(wrong)
    assert FIRST.same_version(Sealed(inner, OLD).load(KEY))


def test_what_is_not_sealed_is_refused(inner: FileStore | SQLiteStore) -> None:
    """A record in the clear is not read: anybody could have written it. It stays as it is."""
    assert inner.swap(KEY, None, FIRST)
    assert "it is not sealed" in complaint(Sealed(inner, OLD))
    assert FIRST.same_version(inner.load(KEY))


def test_keys_are_rotated_while_processes_run() -> None:
    """Processes that get the new key one by one understand each other; after resealing nobody needs the old one."""
    inner = MemoryStore()
    early, late = Source(OLD), Source(OLD)
    one, two = Sealed(inner, early), Sealed(inner, late)
    assert one.swap(KEY, None, FIRST)
    assert FIRST.same_version(two.load(KEY))
    early.keys = [NEW, OLD]
    assert one.reseal([]) == 0
    assert one.swap(KEY, FIRST, SECOND)
    assert "sealed with another key" in complaint(two)
    late.keys = [OLD, NEW]
    two._ring._unknown.clear()
    assert SECOND.same_version(two.load(KEY))
    assert two.swap("bob", None, Session.begin("bob", "login", "refresh"))
    assert one.load("bob") is not None
    assert one.reseal() == 2
    only_new = Sealed(inner, NEW)
    assert only_new.load("bob") is not None
    assert SECOND.same_version(only_new.load(KEY))


def test_resealing_overwrites_no_newer_version() -> None:
    """A session that changes while it is sealed anew keeps the change."""
    inner = Slow()
    store, other = Sealed(inner, lambda: [NEW, OLD]), Sealed(inner, OLD)
    assert other.swap(KEY, None, FIRST)
    inner.slow = True
    with ThreadPoolExecutor(1) as pool:
        count = pool.submit(store.reseal)
        assert inner.read.wait(30)
        assert other.swap(KEY, FIRST, SECOND)
        inner.go_on.set()
        assert count.result(30) == 1
    assert SECOND.same_version(Sealed(inner, NEW).load(KEY))


def test_a_slow_source_is_asked_once_and_stops_no_warm_call() -> None:
    """Eight threads that need the key ask a slow KMS once; meanwhile stamps are as quick as ever."""
    inner, source = MemoryStore(), Source(OLD)
    assert Sealed(inner, OLD).swap(KEY, None, FIRST)
    store = Sealed(inner, source)
    stamp = store.stamp(KEY)
    source.open.clear()
    with ThreadPoolExecutor(8) as pool:
        loads = [pool.submit(store.load, KEY) for _ in range(8)]
        until = time.monotonic() + 30
        while not source.asked and time.monotonic() < until:
            time.sleep(0.001)
        assert stamp() is stamp()
        source.open.set()
        assert all(FIRST.same_version(load.result(30)) for load in loads)
    assert source.asked == 1


def test_a_source_is_not_asked_at_every_call_for_a_key_it_has_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """A record under an unknown key makes the source be asked at most once a second."""
    inner, source = MemoryStore(), Source(NEW)
    assert Sealed(inner, OLD).swap(KEY, None, FIRST)
    store = Sealed(inner, source)
    monkeypatch.setattr(_sealing_ring, "_ASK_AGAIN", 1000.0)
    for _ in range(20):
        complaint(store)
    assert source.asked == 1
    monkeypatch.setattr(_sealing_ring, "_ASK_AGAIN", 0.0)
    store._ring._unknown.clear()
    source.keys = [NEW, OLD]
    assert FIRST.same_version(store.load(KEY))
    good = inner.load(KEY)
    assert good is not None
    for number in range(200):
        inner._sessions[KEY] = replace(good, refresh_token=f"sealed:1:made-up-{number}:aaaa")
        complaint(store)
    assert len(store._ring._unknown) <= 64


async def _async() -> bytes:
    return OLD


WRONG_SOURCES: list[Any] = [
    None, "text " + SECRET, 7, b"short", [], [b"short"], [OLD, None], OSError(SECRET), ValueError(SECRET),
    ConfigurationError("the KMS says no"), StoreError("no"),
]  # fmt: skip


@pytest.mark.parametrize("given", WRONG_SOURCES, ids=repr)
def test_a_source_that_raises_or_gives_nonsense(given: Any) -> None:
    """Whatever a source does, the store raises StoreError, stores nothing in the clear, and works once it is mended."""
    inner, source = MemoryStore(), Source()
    source.keys = given
    store = Sealed(inner, source)
    with pytest.raises(StoreError, match="no sealing key") as caught:
        store.swap(KEY, None, FIRST)
    assert SECRET not in str(caught.value)
    assert inner.load(KEY) is None
    source.keys = OLD
    assert store.swap(KEY, None, FIRST)


def test_an_async_source_is_told() -> None:
    """An async function gives no key, and leaves no warning behind."""
    store = Sealed(MemoryStore(), _async)  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="plain function, not an async one"):
        store.swap(KEY, None, FIRST)


@pytest.mark.parametrize("given", [None, "text", 7, b"short", b"", [b"short"], bytearray(32)], ids=repr)
def test_a_key_that_is_none_is_told_at_once(given: Any) -> None:
    """A key that is not 32 bytes is refused where it is given, and so is a store that is none."""
    with pytest.raises(ConfigurationError, match="32 bytes"):
        Sealed(MemoryStore(), given)
    with pytest.raises(ConfigurationError, match="takes a store"):
        Sealed(given, OLD)


def test_keys_come_from_the_environment_or_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One or several as base64, the newest first; a relative path stays where it was; errors name the place only."""
    text = "  ".join(base64.b64encode(key).decode() for key in (NEW, OLD))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("UNEXPIRED_SEAL_KEY", text)
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_text(f"{text}\n")
    sources: list[KeySource] = [key_from_environ(), key_from_file("key")]
    monkeypatch.chdir("/")
    assert [list(source()) for source in sources] == [[NEW, OLD], [NEW, OLD]]
    wrong: list[str | bytes] = ["", "   ", SECRET, "AAAA", base64.b64encode(OLD).decode()[:-2], b"\xff\xfe"]
    for content in wrong:
        (tmp_path / "key").write_bytes(content if isinstance(content, bytes) else content.encode())
        monkeypatch.setenv("UNEXPIRED_SEAL_KEY", os.fsdecode(content))
        for source, name in zip(sources, ("UNEXPIRED_SEAL_KEY", "key"), strict=True):
            with pytest.raises(ConfigurationError, match=name) as caught:
                source()
            assert SECRET not in str(caught.value)
    (tmp_path / "key").unlink()
    with pytest.raises(ConfigurationError, match="No such file"):
        sources[1]()
    monkeypatch.delenv("UNEXPIRED_SEAL_KEY")
    with pytest.raises(ConfigurationError, match="UNEXPIRED_SEAL_KEY is not set: put 32 random bytes there"):
        sources[0]()


def key_file(place: Path, mode: int) -> str:
    """A file with a key, as its owner made it."""
    place.touch(mode=0o600)
    place.write_text(base64.b64encode(OLD).decode())
    place.chmod(mode)
    return str(place)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o644, 0o777])
def test_a_key_file_that_others_may_read_or_write_is_refused(tmp_path: Path, mode: int) -> None:
    """A file of one's own that is not closed to all others holds no secret: StoreError, with what to do."""
    place = key_file(tmp_path / "key", mode)
    with pytest.raises(StoreError, match=f"run: chmod 600 {place}"):
        key_from_file(place)()
    with pytest.raises(StoreError, match=f"no sealing key: refused to read {place}"):
        Sealed(MemoryStore(), key_from_file(place)).swap(KEY, None, FIRST)
    (tmp_path / "key").chmod(0o400)
    assert key_from_file(place)() == [OLD]
    (tmp_path / "link").symlink_to(place)
    assert key_from_file(tmp_path / "link")() == [OLD]
    with pytest.raises((ConfigurationError, StoreError), match="directory"):
        key_from_file(tmp_path)()


@pytest.mark.parametrize(
    ("mode", "owner", "why"),
    [
        (0o100600, NOBODY, "belongs to another user .uid 65534."),
        (0o100444, NOBODY, "belongs to another user"),
        (0o100646, 0, "belongs to another user .uid 0."),
        (0o100664, 0, "belongs to another user"),
        (0o010600, 0, "not a plain file"),
        (0o100444, 0, ""),
        (0o100600, 1000, ""),
    ],
)
def test_whose_key_file_is_taken(monkeypatch: pytest.MonkeyPatch, mode: int, owner: int, why: str) -> None:
    """One of another user is refused; one of root, as containers get their secrets, only if others could write it."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    found = os.stat_result((mode, 1, 1, 1, owner, 0, 44, 0, 0, 0))
    with pytest.raises(StoreError, match=why) if why else nullcontext():
        _sealing_keys._check(found, "/run/secrets/key")


def test_new_keys_differ() -> None:
    """A new key is 32 bytes, and another one each time."""
    assert len({new_key() for _ in range(10)}) == 10
    assert len(new_key()) == 32


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_child_forked_while_the_key_is_fetched_does_not_hang() -> None:
    """A thread of the parent that waits for a KMS keeps no lock in a forked child (scenario 60)."""
    inner, source = MemoryStore(), Source(OLD)
    assert Sealed(inner, OLD).swap(KEY, None, FIRST)
    store = Sealed(inner, source)
    source.open.clear()

    def load() -> str:
        signal.alarm(20)  # a child that hangs ends
        source.open = threading.Event()  # whose lock no thread of the parent held
        source.open.set()
        return repr(FIRST.same_version(store.load(KEY)))

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(store.load, KEY)
        until = time.monotonic() + 30
        while not source.asked and time.monotonic() < until:
            time.sleep(0.001)
        assert in_child(None, load) == "True"
        source.open.set()
        assert FIRST.same_version(late.result(30))
