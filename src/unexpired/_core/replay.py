"""What happens after an API refused a request: the way of a request, from the first verdict on.

The warm path (fresh token, accepted) never comes here. Every adapter drives this one generator and keeps the last
response it got for the caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from unexpired._core.effects import Effect, Flow
from unexpired._core.scheme import Judgement, Verdict
from unexpired._core.token import Token
from unexpired.errors import LoginRequired

__all__ = ["Accepted", "End", "Newer", "Replace", "Send", "replay"]


@dataclass(frozen=True, slots=True)
class Replace(Effect[Token | None]):
    """A newer token than *carried*, refused at *origin*: by waiting for a refresh if need be. None: do not replay."""

    carried: Token
    origin: str
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Newer(Effect[Token | None]):
    """A newer token than *carried*, if there already is one."""

    carried: Token


@dataclass(frozen=True, slots=True)
class Send(Effect[Judgement]):
    """Send the request again with *token*; what does the API say?"""

    token: Token


@dataclass(frozen=True, slots=True)
class End(Effect[bool]):
    """End the session that *carried* belongs to, if *carried* is still its current token. Whether it ended."""

    carried: Token


@dataclass(frozen=True, slots=True)
class Accepted(Effect[None]):
    """The API at *origin* took *token*."""

    token: Token
    origin: str
    endpoint: str = ""


def replay(key: str, carried: Token, judgement: Judgement, origin: str, endpoint: str = "") -> Flow[int]:
    """Go on from the first refusal: how many times the request was sent again. The last answer is the caller's.

    One replay; a second one only with a token newer than the replay's that already exists. Raises LoginRequired when
    the login is over or a stronger one is asked for, and what obtaining a token raises.
    """
    replays = 0
    nonces = 0
    while judgement.verdict is not Verdict.ACCEPTED:
        if judgement.verdict is Verdict.STEP_UP:
            raise _step_up(key, judgement)
        if judgement.verdict is Verdict.LOGIN_REQUIRED and (yield from End(carried)):
            message = f"the API says that this login is over: log in again as {key!r}"
            raise LoginRequired(message, key=key, reason="login_required")
        token: Token | None
        if judgement.verdict is Verdict.RETRY_SAME:
            nonces += 1
            token = carried if nonces == 1 else None
        elif replays == 0:
            token = yield from Replace(carried, origin, endpoint)
        elif replays == 1:
            token = yield from Newer(carried)
        else:
            token = None
        if token is None:
            return replays
        if judgement.verdict is not Verdict.RETRY_SAME:
            replays += 1
        carried = token
        judgement = yield from Send(token)
    yield from Accepted(carried, origin, endpoint)
    return replays


def _step_up(key: str, judgement: Judgement) -> LoginRequired:
    asked = ", ".join(sorted(judgement.challenge)) or judgement.reason
    return LoginRequired(
        f"the API wants a stronger login for {key!r} ({asked}); the session itself lives on",
        key=key,
        reason="step_up",
        challenge=judgement.challenge,
    )
