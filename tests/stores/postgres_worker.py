"""Another process on the same PostgreSQL, spoken to through its pipes: `python postgres_worker.py <task> <url>`."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import _listening
from unexpired.stores.postgres import PostgresStore

KEY = "alice@example"


def say(word: str) -> None:
    """One line to who started us."""
    os.write(1, f"{word}\n".encode())


def hear() -> str:
    """One line from who started us; empty when they are gone."""
    return sys.stdin.readline().strip()


def following(before: Session | None) -> Session:
    """The version after that one."""
    if before is None:
        return Session.begin(KEY, "login", Token("access", refresh_token="refresh"))
    return before.minted(Token(f"access {before.version + 1}", refresh_token=f"refresh {before.version + 1}"))


def count(store: PostgresStore) -> None:
    """Add 30 versions, each to whatever is stored by then."""
    say("ready")
    hear()
    for _ in range(30):
        while not store.swap(KEY, before := store.load(KEY), following(before)):
            pass
    say("done")


def write(store: PostgresStore) -> None:
    """Swap for ever, and say each version that was stored; what cannot be is tried again."""
    while True:
        try:
            before = store.load(KEY)
            after = following(before)
            if store.swap(KEY, before, after):
                say(str(after.version))
        except StoreError:
            time.sleep(0.01)


def tell(store: PostgresStore) -> None:
    """Say the moment at which each change shows here, and at which a lease was had, on a clock that all share."""
    stamp = store.stamp(KEY)
    before = stamp()
    say("ready")
    while hear() == "go":
        until = time.monotonic() + 30
        while (now := stamp()) == before and time.monotonic() < until:
            time.sleep(0.0002)
        # What is stored as soon as this is said shows as another stamp than this one.
        before = now
        say(repr(time.clock_gettime(time.CLOCK_MONOTONIC)))


def fork(store: PostgresStore) -> None:
    """Fork with the lease held, connections open and a thread that listens; both go on."""
    stamp = store.stamp(KEY)
    before = store.load(KEY)
    lease = store.lease(KEY, owner="worker", seconds=30.0, wait=1.0, stop=lambda: False)
    assert lease is not None
    old = stamp()
    assert stamp() == old
    child = os.fork()
    if child == 0:
        try:
            lease.renew()
        except StoreError:
            say("child: not mine")
        lease.release()
        again = store.lease(KEY, owner="child", seconds=30.0, wait=0.0, stop=lambda: False)
        say("child: refused" if again is None else "child: granted")
        say(f"child: stored {store.swap(KEY, before, following(before))}")
        seen = stamp()
        say(f"child: hears {seen == stamp()}, {threading.active_count()} threads")
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    until = time.monotonic() + 30
    while stamp() == old and time.monotonic() < until:
        time.sleep(0.001)
    after = store.load(KEY)
    lease.renew()
    lease.release()
    say(f"parent: sees {after is not None and after.version}")


TASKS: dict[str, Callable[[PostgresStore], None]] = {
    "count": count,
    "fork": fork,
    "tell": tell,
    "write": write,
}

if __name__ == "__main__":
    # As in the tests' own process, see conftest.py.
    _listening._FIRST = 30.0
    TASKS[sys.argv[1]](PostgresStore(sys.argv[2]))
