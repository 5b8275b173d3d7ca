"""What one process knows of one session: the last look at the store, the flight in progress, the suspicions."""

from __future__ import annotations

import os
import threading
import time
import weakref
from collections import deque
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from unexpired._core.flight import Plan
from unexpired._core.session import Session
from unexpired._core.suspicion import Suspicion
from unexpired._core.token import Token
from unexpired._engine import circles
from unexpired._engine.clock import boot
from unexpired._engine.flying import Flying
from unexpired._engine.looking import Looking
from unexpired._engine.runway import Start
from unexpired._engine.tally import seen
from unexpired._engine.telling import Listeners

if TYPE_CHECKING:
    from unexpired._core.effects import Need
    from unexpired._core.ports import Grant, Store

__all__ = ["Cell", "Held", "Reading", "View", "cell_for", "keep_suspicious"]

_NEVER = float("inf")
_UNREAD = object()
"""The stamp of a view that does not come from the store."""


@dataclass(frozen=True, slots=True, eq=False)
class Held:
    """A token as this process has it: *since* and *expires* are boot time, so that no clock jump moves them."""

    token: Token
    since: float
    expires: float


@dataclass(frozen=True, slots=True, eq=False)
class View:
    """One look at the store: the session, what is held of it, and the stamp the store had just before."""

    session: Session | None
    stamp: object
    held: dict[str | None, Held]


class Reading:
    """What one flight reads of the record. News count from its last look, at first from that of who started it."""

    def __init__(self, cell: Cell) -> None:
        self._cell = cell
        self._stamp = cell.view.stamp if cell.view is not None else _UNREAD

    def load(self) -> Session | None:
        """The stored session, read now. Raises StoreError."""
        self._stamp = self._cell.stamp()
        return self._cell.store.load(self._cell.key)

    def changed(self) -> bool:
        """Whether the record may have changed since."""
        return self._stamp is not _UNREAD and self._stamp != self._cell.stamp()


class Cell:
    """Shared by all managers of this process that have the same store and key."""

    def __init__(self, store: Store, key: str) -> None:
        self.store = store
        self.key = key
        self.view: View | None = None
        self.flying: Flying | None = None
        self.suspicions: dict[tuple[str | None, str], Suspicion] = {}
        self.stamp = store.stamp(key)
        self.listeners = Listeners()
        self.complaint = ""
        self.quiet_until = 0.0
        self._remote = bool(getattr(store, "remote", False))
        self._looking: Looking | None = None
        self._adoptions = 0
        self._lock = threading.RLock()
        self._stored_here: tuple[tuple[str, int], ...] = ()

    def renew_locks(self) -> None:
        """In a forked child: no flight is under way here, whatever the parent was doing."""
        self._lock = threading.RLock()
        self.flying = self._looking = None
        Looking.under_way.clear()

    # -- looking ------------------------------------------------------------------------------------------------

    def look(self) -> View:
        """The session as the store has it now. Reads it only if it may have changed. Raises StoreError."""
        view, stamp, adoptions = self.view, self.stamp(), self._adoptions
        if view is not None and view.stamp == stamp:
            return view
        found = self.store.load(self.key)
        with self._lock:
            known = self.view
            if adoptions != self._adoptions and known is not None and not _same_login(known.session, found):
                # It was read before somebody logged in here, and says nothing of that login.
                return known
        return self.notice(found, stamp)

    def glance(self) -> View | None:
        """As `look`, but a store on another machine is waited for a moment only: then None. Raises StoreError."""
        if not self._remote:
            return self.look()
        view, came = self.view, boot()
        # A look that had begun before the last change tells nothing of it: then another one.
        for _ in range(2):
            if view is not None and view.stamp == self.stamp():
                break
            view = self._look_aside(came)
            if view is None:
                break
        return view

    def _look_aside(self, came: float) -> View | None:
        try:
            with self._lock:
                looking = self._looking
                if looking is None:
                    if Looking.too_many():
                        return None
                    looking = Looking(self)
                    looking.start()
                    # Not before it runs: Ctrl-C could come in between. It cannot be over yet, as that takes the lock.
                    self._looking = looking
        except RuntimeError:  # no thread can be started
            return self.look()
        return looking.wait(came)

    def looked(self, looking: Looking) -> None:
        """That look is over: the next one is a new one."""
        with self._lock:
            if self._looking is looking:
                self._looking = None

    def adopt(self, session: Session | None) -> Session | None:
        """Know *session*, which was just stored or could not be; the next look reads the store again.

        What is known then: something later, if that was known already.
        """
        with self._lock:
            self._adoptions += 1
            return self._see(session, _UNREAD)[0].session

    def swap(self, expected: Session | None, new: Session) -> bool:
        """The store's, by this process: nobody who finds *new* there before it is adopted takes it for news."""
        with self._lock:
            self._stored_here = (*self._stored_here[-3:], (new.login, new.version))
        return self.store.swap(self.key, expected, new)

    def notice(self, session: Session | None, stamp: object = _UNREAD) -> View:
        """Know *session*, which was found in the store, and tell it if it is news here."""
        view, known = self._see(session, stamp)
        found = view.session
        if found is not None and known is not None and found.login != known.login:
            # What an API refused of the login before says nothing of this one's tokens.
            self.suspicions.clear()
        if found is not None and (found.login, found.version) not in self._stored_here:
            news = seen(found, known)
            if news is not None:
                self.listeners.tell(news)
        return view

    def _see(self, session: Session | None, stamp: object) -> tuple[View, Session | None]:
        """What is known from now on, and the session that was until now."""
        with self._lock:
            before = self.view
            if before is not None and _goes_back(before.session, session):
                view = replace(before, stamp=stamp)
            else:
                view = View(session, stamp, _hold(session, before))
            self.view = view
            return view, before.session if before is not None else None

    # -- flying -------------------------------------------------------------------------------------------------

    def join(self, need: Need, plan: Plan, grant: Grant, *, waits: bool = True) -> Flying:
        """The flight in progress, or a new one, with *need* among its goals. *waits*: the caller will wait for it."""
        with self._lock:
            flying = self.flying
            if flying is None:
                flying = self.flying = Flying(self, plan, grant, Reading(self))
            flying.board(need, waits=waits)
        flying.start()
        return flying

    def detach(self) -> None:
        """The flight has ended: whoever still needs something starts the next one."""
        with self._lock:
            self.flying = None


def _same_login(one: Session | None, other: Session | None) -> bool:
    return one is not None and other is not None and one.login == other.login


def _goes_back(known: Session | None, found: Session | None) -> bool:
    """Whether *found* is behind what is known of the very same login.

    A token that is not stored yet is ahead of the store, and a login that has ended does not come back.
    """
    if known is None or found is None or known.login != found.login:
        return False
    return found.version < known.version or (known.ended is not None and found.ended is None)


def _hold(session: Session | None, before: View | None) -> dict[str | None, Held]:
    if session is None:
        return {}
    earlier = before.held if before is not None else {}
    now, wall = boot(), time.time()
    held: dict[str | None, Held] = {}
    for resource, token in session.tokens.items():
        known = earlier.get(resource)
        if known is not None and (known.token.login, known.token.minted) == (token.login, token.minted):
            held[resource] = known if known.token.refresh_token == token.refresh_token else replace(known, token=token)
        else:
            held[resource] = Held(token, now, now + _remaining(token, wall))
    return held


def _remaining(token: Token, wall: float) -> float:
    """Seconds it will live. A clock that was set back since it was minted cannot make it live longer than it may."""
    if token.expires_at is None:
        return _NEVER
    remaining = token.expires_at - wall
    return remaining if token.lifetime is None else min(remaining, max(token.lifetime, 0.0))


_cells: weakref.WeakValueDictionary[object, Cell] = weakref.WeakValueDictionary()
_cells_lock = threading.RLock()


# A manager for every request must not forget between two of them that an API refuses fresh tokens.
_suspicious: deque[Cell] = deque(maxlen=128)


def keep_suspicious(cell: Cell) -> None:
    """Let *cell* outlive its managers: it knows of refused fresh tokens."""
    if cell not in _suspicious:
        _suspicious.append(cell)


def cell_for(store: Store, key: str) -> Cell:
    """The one cell of this process for that store and key."""
    identity = (store.identity, key)
    with _cells_lock:
        cell = _cells.get(identity)
        if cell is None:
            cell = _cells[identity] = Cell(store, key)
        return cell


def _after_fork() -> None:
    global _cells_lock  # noqa: PLW0603 - the child needs a lock that no thread of the parent holds
    _cells_lock = threading.RLock()
    for cell in list(_cells.values()):
        cell.renew_locks()
    Flying.in_air.clear()
    Start.runway.renew()
    circles.renew_lock()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
