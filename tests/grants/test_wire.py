from __future__ import annotations

import os
import socket
import threading
from contextlib import suppress
from importlib.metadata import PackageNotFoundError
from typing import Any

import httpx2
import pytest

from tests.grants.calling import FRESH, SESSION, bounded, redeem, trusting
from tests.grants.endpoint import Peer, Request, Script, answer, closed_port, endpoint, reset, saying
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, ConfigurationError, NotSent, Refused, UnexpiredError
from unexpired.grants import RefreshTokenGrant, _http


def test_each_request_has_a_connection_of_its_own() -> None:
    """No connection and no cookie outlives its request: an old connection would make answers uncertain."""
    with endpoint(saying(answer(200, {"access_token": "a1"}, {"Set-Cookie": "sid=alice"}))) as served:
        grant = RefreshTokenGrant(served.url, client_id="crm")
        for _ in range(2):
            grant.redeem(SESSION, resource=None, timeout=5)
    assert served.connections == 2
    assert [request.headers.get("cookie") for request in served.requests] == [None, None]
    assert {request.headers["connection"] for request in served.requests} == {"close"}


def test_one_grant_serves_many_threads() -> None:
    """Redemptions of one grant from several threads at once do not mix."""
    with endpoint(saying(FRESH)) as served:
        grant = RefreshTokenGrant(served.url, client_id="crm")
        tokens: list[Token] = []
        start = threading.Barrier(4)

        def run() -> None:
            start.wait()
            tokens.append(grant.redeem(SESSION, resource=None, timeout=5))

        threads = [threading.Thread(target=run) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert [token.access_token for token in tokens] == ["a1"] * 4
    assert len(served.requests) == 4


@pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")
def test_a_forked_child_redeems_too() -> None:
    """A grant that was used before a fork works in the child."""
    with endpoint(saying(FRESH)) as served:
        grant = RefreshTokenGrant(served.url, client_id="crm")
        grant.redeem(SESSION, resource=None, timeout=5)
        child = os.fork()
        if child == 0:
            try:
                os._exit(grant.redeem(SESSION, resource=None, timeout=5).access_token != "a1")
            finally:
                os._exit(2)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_nobody_there_is_not_sent() -> None:
    """A refused connection was surely not processed, and is worth another quick attempt (scenario 53)."""
    why = r"127\.0\.0\.1:\d+/token could not be reached \(ConnectError\)"
    with closed_port() as port, pytest.raises(NotSent, match=why) as failure:
        redeem(f"http://127.0.0.1:{port}/token?key=secret")
    assert failure.value.connecting
    assert "secret" not in str(failure.value)


def test_an_unknown_name_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that cannot be resolved was surely not processed (scenario 53)."""

    def unknown(*_: object, **__: object) -> Any:
        raise socket.gaierror(socket.EAI_NONAME, "unknown")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(NotSent) as failure:
        redeem("http://id.example.com/token")
    assert failure.value.connecting


def test_a_certificate_nobody_vouches_for_is_not_sent() -> None:
    """A certificate that cannot be verified sends nothing, ends no session and is named (scenario 53)."""
    with endpoint(saying(FRESH), tls=True) as served:
        with pytest.raises(NotSent, match="certificate") as failure:
            redeem(served)
        assert redeem(served, http=trusting()).access_token == "a1"
    assert not failure.value.connecting
    assert len(served.requests) == 1


def test_a_server_that_speaks_no_tls_is_not_sent() -> None:
    """A failed handshake sends nothing and ends no session (scenario 53)."""
    with endpoint(saying(FRESH)) as served, pytest.raises(NotSent) as failure:
        redeem(served.url.replace("http:", "https:"))
    assert failure.value.connecting


def test_a_proxy_that_refuses_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A proxy of the environment is used; what fails before the tunnel stands was surely not processed."""
    for script in (saying(answer(502, b"secret")), reset):
        with endpoint(script) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            with pytest.raises(NotSent):
                redeem("https://id.example.com/token")
        assert proxy.only.method == "CONNECT"


def test_a_proxy_that_cannot_be_used_is_a_matter_of_configuration(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings of the environment that make no client are told without their text, which may hold a password."""
    monkeypatch.setenv("HTTP_PROXY", "gopher://user:hunter2@proxy.example")
    with pytest.raises(ConfigurationError, match="cannot be built") as error:
        redeem("http://id.example.com/token")
    assert "hunter2" not in str(error.value)


@pytest.mark.parametrize(
    "script",
    [
        reset,
        saying(b""),
        saying(b"HTTP/1.1 200 OK\r\nContent-"),
        saying(b"garbage\r\n\r\n"),
        saying(answer(200, b'{"access_token": "a', length=100)),
        saying(answer(200, b"not zipped", {"Content-Encoding": "gzip"})),
        saying(answer(200, b" " * (1024 * 1024) + b'{"access_token": "a1"}')),
        saying(answer(500, {"error": "server_error"})),
    ],
    ids=["reset", "hang up", "half a head", "no HTTP", "half a body", "not zipped", "too long", "500"],
)
def test_what_fails_after_sending_is_a_lost_answer(script: Script) -> None:
    """Once the request is out, every answer that is not whole may stand for a rotation (scenario 54)."""
    with endpoint(script) as served, pytest.raises(AnswerLost, match=r"127\.0\.0\.1"):
        redeem(served)
    assert len(served.requests) == 1


def test_an_endless_answer_is_not_read_to_its_end() -> None:
    """Of a body at most a mebibyte is read, whatever would follow."""

    def endless(peer: Peer, _request: Request) -> None:
        peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n")
        with suppress(OSError):
            while not peer.stop.is_set():
                peer.send(b" " * 65536)

    with endpoint(endless) as served, bounded(), pytest.raises(AnswerLost, match="too long"):
        redeem(served)


def test_a_refresh_token_is_saved_from_half_an_answer() -> None:
    """A refresh token that arrived before the connection broke is handed on to be saved (scenario 54)."""
    half = answer(200, b'{"refresh_token": "r1", "access_token": "a', length=100)
    with endpoint(saying(half)) as served, pytest.raises(AnswerLost, match="RemoteProtocolError") as lost:
        redeem(served)
    assert lost.value.refresh_token == "r1"


def test_a_refusal_whose_body_is_lost_is_still_a_refusal() -> None:
    """The status alone says that nothing was rotated."""
    with endpoint(saying(answer(400, b'{"err', length=100))) as served, pytest.raises(Refused) as refusal:
        redeem(served)
    assert refusal.value.error is None


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_carries_nothing_away(status: int) -> None:
    """Another host that the token endpoint redirects to gets no request and no credentials (scenario 46)."""
    with endpoint(saying(FRESH)) as other:
        elsewhere = answer(status, headers={"Location": other.url})
        with endpoint(saying(elsewhere)) as served, httpx2.Client(follow_redirects=True) as http:
            for client in (None, http):
                with pytest.raises(ConfigurationError, match="redirects are not followed"):
                    redeem(served, client_secret="s", http=client)
    assert other.connections == 0


def test_the_program_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests say which version sends them, or just the name where the package is not installed."""

    def unknown(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(_http, "version", lambda _: "7.5")
    assert _http._user_agent.__wrapped__() == "unexpired/7.5"
    monkeypatch.setattr(_http, "version", unknown)
    assert _http._user_agent.__wrapped__() == "unexpired"


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (httpx2.ConnectError, NotSent),
        (httpx2.ConnectTimeout, NotSent),
        (httpx2.PoolTimeout, NotSent),
        (httpx2.ProxyError, NotSent),
        (httpx2.ReadTimeout, AnswerLost),
        (httpx2.ReadError, AnswerLost),
        (httpx2.WriteError, AnswerLost),
        (httpx2.RemoteProtocolError, AnswerLost),
        (httpx2.UnsupportedProtocol, ConfigurationError),
        (ValueError, AnswerLost),
    ],
)
def test_transports_of_ones_own_are_judged_by_their_errors(
    error: type[Exception], expected: type[UnexpiredError]
) -> None:
    """With a client whose transport tells nothing on its way, the class of its error decides."""

    def fail(_: httpx2.Request) -> httpx2.Response:
        raise error("server said secret")

    http = httpx2.Client(transport=httpx2.MockTransport(fail))
    with http, pytest.raises(expected, match=error.__name__) as failure:
        redeem("https://id.example.com/token", http=http)
    assert "secret" not in str(failure.value)
    assert failure.value.__context__ is None


def test_a_client_of_ones_own_is_used_without_its_authentication() -> None:
    """A configured client keeps its headers and hooks; its `auth` never touches the token request, nor is it closed."""
    hooked: list[str] = []

    def hook(request: httpx2.Request) -> None:
        hooked.append(request.url.path)

    http = httpx2.Client(auth=("user", "pw"), headers={"X-Tenant": "t"}, event_hooks={"request": [hook]})
    with endpoint(saying(FRESH)) as served, http:
        redeem(served, http=http)
        redeem(served, http=http)
        assert not http.is_closed
    assert served.requests[0].headers["x-tenant"] == "t"
    assert "authorization" not in served.requests[0].headers
    assert hooked == ["/token", "/token"]


def test_a_closed_client_is_a_matter_of_configuration() -> None:
    """A client that its owner has closed is told as such, not as a lost answer."""
    http = httpx2.Client()
    http.close()
    with pytest.raises(ConfigurationError, match="cannot be built"):
        redeem("https://id.example.com/token", http=http)


@pytest.mark.parametrize("wrong", [httpx2.AsyncClient(), "https://proxy.example", object()])
def test_only_a_blocking_httpx2_client_will_do(wrong: Any) -> None:
    """Another kind of client is refused when the grant is made, and the error says what is taken."""
    with pytest.raises(ConfigurationError, match=r"http= takes an httpx2\.Client"):
        RefreshTokenGrant("https://id.example.com/token", client_id="crm", http=wrong)
