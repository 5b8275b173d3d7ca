"""`TokenManagers`: one manager for each session, remembered while there is room."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from unexpired import ConfigurationError, Session, TokenManagers
from unexpired.events import LoggedIn, RefreshSucceeded
from unexpired.stores import MemoryStore


def answer(session: Session) -> dict[str, Any]:
    """A grant whose tokens tell whose they are."""
    return {"access_token": f"{session.key}-{session.version + 1}", "refresh_token": "r", "expires_in": 600}


def many(**settings: Any) -> TokenManagers:
    """Managers on a store of their own."""
    return TokenManagers(answer, store=MemoryStore(), **settings)


def test_each_key_has_its_manager() -> None:
    """The same key gives the same manager, another key another one, and each its own tokens."""
    managers = many()
    for key in ("alice", "bob"):
        managers.manager(key).login({"access_token": f"{key}-1", "refresh_token": "r", "expires_in": 600})
    assert managers.manager("alice") is managers.manager("alice")
    assert managers.manager("bob").token().access_token == "bob-1"
    assert managers.manager("alice").refresh().access_token == "alice-2"
    assert managers.manager("bob").token().access_token == "bob-1"


def test_the_least_used_is_forgotten() -> None:
    """Beyond the limit the manager that was asked for longest ago is made anew; its session is as it was."""
    managers = many(limit=2)
    alice = managers.manager("alice")
    alice.login({"access_token": "alice-1", "refresh_token": "r", "expires_in": 600})
    bob = managers.manager("bob")
    assert managers.manager("alice") is alice
    managers.manager("carol")
    assert len(managers) == 2
    assert managers.manager("alice") is alice
    assert managers.manager("bob") is not bob
    again = managers.manager("alice")
    assert again is not alice or len(managers) == 2
    assert again.token().access_token == alice.token().access_token == "alice-1"


def test_listeners_hear_of_every_session() -> None:
    """One subscription serves the managers that are there, those that come, and those made anew: once each."""
    managers = many(limit=1)
    heard: list[str] = []
    first = managers.manager("alice")
    end = managers.on(LoggedIn, lambda event: heard.append(event.key))
    first.login({"refresh_token": "r"})
    for key in ("bob", "alice"):
        managers.manager(key).login({"refresh_token": "r"})
    end()
    managers.manager("carol").login({"refresh_token": "r"})
    assert heard == ["alice", "bob", "alice"]


def test_closing_ends_the_subscriptions() -> None:
    """After the block nobody is told, and the managers in hand go on."""
    heard: list[Any] = []
    with many() as managers:
        manager = managers.manager("alice")
        managers.on(RefreshSucceeded, heard.append)
        manager.login({"access_token": "alice-1", "refresh_token": "r", "expires_in": 600})
    assert manager.refresh().access_token == "alice-2"
    assert (heard, len(managers)) == ([], 0)


def test_many_threads_get_one_manager() -> None:
    """Threads that ask for a new key at the same time get the same manager."""
    managers = many()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: managers.manager(f"user {number % 10}"), range(400)))
    assert len({id(manager) for manager in found}) == len(managers) == 10


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"key": "alice"}, "takes no key"),
        ({"leeway": -1.0}, "leeway"),
    ],
)
def test_bad_settings_are_refused_at_once(settings: dict[str, Any], words: str) -> None:
    """What no manager could be made with is refused where it is written."""
    with pytest.raises(ConfigurationError, match=words):
        many(**settings)


def test_what_is_no_key() -> None:
    """A key that no store can keep is refused, and leaves nothing behind."""
    managers = many()
    with pytest.raises(ConfigurationError, match="key"):
        managers.manager("")
    assert len(managers) == 0
