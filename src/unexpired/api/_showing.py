"""What a person at a terminal sees of calls under way: a spinner, a progress bar. With rich; without it, nothing."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

__all__ = ["Progress", "Spinner", "progress_bar"]

Progress = Callable[[int, int | None], object]
"""Called with the bytes done and the bytes in all (None: unknown)."""


class Spinner:
    """Turns while at least one call is under way."""

    def __init__(self, text: str) -> None:
        try:
            from rich.console import Console  # noqa: PLC0415 - optional
        except ImportError:
            self._status: Any = None
        else:
            self._status = Console(stderr=True).status(text)
        self._lock = threading.Lock()
        self._turning = False
        self._closed = False

    def __call__(self, active: int) -> None:
        """*active* calls are under way now."""
        with self._lock:
            self._turn(active > 0 and not self._closed)

    def close(self) -> None:
        """Stop for good: another thread may still be about to tell of calls."""
        with self._lock:
            self._closed = True
            self._turn(False)

    def _turn(self, on: bool) -> None:
        if self._status is None or self._turning == on:
            return
        self._turning = on
        if on:
            self._status.start()
        else:
            self._status.stop()


@contextmanager
def progress_bar(text: str = "") -> Generator[Progress]:
    """A progress bar on the terminal, as the ``progress=`` of an upload or a download.

    Shows nothing when rich is not installed (``pip install 'unexpired[cli]'``).
    """
    try:
        from rich.console import Console  # noqa: PLC0415 - optional
        from rich.progress import BarColumn, DownloadColumn, TextColumn, TransferSpeedColumn  # noqa: PLC0415
        from rich.progress import Progress as Bars  # noqa: PLC0415
    except ImportError:
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Bars(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task(text, total=None)
        yield lambda done, total: bars.update(bar, completed=done, total=total)
