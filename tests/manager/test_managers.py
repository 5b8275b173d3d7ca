"""`TokenManagers`: one manager for each session, remembered while there is room."""

from __future__ import annotations

import inspect
import os
import signal
import threading
from collections.abc import Hashable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from unexpired import ConfigurationError, LoginRequired, Session, TokenManager, TokenManagers
from unexpired.events import LoggedIn, LoggedOut
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.managers import ManagerSettings
from unexpired.stores import FileStore, MemoryStore


def answer(session: Session) -> dict[str, Any]:
    """A grant whose tokens tell whose they are."""
    return {"access_token": f"{session.key}-{session.version + 1}", "refresh_token": "r", "expires_in": 600}


ANSWER = {"access_token": "alice-1", "refresh_token": "r", "expires_in": 600}


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


def test_several_listeners_hear_the_same() -> None:
    """Any number may listen, to all sessions or to one; one that raises, or that has ended, is no matter to others."""
    managers = many()
    heard: list[str] = []

    def broken(_: LoggedIn) -> None:
        raise ValueError("mine")

    managers.on(LoggedIn, broken)
    managers.on(LoggedIn, lambda event: heard.append(f"1 {event.key}"))
    end = managers.on(LoggedIn, lambda event: heard.append(f"2 {event.key}"))
    managers.manager("alice").on(LoggedIn, lambda event: heard.append(f"her {event.key}"))
    managers.manager("alice").login({"refresh_token": "r"})
    end()
    end()
    managers.manager("bob").login({"refresh_token": "r"})
    assert heard == ["1 alice", "2 alice", "her alice", "1 bob"]


def test_closing_ends_the_subscriptions() -> None:
    """After the block nobody is told, and the managers in hand go on; what is used again begins anew."""
    heard: list[str] = []
    with many(limit=1) as managers:
        manager = managers.manager("alice")
        managers.on(LoggedIn, lambda event: heard.append(f"all {event.key}"))
        manager.on(LoggedIn, lambda event: heard.append(f"her {event.key}"))
        managers.manager("bob").on(LoggedIn, lambda event: heard.append(f"his {event.key}"))
    manager.login(ANSWER)
    assert manager.token().access_token == "alice-1"
    assert (heard, len(managers)) == ([], 0)
    managers.manager("bob").login(ANSWER)
    assert (heard, len(managers)) == ([], 1)
    managers.on(LoggedIn, lambda event: heard.append(f"anew {event.key}"))
    managers.manager("bob").login(ANSWER)
    manager.login(ANSWER)
    managers.manager("alice").login(ANSWER)
    assert heard == ["anew bob", "anew alice"]


def test_closing_one_manager_leaves_the_others_listeners() -> None:
    """Who closes the manager of one session ends its own subscriptions, not those to all sessions."""
    managers = many()
    heard: list[str] = []
    managers.on(LoggedIn, lambda event: heard.append(f"all {event.key}"))
    with managers.manager("alice") as manager:
        manager.on(LoggedIn, lambda event: heard.append(f"her {event.key}"))
    managers.manager("alice").login({"refresh_token": "r"})
    assert heard == ["all alice"]


def test_many_threads_get_one_manager() -> None:
    """Threads that ask for a new key at the same time get the same manager."""
    managers = many()
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda number: managers.manager(f"user {number % 10}"), range(400)))
    assert len({id(manager) for manager in found}) == len(managers) == 10


class ElsewhereStore(FileStore):
    """The same files, as another process has them: nothing is shared in memory."""

    @property
    def identity(self) -> Hashable:
        """Another one's."""
        return "elsewhere", super().identity


def test_a_logout_is_seen_by_all(tmp_path: Path) -> None:
    """Scenario 62: who logs a user out by the managers of one process is obeyed by those of another at once."""
    here, there = (TokenManagers(answer, store=store(tmp_path)) for store in (FileStore, ElsewhereStore))
    here.manager("alice").login(ANSWER)
    here.manager("bob").login(ANSWER)
    assert there.manager("alice").token().access_token == "alice-1"
    assert there.manager("alice")._cell is not here.manager("alice")._cell
    heard: list[str] = []
    here.on(LoggedOut, lambda event: heard.append(event.key))
    here.manager("alice").logout()
    with pytest.raises(LoginRequired, match="logged out"):
        there.manager("alice").token()
    assert (there.manager("alice").logged_in, there.manager("bob").logged_in) == (False, True)
    assert heard == ["alice"]


def test_a_grant_for_each_key() -> None:
    """``grant_for`` gives each session the grant of its tenant; it is asked when a manager is made, and not before."""
    asked: list[str] = []

    @cache
    def tenant(name: str) -> FunctionGrant:
        return FunctionGrant(lambda session: {"access_token": f"{name} {session.key}", "refresh_token": "r"})

    def grant_for(key: str) -> FunctionGrant:
        asked.append(key)
        return tenant(key.rpartition("@")[2])

    managers = TokenManagers(grant_for=grant_for, store=MemoryStore())
    assert asked == []
    for key in ("alice@blue", "bob@red", "carol@blue"):
        managers.manager(key).login({"refresh_token": "r"})
        name, _, colour = key.partition("@")
        assert managers.manager(key).token().access_token == f"{colour} {name}@{colour}"
    assert asked == ["alice@blue", "bob@red", "carol@blue"]
    assert managers.manager("alice@blue").grant is managers.manager("carol@blue").grant  # type: ignore[attr-defined]


def test_grant_for_may_use_the_managers() -> None:
    """A grant may be made of another session's token, on any thread: ``grant_for`` runs without any lock held."""
    managers: TokenManagers

    def grant_for(key: str) -> Any:
        if key == "service":
            return answer
        service = pool.submit(managers.manager, "service").result(20)
        return lambda session: {"access_token": f"{session.key} by {service.token().access_token}"}

    managers = TokenManagers(grant_for=grant_for, store=MemoryStore())
    with ThreadPoolExecutor(1) as pool:
        managers.manager("service").login({"refresh_token": "r"})
        made = managers.manager("alice")
    made.login({"refresh_token": "r"})
    assert made.token().access_token == "alice by service-2"


def test_a_mistake_in_grant_for_is_raised() -> None:
    """What ``grant_for`` raises, or returns in place of a grant, reaches who asks for the manager; nothing is kept."""

    def grant_for(key: str) -> Any:
        return {"alice": "no grant"}[key]

    managers = TokenManagers(grant_for=grant_for, store=MemoryStore())
    with pytest.raises(KeyError):
        managers.manager("bob")
    with pytest.raises(ConfigurationError, match="grant"):
        managers.manager("alice")
    assert len(managers) == 0


def test_a_function_becomes_one_grant() -> None:
    """All managers share the grant that is made of a function."""
    managers = many()
    assert managers.manager("alice").grant is managers.manager("bob").grant  # type: ignore[attr-defined]


def test_a_forked_child_goes_on() -> None:
    """A child forked while a thread of the parent makes a manager can use its managers."""
    managers = many()
    managers.manager("alice").login(ANSWER)
    locked, free = threading.Event(), threading.Event()

    def hold() -> None:
        with managers._lock:
            locked.set()
            free.wait(20)

    holder = threading.Thread(target=hold)
    holder.start()
    assert locked.wait(20)
    child = os.fork()
    if child == 0:
        signal.alarm(20)
        os._exit(0 if managers.manager("alice").token().access_token == "alice-1" and len(managers) == 1 else 1)
    free.set()
    holder.join(20)
    assert os.waitpid(child, 0)[1] == 0


def test_a_signal_handler_may_ask() -> None:
    """The lock is reentrant: what interrupts a thread in the middle of `manager` can call it, too."""
    managers = many()
    with ThreadPoolExecutor(1) as pool:

        def interrupted() -> TokenManager:
            with managers._lock:
                return managers.manager("alice")

        assert pool.submit(interrupted).result(20) is managers.manager("alice")


def test_settings_are_those_of_a_manager() -> None:
    """A type checker knows every setting of `TokenManager` here, and no other."""
    parameters = inspect.signature(TokenManager.__init__).parameters
    assert set(ManagerSettings.__annotations__) == set(parameters) - {"self", "grant", "store", "key"}
    made = ManagerSettings.__annotations__
    for name in made:
        assert getattr(made[name], "__forward_arg__", made[name]) == parameters[name].annotation


def test_nothing_secret_is_shown() -> None:
    """P13: its repr tells what it is for, and no secret."""
    grant = RefreshTokenGrant("https://id.example.com/token", client_id="crm", client_secret="crm-secret")
    shown = repr(TokenManagers(grant, store=MemoryStore(), limit=5))
    assert shown.startswith("TokenManagers(RefreshTokenGrant(")
    assert "limit=5" in shown
    assert "crm-secret" not in shown


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"limit": True}, "limit"),
        ({"grant_for": lambda _: answer}, "for all, or grant_for"),
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


def test_a_grant_is_needed() -> None:
    """Neither a grant nor ``grant_for``, and what cannot be called, are refused at once."""
    with pytest.raises(ConfigurationError, match="grant_for"):
        TokenManagers(store=MemoryStore())
    wrong: Any = "no function"
    with pytest.raises(ConfigurationError, match="grant_for must be a function"):
        TokenManagers(grant_for=wrong, store=MemoryStore())
