"""What one manager remembers of refusals: of which token, where, for how long, and across its own life."""

from __future__ import annotations

import asyncio
import gc
import logging
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.engine.staging import FRESH, Server, manager_for
from unexpired import Session, Token, TokenManager
from unexpired._engine import cell as cells
from unexpired._engine import desk
from unexpired._engine.clock import boot
from unexpired._engine.login_page import LoginPage
from unexpired.errors import LoginRequired, StoreError
from unexpired.events import FreshTokenRefused
from unexpired.stores import MemoryStore

ORIGIN = "https://api.example.com"
ENDPOINT = "GET /reports/*"
pytestmark = pytest.mark.usefixtures("no_pause_passes")
Replace = Callable[[TokenManager, Token, str], Token | None]


def _replace(manager: TokenManager, token: Token, endpoint: str) -> Token | None:
    return manager.exchange.replacement(token, ORIGIN, endpoint)


def _areplace(manager: TokenManager, token: Token, endpoint: str) -> Token | None:
    return asyncio.run(manager.exchange.areplacement(token, ORIGIN, endpoint))


@pytest.fixture(params=[_replace, _areplace], ids=["sync", "async"])
def replace(request: pytest.FixtureRequest) -> Replace:
    """Ask for a replacement of a refused token, either way."""
    chosen: Replace = request.param
    return chosen


def test_a_refusal_is_remembered_of_the_origin_and_of_the_endpoint(replace: Replace) -> None:
    """Under both names; without an endpoint under the origin's alone."""
    manager = manager_for(Server(), FRESH)
    replace(manager, manager.token(), ENDPOINT)
    assert list(manager.exchange.suspicions) == [(None, ORIGIN), (None, f"{ORIGIN} {ENDPOINT}")]
    other = manager_for(Server(), FRESH)
    if replace is _replace:
        other.exchange.replacement(other.token(), ORIGIN)
    else:
        asyncio.run(other.exchange.areplacement(other.token(), ORIGIN))
    assert list(other.exchange.suspicions) == [(None, ORIGIN)]
    other.exchange.accepted(other.token(), ORIGIN)
    assert list(other.exchange.suspicions) == []


def test_one_endpoint_that_refuses_everything_is_not_cured_by_others(replace: Replace) -> None:
    """Another endpoint's acceptance clears the origin and itself, and this one is left alone (scenario 38)."""
    server = Server()
    manager = manager_for(server, FRESH)
    new = replace(manager, manager.token(), ENDPOINT)
    assert new is not None
    manager.exchange.accepted(new, ORIGIN, "GET /list")
    assert list(manager.exchange.suspicions) == [(None, f"{ORIGIN} {ENDPOINT}")]
    assert replace(manager, new, ENDPOINT) is None
    assert server.calls == 1
    manager.exchange.accepted(new, ORIGIN, ENDPOINT)
    assert list(manager.exchange.suspicions) == []
    assert replace(manager, new, ENDPOINT) is not None


def test_a_replacement_with_the_same_string_is_none(replace: Replace) -> None:
    """A server that repeats the refused token gives the caller nothing to replay with."""
    manager = manager_for(lambda _: {**FRESH, "refresh_token": "refresh 1"}, FRESH)
    assert replace(manager, manager.token(), ENDPOINT) is None


def test_a_refused_token_is_replaced_for_its_own_resource(replace: Replace) -> None:
    """The default token is neither looked at nor refreshed for it."""
    server = Server()

    def grant(session: Session, resource: str | None = None) -> Mapping[str, Any]:
        assert resource == "mail"
        return server(session)

    manager = manager_for(grant, FRESH)
    mail = manager.token("mail")
    assert mail.access_token == "access 1"
    assert manager.exchange.newer(Token("older", resource="mail", login=mail.login)) is mail
    new = replace(manager, mail, ENDPOINT)
    assert new is not None
    assert (new.resource, new.access_token) == ("mail", "access 2")
    assert manager.token().access_token == "access 0"
    assert list(manager.exchange.suspicions) == [("mail", ORIGIN), ("mail", f"{ORIGIN} {ENDPOINT}")]


def test_a_token_that_is_older_than_the_pause_is_replaced(monkeypatch: pytest.MonkeyPatch, replace: Replace) -> None:
    """A refusal of a young token starts nothing and is told; of the same token, grown older, it starts a flight."""
    server = Server()
    manager = manager_for(server, FRESH)
    told: list[FreshTokenRefused] = []
    manager.on(FreshTokenRefused, told.append)
    new = replace(manager, manager.token(), ENDPOINT)
    assert new is not None
    assert replace(manager, new, ENDPOINT) is None
    assert [(event.key, event.origin) for event in told] == [("default", ORIGIN)]
    assert 0.5 <= told[0].pause <= 1.0
    later = boot() + 1.5
    monkeypatch.setattr(desk, "boot", lambda: later)
    newer = replace(manager, new, ENDPOINT)
    assert newer is not None
    assert newer.access_token == "access 2"


def test_a_refusal_outlives_the_manager_that_met_it() -> None:
    """A manager for every request does not refresh for every request."""
    server, store = Server(), MemoryStore()
    manager = manager_for(server, FRESH, store=store)
    assert manager.exchange.replacement(manager.token(), ORIGIN) is not None
    del manager
    gc.collect()
    another = manager_for(server, None, store=store)
    assert another.exchange.replacement(another.token(), ORIGIN) is None
    assert server.calls == 1
    assert [cell for cell in cells._suspicious if cell is another._cell] == [another._cell]


def test_a_login_made_elsewhere_begins_with_a_clean_slate() -> None:
    """What was refused of the login before it, in this process, says nothing of its tokens."""
    server, store = Server(), MemoryStore()
    manager = manager_for(server, FRESH, store=store)
    assert manager.exchange.replacement(manager.token(), ORIGIN) is not None
    assert manager.exchange.replacement(manager.token(), ORIGIN) is None
    stored = store.load("default")
    elsewhere = Session.begin("default", "elsewhere", Token("access new", refresh_token=f"refresh {server.calls}"))
    assert store.swap("default", stored, elsewhere)
    replaced = manager.exchange.replacement(manager.token(), ORIGIN)
    assert replaced is not None
    assert replaced.access_token == "access 2"


def test_the_end_of_a_login_that_cannot_be_stored_is_told_with_its_key() -> None:
    """Whose record kept changing is in the error."""

    class Restless(MemoryStore):
        def swap(self, key: str, expected: Session | None, new: Session) -> bool:
            """Take the login, and find every later record changed."""
            return expected is None and super().swap(key, expected, new)

    manager = manager_for(Server(), FRESH, store=Restless())
    with pytest.raises(StoreError) as caught:
        manager.exchange.end(manager.token())
    assert caught.value.key == "default"


def _raises() -> str:
    raise ValueError("s3cret")


@pytest.mark.parametrize("wrong", [_raises, lambda: 7, lambda: None])
def test_a_login_field_that_is_wrong_is_left_empty(wrong: Callable[[], Any], caplog: pytest.LogCaptureFixture) -> None:
    """The login is over all the same; what the function raised is logged by its type and place."""
    fields: Mapping[str, Callable[[], str]] = {"code": wrong}
    with caplog.at_level(logging.WARNING, "unexpired"):
        error = LoginPage("/login?code={code}", fields, None).address(LoginRequired("over", key="k", reason="refused"))
    assert error.login_url == "/login?code="
    assert error.fields == {"code": "", "return_to": "/"}
    lines = [record.getMessage() for record in caplog.records]
    assert [line.partition(" at ")[0] for line in lines] == (
        ["login_fields['code'] raised ValueError"] if wrong is _raises else []
    )


def test_an_address_knows_reason_and_key() -> None:
    """`{reason}` and `{key}` are the error's own; an error without a key leaves it empty."""
    page = LoginPage("/login?why={reason}&who={key}&to={return_to}", None, None)
    error = page.address(LoginRequired("", key="a b", reason="refused"))
    assert error.login_url == "/login?why=refused&who=a%20b&to=%2F"
    assert page.address(LoginRequired("", reason="logout")).login_url == "/login?why=logout&who=&to=%2F"


def test_a_program_is_on_its_login_page_until_the_last_visit_ends() -> None:
    """Visits may overlap: in several threads, or one within another."""
    page = LoginPage(None, None, None)
    assert not page.is_here()
    with page.visit():
        with page.visit():
            assert page.is_here()
        assert page.is_here()
    assert not page.is_here()
