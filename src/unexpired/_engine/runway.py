"""How many flights of one process are under way at a time. Those that are too many wait for a place, without a thread.

A thousand sessions may expire in one second: a thread, a connection to the store and a token request for each, all at
once, would help nobody. When a flight is over, its thread goes on with the one that has waited longest.
"""

from __future__ import annotations

import contextvars
import threading
from collections import OrderedDict
from collections.abc import Callable

__all__ = ["PLACES", "Runway", "Start"]

PLACES = 256
"""Many enough that a token endpoint which lets its callers wait does not soon hold up the sessions of another one."""


class Runway:
    """The places of one process. Thread-safe."""

    def __init__(self, places: int = PLACES) -> None:
        self._places = places
        self.renew()

    def renew(self) -> None:
        """In a forked child: no flight is under way, and no thread is there that could give the lock back."""
        self._lock = threading.RLock()
        self._taken: set[Start] = set()
        self._waiting: OrderedDict[Start, None] = OrderedDict()

    def take(self, start: Start, *, at_once: bool) -> bool:
        """Whether it has a place. If not, `leave` gives it one, in its turn. *at_once*: it gets one in any case."""
        with self._lock:
            if not at_once and start not in self._taken and len(self._taken) >= self._places:
                self._waiting[start] = None
                return False
            self._waiting.pop(start, None)
            self._taken.add(start)
            return True

    def hurry(self, start: Start) -> bool:
        """Whether it was waiting: then it has a place now, and is to be flown."""
        with self._lock:
            return start in self._waiting and self.take(start, at_once=True)

    def leave(self, start: Start) -> Start | None:
        """It needs no place any more. The next one, if it has one now: it is to be flown."""
        with self._lock:
            if start in self._taken:
                self._taken.remove(start)
                if self._waiting and len(self._taken) < self._places:
                    following, _ = self._waiting.popitem(last=False)
                    self._taken.add(following)
                    return following
            return None

    def give_back(self, start: Start) -> None:
        """There was no thread for it: it is the next to get a place."""
        with self._lock:
            self._taken.discard(start)
            self._waiting[start] = None
            self._waiting.move_to_end(start, last=False)


class Start:
    """The start of one flight, whose *run* is called in the context of who first wants it started."""

    runway = Runway()

    def __init__(self, run: Callable[[], None], name: str) -> None:
        self._run = run
        self._name = name
        self._context = contextvars.Context()
        self._lock = threading.RLock()
        self.started = False

    def __call__(self, *, nested: bool) -> None:
        """Run on a thread of its own as soon as there is a place, or right here where no thread can be started.

        *nested*: another flight waits for it. As that one keeps its place meanwhile, this one gets one at once.
        """
        if self.started and not nested:
            return
        try:
            with self._lock:
                if self.started:
                    ready = self.runway.hurry(self)
                else:
                    self._context = contextvars.copy_context()
                    ready = self.runway.take(self, at_once=nested)
                if ready:
                    self._start_thread()
                self.started = True
        except RuntimeError:
            self._context.run(self._run)
            self.leave()

    def leave(self) -> None:
        """Let the next one have the place, on a thread of its own."""
        following = self.runway.leave(self)
        if following is not None:
            try:
                following._start_thread()
            except RuntimeError:
                self.runway.give_back(following)

    def _start_thread(self) -> None:
        threading.Thread(target=self._fly, name=self._name, daemon=False).start()

    def _fly(self) -> None:
        """Run, then those that have waited for a place."""
        start: Start | None = self
        while start is not None:
            threading.current_thread().name = start._name
            try:
                start._context.run(start._run)
            except BaseException:  # what ends this thread takes no other session along
                start.leave()
                raise
            start = self.runway.leave(start)
