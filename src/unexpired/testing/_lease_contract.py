"""What every store promises about leases; the part of `StoreContract` that needs no sessions."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from unexpired._core.ports import HeldLease, Store
from unexpired.errors import StoreError

__all__ = ["KEY", "LONG", "LeaseContract", "check", "held", "is_store", "lease"]

KEY = "alice@example"
LONG = 30.0


class LeaseContract:
    """The tests of `Store.lease`, and how a subclass says which store they are for."""

    def make_store(self) -> Store:
        """A new store that holds nothing yet."""
        raise TypeError("a store's contract needs make_store()")

    def make_peer(self, store: Store) -> Store:
        """Another object that keeps the same sessions as *store*, if there can be one."""
        return store

    def test_a_lease_is_held_by_one(self) -> None:
        """While one holds a key's lease nobody else gets it, by any object; another key's lease is free."""
        store = self.make_store()
        mine = held(store)
        for other in (store, self.make_peer(store)):
            check(lease(other, wait=0.0) is None, "a second lease was granted")
            check(lease(other, wait=0.05) is None, "a second lease was granted")
        held(store, "another key").release()
        mine.release()
        held(self.make_peer(store)).release()

    def test_a_lease_passes_to_who_waits(self) -> None:
        """Whoever waits for a lease gets it when it is released, from whatever thread."""
        store = self.make_store()
        mine = held(store)
        waiting = threading.Event()

        def stop() -> bool:
            waiting.set()
            return False

        def wait() -> None:
            held(self.make_peer(store), stop=stop).release()

        with ThreadPoolExecutor(1) as pool:
            waiter = pool.submit(wait)
            check(waiting.wait(LONG), "stop() is not asked while a lease is waited for")
            check(not waiter.done(), "a second lease was granted")
            mine.release()
            waiter.result(LONG)

    def test_waiting_for_a_lease_can_be_stopped(self) -> None:
        """*stop* ends the wait, with None."""
        store = self.make_store()
        mine = held(store)
        check(lease(store, stop=lambda: True) is None, "a lease was granted that is held")
        mine.release()

    def test_only_its_owner_releases_a_lease(self) -> None:
        """Releasing a lease again does nothing, not even when somebody else holds it by now."""
        store = self.make_store()
        first = held(store)
        first.release()
        first.release()
        second = held(store)
        first.release()
        check(lease(store, wait=0.0) is None, "somebody else's lease was released")
        second.release()

    def test_a_lease_tells_its_age(self) -> None:
        """The age of a lease starts at zero or just above and never falls."""
        mine = held(self.make_store())
        ages = [mine.age() for _ in range(1000)]
        mine.release()
        check(ages == sorted(ages), "the age falls")
        check(0.0 <= ages[0] < LONG, "the age does not start near zero")
        check(mine.granted_at > 1_600_000_000.0, "granted_at is not a UNIX time")

    def test_a_lease_that_is_gone_is_not_renewed(self) -> None:
        """Renewing works while the lease is held, and raises StoreError when it is not."""
        store = self.make_store()
        mine = held(store)
        mine.renew()
        check(lease(store, wait=0.0) is None, "renewing gave the lease away")
        mine.release()
        try:
            mine.renew()
        except StoreError:
            return
        raise AssertionError("a lease that was released can be renewed")


def check(fact: bool, otherwise: str) -> None:
    """Raise AssertionError, also where ``python -O`` drops the statement that would."""
    if not fact:
        raise AssertionError(otherwise)


def is_store(thing: object) -> bool:
    """Whether *thing* has what a `Store` has."""
    return isinstance(thing, Store)


def held(store: Store, key: str = KEY, *, stop: Callable[[], bool] = lambda: False) -> HeldLease:
    """The lease on *key*, which has to be free or to become free."""
    found = lease(store, key, stop=stop)
    if found is None:
        raise AssertionError("a free lease was not granted")
    return found


def lease(
    store: Store,
    key: str = KEY,
    *,
    seconds: float = 60.0,
    wait: float = LONG,
    stop: Callable[[], bool] = lambda: False,
) -> HeldLease | None:
    """The lease on *key*, or None after *wait* seconds."""
    return store.lease(key, owner="contract", seconds=seconds, wait=wait, stop=stop)
