"""Random faults for a soak, of every kind that the embedded server has, from one seed."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

__all__ = ["API_RULES", "DEADLINE", "TOKEN_STEPS", "Trouble"]

DEADLINE = 4.0
"""Seconds that one refresh may take; a few of the faults are silent for longer."""

_BEFORE_LONG = 0.9
Details = Callable[[random.Random], dict[str, Any]]


def _nothing(_: random.Random) -> dict[str, Any]:
    return {}


def _silence(dice: random.Random) -> dict[str, Any]:
    return {"seconds": dice.uniform(0.05, 1.0) if dice.random() < _BEFORE_LONG else DEADLINE + 0.5}


def _busy(dice: random.Random) -> dict[str, Any]:
    return dice.choice([{}, {"retry_after": 1}, {"retry_after": 1, "date": True}])


def _one_of(name: str, *values: Any) -> Details:
    return lambda dice: {name: dice.choice(values)}


TOKEN_STEPS: dict[str, Details] = {
    "429": _busy,
    "503": _busy,
    "dribble": _one_of("bytes_per_second", 500.0, 5000.0),
    "empty_400": _nothing,
    "error_in_200": _one_of("error", "temporarily_unavailable", "server_error", "invalid_request"),
    "expired_token": _nothing,
    "hold": _nothing,
    "html": _one_of("code", 200, 403, 502),
    "invalid_grant": _nothing,
    "no_access_token": _nothing,
    "other_sub": _nothing,
    "redirect": _one_of("to", "http://127.0.0.1:9/"),
    "reset_after_commit": _nothing,
    "reset_before_commit": _nothing,
    "status": _one_of("code", 500, 502, 504),
    "timeout_after": _silence,
    "timeout_before": _silence,
    "truncated_json": _nothing,
}
API_RULES: dict[str, Details] = {
    "delay_refusals": _one_of("seconds", 0.1, 0.5),
    "forbid": _nothing,
    "hold": _nothing,
    "hold_refusals": _nothing,
    "insufficient_scope": _nothing,
    "insufficient_user_authentication": _one_of("max_age", 60, 600),
    "lag": _one_of("seconds", 0.2, 0.6),
    "refuse": _nothing,
    "status": _one_of("code", 429, 500, 502, 503),
}


class Trouble:
    """The next faults: what the token endpoint meets, what the API meets, and who is to be let go before the next."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)
        self._names = 0
        self.held: list[str] = []

    def pause(self) -> float:
        """Seconds until the next faults."""
        return self._dice.uniform(0.3, 1.2)

    def steps(self) -> list[dict[str, Any]]:
        """What the next token requests meet; often nothing. The end of a login is rarer than the rest."""
        if self._dice.random() < 0.4:
            return []
        steps = []
        for _ in range(self._dice.randint(1, 2)):
            kind = self._dice.choice(sorted(TOKEN_STEPS))
            if kind == "invalid_grant" and self._dice.random() < 0.5:
                kind = "status"
            steps.append({"kind": kind, **TOKEN_STEPS[kind](self._dice), **self._name(kind)})
        return steps

    def rules(self) -> list[dict[str, Any]]:
        """What the next API calls meet; often nothing."""
        if self._dice.random() < 0.5:
            return []
        rules = []
        for _ in range(self._dice.randint(1, 2)):
            kind = self._dice.choice(sorted(API_RULES))
            times = self._dice.randint(1, 12)
            rules.append({"kind": kind, "times": times, **API_RULES[kind](self._dice), **self._name(kind)})
        return rules

    def _name(self, kind: str) -> dict[str, Any]:
        if not kind.startswith("hold"):
            return {}
        self._names += 1
        self.held.append(f"held {self._names}")
        return {"name": self.held[-1]}
