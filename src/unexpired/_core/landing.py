"""What the server's answer means, and what is stored because of it: the failure tables."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, cast

from unexpired._core.effects import (
    Draw,
    Emit,
    Flow,
    Instant,
    Load,
    Need,
    Needs,
    Now,
    Publish,
    Renew,
    Result,
    Revoke,
    Sleep,
    Swap,
)
from unexpired._core.outcome import Outcome, Trip, fail, failed
from unexpired._core.policy import Policy
from unexpired._core.session import FailureKind, Session
from unexpired._core.token import Token, is_credential
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    UnexpiredError,
)
from unexpired.events import RefreshSucceeded, SessionEnded, Unsaved

__all__ = ["land", "read", "settle", "wanted"]

_TRANSIENT_CODES = frozenset({"temporarily_unavailable", "server_error", "slow_down"})
_OF_ONE = frozenset({"invalid_target", "invalid_scope"})
"""Errors that say nothing of other resources (RFC 8707 §2, RFC 6749 §5.2)."""
_UNEXPLAINED_LIMIT = 3
_UNEXPLAINED_SPAN = 60.0
_TRIES_BEFORE_MEMORY = 3
_LONG_ENOUGH = 2.0
"""Seconds after the first of these tries: a store that does not even answer keeps nobody waiting for the third."""
_LONGEST_TRY = 1.0
"""Seconds between two attempts to store a rotated token: who waits elsewhere for its timed lease does not wait long."""


def settle(session: Session | None, needs: Collection[Need], instant: Instant, policy: Policy) -> Result | None:
    """The answer that needs no token request: no session, ended, somebody else's new token, or a fresh failure."""
    if session is None or session.ended is not None:
        return Result(session)
    unmet = _unmet(session, needs, instant, policy)
    if not unmet:
        return Result(session)
    if session.failure is not None and not _open(session, unmet, instant):
        return Result(session, session.failure)
    return None


def wanted(session: Session, needs: Collection[Need], instant: Instant, policy: Policy) -> str | None:
    """The resource to redeem for: one at a time, the default one first, then by name."""
    wanted = _open(session, _unmet(session, needs, instant, policy), instant)
    return None if None in wanted else min(resource for resource in wanted if resource is not None)


def _unmet(session: Session, needs: Collection[Need], instant: Instant, policy: Policy) -> set[str | None]:
    return {need.resource for need in needs if not need.met_by(session, instant.wall, policy.leeway)}


def _open(session: Session, unmet: Collection[str | None], instant: Instant) -> set[str | None]:
    """Those that no failure forbids to ask for now."""
    failure = session.failure if session.failure is not None and session.failure.holds(instant.wall) else None
    return {resource for resource in unmet if failure is None or not failure.concerns(resource)}


def read(said: object, sent: Instant, policy: Policy) -> Token | UnexpiredError:
    """A token out of what a grant brought, with the configured lifetime where none is named, or its error."""
    if isinstance(said, UnexpiredError):
        return said
    if isinstance(said, Token):
        if not said.is_sound():
            salvage = said.refresh_token if is_credential(said.refresh_token) else None
            return AnswerLost("the grant returned a token with fields of the wrong type", refresh_token=salvage)
        token = said
    elif isinstance(said, Mapping):
        answer = cast("Mapping[str, Any]", said)
        try:
            token = Token.from_response(answer, now=sent.wall)
        except ValueError as error:
            refresh_token = answer.get("refresh_token")
            return AnswerLost(str(error), refresh_token=refresh_token if is_credential(refresh_token) else None)
    else:
        # Its text could be the token: only its type may be told.
        return AnswerLost(f"the grant returned {type(said).__name__}, not a token or a mapping")
    return token.with_lifetime(policy.default_lifetime, sent.wall)


def land(trip: Trip, answer: Token | UnexpiredError) -> Flow[Outcome]:
    """Store what the answer means. A usable token is stored before anything else happens."""
    if isinstance(answer, Token):
        return (yield from _save(trip, answer))
    if isinstance(answer, AnswerLost):
        return (yield from _lost(trip, answer))
    if isinstance(answer, NotSent):
        return (yield from _remember(trip, "unreachable", str(answer), trip.unsent, answer.retry_after))
    if isinstance(answer, LoginRequired):
        return (yield from _over(trip, answer))
    if isinstance(answer, Refused):
        return (yield from _refused(trip, answer))
    if isinstance(answer, ConfigurationError):
        return (yield from _remember(trip, "configuration", str(answer), trip.unsent))
    return (yield from _lost(trip, AnswerLost(f"the grant raised {type(answer).__name__}")))


def _save(trip: Trip, token: Token) -> Flow[Outcome]:
    """Store the new token, whatever it takes; serve it from memory while the store refuses it."""
    if _another_person(trip, token):
        message = "the server answered with a token of another person (id_token sub or iss changed)"
        return (yield from _remember(trip, "configuration", message, trip.answered))
    stored = trip.marked.minted(token, trip.resource)
    saved = yield from _store(trip, Result(stored), stored)
    if saved is None:
        return Outcome(Result(stored))
    if not saved:
        return (yield from _lost_swap(stored))
    return (yield from _arrived(trip, token, stored))


def _store(trip: Trip, result: Result, new: Session) -> Flow[bool | None]:
    """Store a rotated refresh token and do not give up while the process lives.

    After a few tries, or when they take their time, everybody here is served from memory. False: somebody logged in or
    out. None: unsaved; the process is exiting, and has been kept from it for as long as a flight may take.
    """
    tries, told = 0, False
    first: float | None = None
    give_up: float | None = None
    while True:
        try:
            return (yield from Swap(trip.marked, new))
        except StoreError as error:
            tries += 1
            instant = yield from Now()
            first = instant.boot if first is None else first
            if not told and (tries == _TRIES_BEFORE_MEMORY or instant.boot - first >= _LONG_ENOUGH):
                told = True
                yield from Publish(result, last=False)
                yield from Emit(Unsaved(trip.key, new.version, tries, str(error)))
        lives = yield from Sleep(min(0.05 * 2.0 ** min(tries, 10), _LONGEST_TRY), patient=True)
        instant = yield from Now()
        give_up = instant.boot + trip.policy.deadline if give_up is None else give_up
        if not lives and instant.boot >= give_up:
            return None
        if told:
            yield from _renew()


def _renew() -> Flow[None]:
    """Keep the lease, if that can be: saving does not need it."""
    try:
        yield from Renew()
    except StoreError:  # the store that refuses the token refuses this too
        return


def _arrived(trip: Trip, token: Token, stored: Session) -> Flow[Outcome]:
    """It is stored. A token that is already expired is a failure all the same, or everybody would refresh again."""
    instant = yield from Now()
    if not token.expired(instant.wall):
        success = RefreshSucceeded(trip.key, stored.version, 0.0, 0, trip.resource)
        return Outcome(Result(stored), [success])
    chance = yield from Draw()
    message = "the server answered with a token that has already expired: check its settings and this machine's clock"
    failure = fail(trip, "expired", message, instant, chance)
    noted = stored.noted(intent=None, failure=failure)
    if not (yield from Swap(stored, noted)):
        current = yield from Load()
        if not stored.same_version(current):
            return Outcome(Result(current))
    return Outcome(Result(noted, failure), [failed(trip, failure)])


def _another_person(trip: Trip, token: Token) -> bool:
    new = token.claims()
    known = [before.claims() for before in trip.before.tokens.values()]
    return any(old[claim] != new[claim] for old in known for claim in ("sub", "iss") if claim in old and claim in new)


def _lost_swap(stored: Session) -> Flow[Outcome]:
    """Somebody logged in or out meanwhile.

    The result is revoked only after a logout of this very login: revocation acts on the whole grant
    (RFC 7009 §2.1) and could kill a winner.
    """
    current = yield from Load()
    if (
        current is not None
        and current.login == stored.login
        and current.ended is not None
        and current.ended.reason == "logout"
    ):
        yield from Revoke(stored)
    return Outcome(Result(current))


def _lost(trip: Trip, answer: AnswerLost) -> Flow[Outcome]:
    """The server may have rotated. The intent stays, so that the next attempt knows."""
    if not answer.refresh_token:
        return (yield from _remember(trip, "lost", str(answer), trip.answered))
    instant = yield from Now()
    chance = yield from Draw()
    failure = fail(trip, "lost", str(answer), instant, chance)
    salvaged = replace(trip.marked.salvaged(answer.refresh_token), failure=failure)
    if (yield from _store(trip, Result(salvaged, failure), salvaged)) is False:
        return (yield from _lost_swap(salvaged))
    return Outcome(Result(salvaged, failure), [failed(trip, failure)])


def _over(trip: Trip, answer: LoginRequired) -> Flow[Outcome]:
    """The grant says that the login is over. Without a refresh token that is so once the token is of no more use."""
    needs = yield from Needs()
    instant = yield from Now()
    token = trip.before.tokens.get(trip.resource)
    wanted_anew = token is None or token.expired(instant.wall) or _is_refused(token, needs)
    if answer.reason == "no_refresh_token" and not wanted_anew:
        return (yield from _remember(trip, "configuration", str(answer), trip.unsent))
    return (yield from _end(trip, answer.reason, spent=True))


def _refused(trip: Trip, answer: Refused) -> Flow[Outcome]:
    spent = trip.policy.spends_refresh_token and trip.before.refresh_token is not None
    if answer.error == "invalid_grant":
        return (yield from _end(trip, "answer_lost" if trip.attempt > 1 else "refused", spent=spent))
    if answer.error in _TRANSIENT_CODES:
        return (yield from _remember(trip, "unreachable", str(answer), trip.unsent))
    if answer.error is not None:
        return (yield from _remember(trip, "configuration", str(answer), trip.unsent, only=answer.error in _OF_ONE))
    instant = yield from Now()
    failure = fail(trip, "unexplained", str(answer), instant, 0.0)
    lasting = instant.wall - failure.unexplained_since >= _UNEXPLAINED_SPAN
    needs = yield from Needs()
    dead = all(_is_dead(token, needs, instant) for token in trip.before.tokens.values())
    if failure.unexplained >= _UNEXPLAINED_LIMIT and lasting and dead:
        return (yield from _end(trip, "refused", spent=spent))
    return (yield from _remember(trip, "unexplained", str(answer), trip.unsent))


def _is_dead(token: Token, needs: Collection[Need], instant: Instant) -> bool:
    """Whether a token is of no more use: expired, or of unknown lifetime and refused by an API."""
    return token.expired(instant.wall) or (token.expires_at is None and _is_refused(token, needs))


def _is_refused(token: Token, needs: Collection[Need]) -> bool:
    refused = {need.than.access_token for need in needs if need.rejected and need.than is not None}
    return token.access_token in refused


def _end(trip: Trip, reason: str, *, spent: bool) -> Flow[Outcome]:
    """The login is over, unless somebody has stored a newer version, or is asking for one: that is never deleted."""
    if not spent:
        message = "the server refused a grant that spends no stored refresh token: logging in again cannot help"
        return (yield from _remember(trip, "configuration", message, trip.unsent))
    current = yield from Load()
    if current is None or not trip.marked.same_version(current) or current.notes != trip.marked.notes:
        return Outcome(Result(current))
    instant = yield from Now()
    over = trip.marked.over(reason, instant.wall)
    if not (yield from Swap(trip.marked, over)):
        return Outcome(Result((yield from Load())))
    return Outcome(Result(over), [SessionEnded(trip.key, over.version, reason)])


def _remember(
    trip: Trip, kind: FailureKind, message: str, keep: Session, retry_after: float | None = None, *, only: bool = False
) -> Flow[Outcome]:
    """Write the failure into the record, beside what is to be kept, before the lease is released.

    *only*: it is about this resource, and about no other.
    """
    instant = yield from Now()
    chance = yield from Draw()
    failure = fail(trip, kind, message, instant, chance, retry_after=retry_after, only=only)
    noted = replace(keep, failure=failure)
    try:
        stored = yield from Swap(trip.marked, noted)
    except StoreError:
        stored = True
    if not stored:
        return Outcome(Result((yield from Load())))
    return Outcome(Result(noted, failure), [failed(trip, failure)])
