"""The bearer API and its faults on real sockets."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.testing.wire import Answer, basic, bearer, open_socket, read_to_end, refresh, request_bytes, send
from unexpired.testing import ServerHandle


def get(server: ServerHandle, target: str, token: dict[str, Any] | str) -> Answer:
    """GET *target* with a bearer token."""
    return send(server, "GET", target, headers=bearer(token))


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_each_caller_can_know_its_own_answer(server: ServerHandle, method: str) -> None:
    """An answer repeats the call's number, its method and its body's digest, and never a token."""
    body = b"" if method == "GET" else b"payload"
    login = server.login()
    answer = send(server, method, "/api/thing?n=17", body, bearer(login))
    assert answer.status == 200
    assert answer.json == {
        "ok": True,
        "n": "17",
        "method": method,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body_length": len(body),
    }
    assert login["access_token"].encode() not in answer.raw


def test_expired(server: ServerHandle) -> None:
    """An expired token gets 401 with `invalid_token` (RFC 6750 §3.1), and a refreshed one is taken."""
    login = server.login()
    server.expire(login["refresh_token"])
    answer = get(server, "/api", login)
    assert answer.status == 401
    assert answer.headers["www-authenticate"] == 'Bearer realm="api", error="invalid_token"'
    assert get(server, "/api", refresh(server, login["refresh_token"]).json).status == 200
    stats = server.stats()
    assert (stats.api_calls, stats.refused, stats.credentials) == (2, 1, {"header": 2})


def test_missing(server: ServerHandle) -> None:
    """A call without any token gets a challenge without an error code (RFC 6750 §3.1)."""
    answer = send(server, "GET", "/api/x")
    assert (answer.status, answer.headers["www-authenticate"]) == (401, 'Bearer realm="api"')


@pytest.mark.parametrize("headers", [bearer("made-up"), basic(), {"Authorization": "Bearer"}])
def test_unknown(server: ServerHandle, headers: dict[str, str]) -> None:
    """A token that was never minted, and a header of another kind, are refused."""
    assert send(server, "GET", "/api/x", headers=headers).status == 401


def test_refusals_as_configured(server: ServerHandle) -> None:
    """Servers that say 403 without a header for an expired token can be played."""
    server.configure(refusal_status=403, refusal_challenge=False)
    answer = get(server, "/api/x", "made-up")
    assert answer.status == 403
    assert "www-authenticate" not in answer.headers


def test_kill_on_refresh(server: ServerHandle) -> None:
    """With `kill_old_access_token_on_refresh` the API refuses the old token as soon as there is a new one."""
    server.configure(kill_old_access_token_on_refresh=True)
    login = server.login()
    assert get(server, "/api/x", login).status == 200
    refresh(server, login["refresh_token"])
    assert get(server, "/api/x", login).status == 401


def test_cookie(server: ServerHandle) -> None:
    """`/api/cookie` takes the token from the cookie `access_token`; elsewhere a cookie is no credential."""
    cookie = {"Cookie": f"a=b; access_token={server.login()['access_token']}"}
    assert send(server, "GET", "/api/cookie", headers=cookie).status == 200
    assert send(server, "GET", "/api/other", headers=cookie).status == 401
    assert server.stats().credentials == {"cookie": 2}


def test_query(server: ServerHandle) -> None:
    """`/api/query` takes it from the query; a second one beside the first is an error (RFC 6750 §2)."""
    login = server.login()
    token = login["access_token"]
    assert send(server, "GET", f"/api/query?access_token={token}").status == 200
    assert send(server, "GET", f"/api/other?access_token={token}").status == 401
    twice = send(server, "GET", f"/api/query?access_token=old&access_token={token}")
    assert (twice.status, twice.json["error"]) == (400, "invalid_request")
    assert get(server, f"/api/query?access_token={token}", login).status == 400


def test_open(server: ServerHandle) -> None:
    """`/open` serves anybody and names the places in which credentials came, never the credentials."""
    assert send(server, "GET", "/open/x").json["credentials"] == []
    headers = {**bearer("one"), "access_token": "two", "Cookie": "access_token=three"}
    answer = send(server, "GET", "/open/x?token=four", headers=headers)
    assert answer.json["credentials"] == ["header", "custom", "query", "cookie"]
    assert not any(word in answer.body for word in (b"one", b"two", b"three", b"four"))
    assert server.stats().credentials == {"header": 1, "custom": 1, "query": 1, "cookie": 1}


def test_echo(server: ServerHandle) -> None:
    """`/api/echo` gives the body back, byte for byte and with its type, large ones too."""
    body = bytes(range(256)) * 1200
    headers = bearer(server.login()) | {"Content-Type": "image/png"}
    answer = send(server, "POST", "/api/echo", body, headers)
    assert (answer.body, answer.headers["content-type"]) == (body, "image/png")


def test_stream(server: ServerHandle) -> None:
    """`/api/stream` sends chunks of no announced length."""
    answer = get(server, "/api/stream?chunks=3&size=4&type=text/plain", server.login())
    assert answer.headers["transfer-encoding"] == "chunked"
    assert answer.body == b"4\r\n\0\0\0\0\r\n4\r\n\1\1\1\1\r\n4\r\n\2\2\2\2\r\n0\r\n\r\n"


@pytest.mark.parametrize("size", ["-1", "nan", "inf", "many"])
def test_wild_numbers(server: ServerHandle, size: str) -> None:
    """A number that makes no sense is read as the default, not as a crash."""
    assert len(get(server, f"/api/stream?chunks=1&size={size}", server.login()).body) > 1024


def test_events(server: ServerHandle) -> None:
    """`/api/events` sends an event at once, and another when it is released: the first is not held back."""
    with open_socket(server) as wire:
        wire.sendall(request_bytes("GET", "/api/events?name=more", headers=bearer(server.login())))
        got = b""
        while b"data: first\n\n" not in got:
            got += wire.recv(65536)
        assert b"text/event-stream" in got
        server.release("more")
        while data := wire.recv(65536):
            got += data
        assert got.index(b"data: first\n\n") < got.index(b"data: second\n\n")


def test_redirect(server: ServerHandle) -> None:
    """`/api/redirect` sends the caller wherever it asks to be sent, to other origins too."""
    login = server.login()
    answer = get(server, "/api/redirect?to=http://127.0.0.1:9/x&status=302", login)
    assert (answer.status, answer.headers["location"]) == (302, "http://127.0.0.1:9/x")
    assert get(server, "/api/redirect?to=/api/y", login).status == 307


def test_slow(server: ServerHandle) -> None:
    """`/api/slow` is ruled on when it arrives: a token that dies meanwhile still gets its answer."""
    login = server.login()
    with open_socket(server) as wire:
        wire.sendall(request_bytes("GET", "/api/slow?seconds=0.2", headers=bearer(login)))
        server.wait("api_call_received")
        server.expire()
        assert read_to_end(wire).status == 200


def test_head(server: ServerHandle) -> None:
    """A HEAD gets the headers of the answer and no body."""
    answer = send(server, "HEAD", "/api/x", headers=bearer(server.login()))
    assert (answer.status, answer.body) == (200, b"")


def test_not_found(server: ServerHandle) -> None:
    """Other paths are not found, and a token endpoint takes no other method."""
    assert send(server, "GET", "/elsewhere").status == 404
    assert send(server, "PUT", "/oauth/token").status == 404


def test_refuse(server: ServerHandle) -> None:
    """`refuse` refuses every token below its prefix, fresh ones too, and none elsewhere."""
    server.api_faults([{"kind": "refuse", "prefix": "/api/broken"}])
    login = server.login()
    answer = get(server, "/api/broken/x", login)
    assert (answer.status, "invalid_token" in answer.headers["www-authenticate"]) == (401, True)
    assert get(server, "/api/sound", login).status == 200
    server.api_faults([])
    assert get(server, "/api/broken/x", login).status == 200


def test_times(server: ServerHandle) -> None:
    """A rule with `times` lasts that many calls."""
    server.api_faults([{"kind": "refuse", "times": 2}])
    login = server.login()
    assert [get(server, "/api/x", login).status for _ in range(3)] == [401, 401, 200]


def test_lag(server: ServerHandle) -> None:
    """`lag` refuses tokens younger than its seconds, as a replica that has not heard of them."""
    login = server.login()
    server.api_faults([{"kind": "lag", "prefix": "/api/replica", "seconds": 60}])
    assert get(server, "/api/replica", login).status == 401
    assert get(server, "/api/primary", login).status == 200
    server.api_faults([{"kind": "lag", "prefix": "/api/replica", "seconds": 0}])
    assert get(server, "/api/replica", login).status == 200


def test_forbid(server: ServerHandle) -> None:
    """`forbid` is a 403 without a challenge, for good tokens."""
    server.api_faults([{"kind": "forbid"}])
    answer = get(server, "/api/x", server.login())
    assert answer.status == 403
    assert "www-authenticate" not in answer.headers
    assert get(server, "/api/x", "made-up").status == 401


def test_insufficient_scope(server: ServerHandle) -> None:
    """`insufficient_scope` is a 403 with that challenge and the scope it wants (RFC 6750 §3.1)."""
    server.api_faults([{"kind": "insufficient_scope", "scope": "write"}])
    answer = get(server, "/api/x", server.login())
    assert answer.status == 403
    assert answer.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="write"'


def test_step_up(server: ServerHandle) -> None:
    """`insufficient_user_authentication` is a 401 with what login it wants (RFC 9470 §3)."""
    rule = {"kind": "insufficient_user_authentication", "acr_values": "gold", "max_age": 5}
    server.api_faults([rule])
    answer = get(server, "/api/x", server.login())
    assert answer.status == 401
    challenge = 'Bearer error="insufficient_user_authentication", acr_values="gold", max_age=5'
    assert answer.headers["www-authenticate"] == challenge


def test_status(server: ServerHandle) -> None:
    """`status` answers good tokens with any status, headers and body."""
    server.api_faults([{"kind": "status", "code": 429, "headers": {"Retry-After": "3"}, "body": "busy"}])
    answer = get(server, "/api/x", server.login())
    assert (answer.status, answer.headers["retry-after"], answer.body) == (429, "3", b"busy")


def test_held_refusals_arrive_late(server: ServerHandle) -> None:
    """A held refusal was ruled on at its arrival: after a refresh it still says that it expired."""
    login = server.login()
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late"}])
    with ThreadPoolExecutor(2) as pool:
        late = [pool.submit(get, server, "/api/x", login) for _ in range(2)]
        server.wait("api_call_held", 2)
        new = refresh(server, login["refresh_token"]).json
        assert get(server, "/api/x", new).status == 200
        server.release("late")
        assert [answer.result().status for answer in late] == [401, 401]


def test_held_calls(server: ServerHandle) -> None:
    """`hold` keeps good calls on the wire too until they are released."""
    server.api_faults([{"kind": "hold", "name": "gate", "prefix": "/api/x"}])
    login = server.login()
    with ThreadPoolExecutor(1) as pool:
        held = pool.submit(get, server, "/api/x", login)
        server.wait("api_call_held")
        assert get(server, "/api/y", login).status == 200
        assert not held.done()
        server.release("gate")
        assert held.result().status == 200


def test_delayed_refusals(server: ServerHandle) -> None:
    """`delay_refusals` delays refusals for different times and answers them all."""
    server.api_faults([{"kind": "delay_refusals", "seconds": 0.05}])
    with ThreadPoolExecutor(4) as pool:
        answers = [pool.submit(get, server, "/api/x", "made-up") for _ in range(4)]
        assert [answer.result().status for answer in answers] == [401] * 4
    assert server.stats().refused == 4


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "no-such"},
        {"kind": "hold"},
        {"kind": "hold_refusals"},
        {"kind": "lag", "seconds": -1},
        {"kind": "refuse", "times": 0},
        {"kind": "refuse", "colour": "red"},
    ],
)
def test_nonsense(server: ServerHandle, rule: dict[str, object]) -> None:
    """A rule that makes no sense is refused, and the rules before it stand."""
    server.api_faults([{"kind": "forbid"}])
    with pytest.raises(ValueError, match=r"."):
        server.api_faults([rule])
    assert get(server, "/api/x", server.login()).status == 403
