"""What a store promises to several processes; the part of `StoreContract` that needs a child process."""

from __future__ import annotations

import time
from collections.abc import Callable

from unexpired._core.ports import Store
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.testing._lease_contract import KEY, LONG, LeaseContract, check, held, lease
from unexpired.testing._peer_process import Peer, contend

__all__ = ["OF_PROCESSES", "ProcessContract", "settle"]

_SECONDS = 1.0
_REPORTS = 20


class ProcessContract(LeaseContract):
    """The tests that a store of several processes has to pass, and how a subclass says how a child opens it."""

    def peer_process(self, store: Store) -> tuple[str, ...] | None:
        """How a child process opens the sessions of *store*: ``("module:function", "argument", …)``, all of it text.

        The child imports the module by this process's `sys.path`, and calls the function, or the class, with the
        arguments. Without it the store is taken for one of this process only, as `MemoryStore` is.
        """
        del store
        return None

    def test_a_lease_keeps_other_processes_out(self) -> None:
        """While one process holds a key's lease another one does not get it; it gets it as soon as it is released."""
        store = self.make_store()
        mine = held(store)
        with self._peer(store) as peer:
            check(peer.lease() is None, "a second lease was granted in another process")
            check(peer.lease(wait=0.05) is None, "a second lease was granted in another process")
            check(peer.lease(key="another key") is not None, "the lease of another key is not free")
            peer.ask("release")
            peer.begin("lease", KEY, 60.0, LONG)
            mine.release()
            check(peer.answer() is not None, "a lease that was released does not pass to another process")
            check(lease(store, wait=0.0) is None, "a second lease was granted beside another process's")
            check(lease(store, wait=0.05) is None, "a second lease was granted beside another process's")
            peer.ask("release")
            held(store).release()

    def test_a_lease_does_not_outlive_its_process(self) -> None:
        """When its holder is killed a lease passes on: at once, or when the seconds of a timed one are over."""
        store = self.make_store()
        with self._peer(store) as peer:
            began = time.monotonic()
            check(peer.lease(seconds=_SECONDS) is not None, "a free lease was not granted")
            mine = lease(store, wait=0.0)
            # To ask may have taken longer than a timed lease lasts.
            over = mine is not None and mine.timed and time.monotonic() - began >= _SECONDS
            check(mine is None or over, "a second lease was granted beside another process's")
            if mine is not None:
                mine.release()
            peer.kill()
            held(store).release()

    def test_of_two_processes_that_swap_one_wins(self) -> None:
        """Of two processes that swap the same version at once exactly one is told that it did, many times."""
        store, session = self.make_store(), _begin()
        store.swap(KEY, None, session)
        with self._peer(store) as peer:
            peer.ask("load")
            peer.begin("contend")
            _until_newer(store, session.version)  # from here on both swap
            here = contend(store, "here")
            there = peer.answer()
        last = session.version + len(here) + len(there)
        check(
            sorted(here + there) == list(range(session.version + 1, last + 1)),
            f"not one winner per version: here {here}, in the other process {there}",
        )
        winner = "here" if here[-1] == last else "there"
        found = store.load(KEY)
        check(found is not None and found.version == last, f"{found!r} is not version {last}")
        check(
            found is not None and found.tokens[None].access_token == f"{winner} {last}",
            "what is stored is not what the winner stored",
        )

    def test_what_another_process_stores_is_seen(self) -> None:
        """What one process stored another one loads from then on, and sees in the stamp after a bounded while."""
        store, session = self.make_store(), _begin()
        with self._peer(store) as peer:
            check(store.swap(KEY, None, session), "the first swap was refused")
            _same(peer.load(), session)
            stamp = store.stamp(KEY)
            settle(stamp)
            for number in range(3):
                before, following = stamp(), session.minted(Token(f"access {number}"))
                check(stamp() == before, "the stamp changes by itself")
                check(peer.swap(session, following), "a swap was refused that expected what is stored")
                _same(store.load(KEY), following)
                _until_other(stamp, before)
                check(not store.swap(KEY, session, following), "a swap was let through that another process outran")
                session = following
            noted = session.noted(intent=None, failure=None)
            check(store.swap(KEY, session, noted), "a note was refused")
            check(not peer.swap(session, noted), "a note was let through that another process outran")

    def test_what_a_killed_process_stored_is_there(self) -> None:
        """What a process reported as stored is there whole after ``kill -9``, and can be replaced."""
        store, session = self.make_store(), _begin()
        store.swap(KEY, None, session)
        with self._peer(store) as peer:
            peer.begin("mint")
            said = [peer.answer() for _ in range(_REPORTS)]
            peer.kill()
            said += peer.last_words()
        found = store.load(KEY)
        if found is None:
            raise AssertionError("a session is gone")
        check(found.version in (said[-1], said[-1] + 1), f"version {said[-1]} was reported, {found.version} is there")
        check(found.tokens[None].access_token == f"access {found.version}", "the record is not whole")
        check(store.swap(KEY, found, found.over("logout", 1.0)), "a swap was refused after a process was killed")

    def _peer(self, store: Store) -> Peer:
        opener = self.peer_process(store)
        if opener is None:
            raise AssertionError("peer_process() says nothing: leave it out, or say how a child opens the store")
        return Peer(opener)


OF_PROCESSES = tuple(name for name in vars(ProcessContract) if name.startswith("test_"))
"""The tests that need `ProcessContract.peer_process`."""


def _begin() -> Session:
    return Session.begin(KEY, "first login", Token("access 1", refresh_token="refresh 1"))


def _until_newer(store: Store, version: int) -> None:
    end = time.monotonic() + LONG
    while (found := store.load(KEY)) is None or found.version == version:
        check(time.monotonic() < end, f"another process's swaps are not seen within {LONG:g} s")


def settle(stamp: Callable[[], object]) -> None:
    """Wait until two stamps in a row are equal: at first a store may have to find out how to hear of changes."""
    end = time.monotonic() + LONG
    while stamp() != stamp():
        check(time.monotonic() < end, f"no two stamps in a row are equal for {LONG:g} s: the stamp changes by itself")
        time.sleep(0.002)


def _until_other(stamp: Callable[[], object], before: object) -> None:
    end = time.monotonic() + LONG
    while stamp() == before:
        check(time.monotonic() < end, f"another process's swap does not show in the stamp within {LONG:g} s")
        time.sleep(0.002)


def _same(found: Session | None, expected: Session) -> None:
    check(found is not None and encode(found) == encode(expected), f"{found!r} is not {expected!r}")
