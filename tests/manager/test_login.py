from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest
import trio

from tests.engine.staging import EXPIRED, FRESH, KINDS, Attempt, Crowd, Faulty, Kind, Server, aboard, manager_for
from tests.waiting import until
from unexpired import ConfigurationError, LoginRequired, Session, StoreError, Token, TokenManager
from unexpired.errors import AnswerLost
from unexpired.events import Event, LoggedIn, LoggedOut, RefreshStarted, SessionEnded
from unexpired.grants import FunctionGrant
from unexpired.stores import FileStore, MemoryStore


class Revoking(Server):
    """A gated server that can revoke: what it was asked to revoke is in *revoked*."""

    def __init__(self, **named: Any) -> None:
        super().__init__(**named)
        self.revoked: list[str | None] = []

    def grant(self) -> FunctionGrant:
        """It as a grant."""
        return FunctionGrant(self, revoke=lambda session: self.revoked.append(session.refresh_token))


@pytest.mark.parametrize("kind", KINDS)
def test_a_logout_during_the_refresh_wins(kind: Kind) -> None:
    """The late result is revoked, never stored, and all waiters learn that they are logged out (scenario 61, P8)."""
    server = Revoking(gated=True)
    manager = manager_for(server.grant())
    crowd = Crowd(kind, 10, manager)
    until(lambda: aboard(manager) == 10)
    assert server.arrived.wait(20)
    manager.logout()
    server.gate.set()
    outcomes = crowd.outcomes()
    assert [type(outcome) for outcome in outcomes] == [LoginRequired] * 10
    assert {outcome.reason for outcome in outcomes if isinstance(outcome, LoginRequired)} == {"logout"}
    until(lambda: manager._cell.flying is None)
    assert server.revoked == ["refresh 0", "refresh 1"]
    session = manager.session()
    assert session is not None
    assert session.ended is not None
    assert (session.refresh_token, dict(session.tokens)) == (None, {})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("logout_first", [True, False], ids=["logout and login", "login"])
def test_a_login_during_the_refresh_is_not_overwritten(kind: Kind, logout_first: bool) -> None:
    """Waiters get the new login's token, and the old one's result is dropped (scenarios 61 and 63)."""
    server = Revoking(gated=True)
    manager = manager_for(server.grant())
    crowd = Crowd(kind, 10, manager)
    until(lambda: aboard(manager) == 10)
    assert server.arrived.wait(20)
    if logout_first:
        manager.logout()
    manager.login({"access_token": "new", "refresh_token": "new too", "expires_in": 60})
    server.gate.set()
    assert crowd.tokens() == ["new"] * 10
    session = manager.session()
    assert session is not None
    assert session.refresh_token == "new too"
    assert server.revoked == (["refresh 0"] if logout_first else []), "revoking could kill the winner"


def test_a_logout_revokes_and_tells() -> None:
    """An ended record is stored before the revocation is asked for; the event says what came of it."""
    heard: list[Event] = []
    ended_before: list[bool] = []
    manager = manager_for(FunctionGrant(Server(), revoke=lambda _: ended_before.append(_has_ended(manager))), FRESH)
    manager.on(Event, heard.append)
    manager.token()
    manager.logout()
    manager.logout()
    assert heard == [LoggedOut("default", revoked=True)]
    assert ended_before == [True]
    with pytest.raises(LoginRequired, match="logged out") as error:
        manager.token()
    assert error.value.reason == "logout"


def _has_ended(manager: TokenManager) -> bool:
    session = manager.session()
    return session is not None and session.ended is not None


def test_nobody_can_be_logged_out_who_is_not_logged_in() -> None:
    """A logout of a key without a session does nothing and tells nobody."""
    manager = manager_for(Server(), None)
    heard: list[Event] = []
    manager.on(Event, heard.append)
    manager.logout()
    assert heard == []
    assert manager.session() is None


@pytest.mark.parametrize("run", [asyncio.run, lambda main: trio.run(lambda: main)], ids=["asyncio", "trio"])
def test_async_login_and_logout_do_the_same(run: Callable[[Any], None], tmp_path: Path) -> None:
    """`alogin`, `aend` and `alogout` write on another thread than the event loop's."""
    store = FileStore(tmp_path)
    manager = manager_for(Server(), None, store=store)
    threads: list[threading.Thread] = []
    manager.on(Event, lambda _: threads.append(threading.current_thread()))

    async def main() -> None:
        session = await manager.alogin(FRESH)
        assert session.version == 1
        token = await manager.atoken()
        assert await manager.exchange.aend(token)
        await manager.alogin(FRESH)
        await manager.alogout()
        with pytest.raises(LoginRequired):
            await manager.atoken()

    run(main())
    assert len(threads) == 4
    assert threading.main_thread() not in threads


def test_without_a_login_the_error_says_how_to_log_in() -> None:
    """First use with nothing stored: LoginRequired that names the ways to seed a token, and no request."""
    server = Server()
    manager = manager_for(server, None)
    for call in (manager.token, manager.refresh):
        with pytest.raises(LoginRequired, match=r"manager\.login.*seed_from_file.*seed_from_environ") as error:
            call()
        assert (error.value.reason, error.value.key) == ("no_session", "default")
    assert server.calls == 0


@pytest.mark.parametrize("kind", KINDS)
def test_a_login_with_only_a_refresh_token(kind: Kind) -> None:
    """A refresh token alone is a login: the first use redeems it, once."""
    server = Server(gated=True)
    manager = manager_for(server, {"refresh_token": "refresh 0"})
    crowd = Crowd(kind, 10, manager)
    until(lambda: aboard(manager) == 10)
    server.gate.set()
    assert crowd.tokens() == ["access 1"] * 10


def test_a_login_with_a_token_object() -> None:
    """A Token is a login; what is stored names its login and version, and differs from other logins."""
    manager = manager_for(Server(), None)
    first = manager.login(Token("access 0"))
    second = manager.login({"access_token": "access 0"})
    assert first.login != second.login
    assert (second.version, manager.token().minted, manager.token().login) == (1, 1, second.login)


@pytest.mark.parametrize(
    "seed",
    [{}, {"access_token": ""}, {"refresh_token": ""}, {"refresh_token": 7}, {"refresh_token": "secret\n"}],
    ids=["nothing", "empty", "no text", "a number", "a line break"],
)
def test_a_login_without_a_usable_token_is_refused(seed: Mapping[str, Any]) -> None:
    """ConfigurationError without any word of the seed, and the login before it stands."""
    manager = manager_for(Server(), FRESH)
    with pytest.raises(ConfigurationError) as error:
        manager.login(seed)
    assert "secret" not in str(error.value)
    assert manager.token().access_token == "access 0"


def test_a_login_sets_an_unreadable_record_aside(tmp_path: Path) -> None:
    """A damaged session file is an error for callers, and kept when a login replaces it."""
    manager = manager_for(Server(), EXPIRED, store=FileStore(tmp_path))
    [record] = tmp_path.glob("*.json")
    record.write_text("{")
    with pytest.raises(StoreError, match="not JSON"):
        manager.token()
    manager.login({**FRESH, "access_token": "anew"})
    assert manager.token().access_token == "anew"
    assert [path.read_text() for path in tmp_path.glob("*.set-aside-*")] == ["{"]


def test_a_login_that_cannot_be_stored_is_an_error() -> None:
    """Nobody is told of a login that did not happen."""
    store = Faulty()
    manager = manager_for(Server(), None, store=store)
    heard: list[Event] = []
    manager.on(Event, heard.append)
    store.save_error = StoreError("the disk is full")
    with pytest.raises(StoreError, match="disk is full"):
        manager.login(FRESH)
    assert heard == []


def test_the_api_says_that_the_login_is_over() -> None:
    """`end` ends the session of the very token that was refused, once, and tells; P7: never a newer one."""
    server = Server()
    manager = manager_for(server, FRESH)
    heard: list[Event] = []
    manager.on(SessionEnded, heard.append)
    old = manager.token()
    new = manager.refresh()
    assert not manager.exchange.end(old)
    assert manager.token().access_token == "access 1"
    assert manager.exchange.end(new)
    assert not manager.exchange.end(new)
    assert heard == [SessionEnded("default", 3, "login_required")]
    with pytest.raises(LoginRequired) as error:
        manager.token()
    assert error.value.reason == "login_required"


def test_ending_what_is_not_there_ends_nothing() -> None:
    """A token carried from a session that is gone from the store ends nothing."""
    manager = manager_for(Server(), None, store=MemoryStore())
    assert not manager.exchange.end(Token("access", login="gone", minted=1))


def test_a_login_is_told() -> None:
    """`LoggedIn` is told when the login is stored, to the listeners of every manager of that session."""
    store = MemoryStore()
    one, two = manager_for(Server(), None, store=store), manager_for(Server(), None, store=store)
    heard: list[Event] = []
    one.on(LoggedIn, heard.append)
    two.login(EXPIRED)
    assert heard == [LoggedIn("default", ANY)]


def test_a_login_after_a_lost_answer_starts_anew() -> None:
    """The failure memory of one login is nothing to the next."""

    def grant(session: Session) -> Mapping[str, Any]:
        if session.refresh_token == "refresh 0":
            raise AnswerLost("reset")
        return {"access_token": "good", "expires_in": 60}

    manager = manager_for(grant)
    started: list[RefreshStarted] = []
    manager.on(RefreshStarted, started.append)
    with pytest.raises(Exception, match="reset"):
        Attempt(manager.token).result()
    manager.login({"refresh_token": "another"})
    assert manager.token().access_token == "good"
    until(lambda: len(started) == 2)
    assert [event.attempt for event in started] == [1, 1]


def test_a_first_token_without_a_lifetime_gets_the_configured_one() -> None:
    """`default_lifetime` counts from the login on, too; without it the lifetime stays unknown (scenario 28)."""
    seed = {"access_token": "AT", "refresh_token": "RT"}
    known = TokenManager(lambda _: seed, store=MemoryStore(), default_lifetime=60.0)
    known.login(seed)
    assert known.token().lifetime == 60.0
    unknown = TokenManager(lambda _: seed, store=MemoryStore())
    unknown.login(Token("AT"))
    assert unknown.token().expires_at is None
