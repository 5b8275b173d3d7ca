"""The lease of `PostgresStore`: a row with its holder and its deadline on the server's clock."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from unexpired.errors import StoreError
from unexpired.stores._postgres_database import Database
from unexpired.stores._watched import boot, take_turns
from unexpired.stores._watching import FREED, Board

__all__ = ["Asking", "PostgresLease", "take_lease"]


@dataclass(frozen=True, slots=True)
class Asking:
    """For whom a lease is asked, and how."""

    database: Database
    board: Board
    key: str
    id: bytes


class PostgresLease:
    """A lease that ends after its seconds on the server's clock. No connection is held meanwhile."""

    timed = True

    def __init__(self, asking: Asking, values: Mapping[str, object], since: float, granted_at: float) -> None:
        self.granted_at = granted_at
        self._asking = asking
        self._values = values
        self._since = since
        self._process = os.getpid()

    def age(self) -> float:
        """Seconds since just before it was asked for. The clock runs during suspend where one can."""
        return boot() - self._since

    def renew(self) -> None:
        """Start its seconds anew. Raises StoreError when it has ended, was released, or was inherited by `fork`."""
        asking = self._asking
        if not (
            self._is_ours() and asking.database.ask("renew", asking.database.statements.renew, self._values, asking.key)
        ):
            raise StoreError("this process does not hold the lease any more", key=asking.key)

    def release(self) -> None:
        """Let the next one have it, unless somebody has it already. A forked child does not release it."""
        if self._is_ours():
            asking = self._asking
            message = asking.board.message(FREED, asking.id.hex())
            asking.database.ask(
                "release", asking.database.statements.release, {**self._values, "message": message}, asking.key
            )
            self._process = 0
            asking.board.heard(message)

    def _is_ours(self) -> bool:
        return self._process == os.getpid()


def take_lease(
    asking: Asking, *, seconds: float, wait: float, stop: Callable[[], bool], look: float
) -> PostgresLease | None:
    """Wait up to *wait* seconds for the lease, or until *stop*; see `take_turns`."""
    name, board = asking.id.hex(), asking.board
    values = {"id": asking.id, "holder": os.urandom(16).hex(), "seconds": float(seconds)}

    def ask() -> tuple[PostgresLease | None, float]:
        since = boot()
        rows = asking.database.ask("get a lease in", asking.database.statements.take, values, asking.key)
        granted, number = (rows[0][0] == "t", float(rows[0][1])) if rows else (False, 0.0)
        if not granted:
            return None, number
        # What was loaded before it may be outdated by now, whatever was told.
        board.forget(name)
        return PostgresLease(asking, values, since, number), 0.0

    return take_turns(board, name, ask, wait=wait, stop=stop, look=look)
