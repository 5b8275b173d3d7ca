"""Dialect B: the token in the query, an envelope with a code, the application's own refresh."""

from __future__ import annotations

import hashlib

import pytest

from tests.clients.modes import Api, Mode, get, send
from tests.dialects.dialects import LOGIN_B, B, manager_b
from unexpired import LoginRequired
from unexpired.testing import ServerHandle


def test_token_in_the_query(server: ServerHandle, mode: Mode) -> None:
    """Scenario 44: the token is added to the call's own parameters, and replaced at the replay."""
    manager = manager_b(server)
    server.expire()
    response = mode.one(B.client(server, mode, manager), get("/orders", params={"n": "5", "page": "2"}))
    # the server refuses a token that is given twice
    assert (response.json()["code"], response.json()["data"]["n"]) == (0, "5")
    assert str(response.url) == f"{server.url}/b/api/orders?n=5&page=2"
    stats = server.stats()
    assert (stats.token_posts, stats.credentials) == (1, {"query": 2})


def test_json_body(server: ServerHandle, mode: Mode) -> None:
    """Scenario 40: a JSON body is the same at the replay."""
    manager = manager_b(server)
    server.expire()
    answer = mode.one(B.client(server, mode, manager), send("POST", "/orders", json={"id": 7})).json()
    assert answer["data"]["body_sha256"] == hashlib.sha256(b'{"id":7}').hexdigest()
    assert server.stats().refused == 1


def test_other_codes(server: ServerHandle, mode: Mode) -> None:
    """Scenario 37: any other code comes back with its body, however much that looks like an expired token inside."""
    manager = manager_b(server)
    answer = mode.one(B.client(server, mode, manager), get("/fail")).json()
    assert answer == {"code": 500, "msg": "the operation failed", "detail": {"code": 401}}
    assert server.stats().token_posts == 0


def test_login_over_the_same_client(server: ServerHandle, mode: Mode) -> None:
    """Scenario 48: after a failed refresh the program logs in with the same client, unauthenticated, and goes on."""
    manager = manager_b(server)
    server.revoke_family()
    bare = {"unexpired.authenticated": False}

    async def job(api: Api) -> list[object]:
        with pytest.raises(LoginRequired) as over:
            await api.get("/orders")
        wrong = await api.send("POST", "/login", json={"user": "alice", "password": "x"}, extensions=bare)
        right = await api.send("POST", "/login", json={"user": "alice", "password": "wonderland"}, extensions=bare)
        await api.blocking(lambda: manager.login({"access_token": right.json()["data"]["Token"]}))
        return [over.value.login_url, wrong.json()["code"], (await api.get("/orders")).json()["code"]]

    assert mode.one(B.client(server, mode, manager), job) == [LOGIN_B, 1001, 0]


def test_way_back_as_it_is_now(server: ServerHandle, mode: Mode) -> None:
    """Scenario 48: the return path is asked for when the login is over, and cannot lead to another site."""
    path = ["/list?a=1"]
    manager = manager_b(server, login_fields={"return_to": lambda: path[0], "code": "C 1&x"})
    server.revoke_family()
    for now, then in (("/cart", "%2Fcart"), ("//evil.test", "%2F"), ("https://evil.test", "%2F")):
        path[0] = now
        (error,) = mode.run(B.client(server, mode, manager), [get("/orders")])
        assert error.login_url == f"/login?redirect={then}&code=C%201%26x"
