"""The memory that keeps an API which refuses fresh tokens from causing refresh after refresh."""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace

from unexpired._core.token import Token

__all__ = ["Suspicion", "accepts", "endpoint_of", "refuses"]

_PARTICULAR = re.compile(r"[^/]*[0-9][^/]*")

LONGEST = 600.0
"""Seconds a token must be older than before its refusal by a suspicious API starts a flight, at most."""


@dataclass(frozen=True, slots=True)
class Suspicion:
    """An API, or one endpoint of it, refused *token*. What it refuses younger than *pause* seconds starts no flight."""

    token: Token = field(repr=False)
    pause: float
    strikes: int = 0
    told: bool = False


def endpoint_of(method: str, path: str) -> str:
    """What a request asks for, with what only tells one thing from its siblings (``/users/17``) left out.

    One endpoint that refuses every token must not be seen as cured because others of its API accept them.
    """
    return f"{method} {_PARTICULAR.sub('*', path)}"


def refuses(known: Suspicion | None, token: Token, age: float, chance: float) -> tuple[bool, Suspicion]:
    """It refused *token*, which this process has had for *age* seconds: may that start a flight?

    *chance* is a random number in [0, 1) that spreads the pauses of many processes.
    """
    if known is None:
        return True, Suspicion(token, _pause(0, chance))
    if not token.later_than(known.token):
        return True, known
    if age < known.pause:
        return False, replace(known, told=True)
    return True, Suspicion(token, _pause(known.strikes + 1, chance), known.strikes + 1)


def accepts(known: Suspicion, token: Token) -> bool:
    """It took *token*: does that clear it?"""
    return token.later_than(known.token)


def _pause(strikes: int, chance: float) -> float:
    return min(2.0 ** min(strikes, 30), LONGEST) * (0.5 + chance / 2)
