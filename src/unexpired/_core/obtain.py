"""What a caller does to get a token: join a flight, wait, judge what it brought, and be patient once."""

from __future__ import annotations

from unexpired._core.effects import Flow, Instant, Join, Need, Now, Result, Sleep
from unexpired._core.policy import Policy
from unexpired._core.session import Failure, Session
from unexpired._core.token import Token
from unexpired.errors import (
    ConfigurationError,
    LoginRequired,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)

__all__ = ["gone", "obtain"]

_ENDINGS = {
    "logout": "the session was logged out",
    "refused": "the server no longer accepts the refresh token",
    "answer_lost": "the login was lost: a refresh was interrupted while rotating, and the server had already rotated",
    "no_refresh_token": "the token is no longer good, and there is no refresh token",
    "login_required": "the API says that this login is over",
}


def obtain(key: str, need: Need, policy: Policy, wait: float) -> Flow[Token]:
    """The token that meets *need*, within *wait* seconds.

    Raises LoginRequired, TemporarilyUnavailable, ConfigurationError or StoreError.
    """
    instant = yield from Now()
    until = instant.boot + wait
    patience = min(policy.patience, wait)
    while True:
        result = yield from Join(need, until)
        instant = yield from Now()
        token = _brought(key, need, result, instant) if result is not None else None
        if token is not None:
            return token
        failure = result.failure if result is not None else None
        if failure is not None and not failure.concerns(need.resource):
            failure = None
        late = result is None or instant.boot >= until
        if failure is None and not late:
            continue
        if need.than is not None and not need.rejected and not need.than.expired(instant.wall):
            return need.than
        if failure is None:
            raise TemporarilyUnavailable(f"no token for {key!r} within {wait:g} s", key=key, retry_after=1.0)
        pause = max(0.0, failure.retry_at - instant.wall)
        if instant.exiting:
            patience = 0.0
        if failure.kind in ("configuration", "store") or pause >= min(patience, until - instant.boot):
            raise _error(key, failure, pause)
        patience = 0.0
        if not (yield from Sleep(pause)):
            raise _error(key, failure, pause)


def _brought(key: str, need: Need, result: Result, instant: Instant) -> Token | None:
    """The token this flight brought for *need*, if it did. Raises LoginRequired when the session is over."""
    session = result.session
    if session is None and result.failure is not None:
        return None
    if session is None or session.ended is not None:
        raise gone(key, session)
    token = session.tokens.get(need.resource)
    if token is None or (need.than is not None and not token.later_than(need.than)):
        return None
    return token if result.failure is None or not token.expired(instant.wall) else None


def gone(key: str, session: Session | None) -> LoginRequired:
    """Why there is no login, and what to do about it."""
    if session is None or session.ended is None:
        return LoginRequired(
            f"nobody is logged in as {key!r}: where people log in, call manager.login(answer); a program that is given "
            "its first token calls manager.seed(answer) at every start, with a token answer, "
            "unexpired.seed_from_file(path) or unexpired.seed_from_environ()",
            key=key,
            reason="no_session",
        )
    reason = session.ended.reason
    if reason == "moved":
        return LoginRequired(
            f"the session {key!r} was moved to another store (unexpired.stores.migrate): give this program that store, "
            "and start it again",
            key=key,
            reason=reason,
        )
    message = _ENDINGS.get(reason, f"the login has ended ({reason})")
    return LoginRequired(f"{message}: log in again as {key!r}", key=key, reason=reason)


def _error(key: str, failure: Failure, pause: float) -> UnexpiredError:
    message = f"no token for {key!r}: {failure.message}"
    if failure.kind == "configuration":
        return ConfigurationError(message, key=key)
    if failure.kind == "store":
        return StoreError(message, key=key)
    return TemporarilyUnavailable(message, key=key, retry_after=pause)
