"""What the embedded server has seen: counts, the log of redemptions, and milestones a test can wait for."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, cast, get_args

__all__ = ["Ledger", "LoggedRedemption", "ServerEvent", "Stats", "fingerprint"]

ServerEvent = Literal[
    "login",
    "token_request_received",
    "token_request_held",
    "token_request_committed",
    "token_request_answered",
    "revocation_received",
    "api_call_received",
    "api_call_held",
    "api_call_refused",
    "api_call_answered",
]
"""
What `ServerHandle.wait` counts: a login was made; a token request was read, is held by a fault until its
release, was decided, was answered; a revocation was read; an API call was read, is held, was refused (the
refusal may still be on its way), was answered.
"""

_EVENTS: frozenset[str] = frozenset(get_args(ServerEvent))


def fingerprint(token: str) -> str:
    """Name a token without telling it: the first eight hex digits of its SHA-256."""
    return hashlib.sha256(token.encode()).hexdigest()[:8]


@dataclass(slots=True)
class LoggedRedemption:
    """One token request, as the server saw it. Times are UNIX time in seconds.

    *committed* is when the server decided (rotated, or refused), `None` when a fault kept it from deciding;
    *answered* is `None` while the answer is out. *outcome* is an `Outcome`, an OAuth error code, or `fault:`
    and the fault's kind. *refresh_token* is a fingerprint: the first eight hex digits of the SHA-256.
    """

    received: float
    refresh_token: str
    committed: float | None = None
    answered: float | None = None
    outcome: str = "in the air"


@dataclass(frozen=True, slots=True, kw_only=True)
class Stats:
    """The server's counts since its start or last reset.

    *refreshes* counts redemptions that minted a token, *token_posts* all requests to token endpoints,
    *refused* API calls not served, *max_in_air* the most redemptions of one refresh token that were under way
    at the same time, *credentials* the API calls that carried something in a place (`header`, `query`,
    `cookie`, `custom`).
    """

    logins: int
    token_posts: int
    refreshes: int
    reuse_detected: int
    families_revoked: int
    revocations: int
    api_calls: int
    refused: int
    max_in_air: int
    credentials: Mapping[str, int]
    redemptions: tuple[LoggedRedemption, ...]

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Stats:
        """Read what the server's `/_control/stats` answers."""
        rows = tuple(LoggedRedemption(**row) for row in document["redemptions"])
        return cls(**cast("dict[str, Any]", {**document, "redemptions": rows}))


class Ledger:
    """Counts events and wakes who waits for them. For the server's event loop only; not thread-safe."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.credentials: Counter[str] = Counter()
        self.redemptions: list[LoggedRedemption] = []
        self.max_in_air = 0
        self._in_air: Counter[str] = Counter()
        self._waiting: list[tuple[str, int, asyncio.Event]] = []

    def note(self, event: ServerEvent) -> None:
        """Count *event* and wake everybody whose count is reached."""
        self.counts[event] += 1
        if self._waiting:
            for name, count, reached in self._waiting:
                if name == event and self.counts[name] >= count:
                    reached.set()

    async def reach(self, event: str, count: int) -> None:
        """Return once *event* has happened *count* times in all; `ValueError` for an unknown event."""
        if event not in _EVENTS:
            raise ValueError(f"unknown event {event!r}; the events are: {', '.join(sorted(_EVENTS))}")
        if self.counts[event] >= count:
            return
        entry = (event, count, asyncio.Event())
        self._waiting.append(entry)
        try:
            await entry[2].wait()
        finally:
            self._waiting.remove(entry)

    def take_off(self, refresh_token: str, now: float) -> LoggedRedemption:
        """Log that a redemption of *refresh_token* was received."""
        name = fingerprint(refresh_token)
        row = LoggedRedemption(now, name)
        self.redemptions.append(row)
        self._in_air[name] += 1
        self.max_in_air = max(self.max_in_air, self._in_air[name])
        return row

    def land(self, row: LoggedRedemption, now: float) -> None:
        """Log that the redemption was answered, or its connection given up."""
        row.answered = now
        self._in_air[row.refresh_token] -= 1
