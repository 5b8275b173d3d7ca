from __future__ import annotations

from tests.faults.stage import FROM_MEMORY, SERVED, Cell
from tests.faults.table import FAULTS, PAGE, ROWS, on_page, summary, written


def test_the_page_has_every_fault_and_no_other() -> None:
    """For each store, fault and step there is one word on the page; what it says is held by the test of that fault."""
    text = PAGE.read_text()
    words = on_page(text)
    assert set(words) == {(store, fault) for store, faults in FAULTS.items() for fault in faults}
    assert {tuple(rows) for rows in words.values()} == {ROWS}
    assert {word for rows in words.values() for word in rows.values()} == {SERVED, FROM_MEMORY, "StoreError"}
    assert written(text, words) == text


def test_the_tables_are_written_again() -> None:
    """What is found takes the place of what the tables said, and nothing else on the page changes."""
    text = PAGE.read_text()
    words = on_page(text)
    words["RedisStore", "killed"] = dict.fromkeys(ROWS, "hung")
    changed = written(text, words)
    assert on_page(changed) == words
    before, after = text.splitlines(), changed.splitlines()
    assert [one for one, other in zip(before, after, strict=True) if one != other] == [
        line
        for line in before[before.index("### RedisStore") :][:11]
        if line.startswith(tuple(f"| {row} |" for row in ROWS))
    ]


def test_the_table_of_a_run_has_what_was_played() -> None:
    """A run of some faults prints a table of those, with the seconds that each took."""
    cells = {row: Cell(SERVED, 0.25, 0.004) for row in ROWS}
    lines = summary({("FileStore", "full"): cells, ("FileStore", "locked"): cells})
    assert lines[0].split() == ["FileStore", "full", "locked"]
    assert lines[-1].split() == ["a", "valid", "token,", "at", "most", *["4", "ms"] * 2]
    assert [line.count("served 0.2 s") for line in lines[1:-1]] == [2] * len(ROWS)
    assert summary({}) == []
