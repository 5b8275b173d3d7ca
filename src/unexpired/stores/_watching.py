"""What one process hears of changes made by others: shared by the stores that are told of them by a server."""

from __future__ import annotations

import itertools
import os
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Generator, Hashable
from contextlib import contextmanager

from unexpired._core.session import Session
from unexpired.stores._listening import TICK, Listen, Run
from unexpired.stores._watched import Entry

__all__ = ["FREED", "NOTED", "STORED", "UNTOLD", "Board", "board_for", "kind_of"]

STORED, NOTED, FREED, UNTOLD = "v", "n", "f", "u"
"""What a message tells of a session: a new version or login, a note on its version, the end of its lease.

What is untold nobody acts on, and not every store sends it: an intent, which is for him who has the lease, and he
reads anew.
"""

_FAILED = 256


def kind_of(expected: Session | None, new: Session) -> str:
    """What is told of the swap of *expected* for *new*."""
    if expected is None or not new.same_version(expected):
        return STORED
    return NOTED if new.failure != expected.failure else UNTOLD


class Board:
    """The entries of all stores of this process that keep the same sessions, and the thread that listens for them.

    The thread is a daemon, started at the first stamp and ended when the last store is closed or gone. A forked child
    starts anew. How old a copy can get:

    * While changes are heard, as old as a message is under way. A line that fell silent is noticed within 6 seconds.
    * While they are not, the thread sees four times a second whether a session could be read; each time it could,
      all marks are new, so everybody looks again. While none can be read, marks stay: what is known serves.
    * When changes are heard again, all marks are new.

    The first stamp waits up to half a second, once, for a server that does not answer; no other one waits. Where no
    thread can be started, marks are new four times a second by the clock.
    """

    def __init__(self, listen: Listen, name: str) -> None:
        self.how = listen
        self._name = name
        self._marks = itertools.count(1)
        self._users: weakref.WeakSet[object] = weakref.WeakSet()
        self._entries: weakref.WeakValueDictionary[str, Entry] = weakref.WeakValueDictionary()
        self._run: Run | None = None
        self.start_anew()
        _boards.add(self)

    def start_anew(self) -> object:
        """In a forked child too: nothing is heard, nobody waits, and no message is ours. Returns what was there."""
        before, self._run = self._run, None
        self._lock = threading.RLock()
        self._origin = os.urandom(8).hex()
        self._numbers = itertools.count(1)
        self._failed: deque[str] = deque(maxlen=_FAILED)
        self._no_thread_until = 0.0
        self.live = self._was_read = False
        for entry in list(self._entries.values()):
            entry.start_anew()
        return before

    # -- the thread ---------------------------------------------------------------------------------------------

    def join(self, user: object) -> None:
        """Count *user*, a store, among those who use this board."""
        if user not in self._users:
            with self._lock:
                self._users.add(user)

    def leave(self, user: object) -> None:
        """The last one to leave ends the thread."""
        with self._lock:
            self._users.discard(user)
            run = self._run
            if self.is_used() or run is None:
                return
            self.deafen(run, for_good=True)
        run.stop()

    def is_used(self) -> bool:
        """Whether any store uses this board."""
        return len(self._users) > 0

    def listen(self) -> Run | None:
        """See to it that changes are heard, without waiting for it. None where no thread can be started any more."""
        run = self._run
        if run is not None or time.monotonic() < self._no_thread_until:
            return run
        with self._lock:
            if self._run is None:
                run = Run(self, self._name)
                try:
                    run.thread.start()
                except RuntimeError:
                    self._no_thread_until = time.monotonic() + TICK
                else:
                    self._run = run
            return self._run

    def first_mark(self, entry: Entry) -> object:
        """The stamp before anything is heard: see to it that it will be, and wait for that a little. Never raises."""
        run = self.listen() if self.is_used() else None
        if run is not None:
            run.wait()
        elif self.is_used():
            return int(time.monotonic() / TICK)
        mark = entry.mark
        return object() if mark is None else mark

    def look_again(self, run: Run, *, live: bool) -> None:
        """All marks are new; from now on everything is heard (*live*), or a session could be read at this moment."""
        with self._lock:
            if run is self._run:
                self._was_read, self.live = True, live
                for entry in list(self._entries.values()):
                    entry.change(next(self._marks))
                    if live:
                        entry.free()

    def deafen(self, run: Run, *, for_good: bool) -> bool:
        """Nothing is heard from now on. Returns whether it was until now."""
        with self._lock:
            if run is not self._run:
                return False
            was_live, self.live = self.live, False
            if for_good:
                self._run, self._was_read = None, False
                for entry in list(self._entries.values()):
                    entry.change(None)
            return was_live

    # -- messages -----------------------------------------------------------------------------------------------

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
        if kind in (STORED, NOTED):
            self.changed(name)
        elif kind == FREED:
            entry = self._entries.get(name)
            if entry is not None:
                with self._lock:
                    entry.free()

    # -- entries ------------------------------------------------------------------------------------------------

    def entry(self, name: str) -> Entry:
        """The entry of that name, the same for everybody."""
        entry = self._entries.get(name)
        if entry is not None:
            return entry
        with self._lock:
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = Entry(self, next(self._marks) if self._was_read else None)
            return entry

    def changed(self, name: str) -> None:
        """It may have changed, with or without a message that returns."""
        entry = self._entries.get(name)
        if entry is not None:
            with self._lock:
                entry.change(None if entry.mark is None else next(self._marks))

    def load(self, name: str, load: Callable[[], Session | None], patience: float) -> Session | None:
        """What *load* gives, or gave since the last change, if everything is heard; see `Entry.load`."""
        entry = self._entries.get(name)
        return load() if entry is None or not self.live else entry.load(load, patience)

    def before(self, name: str) -> int | None:
        """The mark to give to `stored`."""
        entry = self._entries.get(name)
        return entry.mark if entry is not None and self.live else None

    def stored(self, name: str, before: int | None, session: Session) -> None:
        """This process has stored *session*: with nothing heard since *before*, that is what stands there now."""
        entry = self._entries.get(name)
        if entry is None:
            return
        with self._lock:
            alone = before is not None and entry.mark == before and self.live
            self.changed(name)
            if alone and entry.mark is not None:
                entry.know(entry.mark, session)

    def forget(self, name: str) -> None:
        """Nothing that was loaded counts any more: it was seen to be outdated, or must be the latest."""
        entry = self._entries.get(name)
        if entry is not None:
            entry.forget()

    @contextmanager
    def waiting(self, name: str) -> Generator[threading.Event]:
        """An event that is set when there is news of that entry. Clear it before asking for the lease."""
        entry, woken = self.entry(name), threading.Event()
        with self._lock:
            entry.waiting = entry.waiting | {woken}
        try:
            yield woken
        finally:
            with self._lock:
                entry.waiting = entry.waiting - {woken}

    def held(self, entry: Entry, until: float, news: int) -> None:
        """Nobody here needs to ask for the lease again before boot time *until*, if there was no more *news* of it."""
        with self._lock:
            if entry.news == news:
                entry.held_until = until


_boards: weakref.WeakSet[Board] = weakref.WeakSet()
_by_identity: weakref.WeakValueDictionary[Hashable, Board] = weakref.WeakValueDictionary()
_inherited: list[object] = []
_registry = threading.Lock()


def board_for(identity: Hashable, listen: Listen, name: str) -> Board:
    """The one board of this process for all stores of that identity. One *listen* that hears serves them all."""
    with _registry:
        board = _by_identity.get(identity)
        if board is None:
            board = _by_identity[identity] = Board(listen, name)
        elif not board.live:
            # The one before may have had another password, or a client that is closed by now.
            board.how = listen
        return board


def _after_fork() -> None:
    """In a forked child: there is no thread, and whoever held a lock does not exist."""
    global _registry  # noqa: PLW0603 - the child needs a lock that no thread of the parent holds
    _registry = threading.Lock()
    # Kept: what the parent's thread listens on must not be closed by its child.
    _inherited.extend([board.start_anew() for board in list(_boards)])


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
