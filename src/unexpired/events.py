"""What happened, as frozen records for callbacks, logs and metrics. None ever holds a secret.

Every event names the session's `key`. Times are seconds. Subscribe with `TokenManager.on(RefreshSucceeded, callback)`;
callbacks run after the waiting callers were woken, on the thread where it happened; their exceptions are logged and
change nothing. `Event` as the type subscribes to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "Event",
    "FreshTokenRefused",
    "LoggedIn",
    "LoggedOut",
    "RefreshFailed",
    "RefreshStarted",
    "RefreshSucceeded",
    "RequestReplayed",
    "SessionEnded",
    "Unsaved",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to the session stored under *key*."""

    key: str


@dataclass(frozen=True, slots=True)
class RefreshStarted(Event):
    """A token request is about to be sent. *version* is the session version being redeemed, *attempt* counts from 1."""

    version: int
    attempt: int
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshSucceeded(Event):
    """A new token is stored. *seconds* is what the flight took; *callers* is how many waited for it."""

    version: int
    seconds: float
    callers: int
    resource: str | None = None


@dataclass(frozen=True, slots=True)
class RefreshFailed(Event):
    """A flight ended without a token. *kind* is the sort of failure, *retry_after* the pause that follows (seconds)."""

    version: int
    kind: str
    message: str
    callers: int
    retry_after: float | None = None


@dataclass(frozen=True, slots=True)
class Unsaved(Event):
    """A rotated token could not be stored. It is kept in memory, and storing is tried again and again.

    The login is lost if this process dies before it succeeds: treat it as an alarm.
    """

    version: int
    tries: int
    message: str


@dataclass(frozen=True, slots=True)
class RequestReplayed(Event):
    """A request was refused with an expired token and has been sent again with a newer one."""

    origin: str
    replays: int


@dataclass(frozen=True, slots=True)
class FreshTokenRefused(Event):
    """The API at *origin* refuses a token that has just been minted, so none is minted for it again so soon.

    The caller gets the refusal. Refusals there start no refresh until the token is *pause* seconds old, which grows
    each time, or until the API takes one. Told once for each token.
    """

    origin: str
    pause: float


@dataclass(frozen=True, slots=True)
class SessionEnded(Event):
    """The login is over, for this *reason*. Reported once per ended login in each process that ends it."""

    version: int
    reason: str


@dataclass(frozen=True, slots=True)
class LoggedIn(Event):
    """A new login was stored."""


@dataclass(frozen=True, slots=True)
class LoggedOut(Event):
    """The login was ended by `logout`. *revoked* tells whether the server took the revocation (RFC 7009)."""

    revoked: bool
