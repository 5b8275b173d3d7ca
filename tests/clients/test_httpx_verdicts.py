"""What answers of an API mean to callers of httpx2 and httpx: expired, over, not enough, or none of our business."""

from __future__ import annotations

from typing import Any

import pytest

from tests.clients.modes import Api, Mode, Via, get, manager_for, statuses
from tests.clients.scripted import JSON, Script, counting_manager
from unexpired import LoginRequired, Scheme, TokenManager
from unexpired.testing import ServerHandle

CODES = Scheme.bearer(code="code", expired=[40009], login_required=[40005, 40003], ok=[0])
HTML = "<html><h1>Access denied</h1></html>"


@pytest.mark.parametrize("challenge", [True, False])
def test_refused_by_status(server: ServerHandle, manager: TokenManager, mode: Mode, challenge: bool) -> None:
    """Scenario 36: a 401 means expired, with and without a challenge that says so."""
    server.configure(refusal_challenge=challenge)
    server.expire()
    assert mode.one(mode.options(manager, "auth", base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().token_posts == 1


@pytest.mark.parametrize(("meant", "outcome"), [((401,), (403, 0)), ((401, 403), (200, 1))])
def test_forbidden_as_expired(
    server: ServerHandle, manager: TokenManager, mode: Mode, meant: Any, outcome: tuple[int, int]
) -> None:
    """Scenario 38: a bare 403 means expired only where the scheme says so."""
    server.configure(refusal_status=403, refusal_challenge=False)
    server.expire()
    scheme = Scheme.bearer(expired_status=meant)
    answer = mode.one(mode.options(manager, "auth", scheme, base_url=server.url), get("/api/x"))
    assert (answer.status_code, server.stats().token_posts) == outcome


@pytest.mark.parametrize(
    "rule",
    [
        {"kind": "insufficient_scope"},
        {"kind": "forbid"},
        {"kind": "status", "code": 403, "headers": {"content-type": "text/html"}, "body": HTML},
        {"kind": "status", "code": 429, "headers": {"retry-after": "1"}},
        {"kind": "status", "code": 500, "body": '{"code": 1}', "headers": JSON},
        {"kind": "status", "code": 200, "body": '{"code": 7, "x": {"code": 40009}}', "headers": JSON},
        {"kind": "status", "code": 200, "body": '{"code": 40009', "headers": JSON},
    ],
)
def test_none_of_our_business(
    server: ServerHandle, manager: TokenManager, mode: Mode, via: Via, rule: dict[str, Any]
) -> None:
    """Scenarios 38 and 54: a narrow scope, a firewall, a busy or broken API and other codes start no refresh."""
    server.api_faults([rule])
    for scheme in (None, CODES):
        options = mode.options(manager, via, scheme, base_url=server.url)
        answer = mode.one(options, get("/api/x"))
        assert answer.status_code == rule.get("code", 403)
        assert answer.text == rule.get("body", answer.text)
    assert server.stats().token_posts == 0


def test_step_up(server: ServerHandle, mode: Mode, via: Via) -> None:
    """Scenario 39: a call for a stronger login is LoginRequired with what is asked for; the session lives on."""
    manager = manager_for(server, login_url="/login?why={reason}")
    rule = {"kind": "insufficient_user_authentication", "acr_values": "gold", "max_age": 60, "times": 1}
    server.api_faults([rule])
    (error,) = mode.run(mode.options(manager, via, base_url=server.url), [get("/api/x")])
    assert (type(error), error.reason, error.login_url) == (LoginRequired, "step_up", "/login?why=step_up")
    assert (error.challenge["acr_values"], error.challenge["max_age"]) == ("gold", "60")
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().token_posts == 0


@pytest.mark.parametrize("newer", [True, False])
def test_second_replay(mode: Mode, newer: bool) -> None:
    """P6: a refused replay is sent once more only if a newer token exists by then; a third time never."""
    manager = counting_manager()
    script = Script(*[(401, {}, []) for _ in range(4)])

    script.meanwhile = lambda count: manager.refresh(f"t{count}") if newer and count > 1 else None
    answer = mode.one(mode.options(manager, "transport", inner=script.transport(mode)), get("http://api/x"))
    assert answer.status_code == 401
    assert script.tokens == ["Bearer t1", "Bearer t2", *(["Bearer t3"] if newer else [])]


def test_nonce(mode: Mode, via: Via) -> None:
    """Scenario 38: an API that hands out a nonce gets the same token once more, without a refresh."""
    nonce = {"www-authenticate": 'DPoP error="use_dpop_nonce"'}
    script = Script((401, nonce, []), (401, nonce, []))
    answer = mode.one(mode.options(counting_manager(), via, inner=script.transport(mode)), get("http://api/x"))
    assert answer.status_code == 401
    assert script.tokens == ["Bearer t1", "Bearer t1"]


def test_other_apis_after_a_refusal(mode: Mode, via: Via) -> None:
    """Scenario 36: an origin that refused a fresh token is trusted again once it accepts a newer one."""
    manager = counting_manager()
    script = Script((401, {}, []), (401, {}, []), (200, {}, []), (200, {}, []), (401, {}, []), (200, {}, []))

    async def job(api: Api) -> list[Any]:
        answers = [await api.get("http://api/x")]
        await api.blocking(lambda: manager.refresh("t2"))
        return [*answers, *[await api.get("http://api/x") for _ in range(3)]]

    answers = mode.one(mode.options(manager, via, inner=script.transport(mode)), job)
    assert statuses(answers) == [401, 200, 200, 200]


def test_login_page(server: ServerHandle, mode: Mode, via: Via) -> None:
    """On the program's login page nothing refreshes: a call that would need it fails at once and clearly."""
    here = [False]
    manager = manager_for(server, on_login_page=lambda: here[0])
    server.expire()
    here[0] = True
    (error,) = mode.run(mode.options(manager, via, base_url=server.url), [get("/api/x")])
    assert (type(error), error.reason) == (LoginRequired, "login_page")
    here[0] = False
    assert mode.one(mode.options(manager, via, base_url=server.url), get("/api/x")).status_code == 200
    assert server.stats().token_posts == 1
