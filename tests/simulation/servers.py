"""The authorization server and its API, as models of what real ones do with refresh tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

__all__ = ["MODELS", "Family", "Issued", "Model", "Server"]


@dataclass(frozen=True, slots=True)
class Model:
    """What a refresh does. *grace*: seconds for which the spent refresh token is answered with its successor again."""

    name: str
    rotates: bool = True
    grace: float = 0.0
    until_used: bool = False
    omits: bool = False
    kills_old: bool = False

    @property
    def strict(self) -> bool:
        """Whether a spent refresh token, sent again, costs the login (RFC 9700 §4.14)."""
        return self.rotates and not self.grace and not self.until_used


MODELS = (
    Model("strict rotation"),
    Model("grace of 60 s", grace=60.0),
    Model("grace of 10 s", grace=10.0),
    Model("no rotation", rotates=False),
    Model("refresh token omitted", rotates=False, omits=True),
    Model("old one good until its successor is used", until_used=True),
    Model("strict rotation that kills the old access token", kills_old=True),
)


@dataclass(slots=True, eq=False)
class Issued:
    """An access token that the server has given out."""

    text: str
    family: Family
    resource: str | None
    generation: int
    at: float
    expires: float
    dead: bool = False
    refused: bool = False
    refused_wrongly: bool = False


@dataclass(slots=True, eq=False)
class Family:
    """All tokens of one login. *spent_by* says whose request made a refresh token, by its number, a spent one."""

    name: str
    generation: int = 1
    revoked: str = ""
    rotated_at: float = 0.0
    successor_used: bool = False
    spent_by: dict[int, Any] = field(default_factory=dict)

    @property
    def refresh_token(self) -> str:
        """The one that is good now."""
        return f"{self.name}/RT{self.generation}"


class Server:
    """One authorization server with an API behind it. Its clock is the world's."""

    def __init__(self, model: Model, lifetime: float, clock: Callable[[], float]) -> None:
        self.model = model
        self.lifetime = lifetime
        self.families: dict[str, Family] = {}
        self.tokens: dict[str, Issued] = {}
        self.reused: list[tuple[Family, str]] = []
        self._clock = clock
        self._count = 0

    def log_in(self, *, lifetime: float | None = None) -> dict[str, Any]:
        """A new login's token answer."""
        family = Family(f"login{len(self.families) + 1}")
        self.families[family.name] = family
        return self._answer(family, None, self.lifetime if lifetime is None else lifetime, first=True)

    def family(self, refresh_token: str | None) -> Family | None:
        """The login that a refresh token is of."""
        return self.families.get((refresh_token or "").partition("/")[0])

    def redeem(self, refresh_token: str, resource: str | None, by: Any) -> dict[str, Any] | None:
        """A token answer, or None for `invalid_grant`. *by* is who asks, whoever that is."""
        family, model, now = self.family(refresh_token), self.model, self._clock()
        if family is None or family.revoked:
            return None
        if refresh_token == family.refresh_token:
            if model.rotates:
                family.spent_by[family.generation] = by
                family.generation += 1
                family.rotated_at = now
                family.successor_used = False
            if model.kills_old:
                for issued in self.tokens.values():
                    issued.dead = issued.dead or issued.family is family
            return self._answer(family, resource, self.lifetime)
        previous = f"{family.name}/RT{family.generation - 1}"
        if refresh_token == previous and (
            (model.grace and now - family.rotated_at <= model.grace) or (model.until_used and not family.successor_used)
        ):
            return self._answer(family, resource, self.lifetime)
        self.reused.append((family, refresh_token))
        self.revoke(family, "reuse")
        return None

    def revoke(self, family: Family, why: str) -> None:
        """End the login at the server."""
        family.revoked = family.revoked or why
        for issued in self.tokens.values():
            issued.dead = issued.dead or issued.family is family

    def end_access(self) -> None:
        """Every access token that is out now is refused from here on, before its time."""
        for issued in self.tokens.values():
            issued.dead = True

    def accepts(self, text: str, lag: float = 0.0) -> bool:
        """Whether the API takes an access token. *lag*: seconds that this replica is behind."""
        issued, now = self.tokens.get(text), self._clock()
        if issued is None or issued.dead or now >= issued.expires or now - issued.at < lag:
            return False
        if issued.generation == issued.family.generation:
            issued.family.successor_used = True
        return True

    def _answer(self, family: Family, resource: str | None, lifetime: float, *, first: bool = False) -> dict[str, Any]:
        self._count += 1
        text = f"AT{self._count}"
        now = self._clock()
        self.tokens[text] = Issued(text, family, resource, family.generation, now, now + lifetime)
        answer: dict[str, Any] = {"access_token": text, "expires_in": lifetime}
        if first or not self.model.omits:
            answer["refresh_token"] = family.refresh_token
        return answer
