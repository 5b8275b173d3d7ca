"""The authorization server as a state machine: logins, their tokens, and what becomes of them.

It waits for nothing and knows no HTTP: `app.py` gives it an address, `faults.py` its bad days. Each method is
one indivisible step, which is what a real server's transaction is; the caller keeps it to one thread.
"""

from __future__ import annotations

import base64
import json
import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from unexpired.testing._config import ServerConfig

__all__ = ["AccessToken", "AuthorizationServer", "Login", "Minted", "Outcome", "Redemption"]

_ISSUER = "https://as.test"

Outcome = Literal["rotated", "kept", "grace", "reuse", "unknown", "revoked", "wrong_client"]
"""What a redemption came to; the first three mint a token, the others are `invalid_grant` (RFC 6749 §5.2)."""


def _random_text() -> str:
    return secrets.token_urlsafe(24)


@dataclass(slots=True, eq=False)
class Login:
    """One login (a token family): who it is for and which of its refresh tokens are good."""

    subject: str
    client_id: str | None
    scope: str | None
    single: bool
    alive: bool = True
    current: set[str] = field(default_factory=set[str], repr=False)
    previous: str | None = field(default=None, repr=False)
    successor: Minted | None = field(default=None, repr=False)
    rotated_at: float = 0.0
    generation: int = 0
    access: list[AccessToken] = field(default_factory=list["AccessToken"], repr=False)


@dataclass(slots=True, eq=False)
class AccessToken:
    """An access token: its login, the rotations before it, when it was issued and expires (UNIX time)."""

    login: Login = field(repr=False)
    generation: int
    issued: float
    expires: float


@dataclass(frozen=True, slots=True)
class Minted:
    """A pair just handed out; the refresh token is `None` when the answer leaves it out."""

    login: Login = field(repr=False)
    access_token: str = field(repr=False)
    refresh_token: str | None = field(repr=False)
    issued: float


@dataclass(frozen=True, slots=True)
class Redemption:
    """What one presented refresh token came to: *minted* is `None` when it was refused."""

    outcome: Outcome
    minted: Minted | None = None


class AuthorizationServer:
    """Logins with rotating refresh tokens, reuse detection and their softer variants (RFC 9700 §4.14).

    *now* gives UNIX time in seconds; *text* the random part of new tokens. No method waits or raises for
    anything a client sends. Not thread-safe: one thread calls it, and each call is one transaction.
    """

    def __init__(
        self,
        config: ServerConfig,
        *,
        now: Callable[[], float],
        text: Callable[[], str] = _random_text,
    ) -> None:
        self.config = config
        """The settings in force; assign another record to change them between two steps."""
        self.refreshes = 0
        """Redemptions that minted a token."""
        self.reuse_detected = 0
        """Used refresh tokens that were presented again."""
        self.families_revoked = 0
        """Logins that ended: by reuse, by revocation, or by hand."""
        self._now = now
        self._text = text
        self._logins: list[Login] = []
        self._by_refresh: dict[str, Login] = {}
        self._by_access: dict[str, AccessToken] = {}

    def login(
        self,
        *,
        subject: str = "alice",
        client_id: str | None = None,
        scope: str | None = None,
        single: bool = False,
    ) -> Minted:
        """Begin a login and mint its first pair.

        With *client_id* only that client may redeem it (RFC 6749 §6). With *single* the access token is its
        own refresh token, as with servers that hand out one token and exchange it for the next.
        """
        login = Login(subject, client_id, scope if scope is not None else self.config.scope, single)
        self._logins.append(login)
        return self._mint(login)

    def redeem(self, refresh_token: str, client_id: str | None = None) -> Redemption:
        """Exchange *refresh_token* for a new token, or refuse it; a used one may revoke its login.

        Check and rotation are one step: of two redemptions of one token the second always meets a used token.
        """
        login = self._by_refresh.get(refresh_token)
        if login is None:
            return Redemption("unknown")
        if login.client_id is not None and client_id != login.client_id:
            return Redemption("wrong_client")
        if not login.alive:
            return Redemption("reuse" if self._count_reuse(login, refresh_token) else "revoked")
        if refresh_token in login.current:
            return self._refresh(login, refresh_token)
        if refresh_token == login.previous and (again := self._again(login)) is not None:
            self.refreshes += 1
            return Redemption("grace", again)
        self._count_reuse(login, refresh_token)
        if self.config.revoke_on_reuse:
            self._end(login)
        return Redemption("reuse")

    def find(self, access_token: str) -> AccessToken | None:
        """Look up an access token that was once minted, whatever its state."""
        return self._by_access.get(access_token)

    def used(self, access_token: str) -> None:
        """Take note that the API accepted *access_token*: the refresh token before it is spent for good."""
        record = self._by_access[access_token]
        if self.config.previous_until_used and record.generation == record.login.generation:
            record.login.previous = None

    def is_good(self, record: AccessToken) -> bool:
        """Tell whether the login lives and the token is not past its lifetime."""
        return record.login.alive and self._now() < record.expires

    def revoke(self, token: str) -> bool:
        """End the login that *token*, access or refresh, belongs to (RFC 7009 §2.1); false without one."""
        login = self._login_of(token)
        if login is None or not login.alive:
            return False
        self._end(login)
        return True

    def revoke_all(self) -> None:
        """End every login."""
        for login in self._logins:
            if login.alive:
                self._end(login)

    def expire(self, token: str) -> bool:
        """Let the access tokens of *token*'s login be expired from now on; false without one."""
        login = self._login_of(token)
        if login is None:
            return False
        self._kill_access(login)
        return True

    def expire_one(self, access_token: str) -> None:
        """Let this *access_token*, and no other of its login, be expired from now on."""
        self._by_access[access_token].expires = 0.0

    def expire_all(self) -> None:
        """Let every access token minted so far be expired from now on."""
        for login in self._logins:
            self._kill_access(login)

    def answer(self, minted: Minted) -> dict[str, object]:
        """Word *minted* as a token answer (RFC 6749 §5.1)."""
        config, login = self.config, minted.login
        answer: dict[str, object] = {"access_token": minted.access_token, "token_type": "Bearer"}
        if not config.omit_expires_in:
            stated = config.expires_in
            # whole numbers are said as such: 3600, not 3600.0
            lifetime = config.access_lifetime
            answer["expires_in"] = stated if stated is not None else int(lifetime) if lifetime % 1 == 0 else lifetime
        if minted.refresh_token is not None:
            answer["refresh_token"] = minted.refresh_token
        if login.scope is not None:
            answer["scope"] = login.scope
        if config.id_token:
            answer["id_token"] = self.id_token(login.subject, login.client_id)
        return answer

    def id_token(self, subject: str, audience: str | None) -> str:
        """Make an unsigned id token for *subject*, on the server's own clock."""
        now = self._now() + self.config.clock_offset
        claims = {"iss": _ISSUER, "sub": subject, "aud": audience or "any", "iat": int(now)}
        return _jwt(claims | {"exp": int(now + self.config.access_lifetime)})

    def _refresh(self, login: Login, refresh_token: str) -> Redemption:
        self.refreshes += 1
        if self.config.kill_old_access_token_on_refresh:
            self._kill_access(login)
        if not self.config.rotate or self.config.omit_refresh_token:
            omitted = None if self.config.omit_refresh_token else refresh_token
            access_token, issued = self._mint_access(login)
            return Redemption("kept", Minted(login, access_token, omitted, issued))
        login.current.clear()
        login.previous = refresh_token
        login.rotated_at = self._now()
        login.generation += 1
        login.successor = self._mint(login)
        return Redemption("rotated", login.successor)

    def _again(self, login: Login) -> Minted | None:
        if self.config.previous_until_used:
            return self._mint(login)
        if self._now() - login.rotated_at >= self.config.grace:
            return None
        return login.successor if self.config.grace_answer == "same" else self._mint(login)

    def _mint(self, login: Login) -> Minted:
        access_token, issued = self._mint_access(login)
        refresh_token = access_token if login.single else f"rt-{self._text()}"
        login.current.add(refresh_token)
        self._by_refresh[refresh_token] = login
        return Minted(login, access_token, refresh_token, issued)

    def _mint_access(self, login: Login) -> tuple[str, float]:
        issued = self._now()
        expires = issued + self.config.access_lifetime
        text = f"at-{self._text()}"
        if self.config.jwt_access_token:
            exp = int(expires + self.config.clock_offset)
            text = _jwt({"iss": _ISSUER, "sub": login.subject, "jti": text, "exp": exp})
        record = AccessToken(login, login.generation, issued, expires)
        self._by_access[text] = record
        login.access.append(record)
        return text, issued

    def _count_reuse(self, login: Login, refresh_token: str) -> bool:
        used = refresh_token not in login.current
        self.reuse_detected += used
        return used

    def _kill_access(self, login: Login) -> None:
        for record in login.access:
            record.expires = 0.0
        login.access.clear()

    def _end(self, login: Login) -> None:
        login.alive = False
        self.families_revoked += 1

    def _login_of(self, token: str) -> Login | None:
        record = self._by_access.get(token)
        return record.login if record is not None else self._by_refresh.get(token)


def _jwt(claims: Mapping[str, object]) -> str:
    def part(value: object) -> str:
        return base64.urlsafe_b64encode(json.dumps(value).encode()).rstrip(b"=").decode()

    return f"{part({'alg': 'none', 'typ': 'JWT'})}.{part(claims)}."
