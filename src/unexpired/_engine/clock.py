"""The two clocks, UNIX time and one that never jumps and runs while the machine sleeps; and the dice."""

from __future__ import annotations

import os
import sys
import threading
import time
from collections.abc import Callable
from functools import partial

from unexpired._core.effects import Instant

__all__ = ["TICK", "Bell", "boot", "draw", "instant", "keeper_here", "main_is_over"]

TICK = 0.5
"""Seconds; no sleep is longer, so that the end of the process is noticed."""


class Bell(threading.Event):
    """An event that a signal handler may wait for, too, in the middle of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self._cond = threading.Condition(threading.RLock())


def _choose() -> Callable[[], float]:
    if hasattr(time, "CLOCK_BOOTTIME"):
        return partial(time.clock_gettime, time.CLOCK_BOOTTIME)
    if sys.platform == "darwin":  # pragma: no cover - its CLOCK_MONOTONIC runs during sleep, time.monotonic does not
        return partial(time.clock_gettime, time.CLOCK_MONOTONIC)
    return time.monotonic  # pragma: no cover - Windows counts sleep in it


boot: Callable[[], float] = _choose()


def instant(*, exiting: bool = False) -> Instant:
    """Both clocks, now."""
    return Instant(time.time(), boot(), exiting)


def main_is_over() -> bool:
    """Whether the main thread has ended: the process lives only as long as its other non-daemon threads."""
    return not threading.main_thread().is_alive()


def keeper_here() -> threading.Thread | None:
    """This thread, if the process cannot end before it: one that is no daemon, or the main one in an exit handler."""
    thread = threading.current_thread()
    keeps = main_is_over() if thread is threading.main_thread() else not thread.daemon
    return thread if keeps else None


def draw() -> float:
    """A random number in [0, 1), also where a fork has copied the state of every generator."""
    return int.from_bytes(os.urandom(7), "big") / 2**56
