from __future__ import annotations

import functools
from pathlib import Path

import pytest

from tests.contracts import naive
from unexpired._core.ports import Store
from unexpired.errors import StoreError
from unexpired.stores import FileStore, MemoryStore
from unexpired.testing import _lease_contract, _process_contract
from unexpired.testing._process_contract import OF_PROCESSES
from unexpired.testing.contract import StoreContract

ALONE = "test_it_is_for_this_process_only"


def suspect(broken: type[FileStore], place: Path) -> StoreContract:
    """The contract for *broken*, as its author holds it to it."""

    class Suspect(StoreContract):
        def make_store(self) -> Store:
            return broken(place / "store")

        def peer_process(self, store: Store) -> tuple[str, ...]:
            assert isinstance(store, broken)
            return f"{broken.__module__}:{broken.__name__}", store._directory

    return Suspect()


def names_in(contract: type[StoreContract]) -> set[str]:
    """The names of the tests that pytest finds in a subclass."""
    return {name for name in dir(contract) if name.startswith("test_") and callable(getattr(contract, name))}


@pytest.mark.parametrize(
    ("broken", "promise"),
    [
        (naive.LeaseOfThisProcess, "test_a_lease_keeps_other_processes_out"),
        (naive.LeaseOfThisProcess, "test_a_lease_does_not_outlive_its_process"),
        (naive.LeaseForEver, "test_a_lease_does_not_outlive_its_process"),
        (naive.SwapOfThisProcess, "test_of_two_processes_that_swap_one_wins"),
        (naive.Buffering, "test_what_a_killed_process_stored_is_there"),
        (naive.Buffering, "test_what_another_process_stores_is_seen"),
        (naive.Remembering, "test_what_another_process_stores_is_seen"),
        (naive.Counting, "test_what_another_process_stores_is_seen"),
    ],
)
def test_a_store_that_forgets_other_processes_is_found(
    broken: type[FileStore], promise: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that keeps a promise within one process only fails the test of that promise (scenario 16)."""
    monkeypatch.setattr(_process_contract, "LONG", 1.0)
    monkeypatch.setattr(_process_contract, "held", functools.partial(soon, wait=1.0))
    with pytest.raises(AssertionError):
        getattr(suspect(broken, tmp_path), promise)()


def soon(store: Store, *, wait: float) -> object:
    """What `held` gives, without its long patience."""
    found = _lease_contract.lease(store, wait=wait)
    assert found is not None
    return found


@pytest.mark.parametrize("broken", [naive.LeaseOfThisProcess, naive.SwapOfThisProcess])
def test_only_the_process_part_finds_it(broken: type[FileStore], tmp_path: Path) -> None:
    """Within one process such a store keeps what the contract asks of leases and swaps: nothing else would tell."""
    contract = suspect(broken, tmp_path)
    contract.test_a_lease_is_held_by_one()
    contract.test_of_many_swaps_one_wins()


def test_the_process_part_is_there_where_a_child_can_open_the_store() -> None:
    """A contract with `peer_process` has the tests of processes, one without it has the one that says so instead."""

    class Alone(StoreContract):
        pass

    class Shared(Alone):
        def peer_process(self, store: Store) -> tuple[str, ...]:
            raise NotImplementedError

    class Elsewhere(Shared):
        with_processes = False

    assert len(OF_PROCESSES) == 5
    assert names_in(Shared) - names_in(Alone) == set(OF_PROCESSES)
    assert names_in(Alone) - names_in(Shared) == {ALONE}
    assert names_in(Elsewhere) == names_in(Shared) & names_in(Alone)


def test_a_store_that_can_be_opened_again_has_to_say_how(tmp_path: Path) -> None:
    """Where there is a peer, or the store is on another machine, the contract asks for `peer_process`."""

    class Again(StoreContract):
        def make_store(self) -> Store:
            return FileStore(tmp_path)

        def make_peer(self, store: Store) -> Store:
            assert store is not None
            return FileStore(tmp_path)

    class Far(MemoryStore):
        remote = True

    class Remote(StoreContract):
        def make_store(self) -> Store:
            return Far()

    for contract in (Again(), Remote()):
        with pytest.raises(AssertionError, match="say by peer_process"):
            contract.test_it_is_for_this_process_only()


@pytest.mark.parametrize(
    ("opener", "message"),
    [
        (None, "says nothing"),
        ((), "module:function"),
        (("no_colon",), "module:function"),
        (("tests.contracts.naive:Missing",), "standard error says why"),
    ],
)
def test_a_peer_process_that_cannot_be_started_is_told(
    opener: tuple[str, ...] | None, message: str, tmp_path: Path
) -> None:
    """What is wrong with a `peer_process` is said in one sentence."""

    class Wrong(StoreContract):
        def make_store(self) -> Store:
            return FileStore(tmp_path)

        def peer_process(self, store: Store) -> tuple[str, ...] | None:
            assert store is not None
            return opener

    with pytest.raises(AssertionError, match=message):
        Wrong().test_what_another_process_stores_is_seen()


def test_what_a_store_raises_in_the_other_process_is_told(tmp_path: Path) -> None:
    """An error in the child process is shown with its words."""

    class Elsewhere(StoreContract):
        def make_store(self) -> Store:
            return FileStore(tmp_path / "here")

        def peer_process(self, store: Store) -> tuple[str, ...]:
            assert store is not None
            (tmp_path / "file").touch()
            return "unexpired.stores:FileStore", str(tmp_path / "file")

    with pytest.raises(AssertionError, match=f"in the child process: {StoreError.__name__}"):
        Elsewhere().test_what_another_process_stores_is_seen()
