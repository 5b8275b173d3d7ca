"""What the fleets did, as a table at the end of a run."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

PROPERTY = "fleet"
"""Under this name a test hands in its row: `record_property(PROPERTY, row)`."""
_PRINTED = pytest.StashKey[bool]()
_HEADS = ("store", "machines x processes x tasks", "expiries", "redemptions", "calls served", "logout seen (median)")
_KEYS = ("store", "shape", "expiries", "redemptions", "served", "logout")


def rows(reports: Iterable[Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows that tests handed in, those of one store and one shape as one, and what was said about the machines."""
    found: dict[tuple[str, str], dict[str, Any]] = {}
    said: list[str] = []
    for report in reports:
        for name, value in getattr(report, "user_properties", ()):
            if name == PROPERTY:
                row = dict(value)
                machines = row.pop("machines", "")
                if machines and machines not in said:
                    said.append(machines)
                found.setdefault((row["store"], row["shape"]), {}).update(row)
    return [found[place] for place in sorted(found, key=lambda place: place[::-1])], said


def table(found: Iterable[Mapping[str, Any]], said: Iterable[str]) -> list[str]:
    """The lines of the table."""
    cells = [_HEADS, *(tuple(str(row.get(key, "")) for key in _KEYS) for row in found)]
    widths = [max(len(row[column]) for row in cells) for column in range(len(_HEADS))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells]
    return [*lines, *(f"three machines: {kind}" for kind in said)]


def summary(stats: Mapping[str, Iterable[Any]]) -> list[str]:
    """The table of a run, or nothing if no test of a fleet has passed."""
    found, said = rows(stats.get("passed", ()))
    return table(found, said) if found else []


def show(reporter: pytest.TerminalReporter) -> None:
    """Print the table, once in a run."""
    lines = summary(reporter.stats)
    if lines and not reporter.config.stash.get(_PRINTED, False):
        reporter.config.stash[_PRINTED] = True
        reporter.section("fleets")
        for line in lines:
            reporter.write_line(line)
