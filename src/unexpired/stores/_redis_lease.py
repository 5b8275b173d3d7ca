"""The lease of one session in Redis: ends by itself on the server's clock, released and renewed by its owner only."""

from __future__ import annotations

import os
from collections.abc import Callable

from unexpired.errors import StoreError
from unexpired.stores._redis_link import Link, boot
from unexpired.stores._redis_news import News
from unexpired.stores._redis_scripts import LEASE, RELEASE, RENEW

__all__ = ["RedisLease", "take_lease"]

_STEP = 0.005
_POLL = 0.25


class RedisLease:
    """Held until `release`, or for as long as it was asked for. A forked child does not hold it."""

    timed = True

    def __init__(
        self, link: Link, news: News, key: str, *, token: str, seconds: float, since: float, granted_at: float
    ) -> None:
        self.granted_at = granted_at
        self._link = link
        self._news = news
        self._key = key
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
        name = self._link.lease(self._link.name(self._key))
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
        link, name = self._link, self._link.name(self._key)
        link.run(
            RELEASE, "release the lease of", self._key, (link.lease(name),), self._token, link.channel, f"r::{name}"
        )
        self._released = True
        self._news.freed(name)


def take_lease(
    link: Link, news: News, key: str, *, seconds: float, wait: float, stop: Callable[[], bool]
) -> RedisLease | None:
    """Wait up to *wait* seconds for the lease of *key*, or until *stop* is true. Raises StoreError."""
    name, token = link.name(key), os.urandom(16).hex()
    until = boot() + wait
    # Who comes back to wait on, because a record has changed, need not ask what was answered a moment ago.
    with news.waiter(name) as waiter:
        if wait > _POLL and boot() < news.held_until(name):
            waiter.freed = False
        while True:
            since = boot()
            if waiter.freed or since >= news.held_until(name):
                waiter.freed = False
                granted, first, second = _ask(link, key, name, token, seconds)
                if granted:
                    return RedisLease(
                        link, news, key, token=token, seconds=seconds, since=since, granted_at=first + second / 1e6
                    )
                news.found_held(name, boot() + min(max(first, 1) / 1000, _POLL), waiter)
            # A record that has changed answers the question, before the lease is asked for again.
            if boot() >= until or stop():
                return None
            waiter.woken.wait(min(_STEP, max(until - boot(), 0.0)))
            waiter.woken.clear()
            if stop():
                return None


def _ask(link: Link, key: str, name: str, token: str, seconds: float) -> tuple[bool, int, int]:
    granted, first, *rest = link.run(LEASE, "lease", key, (link.lease(name),), token, _ms(seconds))
    return granted == 1, int(first), int(rest[0]) if rest else 0


def _ms(seconds: float) -> int:
    return max(1, round(1000 * seconds))
