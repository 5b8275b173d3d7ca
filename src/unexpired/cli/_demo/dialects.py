"""The three ways in which the demonstration's API speaks, each set up as a program would."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import httpx2

from unexpired import InHeader, InQuery, Scheme, Session
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.testing import ServerHandle

__all__ = ["DIALECTS", "Dialect", "DialectName", "Dress"]

DialectName = Literal["bearer", "a", "b"]


@dataclass(frozen=True, slots=True)
class Dress:
    """A constant token for the calls of the floor: headers and query parameters. Holds secrets; not shown."""

    headers: Mapping[str, str]
    params: Mapping[str, str]

    def __repr__(self) -> str:
        return "Dress(…)"


class Dialect(Protocol):
    """One API: how it is called, how it wants its token, and how that is refreshed."""

    name: DialectName
    scheme: Scheme
    needs_transport: bool

    def ask(self, number: int) -> dict[str, Any]:
        """The arguments of `httpx2.Client.request` for call *number*."""
        ...

    def own(self, document: Any, number: int) -> bool:
        """Whether *document* is the answer to call *number*."""
        ...

    def grant(self, url: str) -> RefreshTokenGrant | FunctionGrant:
        """How a new token is obtained from the server at *url*."""
        ...

    def login(self, server: ServerHandle) -> dict[str, Any]:
        """Log in and give the token answer."""
        ...

    def dress(self, answer: Mapping[str, Any]) -> Dress:
        """The token of *answer* as a constant."""
        ...


class _Bearer:
    """RFC 6750: the header `Authorization`, 401 when expired; RFC 6749 §6 to refresh."""

    name: DialectName = "bearer"
    scheme = Scheme.bearer()
    needs_transport = False

    def ask(self, number: int) -> dict[str, Any]:
        return {"method": "GET", "url": "/api/customers", "params": {"n": number}}

    def own(self, document: Any, number: int) -> bool:
        return (document["ok"], document["n"]) == (True, str(number))

    def grant(self, url: str) -> RefreshTokenGrant:
        return RefreshTokenGrant(f"{url}/oauth/token", client_id="crm", client_secret="crm-secret")

    def login(self, server: ServerHandle) -> dict[str, Any]:
        return server.login(client_id="crm")

    def dress(self, answer: Mapping[str, Any]) -> Dress:
        return Dress({"Authorization": f"Bearer {answer['access_token']}"}, {})


class _DialectA:
    """Two bare tokens in headers, always 200, `{"code": 40009}` when expired; a GET with everything in the query."""

    name: DialectName = "a"
    scheme = Scheme(
        InHeader("access_token", "{access_token}"),
        InHeader("refresh_token", "{refresh_token}"),
        code="code",
        expired=[40009],
        login_required=[40005, 40003],
        ok=[0],
    )
    needs_transport = True

    def ask(self, number: int) -> dict[str, Any]:
        return {"method": "POST", "url": "/a/loans", "params": {"n": number}, "data": {"loan": str(number)}}

    def own(self, document: Any, number: int) -> bool:
        data = document["data"]
        # the server says how long the body was: a replay without it would be seen
        found = (document["code"], data["n"], data["body_length"])
        return found == (0, str(number), len(f"loan={number}"))

    def grant(self, url: str) -> RefreshTokenGrant:
        return RefreshTokenGrant(
            f"{url}/a/security-amass/oauth/token",
            method="GET",
            client_id="impawning",
            client_secret="impawning",
            client_auth="client_secret_post",
        )

    def login(self, server: ServerHandle) -> dict[str, Any]:
        answer = server.login(client_id="impawning")
        return {name: answer[name] for name in ("access_token", "refresh_token")}

    def dress(self, answer: Mapping[str, Any]) -> Dress:
        return Dress({name: str(answer[name]) for name in ("access_token", "refresh_token")}, {})


class _DialectB:
    """The token in the query, an envelope `{"code": 401}` when expired; the program's own function refreshes."""

    name: DialectName = "b"
    scheme = Scheme(InQuery("token", "{access_token}"), code="code", expired=[401], ok=[0])
    needs_transport = True

    def ask(self, number: int) -> dict[str, Any]:
        return {"method": "GET", "url": "/b/api/orders", "params": {"n": number}}

    def own(self, document: Any, number: int) -> bool:
        return (document["code"], document["data"]["n"]) == (0, str(number))

    def grant(self, url: str) -> FunctionGrant:
        def renew(session: Session) -> Mapping[str, Any]:
            token = session.tokens[None].access_token
            answer = httpx2.post(f"{url}/b/api/refresh", json={"Token": token}, trust_env=False)
            return dict(answer.json())

        return FunctionGrant(renew, response_fields={"access_token": "Token"})

    def login(self, server: ServerHandle) -> dict[str, Any]:
        return {"access_token": server.login(single=True)["access_token"]}

    def dress(self, answer: Mapping[str, Any]) -> Dress:
        return Dress({}, {"token": str(answer["access_token"])})


DIALECTS: Mapping[DialectName, Dialect] = {"bearer": _Bearer(), "a": _DialectA(), "b": _DialectB()}
