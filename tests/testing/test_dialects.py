"""The two dialects of real front ends, on real sockets."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.testing.wire import FORM, JSON, Answer, send
from unexpired.testing import ServerHandle

A_CLIENT = {"client_id": "impawning", "client_secret": "impawning"}


def call_a(
    server: ServerHandle, token: dict[str, Any], method: str = "GET", body: bytes = b"", **headers: str
) -> Answer:
    """Call dialect A with both tokens of *token* and more *headers*."""
    both = {"access_token": token["access_token"], "refresh_token": token["refresh_token"]}
    return send(server, method, "/a/customers?n=3", body, both | headers)


def refresh_a(server: ServerHandle, refresh_token: str, base: str = "") -> Answer:
    """Redeem *refresh_token* as dialect A does."""
    query = urlencode({"grant_type": "refresh_token", **A_CLIENT, "refresh_token": refresh_token})
    return send(server, "GET", f"{base}/security-amass/oauth/token?{query}")


def call_b(server: ServerHandle, target: str, token: str) -> Any:
    """Call dialect B with *token* beside the query of *target*."""
    mark = "&" if "?" in target else "?"
    answer = send(server, "GET", f"/b/api{target}{mark}token={token}")
    assert answer.status == 200
    return answer.json


def post_b(server: ServerHandle, target: str, document: object) -> Any:
    """Post JSON to dialect B."""
    answer = send(server, "POST", f"/b/api{target}", json.dumps(document).encode(), JSON)
    assert answer.status == 200
    return answer.json


def login_b(server: ServerHandle) -> str:
    """Log in to dialect B and give the token."""
    token: str = post_b(server, "/login", {"user": "alice", "password": "wonderland"})["data"]["Token"]
    return token


def test_a_call(server: ServerHandle) -> None:
    """Dialect A serves a call that carries both bare tokens, with code 0."""
    answer = call_a(server, server.login())
    assert (answer.status, answer.json["code"], answer.json["data"]["n"]) == (200, 0, "3")


@pytest.mark.parametrize("code", [40009, "40009"])
def test_a_expired(server: ServerHandle, code: int | str) -> None:
    """An expired token is a code in a 200, as a number or a string."""
    server.configure(expired_code=code)
    login = server.login()
    server.expire()
    answer = call_a(server, login)
    assert (answer.status, answer.json["code"]) == (200, code)
    assert call_a(server, refresh_a(server, login["refresh_token"]).json).json["code"] == 0


@pytest.mark.parametrize("code", [40005, 40003])
def test_a_invalid_login(server: ServerHandle, code: int) -> None:
    """A login that is over, a token of nobody's, and no token are an invalid login, again in a 200."""
    server.configure(login_code=code)
    login = server.login()
    server.revoke_family()
    assert call_a(server, login).json["code"] == code
    assert call_a(server, {"access_token": "x", "refresh_token": "y"}).json["code"] == code
    bare = send(server, "GET", "/a/customers")
    assert (bare.status, bare.json["code"]) == (200, code)


def test_a_wants_both_headers(server: ServerHandle) -> None:
    """A call with the access token alone is no login in dialect A."""
    alone = {"access_token": server.login()["access_token"]}
    assert send(server, "GET", "/a/x", headers=alone).json["code"] == 40005


def test_a_takes_forms(server: ServerHandle) -> None:
    """A POST is form-encoded; another type is an error of the call, not of the login."""
    login = server.login()
    assert call_a(server, login, "POST", b"a=1", **FORM).json["data"]["body_length"] == 3
    assert call_a(server, login, "POST", b"{}", **JSON).json["code"] == 40000


@pytest.mark.parametrize("base", ["", "/a"])
def test_a_refresh(server: ServerHandle, base: str) -> None:
    """The refresh is a GET with all in the query that answers two tokens and nothing else."""
    token = server.login()["refresh_token"]
    answer = refresh_a(server, token, base)
    assert answer.status == 200
    assert answer.json.keys() == {"access_token", "refresh_token"}
    assert (refresh_a(server, token, base).status, server.stats().reuse_detected) == (400, 1)


def test_a_refresh_without_rotation(server: ServerHandle) -> None:
    """A server that omits the refresh token answers the access token alone."""
    server.configure(omit_refresh_token=True)
    assert refresh_a(server, server.login()["refresh_token"]).json.keys() == {"access_token"}


def test_a_faults(server: ServerHandle) -> None:
    """The script of faults holds for dialect A's refresh, and the API's rules for its calls."""
    login = server.login()
    server.faults([{"kind": "no_access_token"}])
    assert refresh_a(server, login["refresh_token"]).json.keys() == {"refresh_token"}
    server.api_faults([{"kind": "status", "code": 50000}])
    assert call_a(server, login).json == {"code": 50000, "msg": "status"}


def test_b_login_and_call(server: ServerHandle) -> None:
    """Dialect B logs in with user and password and takes the token beside the call's own parameters."""
    token = login_b(server)
    assert call_b(server, "/orders?n=5", token)["data"]["n"] == "5"
    assert server.stats().logins == 1


@pytest.mark.parametrize(
    "document",
    [
        {"user": "alice", "password": "wrong"},
        {"user": "bob", "password": "wonderland"},
        {"user": 1, "password": 2},
        {},
    ],
)
def test_b_wrong_login(server: ServerHandle, document: object) -> None:
    """A wrong login is an error of its own code, so that nobody takes it for an expired token."""
    assert post_b(server, "/login", document)["code"] == 1001
    assert send(server, "POST", "/b/api/login", b"user=alice", FORM).json["code"] == 400


def test_b_expired(server: ServerHandle) -> None:
    """Expired, unknown and missing tokens are code 401 in a 200."""
    token = login_b(server)
    server.expire()
    assert call_b(server, "/orders", token)["code"] == 401
    assert call_b(server, "/orders", "made-up")["code"] == 401
    assert send(server, "GET", "/b/api/orders").json["code"] == 401


def test_b_token_given_twice(server: ServerHandle) -> None:
    """An old token left beside the new one in the query is an error that shows."""
    assert call_b(server, "/orders?token=old", login_b(server))["code"] == 400


def test_b_other_errors(server: ServerHandle) -> None:
    """`/b/api/fail` is an error with a body, in which a nested 401 must fool nobody."""
    answer = call_b(server, "/fail", login_b(server))
    assert (answer["code"], answer["detail"]) == (500, {"code": 401})


def test_b_refresh(server: ServerHandle) -> None:
    """The old token, expired or not, buys the new one; presented again it is a reuse and ends the login."""
    old = login_b(server)
    server.expire()
    new = post_b(server, "/refresh", {"Token": old})
    assert new.keys() == {"code", "Token"}
    assert call_b(server, "/orders", new["Token"])["code"] == 0
    assert post_b(server, "/refresh", {"Token": old})["code"] == 401
    assert call_b(server, "/orders", new["Token"])["code"] == 401
    assert server.stats().reuse_detected == 1


def test_b_refresh_with_a_refresh_token(server: ServerHandle) -> None:
    """A login with a separate refresh token is refreshed by that one, and gets both anew."""
    answer = post_b(server, "/refresh", {"refresh": server.login()["refresh_token"]})
    assert answer.keys() == {"code", "Token", "refresh"}
    assert call_b(server, "/orders", answer["Token"])["code"] == 0


@pytest.mark.parametrize("body", [b"{", b"{}", b'{"Token": 7}', b'{"refresh": "made-up"}'])
def test_b_wrong_refresh(server: ServerHandle, body: bytes) -> None:
    """A refresh that presents nothing good is code 401."""
    answer = send(server, "POST", "/b/api/refresh", body, JSON)
    assert (answer.status, answer.json["code"]) == (200, 401)


def test_b_faults(server: ServerHandle) -> None:
    """The script of faults holds for dialect B's refresh, and the API's rules for its calls."""
    token = login_b(server)
    server.api_faults([{"kind": "status", "code": 777}])
    assert call_b(server, "/orders", token) == {"code": 777, "msg": "status"}
    server.faults([{"kind": "no_access_token"}])
    assert post_b(server, "/refresh", {"Token": token}) == {"code": 0}
