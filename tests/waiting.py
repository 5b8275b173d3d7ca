"""Waiting for what is sure to come."""

from __future__ import annotations

import time
from collections.abc import Callable

__all__ = ["until"]

_LONGEST = 45.0
"""Seconds. A machine may be slow; a test has a minute."""


def until(fact: Callable[[], object], what: str = "what was waited for") -> None:
    """Look until *fact* is true. Fails, naming *what* did not come, when it never is."""
    end = time.monotonic() + _LONGEST
    while not fact():
        assert time.monotonic() < end, f"not within {_LONGEST:g} s: {what}"
        time.sleep(0.002)
