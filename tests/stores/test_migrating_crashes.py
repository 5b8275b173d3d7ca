from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.stores.test_file_bad_input import in_child
from tests.stores.test_migrating import KEY, LIVE, SEALING, loaded, reason, redeemable
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired.stores import FileStore, Store, migrate
from unexpired.stores.sealed import Sealed
from unexpired.stores.sqlite import SQLiteStore

# Newer Pythons warn of a fork beside other threads; these children touch nothing of theirs.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")


class Killer:
    """Kills its process around the swap of that number, as `kill -9` does."""

    def __init__(self, number: int, *, after: bool) -> None:
        self.left = number
        self.after = after

    def around(self, store: Store) -> None:
        """Watch the swaps of *store*."""
        real = store.swap

        def swap(key: str, expected: Session | None, new: Session) -> bool:
            self.left -= 1
            if self.left == 0 and not self.after:
                os.kill(os.getpid(), signal.SIGKILL)
            done = real(key, expected, new)
            if self.left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return done

        store.swap = swap  # type: ignore[method-assign]


def stores(place: Path, kind: str) -> tuple[Store, Store]:
    """A source and a target, as any process opens them."""
    files, database = FileStore(place / "files"), SQLiteStore(place / "sqlite" / "s.db")
    if kind == "files to SQLite":
        return files, database
    return database, Sealed(files, SEALING)


@pytest.mark.parametrize("kind", ["files to SQLite", "SQLite to sealed files"])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", [1, 2, 3])
def test_killed_at_any_write_it_leaves_one_copy_and_goes_on(
    tmp_path: Path, kind: str, number: int, after: bool
) -> None:
    """Killed before or after any of its writes: at most one copy can be redeemed, and the next run completes it."""
    source, target = stores(tmp_path, kind)
    assert source.swap(KEY, None, LIVE)
    source.close()

    def run() -> str:
        mine = stores(tmp_path, kind)
        killer = Killer(number, after=after)
        for store in mine:
            killer.around(store)
        return repr(migrate(*mine).moved)

    assert in_child(None, run) == "", "it was not killed"
    done = number * 2 - 1 + after  # of the six moments
    assert redeemable(source) == (1 if done <= 1 else 0)
    assert redeemable(target) == (1 if done >= 4 else 0)
    again = migrate(source, target)
    assert (again.moved, len(again.skipped)) == (((), 1) if done == 6 else ((KEY,), 0))
    assert (redeemable(target), reason(source), loaded(source).refresh_token) == (1, "moved", None)
    manager = TokenManager(lambda session: {"access_token": f"for {session.refresh_token}"}, store=target, key=KEY)
    assert manager.refresh().access_token == "for refresh 2"
    source.close()
    target.close()
