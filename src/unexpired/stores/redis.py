"""Sessions in Redis (or Valkey): one refresh for all processes on all machines that share it."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Hashable, Iterator
from functools import partial
from typing import Any

from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores._closing import Closing
from unexpired.stores._redis_lease import RedisLease, take_lease
from unexpired.stores._redis_link import Client, Link
from unexpired.stores._redis_listening import Hearing
from unexpired.stores._redis_scripts import SET_ASIDE, SWAP
from unexpired.stores._watching import STORED, board_for, kind_of

__all__ = ["RedisStore"]

_FIELDS = ("record", "login", "version", "notes")
_MONTH = 30 * 86400.0
_PATIENCE = 5.0
"""Seconds that one who loads waits for another one of this process who is just loading the same."""


class RedisStore(Closing):
    """Keeps any number of sessions in a Redis, for all processes that reach it: ``RedisStore("redis://cache:6379/0")``.

    *url* is a URL, or a `redis.Redis` (from Sentinel, too) or `redis.RedisCluster` of your own. All names in Redis
    begin with *prefix*. An ended session is forgotten after *ended_ttl* seconds (None: never), and its seed then begins
    it anew; one that was moved is kept. With *wait_replicas* a session counts as stored when that many replicas have it
    (not for a cluster). Raises ConfigurationError for settings that cannot be.

    * `swap` is one script, so it is whole or not at all. What it stored is as durable as the server: set ``appendonly
      yes`` and ``maxmemory-policy noeviction``; the log warns, once, where they are not set.
    * A lease ends by itself after the seconds it was asked for, on the server's clock.
    * A thread listens to what other processes change (it is a daemon, starts at the first use, and one serves all
      stores of a process in one place): they see it within milliseconds, without a request. While the server is away,
      what is known stays known; when it is back, everything is read again.
    * A forked child starts with connections of its own, and does not hold what its parent holds.

    All methods can be called from any thread, block (for a round trip, except `lease`) and raise StoreError only.
    """

    remote = True

    def __init__(
        self,
        url: Client | str,
        *,
        prefix: str = "unexpired",
        ended_ttl: float | None = _MONTH,
        wait_replicas: int = 0,
    ) -> None:
        self._link = Link(url, prefix)
        self._board = board_for(self._link.identity, Hearing(self._link), "redis")
        if ended_ttl is not None and not 1.0 <= ended_ttl <= 1e10:
            raise ConfigurationError(f"ended_ttl is a number of seconds, or None for ever: not {ended_ttl!r}")
        self._ended_ttl = ended_ttl
        if wait_replicas < 0 or (wait_replicas and not hasattr(self._link.client, "connection_pool")):
            raise ConfigurationError("wait_replicas is a number of replicas, and cannot be asked of a cluster")
        self._replicas = wait_replicas

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._link.where!r}, prefix={self._link.prefix!r})"

    @property
    def identity(self) -> Hashable:
        """Equal for all stores with the same server and prefix, by the same address."""
        return self._link.identity

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none. Asks nobody while it is told of changes and was told of none."""
        board, name = self._board, self._link.name(key)
        board.join(self)
        return board.load(name, lambda: self._decode(self._fetch(key, name), key), _PATIENCE)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new* if what is stored is *expected* (None: nothing), as `Session.replaces` has it, and tell all."""
        link, board, name = self._link, self._board, self._link.name(key)
        board.join(self)
        record, kind, seen = encode(new), kind_of(expected, new), board.before(name)
        message = board.message(kind, name)
        before = ("0", "", "", "") if expected is None else ("1", *_place(expected))
        # What was moved to another store may be on its way there, and keeps programs from beginning it anew here.
        lasts = new.ended is None or new.ended.reason == "moved"
        lasting = "" if lasts or self._ended_ttl is None else round(1000 * self._ended_ttl)
        run = partial(link.run_and_wait, self._replicas) if self._replicas else link.run
        try:
            done = run(
                SWAP, "store", key, (link.session(name),),
                *before, *_place(new), record, _change(message), lasting,
                link.channel, message,
            )  # fmt: skip
        except BaseException:
            # It may have been stored all the same, or be stored yet.
            board.failed(message, name)
            raise
        if done:
            board.stored(name, seen, new)
        else:
            board.forget(name)
        return bool(done)

    def stamp(self, key: str) -> Callable[[], object]:
        """A number in memory, which a change by anybody replaces as soon as this process is told of it."""
        self._board.join(self)
        return self._board.entry(self._link.name(key))

    def lease(
        self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]
    ) -> RedisLease | None:
        """Wait for the session's lease among all processes that share this Redis.

        It ends after *seconds*, or when its holder releases it. Who waits is woken by that, and asks again every
        250 ms at the latest. *stop* is asked every 5 ms. The answer is None when *wait* seconds have passed or *stop*
        said so.
        """
        del owner
        self._board.join(self)
        self._board.listen()
        return take_lease(self._link, self._board, key, seconds=seconds, wait=wait, stop=stop)

    def set_aside(self, key: str) -> None:
        """Rename a record that cannot be read to ``…:set-aside-<UTC time>-<n>``, which is never removed.

        Does nothing when there is none, or when it can be read.
        """
        link, name = self._link, self._link.name(key)
        place = link.session(name)
        kind = link.ask("look at", key, lambda: _text(link.client.type(place)))
        raw: Any = b""
        if kind == "hash":
            found = self._fetch(key, name)
            try:
                self._decode(found, key)
                return
            except StoreError:
                raw = found[0]
        elif kind == "none":
            return
        moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
        message, number = self._board.message(STORED, name), 1
        while not link.run(
            SET_ASIDE, "set aside", key, (place, f"{place}:set-aside-{moment}-{number}"),
            kind, raw, link.channel, message,
        ):  # fmt: skip
            number += 1
        self._board.changed(name)

    def keys(self) -> Iterator[str]:
        """The keys of all sessions under this prefix, ended ones too, in no order. Walks through the whole database."""
        link = self._link
        start = link.session("").removesuffix("}")
        pattern = re.sub(r"([*?\[\]\\^])", r"\\\1", start) + "*}"
        found: list[Any] = link.ask("list", "*", lambda: list(link.client.scan_iter(match=pattern, count=1000)))
        for name in sorted({_text(one) for one in found}):
            yield link.key(name.removeprefix(start).removesuffix("}"))

    def close(self) -> None:
        """Close the connections, if they are the store's own, and stop listening. Using it again opens them again."""
        self._board.leave(self)
        self._link.close()

    def _fetch(self, key: str, name: str) -> list[Any]:
        link = self._link
        place = link.session(name)
        found: list[Any] = link.ask(
            "read", key, lambda: link.client.execute_command("HMGET", place, *_FIELDS), patient=False
        )
        return found

    def _decode(self, found: list[Any], key: str) -> Session | None:
        record, *fields = found
        if record is None:
            return None
        session = decode(record, key, self._link.where)
        if [_text(field) for field in fields] != [session.login, str(session.version), str(session.notes)]:
            raise StoreError(
                f"cannot read the session {key!r} in {self._link.where}: its fields contradict each other, so another "
                "program has written it. It was left as it is; log in again to replace it (it is set aside)",
                key=key,
            )
        return session


def _change(message: str) -> str:
    """What tells a swap from all others."""
    return message.rpartition(" ")[2]


def _place(session: Session) -> tuple[bytes, int, int]:
    """What a swap compares."""
    return session.login.encode("utf-8", "surrogatepass"), session.version, session.notes


def _text(value: object) -> str:
    return value.decode("utf-8", "surrogatepass") if isinstance(value, bytes) else str(value)
