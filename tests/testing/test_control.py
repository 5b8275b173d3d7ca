"""What a test tells the server and asks it, through its handle and with bare hands."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.testing.wire import JSON, bearer, open_socket, read_to_end, refresh, refresh_request, send
from unexpired.testing import ServerConfig, ServerHandle, running_server


def works(server: ServerHandle, token: str) -> bool:
    """Tell whether the API takes *token*."""
    return send(server, "GET", "/api/x", headers=bearer(token)).status == 200


def test_login(server: ServerHandle) -> None:
    """A login gives a token answer for the asked subject, client and scope, or one single token."""
    login = server.login(subject="bob", client_id="crm", scope="read write")
    assert (login["token_type"], login["expires_in"], login["scope"]) == ("Bearer", 3600, "read write")
    single = server.login(single=True)
    assert single["access_token"] == single["refresh_token"]
    assert server.stats().logins == 2


@pytest.mark.parametrize("named_by", ["access_token", "refresh_token"])
def test_expire_and_revoke_one_login(server: ServerHandle, named_by: str) -> None:
    """Any token of a login names it for expiring and revoking; another login is not touched."""
    one, other = server.login(), server.login()
    server.expire(one[named_by])
    assert (works(server, one["access_token"]), works(server, other["access_token"])) == (False, True)
    server.revoke_family(one[named_by])
    assert refresh(server, one["refresh_token"]).status == 400
    assert refresh(server, other["refresh_token"]).status == 200


def test_expire_and_revoke_all(server: ServerHandle) -> None:
    """Without a token every login is meant."""
    logins = [server.login() for _ in range(2)]
    server.expire()
    assert not any(works(server, login["access_token"]) for login in logins)
    server.revoke_family()
    assert all(refresh(server, login["refresh_token"]).status == 400 for login in logins)
    assert server.stats().families_revoked == 2


def test_unknown_login(server: ServerHandle) -> None:
    """Naming a login that does not exist, or is over, is an error, and one that shows no token."""
    gone = server.login()["refresh_token"]
    server.revoke_family(gone)
    for told in (server.expire, server.revoke_family):
        with pytest.raises(ValueError, match="no living login") as caught:
            told("at-made-up")
        assert "at-made-up" not in str(caught.value)
    with pytest.raises(ValueError, match="no living login"):
        server.revoke_family(gone)


def test_configure(server: ServerHandle) -> None:
    """Settings change while the server runs, and a wrong one changes nothing."""
    server.configure(omit_expires_in=True)
    assert "expires_in" not in server.login()
    with pytest.raises(ValueError, match="no_such"):
        server.configure(omit_expires_in=False, no_such=1)
    assert "expires_in" not in server.login()


def test_reset() -> None:
    """A reset forgets logins, counts, faults and changes, and returns to the settings of the start."""
    with running_server(ServerConfig(access_lifetime=77)) as server:
        login = server.login()
        server.configure(access_lifetime=5)
        server.faults([{"kind": "html"}])
        server.api_faults([{"kind": "forbid"}])
        server.reset()
        assert server.stats().logins == 0
        assert not works(server, login["access_token"])
        new = server.login()
        assert new["expires_in"] == 77
        assert works(server, new["access_token"])
        assert refresh(server, new["refresh_token"]).status == 200


def test_reset_lets_go(server: ServerHandle) -> None:
    """Who is held when the server is reset is answered, and leaves no trace in the new counts."""
    server.faults([{"kind": "hold", "name": "gate"}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(server.login()["refresh_token"]))
        server.wait("token_request_held")
        server.reset()
        assert read_to_end(wire).status == 200
    assert server.stats().token_posts == 0
    server.faults([{"kind": "hold", "name": "gate"}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(server.login()["refresh_token"]))
        server.wait("token_request_held")
        server.release("gate")
        assert read_to_end(wire).status == 200


def test_wait(server: ServerHandle) -> None:
    """Waiting returns when the count is reached, and at once when it was reached before."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(server.wait, "login", 2)
        server.login()
        assert not waiting.done()
        server.login()
        waiting.result()
    server.wait("login", 2, timeout=0)


def test_wait_in_vain(server: ServerHandle) -> None:
    """Waiting for what does not happen ends with `TimeoutError` that says how far it came."""
    server.login()
    before = time.monotonic()
    with pytest.raises(TimeoutError, match="login happened 1 times, not 2"):
        server.wait("login", 2, timeout=0.05)
    assert time.monotonic() - before >= 0.049


def test_wait_for_the_unknown(server: ServerHandle) -> None:
    """Waiting for an event that does not exist is an error at once."""
    with pytest.raises(ValueError, match="unknown event"):
        server.wait("birthday")  # type: ignore[arg-type]


def test_release_before_anybody_came(server: ServerHandle) -> None:
    """A name released in advance holds nobody, so a test need not care who is first."""
    server.release("gate")
    server.faults([{"kind": "hold", "name": "gate"}])
    assert refresh(server, server.login()["refresh_token"]).status == 200


def test_logging_in_without_python(server: ServerHandle) -> None:
    """A bare POST, as `curl -X POST` sends it, is a login; with fields it is that login."""
    assert send(server, "POST", "/_control/login").json["scope"] == "api"
    chosen = b'{"subject": "alice", "client_id": "public", "scope": "read"}'
    assert send(server, "POST", "/_control/login", chosen).json["scope"] == "read"
    assert server.stats().logins == 2


def test_faults_can_be_written_short_on_the_wire(server: ServerHandle) -> None:
    """A kind stands for a step or a rule there too."""
    assert send(server, "POST", "/_control/faults", b'{"steps": "empty_400"}').status == 200
    assert send(server, "POST", "/_control/api-faults", b'{"rules": ["forbid"]}').status == 200
    login = server.login()
    assert refresh(server, login["refresh_token"]).status == 400
    assert send(server, "GET", "/api/x", headers=bearer(login)).status == 403


@pytest.mark.parametrize(
    ("method", "name", "body", "status"),
    [
        ("POST", "no-such", b"{}", 404),
        ("GET", "no-such", b"", 404),
        ("POST", "faults", b"{", 400),
        ("POST", "faults", b"[]", 400),
        ("POST", "faults", b"{}", 400),
        ("POST", "faults", b'{"steps": 1}', 400),
        ("POST", "faults", b'{"steps": [1]}', 400),
        ("POST", "faults", b'{"steps": [{"kind": "html", "times": "x"}]}', 400),
        ("POST", "api-faults", b'{"rules": [{"kind": "lag", "seconds": "x"}]}', 400),
        ("POST", "login", b'{"colour": "red"}', 400),
        ("POST", "release", b"{}", 400),
        ("GET", "wait?event=login&count=many", b"", 400),
    ],
)
def test_nonsense(server: ServerHandle, method: str, name: str, body: bytes, status: int) -> None:
    """A control call that makes no sense gets an error in JSON and breaks nothing."""
    answer = send(server, method, f"/_control/{name}", body, JSON)
    assert answer.status == status
    assert answer.json["error"]
    assert server.login()["token_type"] == "Bearer"


def test_repr(server: ServerHandle) -> None:
    """A handle's `repr` says where the server is."""
    assert repr(server) == f"<ServerHandle {server.url} pid={server.pid}>"
