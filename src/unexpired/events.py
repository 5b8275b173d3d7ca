"""What happened, as frozen records for callbacks, logs and metrics. None ever holds a secret.

Every event names the session's `key`. Times are seconds. Subscribe with `TokenManager.on(RefreshSucceeded, callback)`;
callbacks run after the waiting callers were woken, on the thread where it happened; their exceptions are logged and
change nothing. `Event` as the type subscribes to all of them.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = [
    "CallerWaited",
    "Event",
    "FlightEnded",
    "FreshTokenRefused",
    "LoggedIn",
    "LoggedOut",
    "RefreshFailed",
    "RefreshStarted",
    "RefreshSucceeded",
    "RequestReplayed",
    "SessionEnded",
    "SessionSeen",
    "Unsaved",
]


@dataclass(frozen=True, slots=True)
class Event:
    """Something happened to the session stored under *key*."""

    key: str


@dataclass(frozen=True, slots=True)
class RefreshStarted(Event):
    """A token request is about to be sent. *version* is the session version being redeemed, *attempt* counts from 1.

    *recovers*: somebody announced a request for this version and vanished before its end was known, by a crash for
    example; this one takes its place.
    """

    version: int
    attempt: int
    resource: str | None = None
    recovers: bool = False


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
class FlightEnded(Event):
    """A flight of this process is over, however it ended: the last event of each flight, with its figures.

    *flight* numbers it in this process, *callers* is how many waited for it (0: it ran in the background),
    *coalesced* how many of them had not started it. *outcome* is

    * ``refreshed``: a new token is stored;
    * ``adopted``: somebody else's newer token was in the store, and nothing was asked for;
    * ``cooling_down``: an earlier flight, here or elsewhere, failed a moment ago, and nothing was asked for;
    * ``failed``: no token; *reason* is the sort of failure, for ``cooling_down`` too;
    * ``ended``: the server said that the login is over; *reason* is that of `SessionEnded`;
    * ``gone``: nobody is logged in any more, or nobody ever was;
    * ``overtaken``: what the server answered was dropped, because the record had changed meanwhile;
    * ``unsaved``: the process ended before the new token could be stored;
    * ``broken``: a mistake in a store or in this library; see the log.

    *seconds* is all it took, of which *lease_seconds* were spent on getting the lease and *request_seconds* on
    *requests* token requests (each try to connect is one). *fenced* counts its writes that were refused because the
    record had changed. *recovered*: see `RefreshStarted.recovers`. *retry_after* is the pause that a failure begins.
    *version* and *expires_at* (UNIX time, of the token that lives longest) are the session's, as the flight left it.
    """

    flight: int
    outcome: str
    seconds: float
    callers: int
    reason: str = ""
    version: int = 0
    resource: str | None = None
    lease_seconds: float = 0.0
    request_seconds: float = 0.0
    requests: int = 0
    fenced: int = 0
    recovered: bool = False
    retry_after: float | None = None
    expires_at: float | None = None
    coalesced: int = 0


@dataclass(frozen=True, slots=True)
class CallerWaited(Event):
    """A caller has waited *seconds* for that *flight*, and goes on: told on its own thread or task, no line of the log.

    *served*: the flight ended in time. A caller that is cancelled while it waits is not told of.
    """

    flight: int
    seconds: float
    served: bool


@dataclass(frozen=True, slots=True)
class SessionSeen(Event):
    """This process saw in the store what it did not know: at its first look, or because somebody else stored it.

    *adopted*: it is a newer version of a login that was known here. *expires_at* as in `FlightEnded`.
    """

    version: int
    ended: bool
    adopted: bool
    expires_at: float | None = None


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
    """A request was refused with an expired token and has been sent again with a newer one.

    Told on its caller's thread or task. *seconds* is how long its first answer had been there by then.
    """

    origin: str
    replays: int
    seconds: float = 0.0


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
    """A new login was stored. *expires_at* is its token's expiry (UNIX time), if there is one and it is known."""

    expires_at: float | None = None


@dataclass(frozen=True, slots=True)
class LoggedOut(Event):
    """The login was ended by `logout`. *revoked* tells whether the server took the revocation (RFC 7009)."""

    revoked: bool
