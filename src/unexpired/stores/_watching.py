"""What one process hears of changes made by others: shared by the stores that are told of them by a server."""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager, suppress

from unexpired._core.session import Session
from unexpired.errors import StoreError, place_of
from unexpired.stores._watched import Entry

__all__ = ["FREED", "NOTED", "STORED", "UNTOLD", "Board", "Entry", "Run", "board_for"]

_log = logging.getLogger("unexpired")

STORED, NOTED, FREED, UNTOLD = "v", "n", "f", "u"
"""What a message tells of a session: a new version or login, a note on its version, the end of its lease.

What is untold is stored with a message, and not sent: an intent, which nobody acts on but who has the lease, and he
reads anew.
"""

_FIRST = 1.0
_FAILED = 256
_LONGEST_PAUSE = 2.0


class Run:
    """One life of the thread that listens. *poke* makes it look at *closing* at once, if it can."""

    def __init__(self, board: Board) -> None:
        self.board = board
        self.closing = threading.Event()
        self.poke: Callable[[], object] = bool

    @property
    def wanted(self) -> bool:
        """Whether somebody still uses what this thread listens for; to be asked every second or so."""
        return not self.closing.is_set() and self.board.is_used()

    def up(self) -> None:
        """From now on everything is heard. What happened before may have been missed, so all marks are new."""
        self.board.go_up(self)

    def heard(self, message: str) -> None:
        """One message, as `Board.message` makes them; any other is ignored."""
        self.board.told(message)


Listen = Callable[[Run], None]
"""Subscribes, calls `Run.up`, then `Run.heard` for each message until it is not `Run.wanted`. Raises when cut off."""


class Board:
    """The entries of all stores of this process that keep the same sessions, and the thread that listens for them.

    The thread is a daemon, started at the first stamp and ended when the last store is closed or gone. While it is
    cut off, marks stay as they are; when it is back, all are new. A forked child starts anew.
    """

    def __init__(self, listen: Listen, name: str) -> None:
        self._listen = listen
        self._name = name
        self._marks = itertools.count(1)
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._entries: weakref.WeakValueDictionary[str, Entry] = weakref.WeakValueDictionary()
        self.start_anew()
        _boards.add(self)

    def start_anew(self) -> None:
        """In a forked child too: nothing is heard, nobody waits, and no message is ours."""
        self._lock = threading.RLock()
        self._origin = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._failed: deque[str] = deque(maxlen=_FAILED)
        self._run: Run | None = None
        self._thread: threading.Thread | None = None
        self._tried = threading.Event()
        self._started = 0.0
        self.live = self._was_up = False
        for entry in list(self._entries.values()):
            entry.start_anew()

    def join(self, user: object) -> None:
        """Count *user*, a store, among those who use this board."""
        if user not in self._users:
            with self._lock:
                self._users.add(user)

    def leave(self, user: object) -> None:
        """The last one to leave ends the thread."""
        with self._lock:
            self._users.discard(user)
            thread, run = self._thread, self._run
            if self.is_used() or run is None:
                return
            self._go_down()
        run.closing.set()
        run.poke()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_FIRST)

    def is_used(self) -> bool:
        """Whether any store uses this board."""
        return len(self._users) > 0

    def entry(self, name: str) -> Entry:
        """The entry of that name, the same for everybody."""
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = Entry(self, next(self._marks) if self._was_up else None)
            return entry

    def first_mark(self, entry: Entry) -> object:
        """The stamp before anything is heard: see to it that it will be, and wait for that a little. Never raises."""
        if not self.is_used():
            return object()
        self.listen()
        self._tried.wait(max(0.0, self._started + _FIRST - time.monotonic()))
        mark = entry.mark
        return object() if mark is None else mark

    def load(self, name: str, load: Callable[[], Session | None], patience: float) -> Session | None:
        """What *load* gives, or gave since the last change, if everything is heard; see `Entry.load`."""
        entry = self._entries.get(name)
        return load() if entry is None or not self.live else entry.load(load, patience)

    def before(self, name: str) -> int | None:
        """The mark to give to `stored`."""
        entry = self._entries.get(name)
        return entry.mark if entry is not None and self.live else None

    def stored(self, message: str, name: str, before: int | None, session: Session) -> None:
        """This process has stored *session*: with nothing heard since *before*, that is what stands there now."""
        with self._lock:
            entry = self._entries.get(name)
            alone = entry is not None and before is not None and entry.mark == before
            if message.startswith(UNTOLD):
                self.changed(name)
            else:
                self.heard(message)
            if entry is not None:
                entry.known = (entry.mark, session) if alone and self.live and entry.mark is not None else None

    def forget(self, name: str) -> None:
        """Nothing that was loaded counts any more: it was seen to be outdated, or must be the latest."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.known = None

    def message(self, kind: str, name: str) -> str:
        """A message to all processes, of which this one knows that it is its own."""
        return f"{kind} {name} {self._origin}.{next(self._numbers)}"

    def told(self, message: str) -> None:
        """A message came. What this process did itself it has noticed, unless it does not know that it did."""
        token = message.rpartition(" ")[2]
        if not token.startswith(self._origin) or token in self._failed:
            self.heard(message)

    def failed(self, message: str, name: str) -> None:
        """Whether what *message* tells of was done is not known: it may be, now or later."""
        self._failed.append(message.rpartition(" ")[2])
        self.changed(name)

    def heard(self, message: str) -> None:
        """Take notice of a message, after what it tells of is done."""
        kind, _, rest = message.partition(" ")
        name = rest.partition(" ")[0]
        if kind == UNTOLD:
            return
        entry = self._entries.get(name)
        if entry is None:
            return
        waiting = list(entry.waiting)
        # Who waits for the lease is not woken for a note: it would only find that it has to wait on.
        if kind == STORED or (kind == NOTED and not waiting):
            self._change(entry)
        for woken in waiting if kind == FREED else ():
            woken.set()

    def changed(self, name: str) -> None:
        """It may have changed, with or without a message that returns."""
        entry = self._entries.get(name)
        if entry is not None:
            self._change(entry)

    def _change(self, entry: Entry) -> None:
        with self._lock:
            if entry.mark is not None:
                entry.mark = next(self._marks)
            entry.known = None

    @contextmanager
    def waiting(self, name: str) -> Generator[threading.Event]:
        """An event that is set when the lease of that entry was given up. Clear it before asking for the lease."""
        entry, woken = self.entry(name), threading.Event()
        with self._lock:
            entry.waiting = entry.waiting | {woken}
        try:
            yield woken
        finally:
            with self._lock:
                entry.waiting = entry.waiting - {woken}

    def listen(self) -> None:
        """See to it that changes are heard, without waiting for it."""
        with self._lock, suppress(RuntimeError):  # no thread can be started any more: everybody looks for himself
            if self._thread is None:
                run = Run(self)
                thread = threading.Thread(target=self._live, args=(run,), name=f"unexpired:{self._name}", daemon=True)
                self._tried = threading.Event()
                self._started = time.monotonic()
                thread.start()
                self._run, self._thread = run, thread

    def go_up(self, run: Run) -> None:
        """See `Run.up`."""
        with self._lock:
            if run is not self._run:
                return
            self._was_up = self.live = True
            for entry in list(self._entries.values()):
                entry.known = None
                entry.mark = next(self._marks)
                for woken in entry.waiting:
                    woken.set()
            self._tried.set()

    def _go_down(self) -> None:
        self._run = self._thread = None
        self._was_up = self.live = False
        for entry in list(self._entries.values()):
            entry.mark = entry.known = None

    def _live(self, run: Run) -> None:
        pause, complained = 0.0, False
        while run.wanted:
            try:
                self._listen(run)
            except Exception as error:  # noqa: BLE001 - it is tried again, whatever it was
                was_live, self.live = self.live, False
                self._tried.set()
                pause = 0.05 if was_live else min(max(2 * pause, 0.05), _LONGEST_PAUSE)
                if was_live or not complained:
                    complained = True
                    why = str(error) if isinstance(error, StoreError) else place_of(error)
                    _log.warning("changes by other processes are not heard for now: %s", why)
            run.closing.wait(pause * random.uniform(0.5, 1.0))  # noqa: S311 - spreads them, hides nothing
        with self._lock:
            if self._run is run:
                self._go_down()


_boards: weakref.WeakSet[Board] = weakref.WeakSet()
_by_identity: weakref.WeakValueDictionary[Hashable, Board] = weakref.WeakValueDictionary()
_registry = threading.Lock()


def board_for(identity: Hashable, listen: Listen, name: str) -> Board:
    """The one board of this process for all stores of that identity; the first one's *listen* serves them all."""
    with _registry:
        board = _by_identity.get(identity)
        if board is None:
            board = _by_identity[identity] = Board(listen, name)
        return board


def _after_fork() -> None:
    """In a forked child: there is no thread, and whoever held a lock does not exist."""
    global _registry  # noqa: PLW0603 - the child needs a lock that no thread of the parent holds
    _registry = threading.Lock()
    for board in list(_boards):
        board.start_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
