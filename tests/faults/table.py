"""The table of faults: what a run found, and the page that says it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import astuple
from pathlib import Path
from typing import Any

import pytest

from tests.faults.stage import EXPIRED, STEPS, Cell

__all__ = [
    "FAULTS",
    "PAGE",
    "ROWS",
    "TABLES",
    "Found",
    "Words",
    "held",
    "on_page",
    "results",
    "summary",
    "tell",
    "words",
    "written",
]

PAGE = Path(__file__).parents[2] / "docs/reference/faults.md"
ROWS = (*STEPS, EXPIRED)
_SERVERS = ("killed", "failed over", "read-only", "full", "cut off", "slow")
_FILES = ("read-only", "full", "damaged", "locked", "holder dies")
FAULTS: dict[str, tuple[str, ...]] = {
    "RedisStore": _SERVERS,
    "PostgresStore": _SERVERS,
    "FileStore": _FILES,
    "SQLiteStore": _FILES,
    "Sealed": _FILES,
}
"""The columns of each store's table."""
TABLES = re.compile(r"^### .*?(?=^## )", re.MULTILINE | re.DOTALL)
"""Where they are on the page."""
Found = Mapping[tuple[str, str], Mapping[str, Cell]]
"""By store and fault, what came of each step."""
Words = Mapping[tuple[str, str], Mapping[str, str]]
_TOLD = pytest.StashKey[bool]()
writing = False
"""Whether the page is being written, and need not say yet what is found."""


def results(stats: Mapping[str, Iterable[Any]]) -> dict[tuple[str, str], dict[str, Cell]]:
    """What the reports of a run hold."""
    found: dict[tuple[str, str], dict[str, Cell]] = {}
    for reports in stats.values():
        for report in reports:
            for name, value in getattr(report, "user_properties", ()):
                if name == "fault":
                    store, fault, cells = value
                    found[store, fault] = {row: Cell(*cell) for row, cell in cells.items()}
    return found


def summary(found: Found) -> list[str]:
    """The lines of the table of a run, each cell with the seconds it took."""
    lines: list[str] = []
    for store, faults in FAULTS.items():
        played = [fault for fault in faults if (store, fault) in found]
        if not played:
            continue
        rows = [[store, *played]]
        rows += [[row, *(_timed(found[store, fault].get(row)) for fault in played)] for row in ROWS]
        slowest = (max(cell.warm for cell in found[store, fault].values()) for fault in played)
        rows.append(["a valid token, at most", *(f"{1000 * one:.0f} ms" for one in slowest)])
        lines += [*_aligned(rows), ""]
    return lines[:-1]


def tell(reporter: pytest.TerminalReporter) -> None:
    """Print it at the end of a run that played some faults, once."""
    lines = [] if reporter.config.stash.get(_TOLD, False) else summary(results(reporter.stats))
    reporter.config.stash[_TOLD] = True
    if lines:
        reporter.section("faults")
        for line in lines:
            reporter.write_line(line)


def _timed(cell: Cell | None) -> str:
    return "?" if cell is None else f"{cell.word} {cell.seconds:.1f} s"


def _aligned(rows: list[list[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def words(found: Found) -> Words:
    """Without seconds."""
    return {place: {row: cell.word for row, cell in cells.items()} for place, cells in found.items()}


def written(text: str, words: Words) -> str:
    """The page with these words in its tables; the rest stays as it is."""
    parts = []
    for store, faults in FAULTS.items():
        lines = [f"### {store}", "", f"| | {' | '.join(faults)} |", f"| --- |{' --- |' * len(faults)}"]
        lines += [f"| {row} | {' | '.join(words[store, fault][row] for fault in faults)} |" for row in ROWS]
        parts.append("\n".join(lines) + "\n\n")
    return TABLES.sub(lambda _: "".join(parts), text)


def on_page(text: str) -> dict[tuple[str, str], dict[str, str]]:
    """The words of a page, by store and fault, then by row."""
    tables = TABLES.search(text)
    words: dict[tuple[str, str], dict[str, str]] = {}
    for part in tables.group().split("### ")[1:] if tables is not None else []:
        store, _, rest = part.partition("\n")
        head, _, *rows = [line.strip("| ").split(" | ") for line in rest.strip().splitlines()]
        for row, *cells in rows:
            for fault, word in zip(head, cells, strict=True):
                words.setdefault((store, fault), {})[row] = word
    return words


def held(record_property: Callable[[str, object], None], store: str, fault: str, cells: Mapping[str, Cell]) -> None:
    """Keep what was found for the table of the run; it is what the page says."""
    record_property("fault", [store, fault, {row: list(astuple(cell)) for row, cell in cells.items()}])
    found = {row: cell.word for row, cell in cells.items()}
    if not writing:
        said = on_page(PAGE.read_text())[store, fault]
        assert found == said, f"{PAGE.name} says otherwise; `python -m tests.faults --write` writes it anew"
