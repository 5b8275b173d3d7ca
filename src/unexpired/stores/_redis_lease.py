"""The lease of one session in Redis: ends by itself on the server's clock, released and renewed by its owner only."""

from __future__ import annotations

import os
from collections.abc import Callable

from unexpired.errors import StoreError
from unexpired.stores._redis_link import Link
from unexpired.stores._redis_scripts import LEASE, RELEASE, RENEW
from unexpired.stores._watched import boot, take_turns
from unexpired.stores._watching import FREED, Board

__all__ = ["RedisLease", "take_lease"]

_LOOK = 0.25


class RedisLease:
    """Held until `release`, or for as long as it was asked for. A forked child does not hold it."""

    timed = True

    def __init__(
        self, link: Link, board: Board, key: str, *, token: str, seconds: float, since: float, granted_at: float
    ) -> None:
        self.granted_at = granted_at
        self._link = link
        self._board = board
        self._key = key
        self._name = link.name(key)
        self._token = token
        self._seconds = seconds
        self._since = since
        self._process = os.getpid()
        self._released = False

    def age(self) -> float:
        """Seconds since just before it was asked for. The clock runs during suspend where one can."""
        return boot() - self._since

    def renew(self) -> None:
        """Start its seconds anew. Raises StoreError when it has ended, was released, or was inherited by `fork`."""
        name = self._link.lease(self._name)
        if (
            self._released
            or self._process != os.getpid()
            or not self._link.run(RENEW, "renew the lease of", self._key, (name,), self._token, _ms(self._seconds))
        ):
            raise StoreError(f"the lease of {self._key!r} is not held any more", key=self._key)

    def release(self) -> None:
        """Let the next one have it. Does nothing when it is not held any more. Raises StoreError."""
        if self._released or self._process != os.getpid():
            return
        link, board, name = self._link, self._board, self._name
        message = board.message(FREED, name)
        link.run(RELEASE, "release the lease of", self._key, (link.lease(name),), self._token, link.channel, message)
        self._released = True
        board.heard(message)


def take_lease(
    link: Link, board: Board, key: str, *, seconds: float, wait: float, stop: Callable[[], bool]
) -> RedisLease | None:
    """Wait up to *wait* seconds for the lease of *key*, or until *stop* is true. Raises StoreError."""
    name, token = link.name(key), os.urandom(16).hex()

    def ask() -> tuple[RedisLease | None, float]:
        since = boot()
        granted, first, *rest = link.run(LEASE, "get the lease of", key, (link.lease(name),), token, _ms(seconds))
        if not granted:
            return None, int(first) / 1000
        # What was loaded before it may be outdated by now, whatever was told.
        board.forget(name)
        at = int(first) + int(rest[0]) / 1e6
        return RedisLease(link, board, key, token=token, seconds=seconds, since=since, granted_at=at), 0.0

    return take_turns(board, name, ask, wait=wait, stop=stop, look=_LOOK)


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
