from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from unexpired._core.ports import HeldLease, Store
from unexpired._core.session import Session
from unexpired.stores import FileStore, MemoryStore
from unexpired.stores.memory import MemoryLease
from unexpired.stores.sealed import Sealed, new_key
from unexpired.stores.sqlite import SQLiteStore
from unexpired.testing.contract import StoreContract

KEY = new_key()


class TestMemoryStore(StoreContract):
    """`MemoryStore` keeps every promise of a store."""

    def make_store(self) -> Store:
        """An empty store of its own."""
        return MemoryStore()


class TestFileStore(StoreContract):
    """`FileStore` keeps every promise of a store."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path
        self.count = 0

    def make_store(self) -> Store:
        """A store in a directory of its own, which does not exist yet."""
        self.count += 1
        return FileStore(self.place / str(self.count))

    def make_peer(self, store: Store) -> Store:
        """Another object on the same directory, as another process would have it."""
        assert isinstance(store, FileStore)
        return FileStore(store._directory)

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same directory, in another process."""
        assert isinstance(store, FileStore)
        return "unexpired.stores:FileStore", store._directory


class TestSQLiteStore(StoreContract):
    """`SQLiteStore` keeps every promise of a store."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Iterator[None]:
        self.place = tmp_path
        self.count = 0
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store in a file of its own, which does not exist yet."""
        self.count += 1
        return self.stack.enter_context(SQLiteStore(self.place / f"{self.count}.db"))

    def make_peer(self, store: Store) -> Store:
        """Another object on the same file, as another process would have it."""
        assert isinstance(store, SQLiteStore)
        return self.stack.enter_context(SQLiteStore(store._path))

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same file, in another process."""
        assert isinstance(store, SQLiteStore)
        return "unexpired.stores:SQLiteStore", str(store._path)


class TestSealedFileStore(TestFileStore):
    """Sealing keeps every promise of what it seals."""

    def make_store(self) -> Store:
        """A sealed store in a directory of its own."""
        return Sealed(super().make_store(), KEY)

    def make_peer(self, store: Store) -> Store:
        """Another object on the same directory with the same key."""
        assert isinstance(store, Sealed)
        return Sealed(super().make_peer(store._store), KEY)

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same directory, in another process with the same key."""
        assert isinstance(store, Sealed)
        return "tests.contracts.peers:sealed", KEY.hex(), *super().peer_process(store._store)


class TestSealedSQLiteStore(TestSQLiteStore):
    """Sealing keeps every promise of a database, too."""

    def make_store(self) -> Store:
        """A sealed store in a file of its own."""
        return Sealed(super().make_store(), KEY)

    def make_peer(self, store: Store) -> Store:
        """Another object on the same file with the same key."""
        assert isinstance(store, Sealed)
        return Sealed(super().make_peer(store._store), KEY)

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same file, in another process with the same key."""
        assert isinstance(store, Sealed)
        return "tests.contracts.peers:sealed", KEY.hex(), *super().peer_process(store._store)


class _Forgetful(MemoryStore):
    def load(self, key: str) -> Session | None:  # noqa: ARG002 - that is the fault
        return None


class _Overwriting(MemoryStore):
    def swap(self, key: str, expected: Session | None, new: Session) -> bool:  # noqa: ARG002 - as above
        self._sessions[key] = new
        return True


class _Strict(MemoryStore):
    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        return (expected is None or new.version > expected.version) and super().swap(key, expected, new)


class _Racing(MemoryStore):
    """All swaps of one version compare before any of them stores."""

    def __init__(self) -> None:
        super().__init__()
        self.barrier = threading.Barrier(8)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        current = self._sessions.get(key)
        if expected is not None:
            self.barrier.wait(10)
        self._sessions[key] = new
        return expected is None or expected.same_version(current)


class _FoldingCase(MemoryStore):
    def load(self, key: str) -> Session | None:
        return super().load(key.casefold())

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        return super().swap(key.casefold(), expected, new)


class _Stampless(MemoryStore):
    def stamp(self, key: str) -> type[int]:  # noqa: ARG002
        return int


class _Generous(MemoryStore):
    def lease(self, key: str, **how: object) -> HeldLease | None:  # type: ignore[override]
        return MemoryStore().lease(key, **how)  # type: ignore[arg-type]


class _Stingy(MemoryStore):
    def lease(self, key: str, **how: object) -> None:  # noqa: ARG002
        return None


class _Immortal(MemoryStore):
    def lease(
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> MemoryLease | None:
        lease = super().lease(key, owner=owner, seconds=seconds, wait=wait, stop=stop)
        if lease is not None:
            lease.renew = lambda: None  # type: ignore[method-assign]
        return lease


class _Sloppy(MemoryStore):
    def set_aside(self, key: str) -> None:
        del self._sessions[key]


class _Closed(MemoryStore):
    def close(self) -> None:
        self._sessions.clear()


class _Nameless(MemoryStore):
    @property
    def identity(self) -> str:
        return "memory"


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (_Forgetful, StoreContract.test_what_is_swapped_in_is_loaded_whole),
        (_Forgetful, StoreContract.test_an_ended_session_stays_ended),
        (_Overwriting, StoreContract.test_a_swap_compares_login_and_version),
        (_Strict, StoreContract.test_a_note_needs_no_new_version),
        (_Racing, StoreContract.test_of_many_swaps_one_wins),
        (_FoldingCase, StoreContract.test_keys_are_independent),
        (_Stampless, StoreContract.test_a_change_shows_in_the_stamp),
        (_Generous, StoreContract.test_a_lease_is_held_by_one),
        (_Generous, StoreContract.test_only_its_owner_releases_a_lease),
        (_Generous, StoreContract.test_waiting_for_a_lease_can_be_stopped),
        (_Stingy, StoreContract.test_a_lease_passes_to_who_waits),
        (_Stingy, StoreContract.test_a_swap_needs_no_lease),
        (_Immortal, StoreContract.test_a_lease_that_is_gone_is_not_renewed),
        (_Closed, StoreContract.test_it_opens_again_after_close),
        (_Nameless, StoreContract.test_identity_tells_stores_apart),
    ],
)
def test_a_broken_promise_is_found(broken: type[MemoryStore], promise: object) -> None:
    """A store that breaks a promise fails the test of that promise."""

    class Suspect(StoreContract):
        def make_store(self) -> Store:
            return broken()

    with pytest.raises(AssertionError):
        promise(Suspect())  # type: ignore[operator]


def test_a_store_that_destroys_a_good_record_is_found() -> None:
    """Setting aside what is not there, or can be read, must not fail or lose it."""

    class Suspect(StoreContract):
        def make_store(self) -> Store:
            return _Sloppy()

    with pytest.raises(KeyError):
        Suspect().test_a_good_record_is_not_set_aside()


def test_the_contract_asks_for_a_store() -> None:
    """A subclass without `make_store` is told so."""
    with pytest.raises(TypeError, match="make_store"):
        StoreContract().test_nothing_is_stored_at_first()


@pytest.mark.parametrize("kind", ["memory", "file"])
def test_a_store_closes_with_its_block_and_can_be_used_after_it(kind: str, tmp_path: Path) -> None:
    """A store is a context manager, and works after its block as it does without one."""
    with MemoryStore() if kind == "memory" else FileStore(tmp_path / "store") as store:
        assert store.load("alice") is None
    assert store.load("alice") is None
