"""The token and revocation endpoints on real sockets."""

from __future__ import annotations

import hashlib
import json
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime
from urllib.parse import quote, urlencode

import pytest

from tests.testing.wire import (
    FORM,
    JSON,
    Answer,
    basic,
    bearer,
    open_socket,
    refresh,
    refresh_body,
    refresh_request,
    send,
)
from unexpired.testing import ServerHandle


def post(server: ServerHandle, body: bytes, headers: dict[str, str] | None = None) -> Answer:
    """Post a form to the token endpoint."""
    return send(server, "POST", "/oauth/token", body, FORM | (headers or {}))


def test_refresh(server: ServerHandle) -> None:
    """A refresh answers a new token that no cache may keep, and the API takes it (RFC 6749 §5.1)."""
    login = server.login()
    answer = refresh(server, login["refresh_token"])
    assert answer.status == 200
    assert answer.headers["cache-control"] == "no-store"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json.keys() == {"access_token", "token_type", "expires_in", "refresh_token", "scope"}
    assert answer.json["refresh_token"] != login["refresh_token"]
    assert send(server, "GET", "/api/x", headers=bearer(answer.json)).status == 200


def test_reuse(server: ServerHandle) -> None:
    """A second redemption of one refresh token gets `invalid_grant`, and the login is over."""
    login = server.login()
    new = refresh(server, login["refresh_token"]).json
    again = refresh(server, login["refresh_token"])
    assert (again.status, again.json["error"]) == (400, "invalid_grant")
    assert send(server, "GET", "/api/x", headers=bearer(new)).status == 401
    stats = server.stats()
    assert (stats.token_posts, stats.refreshes, stats.reuse_detected, stats.families_revoked) == (2, 1, 1, 1)


@pytest.mark.parametrize("where", ["form", "json", "query", "public"])
def test_ways_to_ask(server: ServerHandle, where: str) -> None:
    """A token request may be a form, JSON, or a GET with all in the query; a public client has no secret."""
    token = server.login()["refresh_token"]
    secret = {"client_id": "crm", "client_secret": "crm-secret"}
    body = refresh_body(token, **secret)
    if where == "form":
        answer = post(server, body)
    elif where == "json":
        document = {"grant_type": "refresh_token", "refresh_token": token, **secret}
        answer = send(server, "POST", "/oauth/token", json.dumps(document).encode(), JSON)
    elif where == "query":
        answer = send(server, "GET", f"/oauth/token?{body.decode()}")
    else:
        answer = post(server, refresh_body(token, client_id="public"))
    assert answer.status == 200


@pytest.mark.parametrize(
    ("more", "headers"),
    [
        ({}, {}),
        ({}, basic(secret="wrong")),
        ({}, basic("nobody")),
        ({}, {"Authorization": "Basic !!!"}),
        ({}, {"Authorization": "Bearer x"}),
        ({"client_id": "crm"}, {}),
        ({"client_id": "crm", "client_secret": "wrong"}, {}),
        ({"client_id": "public", "client_secret": "any"}, {}),
    ],
)
def test_wrong_clients(server: ServerHandle, more: dict[str, str], headers: dict[str, str]) -> None:
    """A client that can't prove itself gets 401 `invalid_client`, and nothing is redeemed (RFC 6749 §5.2)."""
    answer = post(server, refresh_body(server.login()["refresh_token"], **more), headers)
    assert (answer.status, answer.json["error"]) == (401, "invalid_client")
    assert ("www-authenticate" in answer.headers) == bool(headers)
    assert server.stats().refreshes == 0


def test_basic_is_form_encoded(server: ServerHandle) -> None:
    """Client id and secret are form-encoded before they are joined in the Basic header (RFC 6749 §2.3.1)."""
    server.configure(clients={"a:b": "s/ %"})
    headers = basic(quote("a:b", safe=""), quote("s/ %", safe=""))
    assert post(server, refresh_body(server.login()["refresh_token"]), headers).status == 200


def test_client_auth_methods(server: ServerHandle) -> None:
    """A method the server does not take is refused, whatever the secret."""
    server.configure(client_auth=["client_secret_basic"])
    token = server.login()["refresh_token"]
    assert post(server, refresh_body(token, client_id="crm", client_secret="crm-secret")).status == 401
    assert refresh(server, token).status == 200


@pytest.mark.parametrize(
    ("body", "headers", "error"),
    [
        (b"grant_type=refresh_token", basic(), "invalid_request"),
        (b"refresh_token=x", basic(), "invalid_request"),
        (b"grant_type=password&refresh_token=x", basic(), "unsupported_grant_type"),
        (b"grant_type=refresh_token&refresh_token=x&refresh_token=y", basic(), "invalid_request"),
        (b"grant_type=refresh_token&refresh_token=x&client_secret=y", basic(), "invalid_request"),
        (b"{not json", basic() | JSON, "invalid_request"),
        (b"[1]", basic() | JSON, "invalid_request"),
        (b"grant_type=refresh_token&refresh_token=x", basic(), "invalid_grant"),
    ],
)
def test_wrong_requests(server: ServerHandle, body: bytes, headers: dict[str, str], error: str) -> None:
    """A request that lacks, repeats or garbles a parameter gets the RFC's error code (RFC 6749 §5.2)."""
    answer = post(server, body, headers)
    assert (answer.status, answer.json["error"]) == (400, error)


def test_bound_client(server: ServerHandle) -> None:
    """A login bound to one client can't be redeemed by another (RFC 6749 §6)."""
    token = server.login(client_id="public")["refresh_token"]
    assert refresh(server, token).json["error"] == "invalid_grant"
    assert post(server, refresh_body(token, client_id="public")).status == 200


def test_revocation(server: ServerHandle) -> None:
    """Revocation ends the login, an unknown token is no error, a wrong client is one (RFC 7009 §2)."""
    login = server.login()

    def revoke(token: str, headers: dict[str, str]) -> int:
        return send(server, "POST", "/oauth/revoke", urlencode({"token": token}).encode(), headers).status

    assert revoke(login["refresh_token"], FORM) == 401
    assert send(server, "GET", "/api/x", headers=bearer(login)).status == 200
    assert revoke("made-up", FORM | basic()) == 200
    assert revoke(login["refresh_token"], FORM | basic()) == 200
    assert send(server, "GET", "/api/x", headers=bearer(login)).status == 401
    assert send(server, "POST", "/oauth/revoke", b"", FORM | basic()).json["error"] == "invalid_request"
    assert send(server, "POST", "/oauth/revoke", b"{", JSON | basic()).json["error"] == "invalid_request"
    stats = server.stats()
    assert (stats.revocations, stats.families_revoked) == (1, 1)


def test_log(server: ServerHandle) -> None:
    """Each redemption is logged: its times in order, its outcome, a fingerprint instead of the token."""
    token = server.login()["refresh_token"]
    before = time.time()
    refresh(server, token)
    refresh(server, token)
    after = time.time()
    first, second = server.stats().redemptions
    assert (first.outcome, second.outcome) == ("rotated", "reuse")
    name = hashlib.sha256(token.encode()).hexdigest()[:8]
    assert first.refresh_token == second.refresh_token == name
    assert first.committed is not None
    assert first.answered is not None
    # a tenth of a second: the server's clock does not follow this machine's when that is set
    assert before - 0.1 <= first.received <= first.committed <= first.answered <= second.received <= after + 0.1


def test_naive_fleet(server: ServerHandle) -> None:
    """Twenty redemptions at once of one token are seen as twenty in the air: one served, the login lost."""
    token = server.login()["refresh_token"]
    server.faults([{"kind": "hold", "name": "all", "times": 20}])
    with ThreadPoolExecutor(20) as pool:
        answers = [pool.submit(refresh, server, token) for _ in range(20)]
        server.wait("token_request_held", 20)
        assert {row.outcome for row in server.stats().redemptions} == {"in the air"}
        server.release("all")
        statuses = sorted(answer.result().status for answer in answers)
    assert statuses == [200] + [400] * 19
    stats = server.stats()
    assert (stats.max_in_air, stats.refreshes, stats.reuse_detected, stats.families_revoked) == (20, 1, 19, 1)


def test_different_tokens_in_the_air(server: ServerHandle) -> None:
    """Redemptions of different logins at once don't count as one refresh token twice in the air."""
    tokens = [server.login()["refresh_token"] for _ in range(3)]
    server.faults([{"kind": "hold", "name": "all", "times": 3}])
    with ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(refresh, server, token) for token in tokens]
        server.wait("token_request_held", 3)
        server.release("all")
        assert [answer.result().status for answer in answers] == [200] * 3
    assert server.stats().max_in_air == 1


def test_latency_before_the_commit(server: ServerHandle) -> None:
    """`refresh_latency` passes between the arrival and the decision, `answer_latency` after it."""
    server.configure(refresh_latency=0.05, answer_latency=0.02)
    refresh(server, server.login()["refresh_token"])
    (row,) = server.stats().redemptions
    assert row.committed is not None
    assert row.answered is not None
    assert row.committed - row.received >= 0.049
    assert row.answered - row.committed >= 0.019


def test_a_client_that_leaves_changes_nothing(server: ServerHandle) -> None:
    """A refresh whose client has gone is committed all the same, as with a real server."""
    token = server.login()["refresh_token"]
    server.faults([{"kind": "hold", "name": "later"}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(token))
        server.wait("token_request_held")
    server.release("later")
    server.wait("token_request_answered")
    assert server.stats().refreshes == 1


@pytest.mark.parametrize("offset", [600, -600])
def test_skewed_date(server: ServerHandle, offset: int) -> None:
    """`clock_offset` moves the `Date` that answers carry, in either direction."""
    server.configure(clock_offset=offset)
    answer = refresh(server, server.login()["refresh_token"])
    stated = parsedate_to_datetime(answer.headers["date"]).timestamp()
    assert abs(stated - (time.time() + offset)) < 5


def test_no_date(server: ServerHandle) -> None:
    """Without `date_header` answers carry no `Date`."""
    server.configure(date_header=False)
    assert "date" not in refresh(server, server.login()["refresh_token"]).headers
