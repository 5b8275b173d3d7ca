"""What is asked of stamps here does not depend on how soon this machine starts a thread that listens."""

from __future__ import annotations

import pytest

from unexpired.stores import _listening

_OURS = _listening._FIRST
"""Seconds that a first stamp may wait in the library, for a server that does not answer."""
_LONG = 30.0


@pytest.fixture(autouse=True)
def _heard_before_the_first_stamp(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first stamp waits until changes are heard, or cannot be: on a slow machine that takes more than a moment."""
    monkeypatch.setattr(_listening, "_FIRST", _LONG)


@pytest.fixture
def first_stamp_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of how long a server that says nothing holds up the first stamp: as long as in the library."""
    monkeypatch.setattr(_listening, "_FIRST", _OURS)
