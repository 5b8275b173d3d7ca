"""The numbers a manager works with, and the arithmetic of its pauses."""

from __future__ import annotations

from dataclasses import dataclass

from unexpired._core.token import Token

__all__ = ["Policy", "ahead", "asked_pause", "cool_down"]

LONGEST_RETRY_AFTER = 3600.0
"""Seconds; a server that asks for more is believed up to here."""


@dataclass(frozen=True, slots=True)
class Policy:
    """All durations are seconds."""

    leeway: float = 30.0
    refresh_ahead: float = 300.0
    deadline: float = 10.0
    lease_margin: float = 2.0
    lease_wait: float = 15.0
    wait: float = 30.0
    patience: float = 30.0
    reuse_grace: float = 0.0
    longest_pause: float = 60.0
    connect_retries: float = 2.0
    default_lifetime: float | None = None
    spends_refresh_token: bool = True


def cool_down(count: int, chance: float, longest: float = 60.0) -> float:
    """Seconds to pause after the *count*-th failure in a row: 1 s doubling to *longest*, with full jitter.

    *chance* is a random number in [0, 1). Never under 0.1 s, so that a pause is a pause.
    """
    ceiling = min(2.0 ** min(count - 1, 30), longest)
    return max(0.1, ceiling * chance)


def asked_pause(retry_after: float | None, own: float) -> float:
    """The longer of the pause a server asked for (within reason) and our *own*."""
    return max(own, min(retry_after or 0.0, LONGEST_RETRY_AFTER))


def ahead(policy: Policy, token: Token, chance: float) -> float:
    """Seconds before expiry at which refreshing ahead begins: shorter by up to half, by the key's own *chance*."""
    return token.margin(policy.refresh_ahead, 0.25) * (1.0 - chance / 2)
