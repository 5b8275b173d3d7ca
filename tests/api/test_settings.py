"""What the clients are made with: their own address, hooks that can run, and nothing that is silently ignored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from unexpired import ApiClient, AsyncApiClient, ConfigurationError, InQuery, LoginRequired, Scheme, TokenManager
from unexpired.api import Envelope, Options
from unexpired.stores import MemoryStore


def manager_with_token(**settings: Any) -> TokenManager:
    """A manager whose token is good for long."""
    manager = TokenManager(lambda _: {}, store=MemoryStore(), **settings)
    manager.login({"access_token": "SECRET", "expires_in": 3600})
    return manager


def carried(request: httpx2.Request) -> httpx2.Response:
    """Where the token came in, if it did."""
    places = [*request.headers.get_list("authorization"), *request.url.params.get_list("token")]
    return httpx2.Response(200, json=[place for place in places if "SECRET" in place])


@pytest.mark.parametrize("scheme", [Scheme.bearer(), Scheme(InQuery("token"))], ids=["header", "query"])
def test_a_link_to_elsewhere_carries_no_token(scheme: Scheme) -> None:
    """An address out of an answer may lead anywhere; the token stays with the API (scenario 45)."""
    client = ApiClient(
        "https://api.test/v1", manager=manager_with_token(), scheme=scheme, transport=httpx2.MockTransport(carried)
    )
    with client as api:
        assert len(api.get("/list")) == 1
        assert len(api.get("https://api.test/file")) == 1
        for elsewhere in ("https://cdn.test/file", "http://api.test/file", "https://api.test:8443/file"):
            assert api.get(elsewhere) == []


def test_a_list_of_origins_is_kept_to() -> None:
    """Who names other origins means it; without an address of its own a client goes where it is called."""
    listed = Scheme.bearer(origins=["https://api.test", "https://files.test"])
    transport = httpx2.MockTransport(carried)
    with ApiClient("https://api.test", manager=manager_with_token(), scheme=listed, transport=transport) as api:
        assert len(api.get("https://files.test/x")) == 1
    with ApiClient(manager=manager_with_token(), transport=transport) as api:
        assert len(api.get("https://anywhere.test/x")) == 1


@pytest.mark.parametrize("base_url", ["crm.example.com", "localhost:8080", "ftp://x.test", "https://x.test/a?v=1"])
def test_an_address_that_cannot_work_is_refused(base_url: str) -> None:
    """A forgotten https:// is no outage of the API."""
    with pytest.raises(ConfigurationError, match="base_url must be"):
        ApiClient(base_url, manager=manager_with_token())


async def _hook(*_: object) -> None:
    """An async hook."""


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"scheme": "bearer"}, "scheme must be"),
        ({"scheme": Scheme}, "scheme must be"),
        ({"envelope": {"code": "code"}}, "envelope must be"),
        ({"on_login_required": "/login"}, "on_login_required"),
        ({"clear_user": {}}, "clear_user"),
        ({"on_loading": 5}, "on_loading"),
        ({"on_loading": _hook}, "on_loading"),
    ],
)
@pytest.mark.parametrize("kind", [ApiClient, AsyncApiClient])
def test_a_setting_of_the_wrong_kind_is_refused(
    kind: Callable[..., object], settings: dict[str, Any], why: str
) -> None:
    """At once, and by its name."""
    with pytest.raises(ConfigurationError, match=why):
        kind("https://api.test", manager=manager_with_token(), **settings)


def test_only_tasks_can_await_a_hook() -> None:
    """An async hook of the blocking client would never run, so it is refused; the other one awaits it."""
    with pytest.raises(ConfigurationError, match="on_login_required"):
        ApiClient("https://api.test", manager=manager_with_token(), on_login_required=_hook)
    AsyncApiClient("https://api.test", manager=manager_with_token(), on_login_required=_hook, clear_user=_hook)


def test_unknown_words_are_answered_with_the_known_ones() -> None:
    """Settings and options of other libraries are close, and not the same."""
    with pytest.raises(TypeError, match="takes no 'baseURL', but base_url, manager"):
        ApiClient(manager=manager_with_token(), baseURL="https://api.test")  # type: ignore[call-arg]  # the mistake
    api = ApiClient("https://api.test", manager=manager_with_token())
    with api, pytest.raises(TypeError, match=r"its body comes after the path, its options are .*params"):
        api.post("/x", data={})  # type: ignore[call-arg]  # the mistake
    assert "into" in Options.__optional_keys__


@pytest.mark.parametrize("parts", [{"code": None}, {"ok": 0}])
def test_an_envelope_is_made_of_paths_and_codes(parts: dict[str, Any]) -> None:
    """Anything else is refused when it is made."""
    with pytest.raises(ConfigurationError, match="an envelope has"):
        Envelope(**parts)


def test_a_mistake_in_a_login_field_does_not_hide_the_end(caplog: pytest.LogCaptureFixture) -> None:
    """The person has to log in, whatever is wrong with the way back."""
    fields: dict[str, Any] = {"return_to": lambda: 1 / 0, "code": lambda: None}
    manager = TokenManager(
        lambda _: {}, store=MemoryStore(), login_url="/login?to={return_to}&code={code}", login_fields=fields
    )
    with pytest.raises(LoginRequired) as over:
        manager.token()
    assert over.value.login_url == "/login?to=%2F&code="
    assert "ZeroDivisionError" in caplog.text
    assert not manager.logged_in
    manager.login({"refresh_token": "r"})
    assert manager.logged_in
