"""Another process on the same store, spoken to through its pipes: `python worker.py <task> <directory or URL>`."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
import warnings
from collections.abc import Callable
from functools import partial
from types import MappingProxyType
from typing import Any
from unittest import mock

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import FileStore, Store, open_store
from unexpired.stores._changes import Changes

KEY = "alice@example"
FILL = "x" * 20_000


def say(word: str) -> None:
    """One line to who started us."""
    os.write(1, f"{word}\n".encode())


def hear() -> str:
    """One line from who started us; empty when they are gone."""
    return sys.stdin.readline().strip()


def version(number: int) -> Session:
    """The version of that number, large enough for a torn one to be found."""
    token = Token(f"access {number}", login="login", minted=number, extra=MappingProxyType({"fill": FILL}))
    return Session(KEY, "login", number, "refresh", MappingProxyType({None: token}))


def count(store: Store) -> None:
    """Add 50 versions, each to whatever is stored by then."""
    say("ready")
    hear()
    for _ in range(50):
        add(store)
    say("done")


def read(store: Store) -> None:
    """Load until told the last version, and say how many were seen. A torn record raises."""
    say("ready")
    last, seen = int(hear()), 0
    number = 0
    while number < last:
        found = store.load(KEY)
        assert found is not None
        assert found.version >= number
        assert found.tokens[None].extra["fill"] == FILL
        number, seen = found.version, seen + 1
    say(f"seen {seen}")


def write(store: Store) -> None:
    """Swap for ever, and say each version that was stored."""
    before = store.load(KEY)
    while True:
        after = version(before.version + 1 if before else 1)
        assert store.swap(KEY, before, after)
        before = after
        say(str(after.version))


def first(store: Store) -> None:
    """Store the first version, at once with others."""
    say("ready")
    hear()
    say(str(store.swap(KEY, None, version(1))))
    hear()


def answer(store: Store) -> None:
    """Swap whenever asked, and say which version was stored."""
    while hear():
        add(store)
        found = store.load(KEY)
        assert found is not None
        say(str(found.version))


def write_until(step: str, store: Store) -> None:
    """Begin one swap and stop in the middle, before *step* of module os is done for the first time."""
    before = store.load(KEY)
    assert before is not None
    real: Callable[..., Any] = getattr(os, step)

    def stop(*args: Any, **options: Any) -> Any:
        setattr(os, step, real)
        say("stopped")
        hear()
        return real(*args, **options)

    setattr(os, step, stop)
    store.swap(KEY, before, version(before.version + 1))


def write_until_change(step: str, store: Store) -> None:
    """Begin one swap in SQLite and stop in the middle: *before* or *after* the announcement, or once *committed*."""
    begin, end = Changes.begin, Changes.end

    def pause() -> None:
        say("stopped")
        hear()

    def slow_begin(self: Changes, place: int, key: str) -> bytes:
        if step == "before":
            pause()
        number = begin(self, place, key)
        if step == "after":
            pause()
        return number

    def slow_end(self: Changes, place: int, number: bytes) -> None:
        pause()
        end(self, place, number)

    before = store.load(KEY)
    assert before is not None
    with mock.patch.object(Changes, "begin", slow_begin), mock.patch.object(Changes, "end", slow_end):
        store.swap(KEY, before, version(before.version + 1))


def forks(store: Store) -> None:
    """Fork twenty times while another thread is swapping; each child swaps once, and counts.

    That thread ends the swap that a fork fell into, and holds off until the child is done. SQLite's lock would be free
    for a millisecond between two of its swaps, and who waits for it looks ten times a second only.
    """
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of just this
    enough, alone = threading.Event(), threading.Event()
    alone.set()
    begun = [0]

    def work() -> None:
        while not enough.is_set():
            begun[0] += 1
            add(store)
            alone.wait()

    thread = threading.Thread(target=work)
    thread.start()
    for _ in range(20):
        before = begun[0]
        while begun[0] == before:
            time.sleep(0.0002)
        child = os.fork()
        if child == 0:
            add(store)
            store.close()
            os._exit(0)
        alone.clear()
        code = os.waitpid(child, 0)[1]
        alone.set()
        assert code == 0
    enough.set()
    thread.join(30)
    say("done")


def add(store: Store) -> None:
    """One more version, on whatever is stored by then."""
    while True:
        before = store.load(KEY)
        assert before is not None
        if store.swap(KEY, before, version(before.version + 1)):
            return


def hold(store: Store) -> None:
    """Take the lease, saying so when that takes waiting, and keep it until told."""
    waited: list[bool] = []

    def stop() -> bool:
        if not waited:
            waited.append(True)
            say("waiting")
        return False

    lease = store.lease(KEY, owner="worker", seconds=1.0, wait=30.0, stop=stop)
    assert lease is not None
    say("held")
    hear()
    lease.release()
    say("released")
    hear()


def fork(store: Store) -> None:
    """Fork while holding the lease; the child tries everything to be rid of it, or to have it."""
    lease = store.lease(KEY, owner="worker", seconds=1.0, wait=1.0, stop=lambda: False)
    assert lease is not None
    child = os.fork()
    if child == 0:
        try:
            lease.renew()
        except StoreError:
            say("child: not mine")
        lease.release()
        del lease
        gc.collect()
        with_lease = store.lease(KEY, owner="child", seconds=1.0, wait=0.0, stop=lambda: False)
        say("child: refused" if with_lease is None else "child: granted")
        before = store.load(KEY)
        say(f"child: stored {store.swap(KEY, before, version(before.version + 1 if before else 1))}")
        sys.exit()
    assert os.waitpid(child, 0)[1] == 0
    lease.renew()
    say("held")
    hear()
    lease.release()
    say("released")
    hear()


def fork_in_swap(store: Store) -> None:
    """Fork while another thread is in the middle of a swap, which the child then waits out."""
    warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of just this
    before = store.load(KEY)
    assert before is not None
    stopped, go_on = threading.Event(), threading.Event()

    def stop(descriptor: Any) -> None:
        patch.stop()
        stopped.set()
        assert go_on.wait(30)
        os.fsync(descriptor)

    patch = mock.patch.object(os, "fsync", stop)
    patch.start()
    after = version(before.version + 1)
    thread = threading.Thread(target=store.swap, args=(KEY, before, after))
    thread.start()
    assert stopped.wait(30)
    child = os.fork()
    if child == 0:
        say("child: asks")
        say(f"child: {store.swap(KEY, before, after)}, {store.swap(KEY, after, version(after.version + 1))}")
        os._exit(0)
    hear()
    go_on.set()
    thread.join(30)
    assert os.waitpid(child, 0)[1] == 0


TASKS: dict[str, Callable[[Store], None]] = {
    "answer": answer,
    "count": count,
    "first": first,
    "fork": fork,
    "fork in swap": fork_in_swap,
    "forks": forks,
    "hold": hold,
    "read": read,
    "write": write,
    **{f"until {step}": partial(write_until, step) for step in ("utime", "fsync", "replace")},
    **{f"change {step}": partial(write_until_change, step) for step in ("before", "after", "committed")},
}

if __name__ == "__main__":
    place = sys.argv[2]
    TASKS[sys.argv[1]](open_store(place) if place.startswith("sqlite:") else FileStore(place))
