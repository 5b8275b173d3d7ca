"""What one process knows of one session that others may change, and how it waits for its lease; see `_watching`."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from unexpired._core.session import Session

if TYPE_CHECKING:
    from unexpired.stores._watching import Board

__all__ = ["Entry", "boot", "take_turns"]

L = TypeVar("L")

_STEP = 0.005
_CLOCK: int | None = getattr(time, "CLOCK_BOOTTIME", None)


def boot() -> float:
    """Seconds on a clock that never jumps and runs during suspend where one can."""
    return time.monotonic() if _CLOCK is None else time.clock_gettime(_CLOCK)


class Entry:
    """What is known of one session. Calling it gives its stamp, which differs after each change that was heard of.

    *mark* is None until there is somebody who hears. *waiting* holds one event for each thread that waits for the
    lease, which is somebody's until boot time *held_until* as far as known. *news* counts what they were woken for.
    """

    __slots__ = ("__weakref__", "_known", "_loading", "board", "held_until", "mark", "news", "waiting")

    def __init__(self, board: Board, mark: int | None) -> None:
        self.board = board
        self.mark = mark
        self.news = 0
        self._forget()

    def start_anew(self) -> None:
        """Nothing is known, and nobody waits."""
        self.mark = None
        self._forget()

    def _forget(self) -> None:
        self.waiting: frozenset[threading.Event] = frozenset()
        self.held_until = 0.0
        self.forget()

    def change(self, mark: int | None) -> None:
        """It may have changed. Who waits for the lease sees whether he still has to."""
        self.mark = mark
        self.forget()
        self._wake()

    def free(self) -> None:
        """The lease may be free: all who wait for it ask again."""
        self.held_until = 0.0
        self._wake()

    def _wake(self) -> None:
        self.news += 1
        for woken in self.waiting:
            woken.set()

    def forget(self) -> None:
        """What was loaded counts no more, and neither does what somebody is just loading."""
        self._known: tuple[int, threading.Lock, Session | None] | None = None
        self._loading = threading.Lock()

    def know(self, mark: int, session: Session | None, loading: threading.Lock | None = None) -> None:
        """It was *session* at *mark*, if nothing was forgotten since *loading*."""
        if loading is None or loading is self._loading:
            self._known = (mark, self._loading, session)

    def __call__(self) -> object:
        mark = self.mark
        return self.board.first_mark(self) if mark is None else mark

    def load(self, load: Callable[[], Session | None], patience: float) -> Session | None:
        """What *load* gives, or gave since the last change, if everything is heard.

        Of many who ask after a change one loads and the others wait for it, *patience* seconds at most.
        """
        loading = self._loading
        known = self._latest()
        mine = known is None and loading.acquire(timeout=patience)
        try:
            known, mark = known or self._latest(), self.mark
            if known is not None and self.board.live:
                return known[2]
            session = load()
            if mark is not None and self.board.live:
                self.know(mark, session, loading)
            return session
        finally:
            if mine:
                loading.release()

    def _latest(self) -> tuple[int, threading.Lock, Session | None] | None:
        known = self._known
        return known if known is not None and known[:2] == (self.mark, self._loading) else None


def take_turns(
    board: Board,
    name: str,
    ask: Callable[[], tuple[L | None, float]],
    *,
    wait: float,
    stop: Callable[[], bool],
    look: float,
) -> L | None:
    """What *ask* grants: a lease, waited for up to *wait* seconds or until *stop*, which is asked every 5 ms.

    *ask* gives None, and in how many seconds the lease ends by itself, while somebody holds it. It is asked again when
    the end is told, when that time is over, and every *look* seconds. Who comes back to wait on, because the record
    has changed, does not ask what was answered a moment ago. Who has waited in vain reads anew what he loads next.
    """
    entry, until = board.entry(name), boot() + wait

    def attempt() -> L | None:
        news = entry.news
        lease, left = ask()
        if lease is None:
            board.held(entry, boot() + min(max(left, 0.0) + 0.001, look), news)
        return lease

    lease = attempt() if wait <= look or boot() >= entry.held_until else None
    if lease is not None:
        return lease
    with board.waiting(name) as woken:
        while True:
            while not (woken.is_set() or stop()) and (left := min(entry.held_until, until) - boot()) > 0.0:
                woken.wait(min(left, _STEP))
            if stop():
                return None
            if boot() >= until:
                # Who has waited in vain reads anew: news may have been lost.
                entry.forget()
                return None
            woken.clear()
            lease = attempt() if boot() >= entry.held_until else None
            if lease is not None:
                return lease
