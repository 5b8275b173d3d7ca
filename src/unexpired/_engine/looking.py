"""One look at a store on another machine, on a thread of its own: no caller and no event loop waits long for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, ClassVar

from unexpired._engine.clock import Bell, boot

if TYPE_CHECKING:
    from unexpired._engine.cell import Cell, View

__all__ = ["Looking"]

_PATIENCE = 0.1
"""Seconds that all callers together wait for one look. A store that is well answers in a hundredth of that."""
_QUICK = 0.005
"""Seconds; what a store that is well takes, and what is waited for without counting it."""
_SHARE = 0.1
"""Of its time a thread spends no more than this on looks that are not quick: an event loop may have a thousand."""
_MOST = 64
"""Looks of a process at a time. Who comes then is served what is known, or waits in a flight."""


class _Credit(threading.local):
    """What this thread may still wait for late looks."""

    def __init__(self) -> None:
        self._seconds, self._at = _PATIENCE, boot()

    def left(self) -> float:
        """Seconds."""
        now = boot()
        self._seconds = min(_PATIENCE, self._seconds + (now - self._at) * _SHARE)
        self._at = now
        return self._seconds

    def spend(self, seconds: float) -> None:
        """So many less."""
        self._seconds -= seconds


_credit = _Credit()


class Looking:
    """A look under way. Belongs to its cell; everybody who needs one while it lasts joins it."""

    under_way: ClassVar[set[Looking]] = set()

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._over = Bell()
        self._began = boot()
        self._view: View | None = None
        self._error: Exception | None = None
        # A daemon, as nothing is lost with it.
        self._thread = threading.Thread(target=self._run, name="unexpired:look", daemon=True)

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be started."""
        Looking.under_way.add(self)
        try:
            self._thread.start()
        except BaseException:  # Ctrl-C too
            self._end()
            raise

    @staticmethod
    def too_many() -> bool:
        """Whether so many are under way that another one would help nobody."""
        return len(Looking.under_way) >= _MOST

    def _run(self) -> None:
        try:
            self._view = self._cell.look()
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for it
            self._error = error
        self._end()

    def _end(self) -> None:
        Looking.under_way.discard(self)
        self._cell.looked(self)
        self._over.set()

    def wait(self, since: float) -> View | None:
        """What was seen, for one who came at boot time *since*; None when it takes longer than anybody waits.

        Raises StoreError.
        """
        if not self._over.is_set():
            began = boot()
            left = min(min(self._began, since) + _PATIENCE - began, _credit.left())
            came = left > 0.0 and self._over.wait(left)
            took = boot() - began
            if took > _QUICK or not came:
                _credit.spend(took)
            if not came and not self._over.is_set():
                return None
        if self._error is not None:
            raise self._error
        return self._view
