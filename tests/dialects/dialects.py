"""What a program writes once to speak each of the two dialects."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import httpx2

from tests.clients.modes import Mode
from unexpired import InHeader, InQuery, LoginRequired, Scheme, Session, TokenManager
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

SCHEME_A = Scheme(
    InHeader("access_token"),
    InHeader("refresh_token", "{refresh_token}"),
    code="code",
    expired=[40009],
    login_required=[40005, 40003],
    ok=[0],
)
SCHEME_B = Scheme(InQuery("token"), code="code", expired=[401], ok=[0])
LOGIN_B = "/login?redirect=%2Flist%3Fa%3D1&code=C1"
JSON = {"content-type": "application/json"}


def grant_a(server: ServerHandle, **options: Any) -> RefreshTokenGrant:
    """Dialect A's refresh: a GET with everything in the query."""
    url = f"{server.url}/a/security-amass/oauth/token"
    return RefreshTokenGrant(
        url,
        method="GET",
        client_id="impawning",
        client_secret="impawning",
        client_auth="client_secret_post",
        **options,
    )


def manager_a(server: ServerHandle, **options: Any) -> TokenManager:
    """Dialect A, logged in. Its answers name no lifetime."""
    settings: dict[str, Any] = {"store": MemoryStore(), "key": "a", "login_url": "/"} | options
    manager = TokenManager(grant_a(server), **settings)
    answer = server.login()
    manager.login({name: answer[name] for name in ("access_token", "refresh_token")})
    return manager


def refresh_b(server: ServerHandle) -> Callable[[Session], dict[str, Any]]:
    """Dialect B's refresh: the application's own function, which answers with a Token or wants a login."""

    def refresh(session: Session) -> dict[str, Any]:
        spent = {"Token": session.tokens[None].access_token}
        answer: dict[str, Any] = httpx2.post(f"{server.url}/b/api/refresh", json=spent, verify=False).json()
        if answer["code"] != 0:
            raise LoginRequired("the server wants a new login")
        return answer

    return refresh


def manager_b(server: ServerHandle, **options: Any) -> TokenManager:
    """Dialect B, logged in: one token, which is exchanged for the next."""
    settings: dict[str, Any] = {
        "store": MemoryStore(),
        "key": "b",
        "login_url": "/login?redirect={return_to}&code={code}",
        "login_fields": {"return_to": lambda: "/list?a=1", "code": "C1"},
    } | options
    grant = FunctionGrant(refresh_b(server), response_fields={"access_token": "Token"})
    manager = TokenManager(grant, **settings)
    manager.login({"access_token": server.login(single=True)["access_token"]})
    return manager


@dataclass(frozen=True)
class Dialect:
    """One of the two, as the tests of what both must do need it."""

    name: str
    base: str
    scheme: Scheme
    manager: Callable[..., TokenManager]
    login_url: str

    def client(self, server: ServerHandle, mode: Mode, manager: TokenManager, **more: Any) -> dict[str, Any]:
        """What a client of this dialect is made of."""
        return mode.options(manager, "transport", self.scheme, base_url=server.url + self.base, timeout=300, **more)


A = Dialect("A", "/a", SCHEME_A, manager_a, "/")
B = Dialect("B", "/b/api", SCHEME_B, manager_b, LOGIN_B)
