"""One look at a store on another machine, on a thread of its own: no caller and no event loop waits long for it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from unexpired._engine.clock import boot

if TYPE_CHECKING:
    from unexpired._engine.cell import Cell, View

__all__ = ["Looking"]

_PATIENCE = 0.1
"""Seconds that all callers together wait for one look. A store that is well answers in a hundredth of that."""


class Looking:
    """A look under way. Belongs to its cell; everybody who needs one while it lasts joins it."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._over = threading.Event()
        self._began = boot()
        self._view: View | None = None
        self._error: Exception | None = None
        # A daemon, as nothing is lost with it.
        self._thread = threading.Thread(target=self._run, name="unexpired:look", daemon=True)

    def start(self) -> None:
        """Begin. Raises RuntimeError where no thread can be started."""
        self._thread.start()

    def _run(self) -> None:
        try:
            self._view = self._cell.look()
        except Exception as error:  # noqa: BLE001 - raised again where somebody waits for it
            self._error = error
        self._cell.looked(self)
        self._over.set()

    def wait(self, since: float) -> View | None:
        """What was seen, for one who came at boot time *since*; None when it takes longer than anybody waits.

        Raises StoreError.
        """
        left = min(self._began, since) + _PATIENCE - boot()
        if not self._over.is_set() and not (left > 0.0 and self._over.wait(left)):
            return None
        if self._error is not None:
            raise self._error
        return self._view
