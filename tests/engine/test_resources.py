"""Several resources of one login in real threads and tasks (scenario 7)."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.staging import KINDS, Crowd, Kind, manager_for, nearly_expired
from tests.waiting import until
from unexpired import Session
from unexpired._core.session import Failure
from unexpired.errors import ConfigurationError, Refused
from unexpired.stores import MemoryStore

MAIL, FILES = "https://mail.example.com", "https://files.example.com"
NOBODY = "https://nobody.example.com"


class Server:
    """A token server with rotation and reuse detection, which has a token for each resource but one."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []
        self.spent = Counter[str | None]()
        self._lock = threading.Lock()

    def __call__(self, session: Session, resource: str | None = None) -> Mapping[str, Any]:
        """Redeem the session's refresh token for *resource*."""
        with self._lock:
            number = len(self.asked) - self.asked.count(NOBODY)
            self.asked.append(resource)
            self.spent[session.refresh_token] += 1
        if resource == NOBODY:
            raise Refused("no such resource", error="invalid_target")
        if session.refresh_token != f"refresh {number}":
            raise Refused("that refresh token has been used", error="invalid_grant")
        return {
            "access_token": f"{resource} {number + 1}",
            "refresh_token": f"refresh {number + 1}",
            "expires_in": 3600,
        }


@pytest.mark.parametrize("kind", KINDS)
def test_two_resources_at_once_give_each_caller_its_own(kind: Kind) -> None:
    """One refresh each, one after the other: no refresh token is sent twice."""
    server = Server()
    manager = manager_for(server)
    crowds = {resource: Crowd(kind, 20, manager, resource=resource) for resource in (MAIL, FILES)}
    for resource, crowd in crowds.items():
        assert {token.split()[0] for token in crowd.tokens()} == {resource}
        assert len(crowd.tokens()) == 20
    assert sorted(map(str, server.asked)) == [FILES, MAIL]
    assert max(server.spent.values()) == 1
    session = manager.session()
    assert session is not None
    assert {token.refresh_token for token in session.tokens.values()} == {"refresh 2"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_resource_that_is_refused_stops_no_caller_of_another(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    """All who want the one get the error at once, all who want the other get a token."""
    # Who comes late is no reason to ask again.
    monkeypatch.setattr("unexpired._core.outcome.cool_down", lambda *_: 60.0)
    server = Server()
    manager = manager_for(server)
    refused, served = Crowd(kind, 20, manager, resource=NOBODY), Crowd(kind, 20, manager, resource=MAIL)
    assert {type(outcome) for outcome in refused.outcomes()} == {ConfigurationError}
    assert {token.split()[0] for token in served.tokens()} == {MAIL}
    assert sorted(map(str, server.asked)) == [MAIL, NOBODY]


def test_a_failure_of_one_resource_lets_another_be_refreshed_ahead() -> None:
    """Another process met it; the default token is renewed in the background all the same."""
    server, store = Server(), MemoryStore()
    manager = manager_for(server, nearly_expired(), store=store)
    held = store.load("default")
    assert held is not None
    failure = Failure("configuration", "no", time.time(), time.time() + 600.0, resources=(MAIL,))
    assert store.swap("default", held, held.noted(intent=None, failure=failure))
    assert manager.token().access_token == "access 0"
    until(lambda: manager.token().access_token == "None 1")
    with pytest.raises(ConfigurationError):
        manager.token(MAIL)
    assert server.asked == [None]


def test_a_resource_that_was_refused_here_lets_another_be_refreshed_ahead() -> None:
    """The quiet time after a failed flight of this process is not for the others."""
    server = Server()
    manager = manager_for(server, nearly_expired())
    with pytest.raises(ConfigurationError):
        manager.token(NOBODY)
    assert manager.token().access_token == "access 0"
    until(lambda: manager.token().access_token == "None 1")
