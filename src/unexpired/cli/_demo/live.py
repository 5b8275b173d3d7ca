"""What is seen while the scenes are played: a table that fills in a terminal, a line per scene anywhere else."""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self, TextIO

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from unexpired.cli._demo.results import Result, counted, figures

__all__ = ["View", "view_for"]

_COLUMNS = {"callers": 7, "served": 6, "told": 4, "refreshes": 9, "reuse": 5, "time": 6, "floor": 6, "ratio": 5}
_WIDTH = 80


def view_for(stream: TextIO, names: Sequence[str], *, quiet: bool) -> View:
    """The view that *stream* can show; with *quiet* nothing at all where it is no terminal."""
    console = Console(file=stream, highlight=False)
    if not console.is_terminal:
        return View(None if quiet else console)
    # a narrower terminal would lose columns, and a dumb one cannot draw
    return View(console) if console.is_dumb_terminal or console.width < _WIDTH else _Table(console, names)


class View:
    """A line of plain text when a scene has been played. Not thread-safe."""

    def __init__(self, console: Console | None) -> None:
        self._console = console

    def begin(self, name: str) -> None:
        """The scene *name* comes on."""

    def stage(self, text: str) -> None:
        """What the scene is doing."""

    def end(self, result: Result, broken: Sequence[str]) -> None:
        """The scene has been played; *broken* are the promises that were not held."""
        cells = figures(result)
        outcome = f"{cells['told']} told" if result.fails else f"{cells['served']} served"
        ratio = f"  ratio {cells['ratio']}" if cells["ratio"] else ""
        self.say(
            f"{'BROKEN' if broken else 'ok':<6} {result.scene:<22} {counted(result.callers, 'caller'):<12} "
            f"{outcome:<11} {counted(len(result.refreshes), 'refresh', 'refreshes')}  {cells['reuse']} reuse  "
            f"{cells['time']:>6}  floor {cells['floor']:>6}{ratio}"
        )

    def praise(self, text: str) -> None:
        """All is well."""
        if self._console is not None:
            self._console.print(text, style="bold green", soft_wrap=not self._console.is_terminal)

    def say(self, text: str) -> None:
        """A sentence below it all, never broken into lines in the middle of a path."""
        if self._console is not None:
            self._console.print(text, soft_wrap=True, markup=False)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End the view, whatever happened."""


class _Table(View):
    """A table of all scenes that is drawn anew when something happens, and never while callers are being measured."""

    def __init__(self, console: Console, names: Sequence[str]) -> None:
        super().__init__(console)
        self._names = names
        self._ended: dict[str, tuple[Result, bool]] = {}
        self._current = self._doing = ""
        unicode = console.encoding.lower().startswith("utf")
        self._signs = ("✓", "✗", "▸") if unicode else ("+", "!", ">")
        # no refresh thread: it would take part in the measurement
        self._live = Live(self._drawn(), console=console, auto_refresh=False)

    def begin(self, name: str) -> None:
        self._current = name
        self.stage("starting")

    def stage(self, text: str) -> None:
        self._doing = text
        self._live.update(self._drawn(), refresh=True)

    def end(self, result: Result, broken: Sequence[str]) -> None:
        self._ended[result.scene] = (result, not broken)
        self._current = ""
        self._live.update(self._drawn(), refresh=True)

    def __enter__(self) -> Self:
        self._live.start(refresh=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def _drawn(self) -> RenderableType:
        table = Table(box=None, pad_edge=False, padding=(0, 1), collapse_padding=True, header_style="dim")
        table.add_column("", width=1)
        table.add_column("scene", no_wrap=True, min_width=21)
        for name, width in _COLUMNS.items():
            # wide enough from the start, so that nothing moves when figures come in
            table.add_column(name, justify="right", no_wrap=True, min_width=width)
        for name in self._names:
            self._add(table, name)
        if len(self._ended) == len(self._names):
            return Group("", table, "")
        bar = Table.grid(padding=(0, 2))
        bar.add_row(
            ProgressBar(total=len(self._names), completed=len(self._ended), width=24),
            Text(f"{len(self._ended)} of {len(self._names)}  {self._doing}", style="dim"),
        )
        return Group("", table, "", bar)

    def _add(self, table: Table, name: str) -> None:
        good, bad, now = self._signs
        if name in self._ended:
            result, held = self._ended[name]
            styles = {"refreshes": "bold green" if held else "bold red", "floor": "dim"}
            cells = [Text(cell, styles.get(column, "")) for column, cell in figures(result).items()]
            table.add_row(Text(good, "bold green") if held else Text(bad, "bold red"), name, *cells)
        elif name == self._current:
            table.add_row(Text(now, "bold cyan"), Text(name, "bold"))
        else:
            table.add_row("", Text(name, "dim"))
