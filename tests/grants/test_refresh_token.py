from __future__ import annotations

import base64
import json
import math
import pickle
from typing import Any

import pytest

from tests.grants.endpoint import Endpoint, Peer, Request, answer, closed_port, endpoint, saying
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, LoginRequired, UnexpiredError
from unexpired.grants import Grant, RefreshTokenGrant

SESSION = Session.begin("alice", "login", Token("a0", refresh_token="r0/+ é"))
FRESH = answer(200, {"access_token": "a1", "expires_in": 60, "refresh_token": "r1"})
URL = "https://id.example.com/oauth/token"


def exchange(resource: str | None = None, /, path: str = "/token", **settings: Any) -> Request:
    """Redeem `SESSION` at an endpoint with *settings* and return the one request it got."""
    with endpoint(saying(FRESH)) as served:
        url = served.url.replace("/token", path)
        token = RefreshTokenGrant(url, **{"client_id": "crm", **settings}).redeem(SESSION, resource=resource, timeout=5)
    assert (token.access_token, token.refresh_token) == ("a1", "r1")
    return served.only


def test_a_public_client_sends_a_form() -> None:
    """Without a secret the body is a form with the client's id, and no header claims to be the client (RFC 6749 §6)."""
    request = exchange()
    assert request.method == "POST"
    assert request.target == "/token"
    assert request.form == {"grant_type": "refresh_token", "refresh_token": "r0/+ é", "client_id": "crm"}
    assert request.headers["content-type"] == "application/x-www-form-urlencoded"
    assert request.headers["accept"] == "application/json"
    assert request.headers["user-agent"].startswith("unexpired")
    assert "authorization" not in request.headers


def test_a_secret_goes_into_the_header() -> None:
    """With a secret the client authenticates in a header, both parts form-encoded first (RFC 6749 §2.3.1)."""
    request = exchange(client_id="c:r m", client_secret="s%:é")
    scheme, _, encoded = request.headers["authorization"].partition(" ")
    assert (scheme, base64.b64decode(encoded)) == ("Basic", b"c%3Ar+m:s%25%3A%C3%A9")
    assert set(request.form) == {"grant_type", "refresh_token"}


def test_a_secret_can_go_into_the_body() -> None:
    """`client_secret_post` sends id and secret among the parameters and no header (RFC 6749 §2.3.1)."""
    request = exchange(client_secret="s", client_auth="client_secret_post")
    assert request.form.items() >= {"client_id": "crm", "client_secret": "s"}.items()
    assert "authorization" not in request.headers


def test_get_puts_everything_into_the_query() -> None:
    """With GET all parameters follow those that the address has already, and there is no body."""
    request = exchange(
        path="/security-amass/oauth/token?tenant=a%20b&x=",
        method="GET",
        client_id="impawning",
        client_secret="impawning",
        client_auth="client_secret_post",
    )
    assert request.method == "GET"
    assert request.target.startswith("/security-amass/oauth/token?tenant=a%20b&x=&")
    assert request.body == b""
    assert dict(request.query) == {
        "tenant": "a b",
        "x": "",
        "grant_type": "refresh_token",
        "refresh_token": "r0/+ é",
        "client_id": "impawning",
        "client_secret": "impawning",
    }


@pytest.mark.parametrize("path", ["/token", "/token?"])
def test_get_needs_no_query_of_its_own(path: str) -> None:
    """With GET an address without a query gets one."""
    assert exchange(path=path, method="GET").target.startswith("/token?grant_type=refresh_token&")


def test_post_leaves_the_query_of_the_address_alone() -> None:
    """With POST the address is used as it is, its query included."""
    assert exchange(path="/token?tenant=a%20b").target == "/token?tenant=a%20b"


def test_the_body_can_be_json() -> None:
    """`encoding="json"` sends the same parameters as a JSON object."""
    request = exchange(encoding="json", extra_params={"deep": {"n": 1}})
    assert request.headers["content-type"] == "application/json"
    assert json.loads(request.body) == {
        "grant_type": "refresh_token",
        "refresh_token": "r0/+ é",
        "client_id": "crm",
        "deep": {"n": 1},
    }


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_resource_and_parameters_of_ones_own_are_sent(method: str) -> None:
    """The resource is sent as RFC 8707 says; extra parameters are added and replace standard ones."""
    request = exchange("https://api.example", method=method, extra_params={"grant_type": "renew", "scope": "a b"})
    sent = dict(request.query) if method == "GET" else request.form
    assert sent["resource"] == "https://api.example"
    assert (sent["grant_type"], sent["scope"]) == ("renew", "a b")


@pytest.mark.parametrize("name", ["audience", "scope"])
def test_a_server_may_have_its_own_word_for_a_resource(name: str) -> None:
    """The parameter is called what `resource_param` says, and is not sent for the default resource."""
    request = exchange("https://api.example", resource_param=name)
    assert request.form[name] == "https://api.example"
    assert "resource" not in request.form
    assert name not in exchange(resource_param=name).form


def test_fields_are_mapped() -> None:
    """`response_fields` says where the answer has its token."""
    with endpoint(saying(answer(200, {"code": 0, "data": {"Token": "a1"}}))) as served:
        grant = RefreshTokenGrant(served.url, client_id=None, response_fields={"access_token": "data.Token"})
        assert grant.redeem(SESSION, resource=None, timeout=5).access_token == "a1"
    assert "client_id" not in served.only.form


def test_without_a_refresh_token_one_has_to_log_in() -> None:
    """A session that has no refresh token asks for a login, says why, and calls nobody."""
    grant = RefreshTokenGrant("http://127.0.0.1:9/token", client_id="crm")
    with pytest.raises(LoginRequired, match="no refresh token") as required:
        grant.redeem(Session.begin("alice", "login", Token("a0")), resource=None, timeout=5)
    assert (required.value.reason, required.value.key) == ("no_refresh_token", "alice")


@pytest.mark.parametrize(
    "settings",
    [
        {"url": "id.example.com/token"},
        {"url": "/oauth/token"},
        {"url": ""},
        {"url": None},
        {"url": b"https://id.example.com"},
        {"url": "ftp://id.example.com/token"},
        {"url": "https:///token"},
        {"url": "https://id.example.com:99999/token"},
        {"url": "https://id.example.com:0/token"},
        {"url": "https://[::1/token"},
        {"url": "https://id.example.com/to ken"},
        {"url": "https://id.example.com/token\r\nX: y"},
        {"url": f"{URL}#fragment"},
        {"url": "https://crm:hunter2@id.example.com/token"},
        {"revocation_url": "revoke"},
        {"client_auth": "private_key_jwt", "client_secret": "hunter2"},
        {"client_auth": "none", "client_secret": "hunter2"},
        {"client_auth": "client_secret_basic"},
        {"client_id": "", "client_secret": "hunter2"},
        {"method": "PUT"},
        {"method": "get"},
        {"encoding": "xml"},
        {"response_fields": {"access_token": ""}},
        {"reuse_grace": -1},
        {"client_secret": "hunter2\udc80"},
        {"extra_params": {"x": "hunter2\udc80"}},
        {"extra_params": {"x": {1}}, "encoding": "json"},
        {"reuse_grace": math.nan},
    ],
    ids=lambda settings: "-".join(f"{name}={value!r}" for name, value in settings.items()),
)
def test_settings_that_cannot_work_are_refused_at_once(settings: dict[str, Any]) -> None:
    """A grant that could never be sent is refused when it is made, without quoting a secret."""
    url = settings.pop("url", URL)
    with pytest.raises(ConfigurationError) as error:
        RefreshTokenGrant(url, **{"client_id": "crm", **settings})
    assert "hunter2" not in str(error.value)


def test_nothing_secret_is_shown() -> None:
    """`repr` names the address without its query and the client, and no secret (scenario 68)."""
    grant = RefreshTokenGrant(
        f"{URL}?key=hunter2",
        client_id="crm",
        client_secret="hunter2",
        extra_params={"assertion": "hunter2"},
        revocation_url=f"{URL}?key=hunter2",
    )
    assert repr(grant) == f"RefreshTokenGrant('{URL}', client_id='crm', client_secret_basic)"


def test_it_is_a_grant() -> None:
    """It has all that a manager makes use of."""
    grant = RefreshTokenGrant(URL, client_id="crm", reuse_grace=3)
    assert isinstance(grant, Grant)
    assert (grant.reuse_grace, grant.spends_refresh_token) == (3, True)


@pytest.mark.parametrize(
    ("session", "token", "hint"),
    [
        (SESSION, "r0/+ é", "refresh_token"),
        (Session.begin("alice", "login", Token("a0")), "a0", "access_token"),
    ],
    ids=["refresh", "access"],
)
def test_logout_revokes_at_the_server(session: Session, token: str, hint: str) -> None:
    """`revoke` posts the refresh token, else the access token, as the same client (RFC 7009 §2.1)."""
    with endpoint(saying(answer(200))) as served:
        grant = RefreshTokenGrant(URL, client_id="crm", client_secret="s", revocation_url=served.url, method="GET")
        assert grant.revoke(session) is True
    assert served.only.method == "POST"
    assert served.only.form == {"token": token, "token_type_hint": hint}
    assert served.only.headers["authorization"] == "Basic " + base64.b64encode(b"crm:s").decode()


@pytest.mark.parametrize("status", [301, 400, 503])
def test_a_refused_revocation_is_no_error(status: int) -> None:
    """Anything but 200 means that the server did not take it."""
    with endpoint(saying(answer(status, headers={"Location": "https://other.example/"}))) as served:
        grant = RefreshTokenGrant(URL, client_id="crm", revocation_url=served.url)
        assert grant.revoke(SESSION) is False
    assert served.connections == 1


def test_nothing_to_revoke_is_no_error() -> None:
    """Without an address, a listening server or a token nothing is revoked and nothing is raised."""
    assert RefreshTokenGrant(URL, client_id="crm").revoke(SESSION) is False
    with closed_port() as port:
        nowhere = f"http://127.0.0.1:{port}/revoke"
        assert RefreshTokenGrant(URL, client_id="crm", revocation_url=nowhere).revoke(SESSION) is False
    over = SESSION.over("logout", 0.0)
    assert RefreshTokenGrant(URL, client_id="crm", revocation_url=nowhere).revoke(over) is False


def test_every_access_token_is_revoked() -> None:
    """Without a refresh token the access tokens of all resources are revoked, one after another."""
    session = Session.begin("alice", "login", Token("a0")).minted(Token("b0"), "https://b")
    with endpoint(saying(answer(200))) as served:
        assert RefreshTokenGrant(URL, client_id="crm", revocation_url=served.url).revoke(session) is True
    assert [request.form["token"] for request in served.requests] == ["a0", "b0"]


def test_an_error_can_be_pickled_on_the_way() -> None:
    """What a redemption raises crosses processes with all it says."""

    def refuse(peer: Peer, _request: Request) -> None:
        peer.send(answer(429, headers={"Retry-After": "7"}))

    served: Endpoint
    with endpoint(refuse) as served, pytest.raises(UnexpiredError) as error:
        RefreshTokenGrant(served.url, client_id="crm").redeem(SESSION, resource=None, timeout=5)
    copy = pickle.loads(pickle.dumps(error.value))
    assert (type(copy), str(copy), copy.retry_after) == (type(error.value), str(error.value), 7)
