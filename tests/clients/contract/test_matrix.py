"""The contract has no holes: every adapter is held to every point in every mode, or says why it cannot be."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from tests.clients.contract.fitting import MODES, POINTS, Cell, Fitting, Row
from tests.clients.contract.matrix import Square, results, summary, table
from tests.clients.contract.rows import FITTINGS, LEFT_OUT, ROWS

FILES = sorted(
    path.stem
    for path in Path(__file__).parent.glob("test_*.py")
    if not any(path.match(f"{pattern}.py") for pattern in LEFT_OUT)
)


def held() -> dict[tuple[str, int], set[str]]:
    """In which modes some test holds a row to a point; those under the name "" hold every one that speaks HTTP."""
    found: dict[tuple[str, int], set[str]] = {}
    for name in FILES:
        for item in vars(importlib.import_module(f"tests.clients.contract.{name}")).values():
            for mark in getattr(item, "pytestmark", ()):
                if mark.name == "contract":
                    row = mark.kwargs["row"].name if "row" in mark.kwargs else ""
                    found.setdefault((row, mark.args[0]), set()).update(mark.kwargs.get("modes", MODES))
    return found


def missing(rows: tuple[Row, ...], tested: dict[tuple[str, int], set[str]]) -> list[str]:
    """Every square that is neither tested nor declared to be impossible."""
    return [
        f"{Cell(row, idiom, mode)}: {point} {POINTS[point]}"
        for row in rows
        for idiom in row.idioms
        for mode in MODES
        for point in POINTS
        if mode not in row.without
        and not row.not_applicable(point, idiom, mode)
        and mode not in tested.get(("" if isinstance(row, Fitting) else row.name, point), set()) & set(row.modes)
    ]


def test_no_square_is_missing() -> None:
    """Each point is tested for every adapter, idiom and mode, or declared with the client's own reason."""
    assert missing(ROWS, held()) == []
    assert len({row.name for row in ROWS}) == len(ROWS) >= 2


def test_every_exempt_test_exists() -> None:
    """A test that a client is exempt from is there."""
    files = (importlib.import_module(f"tests.clients.contract.{name}") for name in FILES)
    written = {name for file in files for name in vars(file)}
    assert {name for row in ROWS for name in row.exempt} - written == set()


def test_a_missing_square_is_found() -> None:
    """A point without a test in one mode, and a client that leaves a mode out without a word, are reported."""
    tested = held()
    assert len(missing(FITTINGS[:1], tested | {("", 7): {"asyncio", "trio"}})) == len(FITTINGS[0].idioms)

    class Silent(Row):
        name = "silent"
        idioms = ("one", "two")
        modes = ("threads", "asyncio")

    class Said(Silent):
        without: ClassVar = {"trio": "the client needs asyncio"}

    tested |= {("silent", point): set(MODES) for point in POINTS}
    assert len(missing((Silent(),), tested)) == len(POINTS) * 2
    assert missing((Said(),), tested) == []


def report(square: Square) -> Any:
    """What a report of a test looks like, also after its way from another process."""
    return SimpleNamespace(user_properties=[("contract", list(square)), ("other", 1)])


def test_results_come_from_the_reports() -> None:
    """One failure among several tests of a square fails it, whenever it happened."""
    one, two = ("httpx2", "auth", "trio", 1), ("httpx2", "auth", "trio", 2)
    stats = {"passed": [report(one), report(two)], "error": [report(two)], "warnings": [object()]}
    assert results(stats) == {one: "ok", two: "FAIL"}


def test_the_table() -> None:
    """The table has a row for each way to use an adapter and a column for each point; limits stand below it."""
    found = {("b", "auth", "trio", 1): "ok", ("b", "auth", "threads", 1): "FAIL"}
    limits = {("b", "auth", "threads", 2): "it cannot"}
    assert table(found, limits, {1: "one", 2: "two"}) == [
        "                  1    2",
        "b auth threads FAIL  n/a",
        "b auth trio      ok    .",
        "",
        " 1 one",
        " 2 two",
        "n/a b auth threads 2: it cannot",
    ]


@pytest.mark.parametrize("ran", [True, False])
def test_the_table_is_printed_after_tests_of_the_contract(ran: bool) -> None:
    """A run without them says nothing of it."""
    lines = summary({"passed": [report(("requests", "auth", "threads", 17))]} if ran else {})
    assert bool(lines) == ran
    assert not ran or len(lines) == 7 + len(POINTS)
