"""The thread that listens for changes made by others, and looks at them by the clock while nothing can be heard."""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from unexpired.errors import StoreError, place_of

if TYPE_CHECKING:
    from unexpired.stores._watching import Board

__all__ = ["PATIENCE", "TICK", "Listen", "Run"]

_log = logging.getLogger("unexpired")

_FIRST = 0.5
"""Seconds that the first stamp may wait for a server that does not answer."""
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.05, 1.0
TICK = 0.25
"""Seconds after which copies are looked at again while nothing is heard."""
_BEAT, _SILENCE, PATIENCE = 1.0, 2.0, 3.0
"""How often it is seen whether to go on; how long a silence is not asked about, and an answer is waited for."""


class Listen(Protocol):
    """How changes are heard of. What it raises shows no secret if it is a StoreError."""

    def __call__(self, run: Run) -> None:
        """Subscribe, call `Run.up`, then `Run.heard` for each message while `Run.is_wanted`. Raises when cut off."""
        ...

    def reads(self) -> bool:
        """Whether a session could be read now, though changes are not heard of. Never raises."""
        ...


class Run:
    """One life of the thread that listens. *poke* makes it look at once whether it is still wanted, if it can."""

    def __init__(self, board: Board, name: str) -> None:
        self._board = board
        self._closing = threading.Event()
        self._tried = threading.Event()
        self._started = time.monotonic()
        self._complained = False
        self.thread = threading.Thread(target=self._live, name=f"unexpired:{name}", daemon=True)
        self.poke: Callable[[], object] = bool

    def is_wanted(self) -> bool:
        """Whether somebody still uses what this thread listens for; to be asked every second or so."""
        return not self._closing.is_set() and self._board.is_used()

    def wait(self) -> None:
        """Until it hears, or knows that it cannot: half a second at most, from its start."""
        self._tried.wait(max(0.0, self._started + _FIRST - time.monotonic()))

    def stop(self) -> None:
        """End it."""
        self._closing.set()
        self.poke()
        if self.thread is not threading.current_thread():
            self.thread.join(_BEAT)

    def pause(self, seconds: float) -> None:
        """Nothing to do for so long, unless it ends."""
        self._closing.wait(seconds)

    def up(self) -> None:
        """From now on everything is heard. What happened before may have been missed, so all marks are new."""
        self._board.look_again(self, live=True)
        self._tried.set()
        if self._complained:
            self._complained = False
            _log.info("changes by other processes are heard again")

    def heard(self, message: str) -> None:
        """One message, as `Board.message` makes them; any other is ignored."""
        self._board.told(message)

    def follow(self, hear: Callable[[float], bool], ask: Callable[[], object]) -> None:
        """*hear*, which says whether anything was said within so many seconds, until it is not wanted any more.

        A line that is silent is asked by *ask* whether it still stands. Raises TimeoutError when it does not answer.
        """
        silent_since, asked = time.monotonic(), False
        while self.is_wanted():
            if hear(_BEAT):
                silent_since, asked = time.monotonic(), False
                continue
            silence = time.monotonic() - silent_since
            if silence > _SILENCE + PATIENCE:
                raise TimeoutError
            if silence > _SILENCE and not asked:
                asked = True
                ask()

    def _live(self) -> None:
        pause = 0.0
        while self.is_wanted():
            try:
                self._board.how(self)
            except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
                if not self.is_wanted():
                    break
                heard = self._board.deafen(self, for_good=False)
                pause = _SHORTEST_PAUSE if heard else min(max(2 * pause, _SHORTEST_PAUSE), _LONGEST_PAUSE)
                if heard or not self._complained:
                    self._complained = True
                    why = str(error) if isinstance(error, StoreError) else place_of(error)
                    _log.warning("changes by other processes are not heard for now: %s", why)
                self._look_meanwhile(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads them, hides nothing
        self._board.deafen(self, for_good=True)
        self._tried.set()

    def _look_meanwhile(self, pause: float) -> None:
        """Until the next attempt to listen; by this thread, so that no call waits for a server that is away."""
        until = time.monotonic() + pause
        while self.is_wanted():
            if self._board.how.reads():
                self._board.look_again(self, live=False)
            self._tried.set()
            left = until - time.monotonic()
            if left <= 0.0:
                return
            self.pause(min(left, TICK))
