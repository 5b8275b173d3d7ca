"""The figures of one flight, counted by its driver as it goes along."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

from unexpired._engine.clock import boot
from unexpired.events import (
    Event,
    FlightEnded,
    RefreshFailed,
    RefreshStarted,
    RefreshSucceeded,
    SessionEnded,
    SessionSeen,
)

if TYPE_CHECKING:
    from unexpired._core.effects import Result
    from unexpired._core.session import Session

__all__ = ["Tally", "lasting", "seen"]

_numbers = count(1)


class Tally:
    """One flight's. Only its own thread counts here."""

    def __init__(self) -> None:
        self.flight = next(_numbers)
        self.began = boot()
        self.lease_seconds = 0.0
        self.request_seconds = 0.0
        self.requests = 0
        self.fenced = 0
        self.recovered = False
        self.unsaved = False
        self._told: dict[type[Event], Event] = {}

    @contextmanager
    def leasing(self) -> Generator[None]:
        """Inside this ``with`` block the flight waits for its lease."""
        began = boot()
        try:
            yield
        finally:
            self.lease_seconds += boot() - began

    @contextmanager
    def requesting(self) -> Generator[None]:
        """Inside this ``with`` block it makes a token request."""
        self.requests += 1
        began = boot()
        try:
            yield
        finally:
            self.request_seconds += boot() - began

    def writes(self) -> None:
        """It is about to store something; `wrote` follows unless the store refuses."""
        self.unsaved = True

    def wrote(self, *, stored: bool) -> None:
        """The store did so, or not, because the record had changed."""
        self.unsaved = False
        self.fenced += not stored

    def hear(self, event: Event) -> None:
        """What its listeners are told."""
        self._told[type(event)] = event
        if isinstance(event, RefreshStarted):
            self.recovered |= event.recovers

    def ended(self, key: str, result: Result | None, callers: int, starters: int) -> FlightEnded:
        """All of it, once the flight is over. No result: it broke down. *starters*: those of *callers* who began it."""
        outcome, reason = self._outcome(result) if result is not None else ("broken", "")
        session = result.session if result is not None else None
        started, failed = self._told.get(RefreshStarted), self._told.get(RefreshFailed)
        return FlightEnded(
            key,
            self.flight,
            outcome,
            seconds=boot() - self.began,
            callers=callers,
            reason=reason,
            version=session.version if session is not None else 0,
            resource=started.resource if isinstance(started, RefreshStarted) else None,
            lease_seconds=self.lease_seconds,
            request_seconds=self.request_seconds,
            requests=self.requests,
            fenced=self.fenced,
            recovered=self.recovered,
            retry_after=failed.retry_after if isinstance(failed, RefreshFailed) else None,
            expires_at=lasting(session),
            coalesced=callers - starters,
        )

    def _outcome(self, result: Result) -> tuple[str, str]:
        told, session = self._told, result.session
        if isinstance(ended := told.get(SessionEnded), SessionEnded):
            return "ended", ended.reason
        if isinstance(failed := told.get(RefreshFailed), RefreshFailed):
            return "failed", failed.kind
        if RefreshSucceeded in told:
            return "refreshed", ""
        if result.failure is not None:
            return "cooling_down", result.failure.kind
        if self.requests:
            return ("unsaved" if self.unsaved else "overtaken"), ""
        return ("gone" if session is None or session.ended is not None else "adopted"), ""


def lasting(session: Session | None) -> float | None:
    """Until when (UNIX time) a session can be used as it is: None for none, and for one of unknown lifetime."""
    expiries = [token.expires_at for token in session.tokens.values()] if session is not None else []
    known = [expiry for expiry in expiries if expiry is not None]
    return max(known) if known and len(known) == len(expiries) else None


def seen(session: Session, known: Session | None) -> SessionSeen | None:
    """What to tell of *session*, found in the store by a process that has *known* that; None when it is no news."""
    if session.same_version(known):
        return None
    over = session.ended is not None
    adopted = not over and known is not None and known.login == session.login
    return SessionSeen(session.key, session.version, over, adopted, lasting(session))
