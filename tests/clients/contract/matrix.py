"""The contract as a table: which adapter was held to which point, and how that went."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Square = tuple[str, str, str, int]
"""Adapter, idiom, mode, point."""
PASSED, FAILED, NOT_APPLICABLE, NOT_RUN = "ok", "FAIL", "n/a", "."


def results(stats: Mapping[str, Iterable[Any]]) -> dict[Square, str]:
    """What the reports of a run say of each square: one failed test fails it."""
    found: dict[Square, str] = {}
    for outcome, verdict in (("passed", PASSED), ("failed", FAILED), ("error", FAILED)):
        for report in stats.get(outcome, ()):
            for name, value in getattr(report, "user_properties", ()):
                if name == "contract":
                    adapter, idiom, mode, point = value
                    found[adapter, idiom, mode, point] = verdict
    return found


def table(found: Mapping[Square, str], limits: Mapping[Square, str], points: Mapping[int, str]) -> list[str]:
    """The lines of the table, and after it the points in words and the reasons of what is not applicable."""
    rows = sorted({square[:3] for square in (*found, *limits)}, key=_order)
    width = max((len(" ".join(row)) for row in rows), default=0)
    lines = [" " * width + "".join(f"{point:>5}" for point in points)]
    for row in rows:
        marks = [NOT_APPLICABLE if (*row, point) in limits else found.get((*row, point), NOT_RUN) for point in points]
        lines.append(" ".join(row).ljust(width) + "".join(f"{mark:>5}" for mark in marks))
    lines.append("")
    lines += [f"{point:>2} {words}" for point, words in points.items()]
    lines += [f"n/a {' '.join(map(str, square))}: {reason}" for square, reason in limits.items()]
    return lines


def _order(row: tuple[str, ...]) -> tuple[str, str, int]:
    adapter, idiom, mode = row
    modes = ("threads", "asyncio", "trio")
    return adapter, idiom, modes.index(mode) if mode in modes else len(modes)


def summary(stats: Mapping[str, Iterable[Any]]) -> list[str]:
    """The table of a run, or nothing if no test of the contract was in it."""
    found = results(stats)
    if not found:
        return []
    # Only here: a run without the contract's tests need not have every client installed.
    from tests.clients.contract.fitting import POINTS
    from tests.clients.contract.rows import ELSEWHERE, ROWS

    rows = [row for row in ROWS if row.name in {square[0] for square in found}]
    limits = {
        (row.name, idiom, mode, point): reason
        for row in rows
        for idiom in row.idioms
        for mode in row.modes
        for point in POINTS
        if (reason := row.not_applicable(point, idiom, mode)) is not None
    }
    lines = table(found, limits, POINTS)
    lines += [f"{row.name} has no {mode}: {reason}" for row in rows for mode, reason in row.without.items()]
    lines += [
        f"{row.name} {mode} over HTTP/2 one call at a time: {reason}"
        for row in rows
        for mode, reason in row.one_at_a_time.items()
    ]
    lines.append(ELSEWHERE)
    return [*lines, *(f"{row.name} not in {name}: {reason}" for row in rows for name, reason in row.exempt.items())]
