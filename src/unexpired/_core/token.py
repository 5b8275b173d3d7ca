"""One token answer (RFC 6749 §5.1) and the arithmetic of its expiry."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, Self, TypeGuard, cast

__all__ = ["LONGEST_LIFETIME", "Token", "is_credential"]

LONGEST_LIFETIME = 100 * 365 * 86400.0
"""Seconds; larger lifetimes are cut to it, so that arithmetic on them stays exact and finite."""

_NOTHING: Mapping[str, Any] = MappingProxyType({})
_TRUSTED_SKEW = 5.0
_MILLISECONDS = 1e12  # in 2001, counted in them; in seconds it is far beyond the year 9999, which means "never"


@dataclass(frozen=True, slots=True, eq=False)
class Token:
    """One token answer. Frozen; safe to share between threads and tasks. `repr` shows no secret.

    *expires_at* is UNIX time by this machine's clock, None when nobody named a lifetime. *lifetime* is in seconds.
    *login* and *minted* say which login and which version of the session stored it; both are set by the manager.
    *resource* is what it was asked for (RFC 8707), None for the default one. *extra* holds the answer's other fields.
    """

    access_token: str = field(repr=False)
    token_type: str = "Bearer"
    expires_at: float | None = None
    lifetime: float | None = None
    scope: str | None = None
    refresh_token: str | None = field(default=None, repr=False)
    id_token: str | None = field(default=None, repr=False)
    extra: Mapping[str, Any] = field(default_factory=lambda: _NOTHING, repr=False)
    resource: str | None = None
    login: str = field(default="", repr=False)
    minted: int = 0

    @classmethod
    def from_response(
        cls, answer: Mapping[str, Any], *, now: float | None = None, server_time: float | None = None
    ) -> Self:
        """Read a token answer (RFC 6749 §5.1).

        *now* is the UNIX time at which the request was sent, the present moment by default; *server_time* is the
        server's own clock (its ``Date`` header), used to correct absolute times for skew. The expiry comes from
        ``expires_in`` (seconds: number or string; zero means that none is named), else ``expires_at`` (UNIX time or
        ISO 8601), else the ``exp`` claim of an access token that is a JWT (RFC 7519, unverified), else it is unknown.

        Raises ValueError when there is no usable ``access_token``; the message never quotes a value.
        """
        if now is None:
            from time import time  # noqa: PLC0415 - a convenience for people; the library itself always passes *now*

            now = time()
        access_token = answer.get("access_token")
        if not is_credential(access_token):
            raise ValueError("the answer has no usable access_token")
        refresh_token = answer.get("refresh_token")
        expires_at, lifetime = _expiry(answer, access_token, now, server_time)
        return cls(
            access_token=access_token,
            token_type=_text(answer.get("token_type")) or "Bearer",
            expires_at=expires_at,
            lifetime=lifetime,
            scope=_text(answer.get("scope")),
            refresh_token=refresh_token if is_credential(refresh_token) else None,
            id_token=_text(answer.get("id_token")),
            extra=MappingProxyType({k: v for k, v in answer.items() if k not in _KNOWN}),
        )

    def __reduce__(self) -> tuple[Any, ...]:
        """Tokens cross process borders; what the answer held besides travels as a plain mapping."""
        fields = (self.access_token, self.token_type, self.expires_at, self.lifetime, self.scope, self.refresh_token)
        return type(self), (*fields, self.id_token, dict(self.extra), self.resource, self.login, self.minted)

    def expired(self, now: float, leeway: float = 0.0) -> bool:
        """Whether it is expired at UNIX time *now*, or will be within *leeway* seconds (10 % of its life at most)."""
        return self.expires_at is not None and now >= self.expires_at - self.margin(leeway)

    def is_sound(self) -> bool:
        """Whether every field is of its type and can be stored: a token made by hand may be anything."""
        texts: list[object] = [self.token_type, self.scope, self.refresh_token, self.id_token, self.resource]
        numbers: list[object] = [self.expires_at, self.lifetime]
        mappings: list[object] = [self.extra]
        return (
            is_credential(self.access_token)
            and all(text is None or isinstance(text, str) for text in texts)
            and all(number is None or _number(number) == number for number in numbers)
            and all(isinstance(one, Mapping) for one in mappings)
        )

    def margin(self, leeway: float, share: float = 0.1) -> float:
        """*leeway* seconds, but never more than *share* of the lifetime: short tokens must not refresh every call."""
        if self.lifetime is None:
            return leeway
        return min(leeway, max(self.lifetime, 0.0) * share)

    def with_lifetime(self, lifetime: float | None, now: float) -> Token:
        """This token with both its expiry and its lifetime, as of UNIX time *now*.

        One follows from the other; where neither is named, it lives *lifetime* seconds (None: unknown).
        """
        if self.expires_at is not None and math.isfinite(self.expires_at):
            return self if self.lifetime is not None else replace(self, lifetime=self.expires_at - now)
        return replace(self, lifetime=lifetime, expires_at=None if lifetime is None else now + lifetime)

    def later_than(self, other: Token) -> bool:
        """Whether this was stored after *other*: by another login, or by a later version of the same one."""
        return self.login != other.login or self.minted > other.minted

    def newer_than(self, other: Token) -> bool:
        """Whether this can replace *other*, which was refused: stored after it, and a different string."""
        return self.later_than(other) and self.resource == other.resource and self.access_token != other.access_token

    def claims(self) -> Mapping[str, Any]:
        """The claims of the id token, unverified (its integrity comes from TLS, OpenID Connect Core §3.1.3.7)."""
        return _jwt_claims(self.id_token or "")


_KNOWN = frozenset({"access_token", "token_type", "expires_in", "expires_at", "scope", "refresh_token", "id_token"})


def is_credential(value: object) -> TypeGuard[str]:
    """Whether *value* can be sent as a token: text that a header line can hold as it is."""
    return isinstance(value, str) and bool(value) and value.isprintable() and value == value.strip()


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None


def _number(value: object) -> float | None:
    """A finite number given as number or string, else None."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except (ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _moment(value: object) -> float | None:
    """A UNIX time given as number, numeric string or ISO 8601; values that can only be milliseconds are converted."""
    number = _number(value)
    if number is None and isinstance(value, str):
        try:
            parsed = datetime.fromisoformat(value.strip())
            number = (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()
        except (ValueError, OverflowError):
            return None
    if number is not None and number >= _MILLISECONDS:
        number /= 1000.0
    return number


def _expiry(
    answer: Mapping[str, Any], access_token: str, now: float, server_time: float | None
) -> tuple[float | None, float | None]:
    """`(expires_at, lifetime)`, either both or none."""
    relative = _number(answer.get("expires_in"))
    if relative:
        lifetime = min(relative, LONGEST_LIFETIME)
        return now + lifetime, lifetime
    absolute = _moment(answer.get("expires_at")) or _moment(_jwt_claims(access_token).get("exp"))
    if not absolute:
        return None, None
    skew = 0.0 if server_time is None else server_time - now
    if abs(skew) > _TRUSTED_SKEW:
        absolute -= skew
    lifetime = min(absolute - now, LONGEST_LIFETIME)
    return now + lifetime, lifetime


def _jwt_claims(token: str) -> Mapping[str, Any]:
    """The payload of a JWT, unverified; empty for anything else."""
    parts = token.split(".")
    if len(parts) != 3:
        return _NOTHING
    try:
        claims: Any = json.loads(base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4)))
    except (ValueError, RecursionError):
        return _NOTHING
    return cast("dict[str, Any]", claims) if isinstance(claims, dict) else _NOTHING
