from __future__ import annotations

import logging
import ssl
import traceback
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest

from tests.grants.endpoint import CERTIFICATE, Script, answer, endpoint, reset, saying
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import UnexpiredError
from unexpired.grants import RefreshTokenGrant

REFRESH, SECRET, KEY, ACCESS, BODY = "rt-5ecre7", "client-5ecre7", "query-5ecre7", "at-5ecre7", "body-5ecre7"
HUNTED = (REFRESH, SECRET, KEY, ACCESS, BODY, "5ecre7")
SESSION = Session.begin("alice", "login", Token(ACCESS, refresh_token=REFRESH))
ECHO = {"error_description": BODY, "seen": [REFRESH, SECRET, ACCESS]}
TALKING = {"Set-Cookie": f"sid={BODY}", "X-Echo": REFRESH}


FAILURES: dict[str, Script] = {
    "invalid_grant": saying(answer(400, {"error": "invalid_grant", **ECHO}, TALKING)),
    "a code of its own": saying(answer(400, {"error": BODY, **ECHO}, TALKING)),
    "an error in 200": saying(answer(200, {"error": REFRESH, **ECHO}, TALKING)),
    "unexplained": saying(answer(401, BODY.encode(), TALKING)),
    "a wall": saying(answer(403, f"<html>{BODY} {REFRESH}".encode(), TALKING)),
    "500": saying(answer(500, f"Traceback: {REFRESH} {BODY}".encode(), TALKING)),
    "429": saying(answer(429, BODY.encode(), {"Retry-After": BODY, **TALKING})),
    "half": saying(answer(200, f'{{"refresh_token": "{REFRESH}", "access_token": "{ACCESS}'.encode(), length=999)),
    "no HTTP": saying(f"{BODY} {REFRESH}\r\n\r\n".encode()),
    "a bad status": saying(f"HTTP/1.1 2x0 {BODY}\r\n\r\n".encode()),
    "a redirect": saying(answer(302, headers={"Location": f"https://id.example.com/?code={KEY}", **TALKING})),
    "reset": reset,
}
VARIANTS: list[dict[str, Any]] = [
    {"method": "GET", "client_auth": "client_secret_post"},
    {"client_auth": "client_secret_basic"},
    {"encoding": "json", "client_auth": "client_secret_post"},
]


@pytest.fixture
def log(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Everything that any logger says, down to the lowest level."""
    with caplog.at_level(logging.NOTSET):
        yield caplog


def grant(url: str, **settings: Any) -> RefreshTokenGrant:
    """A grant all of whose secrets are marked."""
    return RefreshTokenGrant(f"{url}?key={KEY}", client_id="crm", client_secret=SECRET, **settings)


def found(text: str) -> list[str]:
    """The marked secrets in *text*."""
    return [secret for secret in HUNTED if secret in text]


@pytest.mark.parametrize("settings", VARIANTS, ids=lambda settings: "-".join(map(str, settings.values())))
@pytest.mark.parametrize("failure", FAILURES)
def test_no_failure_tells_a_secret(failure: str, settings: dict[str, Any], log: pytest.LogCaptureFixture) -> None:
    """Logs at the lowest level, messages, `repr` and tracebacks of a failed refresh hold no secret (scenario 68)."""
    with endpoint(FAILURES[failure]) as served, pytest.raises(UnexpiredError) as error:
        grant(served.url, **settings).redeem(SESSION, resource=None, timeout=5)
    told = "".join(traceback.format_exception(error.value))
    assert "127.0.0.1" in told
    assert error.value.__context__ is None
    assert found(told + repr(error.value)) == []
    assert found(log.text) == []


def test_a_success_tells_no_secret(log: pytest.LogCaptureFixture) -> None:
    """A refresh and a revocation that work leave nothing in any log, over TLS and with any client (scenario 68)."""
    fresh = answer(200, {"access_token": ACCESS, "refresh_token": REFRESH, "id_token": BODY}, TALKING)
    http = httpx2.Client(verify=ssl.create_default_context(cafile=str(CERTIFICATE)))
    with endpoint(saying(fresh), tls=True) as served, http:
        one = grant(served.url, method="GET", http=http, revocation_url=served.url)
        token = one.redeem(SESSION, resource=None, timeout=5)
        assert one.revoke(SESSION)
    assert found(log.text + repr(token) + repr(one)) == []
    assert "HTTP Request" not in log.text


def test_only_the_token_request_is_silent(log: pytest.LogCaptureFixture) -> None:
    """What the same client does otherwise is logged as ever, before a token request and after it (scenario 68)."""
    with endpoint(saying(answer(200, {"access_token": ACCESS}))) as served, httpx2.Client() as http:
        for _ in range(2):
            http.get(f"{served.url}?plain=1")
            assert {"httpx2", "httpcore2.http11", "httpcore2.connection"} <= {record.name for record in log.records}
            log.clear()
            grant(served.url, http=http).redeem(SESSION, resource=None, timeout=5)
            assert [record.name for record in log.records if record.name.startswith("http")] == []


def test_the_thread_of_a_request_tells_nothing_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    """A failing request prints no traceback of its thread."""
    with endpoint(reset) as served, pytest.raises(UnexpiredError):
        grant(served.url).redeem(SESSION, resource=None, timeout=5)
    assert capfd.readouterr() == ("", "")
