"""One scene as a picture: a row per call on one time axis, the refresh on top of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from xml.sax.saxutils import escape, quoteattr

from unexpired.cli._demo.results import SERVED, Call, Refresh, Result, counted

__all__ = ["KINDS", "waterfall"]

KINDS = {
    "refresh": "the refresh",
    "waiting": "waiting",
    "sent": "sent, answered",
    "refused": "sent, refused",
    "replayed": "sent again, answered",
    "told": "told why not",
}
"""What the bars mean, by the class that gives them their colour."""

_WIDTH, _LEFT, _RIGHT = 960.0, 84.0, 24.0
_TOP, _LANE, _BOTTOM = 6.0, 16.0, 46.0
_STEPS = (5, 10, 20, 25, 50, 100, 200, 250, 500, 1000, 2000, 2500, 5000, 10000)
_TALLEST = 640.0


@dataclass(frozen=True, slots=True)
class _Bar:
    """One phase of one call: *start* and *end* in seconds after the release."""

    kind: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Layout:
    """Where the rows begin, how far they are from each other, and what is between two processes (picture units)."""

    top: float
    pitch: float
    gap: float


@dataclass(frozen=True, slots=True)
class _Axis:
    """Seconds to picture units."""

    seconds: float

    def x(self, seconds: float) -> float:
        return _LEFT + (_WIDTH - _LEFT - _RIGHT) * min(max(seconds / self.seconds, 0.0), 1.0)


def waterfall(result: Result) -> str:
    """The scene as an SVG element that takes its colours from the page around it. Holds no secret and no script."""
    rows = sorted(result.calls, key=lambda call: (call.group, _ended(call, result), call.number))
    groups = len({call.group for call in rows})
    layout = _Layout(
        top=_TOP + _LANE * max(1, len(result.refreshes)) + 8, pitch=_pitch(len(rows)), gap=4.0 if groups > 1 else 0.0
    )
    bottom = layout.top + layout.pitch * len(rows) + layout.gap * (groups - 1)
    axis = _Axis(max(result.wall_s, result.floor_s) * 1.02 or 1.0)
    refreshes = counted(len(result.refreshes), "refresh", "refreshes")
    label = quoteattr(f"{result.scene}: {counted(result.callers, 'call')}, {refreshes}")
    box = f"0 0 {_WIDTH:g} {bottom + _BOTTOM:g}"
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label={label} viewBox="{box}">',
            *_grid(axis, bottom),
            *_refreshes(axis, result.refreshes, result.released, bottom),
            *_rows(axis, rows, result, layout),
            *_ends(axis, result, bottom),
            *_scale(axis, bottom),
            "</svg>",
        ]
    )


def _pitch(rows: int) -> float:
    for most, pitch in ((12, 14.0), (30, 10.0), (60, 7.0), (120, 5.0)):
        if rows <= most:
            return pitch
    return max(1.0, _TALLEST / max(rows, 200))


def _ended(call: Call, result: Result) -> float:
    return result.released + result.wall_s if call.ended is None else call.ended


def _bars(call: Call, result: Result) -> Iterator[_Bar]:
    at, end = call.began - result.released, _ended(call, result) - result.released
    last = len(call.attempts) - 1
    for index, attempt in enumerate(call.attempts):
        sent, answered = attempt.sent - result.released, attempt.answered - result.released
        yield _Bar("waiting", at, sent)
        if index < last or call.outcome != SERVED:
            yield _Bar("refused", sent, answered)
            at = answered
        else:
            # its body was read until the call ended
            yield _Bar("replayed" if index else "sent", sent, end)
            at = end
    if call.outcome != SERVED:
        yield _Bar("waiting", at, end)
        if call.ended is not None:
            yield _Bar("told", end, end)


def _rows(axis: _Axis, rows: Sequence[Call], result: Result, layout: _Layout) -> Iterator[str]:
    y = layout.top
    for group, members in groupby(rows, key=lambda call: call.group):
        begun, count = y, 0
        for call in members:
            yield f"<g><title>call {call.number}: {escape(call.outcome)}</title>"
            for bar in _bars(call, result):
                yield _rect(axis, bar, y, layout.pitch, f"call {call.number}: {_words(bar, call)}")
            yield "</g>"
            y, count = y + layout.pitch, count + 1
        words = f"process {group + 1}" if layout.gap else counted(count, "call")
        yield f'<text class="label" x="{_LEFT - 10:g}" y="{(begun + y) / 2 + 4:.1f}">{words}</text>'
        y += layout.gap


def _words(bar: _Bar, call: Call) -> str:
    if bar.kind == "told":
        return f"{escape(call.outcome)} after {_ms(bar.end)}"
    return f"{KINDS[bar.kind]}, {_ms(bar.start)} to {_ms(bar.end)}"


def _rect(axis: _Axis, bar: _Bar, y: float, pitch: float, title: str) -> str:
    x, end = axis.x(bar.start), axis.x(bar.end)
    if bar.kind == "told":
        x, end = end - 3, end + 1
    height = pitch * 0.78
    inset = height * 0.3 if bar.kind == "waiting" else 0.0
    return (
        f'<rect class="{bar.kind}" x="{x:.1f}" y="{y + inset:.2f}" width="{max(end - x, 0.1):.1f}" '
        f'height="{height - 2 * inset:.2f}"><title>{title}</title></rect>'
    )


def _refreshes(axis: _Axis, refreshes: Sequence[Refresh], released: float, bottom: float) -> Iterator[str]:
    name = "refresh" if len(refreshes) == 1 else f"{len(refreshes)} refreshes"
    yield f'<text class="label strong" x="{_LEFT - 10:g}" y="{_TOP + 11:g}">{name}</text>'
    for index, refresh in enumerate(refreshes):
        start, end = refresh.received - released, refresh.answered - released
        x, width = axis.x(start), max(axis.x(end) - axis.x(start), 1.5)
        y = _TOP + index * _LANE
        title = f"refresh: {escape(refresh.outcome)}, {_ms(start)} to {_ms(end)}"
        yield f'<rect class="band" x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{bottom - y:.1f}"/>'
        yield (
            f'<rect class="refresh" x="{x:.1f}" y="{y:g}" width="{width:.1f}" height="{_LANE - 2:g}" rx="2">'
            f"<title>{title}</title></rect>"
        )
        if width > 60:
            yield f'<text class="inside" x="{x + width / 2:.1f}" y="{y + 11:g}">{_ms(end - start)}</text>'


def _ticks(axis: _Axis) -> range:
    total = axis.seconds * 1000
    step = next((step for step in _STEPS if total / step <= 10), _STEPS[-1])
    return range(0, int(total) + 1, step)


def _grid(axis: _Axis, bottom: float) -> Iterator[str]:
    for tick in _ticks(axis):
        x = axis.x(tick / 1000)
        yield f'<line class="grid" x1="{x:.1f}" y1="{_TOP:g}" x2="{x:.1f}" y2="{bottom + 4:.1f}"/>'


def _scale(axis: _Axis, bottom: float) -> Iterator[str]:
    for tick in _ticks(axis):
        yield f'<text class="tick" x="{axis.x(tick / 1000):.1f}" y="{bottom + 15:.1f}">{tick} ms</text>'


def _ends(axis: _Axis, result: Result, bottom: float) -> Iterator[str]:
    marks = (("wall", result.wall_s, "all done", 28.0), ("floor", result.floor_s, "floor", 41.0))
    for name, seconds, _, down in marks:
        x = axis.x(seconds)
        yield f'<line class="{name}" x1="{x:.1f}" y1="{_TOP:g}" x2="{x:.1f}" y2="{bottom + down + 2:.1f}"/>'
    for name, seconds, words, down in marks:
        x = max(axis.x(seconds) - 5, _LEFT + 90)
        yield f'<text class="mark {name}" x="{x:.1f}" y="{bottom + down:.1f}">{words} {_ms(seconds)}</text>'


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"
