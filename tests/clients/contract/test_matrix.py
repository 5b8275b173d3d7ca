"""The contract has no holes: every adapter is held to every point in every mode, or says why it cannot be."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.clients.contract.fitting import MODES, POINTS, Cell, Fitting
from tests.clients.contract.fittings import FITTINGS
from tests.clients.contract.matrix import Square, results, summary, table

FILES = sorted(path.stem for path in Path(__file__).parent.glob("test_*.py"))


def held() -> dict[int, set[str]]:
    """For each point the modes in which some test holds it."""
    found: dict[int, set[str]] = {point: set() for point in POINTS}
    for name in FILES:
        for item in vars(importlib.import_module(f"tests.clients.contract.{name}")).values():
            for mark in getattr(item, "pytestmark", ()):
                if mark.name == "contract":
                    found[mark.args[0]] |= set(mark.kwargs.get("modes", MODES))
    return found


def missing(fittings: tuple[Fitting, ...], tested: dict[int, set[str]]) -> list[str]:
    """Every square that is neither tested nor declared to be impossible."""
    return [
        f"{Cell(fitting, idiom, mode)}: {point} {POINTS[point]}"
        for fitting in fittings
        for idiom in fitting.idioms
        for mode in MODES
        for point in POINTS
        if not fitting.not_applicable(point, idiom, mode) and mode not in (tested[point] & set(fitting.modes))
    ]


def test_no_square_is_missing() -> None:
    """Each point is tested for every adapter, idiom and mode, or declared with the client's own reason."""
    assert missing(FITTINGS, held()) == []
    assert len({fitting.name for fitting in FITTINGS}) == len(FITTINGS) >= 2


def test_a_missing_square_is_found() -> None:
    """A point without a test in one mode, and a client that leaves a mode out without a word, are reported."""
    tested = held()
    assert len(missing(FITTINGS[:1], tested | {7: {"asyncio", "trio"}})) == len(FITTINGS[0].idioms)

    class Silent(type(FITTINGS[0])):  # type: ignore[misc]  # whatever the first one is
        modes = ("threads", "asyncio")

    class Said(Silent):
        def not_applicable(self, point: int, idiom: str, mode: str) -> str | None:
            """There is no trio for this one."""
            return "the client needs asyncio" if mode == "trio" and point and idiom else None

    first: Any = FITTINGS[0]
    silent, said = (kind(first.library, first.adapter) for kind in (Silent, Said))
    assert len(missing((silent,), tested)) == len(POINTS) * len(silent.idioms)
    assert missing((said,), tested) == []


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
    lines = summary({"passed": [report(("httpx", "auth", "trio", 17))]} if ran else {})
    assert bool(lines) == ran
    assert not ran or len(lines) == 3 + len(POINTS)
