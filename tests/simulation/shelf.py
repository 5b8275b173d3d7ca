"""The one store of a world, and each process's own way to it."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING

from tests.simulation import ops
from tests.simulation.scheduler import Op, Process, Task
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import StoreError

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Facade", "Lease", "Shelf"]


class Shelf:
    """What is stored under the one key, and who holds its lease. *timed* leases end by themselves."""

    def __init__(self, *, timed: bool, as_bytes: bool) -> None:
        self.timed = timed
        self.as_bytes = as_bytes
        self.record: Session | None = None
        self.before: Session | None = None
        self.serial = 0
        self.holder: Lease | None = None
        self.waiting: list[tuple[Task, Callable[[], bool]]] = []
        self.down_until = 0.0
        self.full_until = 0.0

    def kept(self, session: Session) -> Session:
        """What is read again of a session: it goes through the record's layout, where that is looked at too."""
        return decode(encode(session), session.key, "the shelf") if self.as_bytes else session


class Lease:
    """See `HeldLease`: of one process, until it is released, runs out (timed), or the process dies."""

    def __init__(self, facade: Facade, seconds: float) -> None:
        world, shelf = facade.world, facade.shelf
        self.timed = shelf.timed
        self.granted_at = world.store_clock()
        self.process = facade.process
        self.task = world.task
        self.ends = world.now + seconds if shelf.timed else float("inf")
        self.abandoned = False
        self._seconds = seconds
        self._since = world.now
        self._facade = facade

    def held(self) -> bool:
        """Whether it still is the lease."""
        world = self._facade.world
        return self._facade.shelf.holder is self and not self.process.dead and world.now < self.ends

    def age(self) -> float:
        """Seconds since just before it was granted."""
        return self._facade.world.now - self._since

    def renew(self) -> None:
        """Start a timed lease's seconds anew."""
        self._facade.may_fail(ops.RENEW)
        if not self.held():
            raise StoreError("the lease is not held any more")
        if self.timed:
            self.ends = self._facade.world.now + self._seconds

    def release(self) -> None:
        """Give it up, if it is still held."""
        if self.process.dead:
            return
        world = self._facade.world
        try:
            self._facade.may_fail(ops.RELEASE, raises=self.timed)
        except StoreError:
            self.abandoned = True
            raise
        if self._facade.shelf.holder is self:
            world.promises.released(self)
            world.free_lease()


class Facade:
    """The store as one process has it: a `Store` whose every method is a step of the world."""

    def __init__(self, world: World, shelf: Shelf, process: Process) -> None:
        self.world = world
        self.shelf = shelf
        self.process = process

    @property
    def identity(self) -> Hashable:
        """Each process has a view of its own."""
        return self.process

    def may_fail(self, op: Op, *, raises: bool = True) -> str | None:
        """Do a step; the store may refuse it."""
        world, shelf = self.world, self.shelf
        fault: str | None = world.step(op)
        if fault == "store down":
            shelf.down_until = world.now + 8.0
        elif fault == "disk full":
            shelf.full_until = world.now + 60.0
        world.store_troubled = world.store_troubled or fault is not None
        if raises and (fault == "store error" or world.now < shelf.down_until):
            raise StoreError("the store does not answer")
        return fault

    def load(self, key: str) -> Session | None:
        """The stored session; an older one where a replica lags."""
        self.process.blind = True
        fault = self.may_fail(ops.LOAD if self.world.task.flies else ops.LOOK)
        self.process.blind = False
        stale = fault == "stale" and self.shelf.timed
        if self.world.trace is not None and stale:
            self.world.trace.note(self.world, "reads a stale record")
        return self.shelf.before if stale else self.shelf.record

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Compare login and version, and store."""
        world, shelf = self.world, self.shelf
        try:
            fault = self.may_fail(ops.SWAP)
            if world.now < shelf.full_until:
                raise StoreError("the disk is full")
        except StoreError:
            world.promises.unsaved(new)
            raise
        if not new.replaces(shelf.record, expected):
            return False
        world.promises.storing(shelf.record, new)
        shelf.before, shelf.record = shelf.record, shelf.kept(new)
        shelf.serial += 1
        world.store_changed()
        if fault == "stored, and an error said":
            raise StoreError("the store does not answer")
        return True

    def stamp(self, key: str) -> Callable[[], object]:
        """The number of swaps."""
        shelf = self.shelf
        return lambda: shelf.serial

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> Lease | None:
        """Wait for the lease."""
        world, shelf = self.world, self.shelf
        until = world.now + wait
        self.may_fail(ops.LEASE)
        while True:
            holder = shelf.holder
            if holder is None or not holder.held():
                shelf.holder = Lease(self, seconds)
                world.promises.granted(shelf.holder)
                return shelf.holder
            if stop() or world.now >= until:
                return None
            entry = (world.task, stop)
            shelf.waiting.append(entry)
            world.park(min(until, holder.ends))
            if entry in shelf.waiting:
                shelf.waiting.remove(entry)
            world.step(ops.LEASE_AGAIN)

    def set_aside(self, key: str) -> None:
        """Everything here can be read, sooner or later: nothing is moved."""
        self.may_fail(ops.SET_ASIDE)

    def close(self) -> None:
        """Nothing to close."""
