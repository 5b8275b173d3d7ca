"""One login at one authorization server, as it is stored: values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import Literal

from unexpired._core.token import Token

__all__ = ["Ended", "Failure", "FailureKind", "Intent", "Session"]

FailureKind = Literal["unreachable", "lost", "unexplained", "configuration", "expired", "unsaved", "store", "time"]
"""Why a flight brought no token; `configuration` asks for a change of settings, all others pass."""

_SEEDS = 8


@dataclass(frozen=True, slots=True)
class Intent:
    """The journal entry "version v is being redeemed". *since* is UNIX time by the clock of the store's leases.

    *owner* is who is sending it, empty once that request is known to be over: then nobody has to wait for it.
    """

    login: str = field(repr=False)
    version: int
    owner: str
    attempt: int
    since: float


@dataclass(frozen=True, slots=True)
class Failure:
    """The memory of a failed flight: whoever comes before *retry_at* (UNIX time) gets this failure and calls nobody.

    *count* is how many came in a row; *unexplained* how many of them were 400/401 answers without a readable error,
    the first of which came at *unexplained_since*. *resources* are those it is about, if it is not about all.
    """

    kind: FailureKind
    message: str
    since: float
    retry_at: float
    count: int = 1
    unexplained: int = 0
    unexplained_since: float = 0.0
    resources: tuple[str | None, ...] = ()

    def concerns(self, resource: str | None) -> bool:
        """Whether it is about *resource*: a server can refuse one (RFC 8707 §2) and give tokens for the others."""
        return not self.resources or resource in self.resources

    def holds(self, now: float) -> bool:
        """Whether it still forbids a token request. A clock that was set back does not prolong it."""
        return self.since - 1.0 <= now < self.retry_at


@dataclass(frozen=True, slots=True)
class Ended:
    """The session is over: *reason* is one word (see `LoginRequired`), *at* is UNIX time."""

    reason: str
    at: float


@dataclass(frozen=True, slots=True, eq=False)
class Session:
    """One login, stored under *key*. Frozen; `repr` shows no secret.

    *login* is 128 random bits, new at each login. Every new token and the end make *version* larger by one; *intent*
    and *failure* are notes on a version, which *notes* counts. *tokens* holds the access tokens by resource (None is
    the default one). An ended session holds no token any more.
    """

    key: str
    login: str = field(repr=False)
    version: int
    refresh_token: str | None = field(default=None, repr=False)
    tokens: Mapping[str | None, Token] = field(default_factory=lambda: MappingProxyType({}))
    intent: Intent | None = None
    failure: Failure | None = None
    ended: Ended | None = None
    seeds: tuple[str, ...] = field(default=(), repr=False)
    notes: int = 0

    @classmethod
    def begin(cls, key: str, login: str, token: Token | str) -> Session:
        """The first version of a new login that brought *token*, or only a refresh token (a string)."""
        if isinstance(token, str):
            return cls(key, login, 1, token)
        return cls(key, login, 0).minted(token)

    def grown_from(self, seed: str, before: Session | None) -> Session:
        """This session, knowing the fingerprint of what began it and of what began the last ones *before* it."""
        earlier = before.seeds if before is not None else ()
        return replace(self, seeds=(seed, *(one for one in earlier if one != seed))[:_SEEDS])

    def minted(self, token: Token, resource: str | None = None) -> Session:
        """The next version, which stores *token*. What the answer omits is kept (RFC 6749 §6).

        All tokens show the refresh token that is good now, and a failure of another resource is still remembered.
        """
        version = self.version + 1
        before = self.tokens.get(resource)
        refresh_token = token.refresh_token or self.refresh_token
        others = {name: replace(held, refresh_token=refresh_token) for name, held in self.tokens.items()}
        failure = self.failure
        stored = replace(
            token,
            refresh_token=refresh_token,
            id_token=token.id_token or (before.id_token if before else None),
            scope=token.scope or (before.scope if before else None),
            resource=resource,
            login=self.login,
            minted=version,
        )
        return replace(
            self,
            version=version,
            refresh_token=refresh_token,
            tokens=MappingProxyType({**others, resource: stored}),
            intent=None,
            failure=failure if failure is not None and not failure.concerns(resource) else None,
            notes=0,
        )

    def noted(self, *, intent: Intent | None, failure: Failure | None) -> Session:
        """This version with other notes on it."""
        return replace(self, intent=intent, failure=failure, notes=self.notes + 1)

    def salvaged(self, refresh_token: str) -> Session:
        """The next version, with a refresh token that could be read out of a broken answer."""
        tokens = {name: replace(held, refresh_token=refresh_token) for name, held in self.tokens.items()}
        return replace(
            self,
            version=self.version + 1,
            refresh_token=refresh_token,
            tokens=MappingProxyType(tokens),
            intent=None,
            failure=None,
            notes=0,
        )

    def over(self, reason: str, at: float) -> Session:
        """The next version, which is ended and holds nothing to steal."""
        return Session(self.key, self.login, self.version + 1, ended=Ended(reason, at), seeds=self.seeds)

    def same_version(self, other: Session | None) -> bool:
        """Whether *other* is this very version of this very login."""
        return other is not None and (self.login, self.version) == (other.login, other.version)

    def replaces(self, stored: Session | None, expected: Session | None) -> bool:
        """Whether this may be stored in place of *stored*, by one who *expected* that: what a store's `swap` compares.

        A new version or login asks for the login and version that were expected. A note on the same version asks for
        its notes as well: of two owners who announce a redemption at once, one must see the other's.
        """
        if stored is None or expected is None:
            return stored is expected
        if not expected.same_version(stored):
            return False
        return stored.notes == expected.notes or not self.same_version(stored)
