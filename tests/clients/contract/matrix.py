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
    from tests.clients.contract.fittings import FITTINGS

    ran = {square[0] for square in found}
    limits = {
        (fitting.name, idiom, mode, point): reason
        for fitting in FITTINGS
        if fitting.name in ran
        for idiom in fitting.idioms
        for mode in fitting.modes
        for point in POINTS
        if (reason := fitting.not_applicable(point, idiom, mode)) is not None
    }
    exempt = [
        f"but {name} in {one.name}: {why}" for one in FITTINGS if one.name in ran for name, why in one.exempt.items()
    ]
    return [*table(found, limits, POINTS), *exempt]
