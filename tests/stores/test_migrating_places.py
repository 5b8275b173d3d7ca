"""`migrate` when the sessions are not where somebody believes them to be."""

from __future__ import annotations

import pytest

from tests.stores.test_migrating import KEY, LIVE, loaded, outcome, reason
from unexpired.stores import MemoryStore, migrate


@pytest.mark.parametrize("over", [False, True])
def test_a_session_that_went_to_another_store_is_told(over: bool) -> None:
    """Moved to a wrong store and then to the right one, it fails and says from where; from there it moves on."""
    source, wrong, right = MemoryStore(), MemoryStore(), MemoryStore()
    assert source.swap(KEY, None, LIVE.over("logout", 1.0) if over else LIVE)
    assert migrate(source, wrong).moved == (KEY,)
    report = migrate(source, right)
    assert outcome(report) == (0, 0, 1)
    assert "it was moved to another store than this one before: move it from there" in report.failed[KEY]
    assert right.load(KEY) is None
    assert migrate(wrong, right).moved == (KEY,)
    assert migrate(source, right).skipped == {KEY: "it was moved before"}
    assert (reason(source), reason(right)) == ("moved", "logout" if over else "")
    assert loaded(right).seeds == LIVE.seeds
