from __future__ import annotations

import gc
import threading
import weakref
from pathlib import Path

import pytest

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.stores import FileStore, MemoryStore
from unexpired.stores.memory import MemoryLease, _after_fork

FIRST = Session.begin("key", "login", Token("access", refresh_token="refresh"))


def take(store: MemoryStore, wait: float) -> MemoryLease | None:
    """The lease on the one key of these tests."""
    return store.lease("key", owner="me", seconds=1.0, wait=wait, stop=lambda: False)


def test_two_stores_share_nothing() -> None:
    """What one store keeps, and a lease on it, is nothing to another store."""
    one, other = MemoryStore(), MemoryStore()
    assert one.swap("key", None, FIRST)
    held = take(one, 0.0)
    assert held is not None
    assert other.load("key") is None
    assert take(other, 0.0) is not None


def test_an_identity_is_never_used_again() -> None:
    """A later store is not taken for an earlier one that is gone, wherever it may lie in memory."""
    identities = set()
    for _ in range(100):
        identities.add(MemoryStore().identity)
        gc.collect(0)
    assert len(identities) == 100


def test_a_wait_of_nothing_returns_at_once() -> None:
    """With nothing to wait for, neither *stop* nor the clock is waited on: the answer is None."""
    store = MemoryStore()
    assert take(store, 0.0) is not None
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return False

    assert store.lease("key", owner="me", seconds=1.0, wait=0.0, stop=stop) is None
    assert store.lease("key", owner="me", seconds=1.0, wait=-1.0, stop=stop) is None
    assert not asked


def test_waiting_ends_with_none() -> None:
    """A lease that stays held is not granted when the wait is over (scenario 18), after *stop* was asked."""
    store = MemoryStore()
    held = take(store, 0.0)
    assert held is not None
    asked: list[None] = []

    def stop() -> bool:
        asked.append(None)
        return False

    assert store.lease("key", owner="me", seconds=1.0, wait=0.05, stop=stop) is None
    assert asked


def test_another_thread_may_release() -> None:
    """A lease belongs to the process: a thread that did not take it can give it back."""
    store = MemoryStore()
    held = take(store, 0.0)
    assert held is not None
    thread = threading.Thread(target=held.release)
    thread.start()
    thread.join(10)
    assert take(store, 0.0) is not None


@pytest.mark.parametrize("holding", [False, True], ids=["lease", "swap"])
def test_a_forked_child_waits_for_no_thread_of_its_parent(holding: bool) -> None:
    """After `fork` the locks that threads of the parent held are free in the child (scenario 60)."""
    store = MemoryStore()
    assert store.swap("key", None, FIRST)
    assert take(store, 0.0) is not None
    if holding:
        store._lock.acquire()
    _after_fork()
    assert store.swap("key", FIRST, FIRST.minted(Token("access 2")))
    assert take(store, 0.0) is not None


def test_nothing_keeps_a_store_alive() -> None:
    """The list of stores to free after `fork` does not keep any of them."""
    store = MemoryStore()
    gone = weakref.ref(store)
    del store
    gc.collect()
    assert gone() is None


def test_a_store_in_memory_tells_how_much_is_in_it() -> None:
    """`repr` tells two stores apart and shows no session."""
    store = MemoryStore()
    assert repr(store) == f"<MemoryStore at {id(store):#x}, sessions: 0>"
    store.swap("key", None, FIRST)
    assert repr(store) == f"<MemoryStore at {id(store):#x}, sessions: 1>"


def test_a_store_in_files_tells_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`repr` names the directory; the default one is not fixed by having been shown, but by its first use."""
    assert repr(FileStore(tmp_path)) == f"FileStore({str(tmp_path)!r})"
    store = FileStore()
    shown: list[str] = []
    for name in ("one", "two", "three"):
        monkeypatch.setenv("UNEXPIRED_HOME", str(tmp_path / name))
        if name == "two":
            assert store.load("key") is None
        shown.append(repr(store))
    assert shown == [f"FileStore({str(tmp_path / name)!r})" for name in ("one", "two", "two")]
