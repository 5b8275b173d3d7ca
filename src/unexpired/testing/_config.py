"""How the embedded server behaves: one frozen record, changeable while it runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["ServerConfig"]

_SECONDS = ("grace", "access_lifetime", "refresh_latency", "answer_latency")
_AUTH_METHODS = frozenset({"client_secret_basic", "client_secret_post", "none"})


def _default_clients() -> dict[str, str | None]:
    return {"crm": "crm-secret", "public": None, "impawning": "impawning"}


def _default_users() -> dict[str, str]:
    return {"alice": "wonderland"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerConfig:
    """What the embedded authorization server and its API do.

    The defaults are the strictest common server: every refresh rotates the refresh token, and a used one
    revokes the whole login (RFC 9700 §4.14). Frozen, so safe to share between threads; a running server takes
    changes through `ServerHandle.configure`. All durations are seconds. A wrong value raises `ValueError`
    that names the field.
    """

    clients: Mapping[str, str | None] = field(default_factory=_default_clients, repr=False)
    """Registered clients and their secrets; `None` makes a public client (RFC 6749 §2.1)."""
    users: Mapping[str, str] = field(default_factory=_default_users, repr=False)
    """User names and passwords of dialect B's login."""
    client_auth: tuple[str, ...] = ("client_secret_basic", "client_secret_post", "none")
    """The client authentication methods the token endpoint takes (RFC 6749 §2.3)."""

    rotate: bool = True
    """Whether a refresh replaces the refresh token; without, the same one is answered again."""
    omit_refresh_token: bool = False
    """Answer a refresh without `refresh_token`; the old one stays good (RFC 6749 §6)."""
    grace: float = 0.0
    """For how long the refresh token before the current one is still answered."""
    grace_answer: Literal["same", "new"] = "same"
    """Within the grace: the successor's own answer once more, or a further child beside it."""
    previous_until_used: bool = False
    """The refresh token before the current one stays good until a token of its successor is used."""
    revoke_on_reuse: bool = True
    """Whether a used refresh token revokes the login, or is only refused."""

    access_lifetime: float = 3600.0
    """How long the API takes an access token."""
    expires_in: float | str | None = None
    """What the answer says as `expires_in`, verbatim; `None` says *access_lifetime*."""
    omit_expires_in: bool = False
    """Answer without `expires_in`."""
    kill_old_access_token_on_refresh: bool = False
    """Whether a refresh ends the login's earlier access tokens."""
    jwt_access_token: bool = False
    """Shape access tokens as unsigned JWTs with an `exp`."""
    id_token: bool = False
    """Answer with an unsigned `id_token` (`iss`, `sub`, `aud`, `iat`, `exp`)."""
    scope: str | None = "api"
    """The scope of a login that asks for none; `None` leaves it out of the answer."""

    refresh_latency: float = 0.0
    """Waiting before a redemption is committed."""
    answer_latency: float = 0.0
    """Waiting between the commit and the answer."""
    clock_offset: float = 0.0
    """What the server's `Date` and token claims are ahead of this machine's clock (may be negative)."""
    date_header: bool = True
    """Whether answers carry `Date`."""

    refusal_status: int = 401
    """The status with which the bearer API refuses a token."""
    refusal_challenge: bool = True
    """Whether that refusal carries `WWW-Authenticate` (RFC 6750 §3)."""
    expired_code: int | str = 40009
    """Dialect A's code for an expired token."""
    login_code: int | str = 40005
    """Dialect A's code for an invalid login."""

    def __post_init__(self) -> None:
        for name in _SECONDS:
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must not be negative")
        if self.grace_answer not in ("same", "new"):
            raise ValueError("grace_answer must be 'same' or 'new'")
        if not 400 <= self.refusal_status <= 599:
            raise ValueError("refusal_status must be an error status, 400 to 599")
        object.__setattr__(self, "client_auth", tuple(self.client_auth))
        if unknown := set(self.client_auth) - _AUTH_METHODS:
            raise ValueError(f"client_auth has unknown methods: {', '.join(sorted(unknown))}")

    def changed(self, changes: Mapping[str, object]) -> ServerConfig:
        """Give a copy with *changes*, a mapping of field names to values as JSON has them.

        Raises `ValueError` when a field is unknown, of another type than its default, or out of range.
        """
        for name, value in changes.items():
            self._check(name, value)
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]  # checked just above

    def to_json(self) -> dict[str, object]:
        """Give every field as JSON can hold it, the secrets too: what a server process is started with."""
        fields: dict[str, object] = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return fields | {
            "clients": dict(self.clients),
            "users": dict(self.users),
            "client_auth": list(self.client_auth),
        }

    def _check(self, name: str, value: object) -> None:
        kinds = _KINDS.get(name)
        if kinds is None:
            raise ValueError(f"unknown setting {name!r}; the settings are: {', '.join(sorted(_KINDS))}")
        # bool is an int to Python; a latency of True is a mistake, not one second
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise ValueError(f"{name} must be {' or '.join(kind.__name__ for kind in kinds)}")


_NUMBER: tuple[type, ...] = (int, float)
_SPECIAL: dict[str, tuple[type, ...]] = {
    "clients": (Mapping,),
    "users": (Mapping,),
    "client_auth": (list, tuple),
    "expires_in": (int, float, str, type(None)),
    "grace_answer": (str,),
    "scope": (str, type(None)),
    "refusal_status": (int,),
    "expired_code": (int, str),
    "login_code": (int, str),
}


def _kinds() -> dict[str, tuple[type, ...]]:
    plain: dict[str, tuple[type, ...]] = {"bool": (bool,), "float": _NUMBER}
    return {each.name: _SPECIAL.get(each.name) or plain[str(each.type)] for each in dataclasses.fields(ServerConfig)}


_KINDS = _kinds()
