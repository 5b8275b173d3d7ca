"""What every test gets: Hypothesis without timing verdicts, and a watch over threads left behind."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest
from hypothesis import settings

# How long a thread may take to end by itself once its test is over (seconds).
_PATIENCE = 5.0

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread behind: it would keep the interpreter from exiting."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + _PATIENCE
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    names = sorted(thread.name for thread in left if thread.is_alive())
    if names:
        pytest.fail(f"threads left behind: {', '.join(names)}")
