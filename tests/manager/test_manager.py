from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import unexpired
from tests.engine.staging import EXPIRED, FRESH, KINDS, Crowd, Kind, Server, aboard, manager_for, nearly_expired
from tests.waiting import until
from unexpired import ConfigurationError, LoginRequired, Token, TokenManager
from unexpired._engine import desk
from unexpired.grants import FunctionGrant
from unexpired.stores import FileStore, MemoryStore


@pytest.mark.parametrize(
    "settings",
    [{"key": ""}, {"leeway": -1.0}, {"deadline": 0.0}, {"wait": -0.1}, {"default_lifetime": -5.0}],
    ids=lambda settings: next(iter(settings)),
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    """ConfigurationError at once, not at the first refresh."""
    with pytest.raises(ConfigurationError):
        TokenManager(Server(), **{"store": MemoryStore(), **settings})


def test_the_default_store_is_a_file_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a store sessions are kept in this user's data directory; creating the manager makes no file."""
    monkeypatch.setenv("UNEXPIRED_HOME", str(tmp_path / "home"))
    manager = TokenManager(Server())
    assert not (tmp_path / "home").exists()
    manager.login(FRESH)
    assert FileStore(tmp_path / "home").load("default") is not None


def test_its_repr_names_grant_and_key_and_no_secret() -> None:
    """`repr` is for people who debug, and for logs."""
    grant = FunctionGrant(Server())
    store = MemoryStore()
    manager = TokenManager(grant, store=store, key="alice")
    manager.login({**FRESH, "access_token": "secret-7"})
    assert repr(manager) == f"TokenManager({grant!r}, store={store!r}, key='alice')"
    assert "secret-7" not in repr(manager)


@pytest.mark.parametrize("kind", KINDS)
def test_on_the_login_page_nothing_refreshes(kind: Kind) -> None:
    """A fresh token is served there; what would need a refresh is LoginRequired at once; nothing runs behind."""
    server, here = Server(), True
    manager = manager_for(server, nearly_expired(), on_login_page=lambda: here)
    assert manager.token().access_token == "access 0"
    assert manager._cell.flying is None
    manager.login(EXPIRED)
    outcomes = Crowd(kind, 5, manager).outcomes()
    assert [outcome.reason for outcome in outcomes if isinstance(outcome, LoginRequired)] == ["login_page"] * 5
    assert server.calls == 0
    here = False
    assert Crowd(kind, 5, manager).tokens() == ["access 1"] * 5


def test_the_error_says_where_to_log_in() -> None:
    """LoginRequired carries the login page's address, with the fields asked for at that moment, encoded."""
    path = "/first"
    manager = manager_for(
        Server(),
        None,
        login_url="/login?redirect={return_to}&code={customer}&why={reason}&who={key}",
        login_fields={"return_to": lambda: path, "customer": "a&b"},
        key="alice",
    )
    for path in ("/orders?page=2", "//evil.example", "/x\r\nSet-Cookie: y"):
        with pytest.raises(LoginRequired) as error:
            manager.token()
        back = "%2Forders%3Fpage%3D2" if path.startswith("/orders") else "%2F"
        assert error.value.login_url == f"/login?redirect={back}&code=a%26b&why=no_session&who=alice"


@pytest.mark.parametrize("kind", KINDS)
def test_waiters_learn_where_to_log_in_too(kind: Kind) -> None:
    """The address is there whether the end was known before or came with the refresh; a given one is kept."""

    def grant(session: object) -> Token:
        raise LoginRequired("over", reason=type(session).__name__.lower())

    manager = manager_for(grant, login_url="/login")
    outcomes = Crowd(kind, 3, manager).outcomes()
    assert [outcome.login_url for outcome in outcomes if isinstance(outcome, LoginRequired)] == ["/login"] * 3
    given = LoginRequired("step up", login_url="/other")
    assert manager.exchange.address(given).login_url == "/other"


def test_a_login_url_with_an_unknown_field_is_refused() -> None:
    """ConfigurationError when the manager is made, not when somebody is to log in."""
    with pytest.raises(ConfigurationError, match="nowhere"):
        TokenManager(Server(), store=MemoryStore(), login_url="/login?x={nowhere}")


@pytest.mark.parametrize("kind", KINDS)
def test_refresh_without_a_token_replaces_the_current_one(kind: Kind) -> None:
    """`refresh()` means: newer than the one that is current at the call."""
    server = Server(gated=True)
    manager = manager_for(server, FRESH)
    crowd = Crowd(kind, 10, manager, "refresh")
    until(lambda: aboard(manager) == 10)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 10


def test_refresh_replaces_an_expired_token_whatever_was_rejected() -> None:
    """A late rejection whose current token has expired meanwhile waits for a new one."""
    server = Server()
    assert manager_for(server).refresh(rejected="older").access_token == "access 1"


def test_a_rejected_token_knows_its_resource() -> None:
    """Rejecting a token of a resource refreshes that resource, named or not."""

    def grant(session: unexpired.Session, resource: str | None = None) -> dict[str, Any]:
        return {"access_token": f"{resource} v{session.version}", "refresh_token": "r", "expires_in": 3600}

    manager = manager_for(grant, FRESH)
    first = manager.token("mail")
    assert first.access_token == "mail v1"
    assert manager.token("mail") is first
    assert manager.refresh(rejected=first).access_token == "mail v2"
    assert manager.refresh(rejected=first.access_token, resource="mail").access_token == "mail v2"
    assert manager.token().access_token == "access 0"


def test_a_token_without_a_lifetime_is_refreshed_when_refused() -> None:
    """Where the server names no lifetime the token serves until it is refused, or for the default lifetime."""
    manager = manager_for(Server(), {"access_token": "access 0", "refresh_token": "refresh 0"})
    assert manager.token().access_token == "access 0"
    assert manager.refresh(rejected=manager.token()).access_token == "access 1"


@pytest.mark.usefixtures("no_pause_passes")
def test_what_adapters_need() -> None:
    """`replacement`, `newer` and `accepted`: a new token once, none again while that one is refused young (P6)."""
    server, origin = Server(), "https://api.example.com"
    manager = manager_for(server, FRESH)
    old = manager.token()
    assert manager.exchange.newer(old) is None
    new = manager.exchange.replacement(old, origin)
    assert new is not None
    assert new.access_token == "access 1"
    assert manager.exchange.newer(old) is new
    assert manager.exchange.replacement(old, origin) is new
    assert manager.exchange.replacement(new, origin) is None, (
        "a token fresh from the server was refused: leave it alone"
    )
    assert asyncio.run(manager.exchange.areplacement(new, origin)) is None
    assert server.calls == 1
    elsewhere = asyncio.run(manager.exchange.areplacement(new, "https://other.example.com"))
    assert elsewhere is not None
    manager.exchange.accepted(elsewhere, origin)
    assert (None, origin) not in manager.exchange.suspicions
    assert manager.exchange.replacement(elsewhere, origin) is not None
    assert server.calls == 3


def test_an_accepted_token_clears_only_its_own_place() -> None:
    """Acceptance means nothing where nothing is suspected, and an older token's clears nothing."""
    manager = manager_for(Server(), FRESH)
    old = manager.token()
    manager.exchange.accepted(old, "https://api.example.com")
    manager.exchange.replacement(old, "https://api.example.com")
    manager.exchange.accepted(old, "https://api.example.com")
    manager.exchange.accepted(old, "https://other.example.com")
    assert list(manager.exchange.suspicions) == [(None, "https://api.example.com")]


def test_an_expired_token_is_no_newer_one() -> None:
    """`newer` never names a token that has expired, nor one of another resource."""
    manager = manager_for(Server(), EXPIRED)
    assert manager.exchange.newer(Token("older")) is None
    assert manager.exchange.newer(Token("older", resource="mail")) is None


def test_a_refused_token_of_a_session_that_is_gone() -> None:
    """A refusal that comes after a logout is LoginRequired."""
    manager = manager_for(Server(), FRESH)
    token = manager.token()
    manager.logout()
    with pytest.raises(LoginRequired):
        manager.exchange.replacement(token, "https://api.example.com")


def test_the_memory_of_refusals_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many places refuse, only the last ones are remembered."""
    monkeypatch.setattr(desk, "_PLACES", 3)
    manager = manager_for(Server(), FRESH)
    for number in range(5):
        manager.exchange.replacement(manager.token(), f"https://{number}.example.com")
    assert [origin for _, origin in manager.exchange.suspicions] == [f"https://{n}.example.com" for n in (2, 3, 4)]


def test_the_package_knows_its_version() -> None:
    """`__version__` is the installed one; other names are AttributeErrors."""
    assert unexpired.__version__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = unexpired.nothing


def test_on_the_login_page_nothing_is_refreshed() -> None:
    """Inside the block a call that needs a new token fails at once and clearly; after it, all is as before."""
    server = Server()
    manager = manager_for(server)
    with manager.login_page(), manager.login_page(), pytest.raises(LoginRequired) as refused:
        manager.token()
    assert refused.value.reason == "login_page"
    assert server.calls == 0
    assert manager.token().access_token == "access 1"


def test_a_program_may_build_the_address_itself() -> None:
    """What would be in the address is on the error, also without a template; the way back stays on this site."""
    manager = manager_for(Server(), None, login_fields={"return_to": "//evil.test", "code": lambda: "C1"})
    with pytest.raises(LoginRequired) as refused:
        manager.token()
    assert refused.value.login_url is None
    assert refused.value.fields == {"return_to": "/", "code": "C1"}
