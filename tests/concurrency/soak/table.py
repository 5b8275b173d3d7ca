"""A soak's figures, for people."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence

from tests.concurrency.soak.figures import Durations, Figures, Process, memory_growth

__all__ = ["line", "table"]

_SHARES = (0.5, 0.99, 0.999)
_HELD = ["process", "memory", "growth", "descriptors", "threads", "both after the end"]


def _aligned(rows: Iterable[Sequence[str]]) -> list[str]:
    """The rows as lines: the first column to the left, numbers to the right."""
    rows = list(rows)
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(
            [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        )
        for row in rows
    ]


def _counted(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1])) or "none"


def _calls(name: str, durations: Durations, served: int) -> list[str]:
    took = (f"{durations.within(share) * 1000:,.0f} ms" for share in _SHARES)
    part = served / durations.total if durations.total else 0.0
    return [name, f"{durations.total:,}", f"{part:.1%}", *took]


def _process(process: Process) -> list[str]:
    if not process.samples:
        return [process.name, "?", "?", "?", "?", "?"]
    last, left = process.samples[-1], process.left
    held = [
        f"{last.mib:.1f} MiB",
        f"{memory_growth(process.samples):+.1f} MiB",
        f"{last.descriptors}",
        f"{last.threads}",
    ]
    return [process.name, *held, f"{left.descriptors}, {left.threads}" if left is not None else "?"]


def line(seconds: float, figures: Figures) -> str:
    """One line of progress."""
    calls = sum(durations.total for durations in figures.adapters.values())
    return f"{seconds:5.0f} s  {calls:,} calls, {figures.events['RefreshSucceeded']} refreshes"


def table(figures: Figures) -> str:
    """All of it."""
    together = Durations()
    for durations in figures.adapters.values():
        together.add(durations)
    rows = [["adapter", "calls", "served", "p50", "p99", "p99.9"]]
    rows += [_calls(name, durations, figures.served[name]) for name, durations in figures.adapters.items()]
    rows.append(_calls("all", together, figures.served.total()))
    server, events = figures.server, figures.events
    lines = _aligned(rows)
    failed = _counted(figures.failures)
    lines += [
        "",
        f"token requests {server['token_posts']:,}: {events['RefreshSucceeded']:,} refreshes; failed: {failed}",
        f"API requests {server['api_calls']:,}; refused {server['refused']:,}; replays {events['RequestReplayed']:,}",
        f"logins that the server ended {figures.announced}; reuse noticed by the server {server['reuse_detected']}",
        *textwrap.wrap(f"errors that callers saw: {_counted(figures.errors)}", 100, subsequent_indent="    "),
        "",
        *_aligned([_HELD, *map(_process, figures.processes)]),
    ]
    return "\n".join(lines)
