"""What happens once in a long life: signals in odd places, a disk that fills up, tokens made by hand."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.engine.script import run
from tests.engine.staging import EXPIRED, FRESH, Server, manager_for, nearly_expired
from tests.waiting import until
from unexpired import Session, TemporarilyUnavailable, Token, TokenManager
from unexpired.errors import StoreError
from unexpired.events import RefreshFailed
from unexpired.stores import MemoryStore


def test_a_handler_that_interrupts_a_locked_moment_is_told_and_hangs_nobody() -> None:
    """A signal handler or finalizer may ask for a token in the middle of ours, on the very thread that holds a lock."""
    manager = manager_for(Server(), FRESH)
    with manager._cell._lock:
        assert manager.token().access_token == "access 0"
        with pytest.raises(TemporarilyUnavailable):
            manager.refresh(wait=0.2)
    assert manager.refresh().access_token.startswith("access")


class Full(MemoryStore):
    """A store that takes the login, and nothing after it."""

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Only the first."""
        if expected is not None:
            raise StoreError("the disk is full")
        return super().swap(key, expected, new)


@pytest.mark.usefixtures("no_pause_passes")
def test_a_full_disk_costs_one_flight_and_not_one_for_each_call() -> None:
    """A refresh-ahead that cannot even begin is left alone for a while; the valid token is served (scenario 52)."""
    server = Server()
    manager = TokenManager(server, store=Full())
    failed: list[RefreshFailed] = []
    manager.on(RefreshFailed, failed.append)
    manager.login(nearly_expired())
    for _ in range(300):
        assert manager.token().access_token == "access 0"
        until(lambda: manager._cell.flying is None)
    until(lambda: failed)
    assert len(failed) == 1
    assert server.calls == 0


@pytest.mark.parametrize(
    "odd",
    [
        Token(None, refresh_token="r2"),  # type: ignore[arg-type]  # what a grant might return all the same
        Token("a", refresh_token="r2", expires_at="2030-01-01"),  # type: ignore[arg-type]  # as above
        Token("a", refresh_token="r2", id_token=b"x"),  # type: ignore[arg-type]  # as above
        Token("a ", refresh_token="r2"),
    ],
    ids=["no token", "text for a time", "bytes", "outer space"],
)
def test_a_token_made_wrong_by_a_grant_poisons_nothing(odd: Token) -> None:
    """It counts as a lost answer; a refresh token in it is kept, and the next attempt spends that one."""
    spent: list[str | None] = []

    def grant(session: Session) -> Token | Mapping[str, Any]:
        spent.append(session.refresh_token)
        return odd if len(spent) == 1 else FRESH

    manager = TokenManager(grant, store=MemoryStore())
    manager.login(EXPIRED)
    assert manager.token().access_token == FRESH["access_token"]
    assert spent == ["refresh 0", "r2"]


def test_a_token_crosses_process_borders() -> None:
    """Workers are handed tokens by pickle."""
    token = Token("a", expires_at=5.0, lifetime=9.0, refresh_token="r", extra={"tenant": "x"}, login="l", minted=3)
    twin = pickle.loads(pickle.dumps(token))
    assert all(getattr(twin, name) == getattr(token, name) for name in Token.__slots__)


def test_a_store_that_hiccups_at_the_exit_loses_no_rotated_token(tmp_path: Path) -> None:
    """Main ends, the store refuses for a moment: the process stays until the token is saved (scenario 59)."""
    done = run(
        tmp_path / "s",
        """
        from unexpired.errors import StoreError

        refusing = threading.Event()

        class Hiccup(FileStore):
            refused = 0
            def swap(self, key, expected, new):
                if new.version > 1 and self.refused < 6:
                    self.refused += 1
                    refusing.set()
                    raise StoreError("busy")
                return super().swap(key, expected, new)

        manager = TokenManager(answer, store=Hiccup(sys.argv[1]))
        manager.login(EXPIRED)
        threading.Thread(target=manager.token, daemon=True).start()
        refusing.wait(10)
        """,
    )
    assert done.session.refresh_token == "refresh 1"
