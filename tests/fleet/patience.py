"""Waiting for something that is going to be so."""

from __future__ import annotations

import time
from collections.abc import Callable

LONG = 60.0
"""Seconds in which everything must have happened, on a slow machine too."""


def wait_until(fact: Callable[[], bool], what: str) -> None:
    """Wait until *fact* is true."""
    end = time.monotonic() + LONG
    while not fact():
        assert time.monotonic() < end, f"not within {LONG:g} s: {what}"
        time.sleep(0.005)
