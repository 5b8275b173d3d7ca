"""The product's own engine on a world's clocks, threads and dice: what is replaced, and nothing else is.

Threads become tasks of the world, waiting becomes parking, time is the world's. Everything that decides, from
`TokenManager` down, is the product's code as it is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager
from contextvars import copy_context
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, TypeVar

import unexpired.manager
from tests.simulation import ops
from tests.simulation.scheduler import Task
from unexpired._core import effects
from unexpired._core.effects import Instant
from unexpired._engine import cell, desk, driving, flying
from unexpired._engine.flying import Flying

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["inside", "simulated"]

R = TypeVar("R")
_worlds: list[World] = []
EPOCH = 1_000_000.0


@contextmanager
def inside(world: World) -> Generator[None]:
    """Let the engine live in *world*."""
    _worlds.append(world)
    try:
        yield
    finally:
        _worlds.pop()


def _world() -> World:
    return _worlds[-1]


def _boot() -> float:
    world = _worlds[-1]
    return world.now + world.process.boot_offset


def _wall() -> float:
    world = _worlds[-1]
    return world.now + EPOCH + world.process.skew


def _instant(*, exiting: bool = False) -> Instant:
    world = _worlds[-1]
    return Instant(world.now + EPOCH + world.process.skew, world.now + world.process.boot_offset, exiting)


def _instant_later(*, exiting: bool = False) -> Instant:
    """The time, for a flight that may be stopped for a while before it looks."""
    _worlds[-1].step(ops.NOW)
    return _instant(exiting=exiting)


def _instant_of_caller(*, exiting: bool = False) -> Instant:
    world = _worlds[-1]
    world.may_be_cancelled(ops.AFTER if world.task.joined else ops.TURN)
    world.task.joined = False
    return _instant(exiting=exiting)


def _draw() -> float:
    return _worlds[-1].choices.chance()


class Room:
    """The waiting threads or tasks of one process."""

    def __init__(self) -> None:
        self._waiting: list[Task] = []
        self._woken = False

    def wake(self) -> None:
        """Wake them all."""
        self._woken = True
        world = _world()
        for task in self._waiting:
            world.wake(task)

    def wait(self, until: float) -> None:
        """Wait to be woken, or until boot time *until*."""
        world = _world()
        until -= world.process.boot_offset
        task = world.task
        self._waiting.append(task)
        try:
            while not self._woken and world.now < until:
                world.park(until)
                world.may_be_cancelled(ops.JOINED)
            task.joined = True
        finally:
            self._waiting.remove(task)


class AsyncRoom(Room):
    """The same for a coroutine, which is run by a task of the world in one go."""

    async def wait(self, until: float) -> None:  # type: ignore[override]
        """See `Room`."""
        super().wait(until)


def _room_here() -> tuple[object, type[AsyncRoom]]:
    return _world().process, AsyncRoom


def _sleep(seconds: float) -> bool:
    world = _world()
    until = world.now + seconds
    while world.now < until:
        world.park(until)
    world.step(ops.SLEEP)
    return True


async def _async_sleep(seconds: float) -> None:
    _sleep(seconds)


async def _in_thread(work: Callable[[], R]) -> R:
    return work()


def _flight_sleep(_: Flying, effect: effects.Sleep) -> bool:
    return _sleep(effect.seconds)


def _needed(flight: Flying, effect: effects.Needs) -> frozenset[effects.Need]:
    _worlds[-1].step(ops.NEEDS)
    return Flying._needed(flight, effect)


def _publish(flight: Flying, effect: effects.Publish) -> int:
    _worlds[-1].step(ops.PUBLISH)
    return Flying._publish(flight, effect)


def _start(self: Flying) -> None:
    if not self._start.started:
        self._start.started = True
        world = _world()
        # A context of its own: a greenlet that has ended would keep what was set in it, and with it the world.
        run = partial(copy_context().run, self.run)
        world.spawn(f"flight{world.flight_number()}", world.process, run, ops.TAKE_OFF).flies = True


def _get_away(_: Flying) -> None:
    return


class _Name:
    """Random bytes, as far as a manager uses them; but one can see in a trace whose they are."""

    @staticmethod
    def hex() -> str:
        return _world().unique()


class _Os:
    """Where a manager gets its names from."""

    @staticmethod
    def urandom(_: int) -> _Name:
        return _Name()

    @staticmethod
    def getpid() -> int:
        return _world().process.number


def _not_over() -> bool:
    return False


_REPLACED: list[tuple[Any, str, Any]] = [
    (unexpired.manager, "boot", _boot),
    (unexpired.manager, "os", _Os),
    (cell, "boot", _boot),
    (cell, "time", SimpleNamespace(time=_wall)),
    (desk, "boot", _boot),
    (desk, "instant", _instant),
    (desk, "draw", _draw),
    (flying, "boot", _boot),
    (flying, "instant", _instant_later),
    (flying, "draw", _draw),
    (flying, "main_is_over", _not_over),
    (flying, "ThreadRoom", Room),
    (flying, "room_here", _room_here),
    (Flying, "start", _start),
    (Flying, "_get_away", _get_away),
    (driving, "boot", _boot),
    (driving, "instant", _instant_of_caller),
    (driving, "main_is_over", _not_over),
    (driving, "_sleep", _sleep),
    (driving, "async_sleep", _async_sleep),
    (driving, "in_thread", _in_thread),
]


@contextmanager
def simulated() -> Generator[None]:
    """Put the world's clocks, threads and dice in the place of the machine's, for as long as this lasts."""
    before = [(place, name, getattr(place, name)) for place, name, _ in _REPLACED]
    performed = dict(flying._PERFORM)
    log = logging.getLogger("unexpired")
    silent = log.disabled
    for place, name, new in _REPLACED:
        setattr(place, name, new)
    flying._PERFORM.update({effects.Sleep: _flight_sleep, effects.Needs: _needed, effects.Publish: _publish})
    log.disabled = True
    try:
        yield
    finally:
        for place, name, old in before:
            setattr(place, name, old)
        flying._PERFORM.update(performed)
        log.disabled = silent
