"""`TokenManagers.keep_alive`: sessions that nobody uses do not lapse."""

from __future__ import annotations

import _thread
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.waiting import until
from unexpired import ConfigurationError, Session, Token, TokenManagers
from unexpired._core.session import Ended, Failure
from unexpired._engine.keeping import due
from unexpired.errors import NotSent, Refused, StoreError
from unexpired.events import RefreshSucceeded
from unexpired.managers import KeptAlive
from unexpired.stores import MemoryStore, Sealed

DAY = 86400.0
HOUR = 3600.0
NOTHING: Mapping[str, Any] = {}


class Server:
    """Answers every refresh, unless *trouble* has an exception for that key."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()
        self.trouble: dict[str, Exception] = {}

    def __call__(self, session: Session) -> dict[str, Any]:
        """Redeem the session's refresh token."""
        self.asked[session.key] += 1
        if session.key in self.trouble:
            raise self.trouble[session.key]
        return {"access_token": f"{session.key} {session.version + 1}", "refresh_token": "r", "expires_in": 3600}


def minted(age: float, extra: Mapping[str, Any] = NOTHING, lifetime: float = HOUR) -> Token:
    """A token that was minted so many seconds ago."""
    moment = time.time() - age + lifetime
    return Token("old", refresh_token="r", lifetime=lifetime, expires_at=moment, extra=extra)


def stored(**tokens: Token | str) -> MemoryStore:
    """A store with a session for each token."""
    store = MemoryStore()
    for key, token in tokens.items():
        assert store.swap(key, None, Session.begin(key, f"login of {key}", token))
    return store


def version(store: MemoryStore, key: str) -> int:
    """Which version of the session is stored."""
    session = store.load(key)
    assert session is not None
    return session.version


def test_idle_sessions_are_refreshed_once() -> None:
    """What is older than asked for gets a newer token, what is younger is left alone, and a second round finds none."""
    server, store = Server(), stored(alice=minted(20 * DAY), bob=minted(10 * DAY), carol=minted(0.0))
    managers = TokenManagers(server, store=store)
    assert managers.keep_alive(14 * DAY) == KeptAlive(("alice",), {}, {}, (), 2)
    assert managers.keep_alive(14 * DAY) == KeptAlive((), {}, {}, (), 3)
    assert server.asked == {"alice": 1}
    assert managers.manager("alice").token().access_token == "alice 2"


def test_a_long_access_token_does_not_stand_for_the_login() -> None:
    """A session whose access token is still good is refreshed all the same: its refresh token would lapse."""
    server, store = Server(), stored(alice=minted(20 * DAY, lifetime=30 * DAY))
    assert TokenManagers(server, store=store).keep_alive(14 * DAY).kept == ("alice",)
    assert (version(store, "alice"), server.asked) == (2, {"alice": 1})


@pytest.mark.parametrize(
    ("extra", "older_than", "age"),
    [
        ({"refresh_token_expires_in": 1800}, None, 900.0),
        ({"refresh_expires_in": "1800"}, None, 900.0),
        ({"x_refresh_token_expires_in": 8726400}, None, 4363200.0),
        ({"refresh_expires_in": 1800}, 600.0, 600.0),
        ({"refresh_expires_in": 1800}, 5000.0, 900.0),
        ({"refresh_expires_in": 0}, 5000.0, 5000.0),
        ({"refresh_expires_in": 0}, None, None),
        ({"refresh_expires_in": "soon"}, None, None),
        ({"refresh_expires_in": -5}, None, None),
        ({"refresh_expires_in": 10**400}, None, None),
        ({"refresh_expires_in": float("nan")}, None, None),
        ({"refresh_expires_in": {}}, None, None),
        ({}, 5000.0, 5000.0),
        ({}, None, None),
    ],
)
def test_when_a_session_is_due(extra: Mapping[str, Any], older_than: float | None, age: float | None) -> None:
    """Due is what is older than asked for, or whose refresh token has lived half of the life that the server told."""
    token = Token("old", refresh_token="r", lifetime=100.0, expires_at=1100.0, extra=extra)
    assert due(token, older_than) == (None if age is None else 1000.0 + age)


def test_the_server_says_how_long() -> None:
    """Without a number of the caller's own, what the server said of its refresh token decides."""
    half, fresh = {"refresh_expires_in": 2 * HOUR}, {"refresh_expires_in": 3 * HOUR}
    server, store = Server(), stored(alice=minted(1.1 * HOUR, half), bob=minted(1.1 * HOUR, fresh))
    assert TokenManagers(server, store=store).keep_alive() == KeptAlive(("alice",), {}, {}, (), 1)


def test_what_nobody_knows_is_told_and_left_alone() -> None:
    """A session of unknown age, or whose server tells no lifetime, is named in the report; nothing is sent for it."""
    server, store = Server(), stored(alice=Token("old", refresh_token="r"), bob="r", carol=minted(20 * DAY))
    managers = TokenManagers(server, store=store, default_lifetime=HOUR)
    report = managers.keep_alive()
    assert (report.kept, sorted(report.unknown)) == ((), ["alice", "bob", "carol"])
    report = managers.keep_alive(DAY)
    assert (report.kept, sorted(report.unknown)) == (("carol",), ["alice", "bob"])
    assert server.asked == {"carol": 1}


def test_the_ended_are_not_woken() -> None:
    """Nothing is sent for a session that was logged out, that has no refresh token, or that never was."""
    server = Server()
    access_only = Token("old", lifetime=HOUR, expires_at=time.time() - 20 * DAY)
    store = stored(alice=minted(20 * DAY), bob=access_only, carol=minted(20 * DAY))
    managers = TokenManagers(server, store=store)
    managers.manager("alice").logout()
    over = replace(Session.begin("dora", "login of dora", minted(20 * DAY)), ended=Ended("refused", 0.0))
    assert store.swap("dora", None, over)
    report = managers.keep_alive(DAY, keys=["alice", "bob", "carol", "dora", "nobody"])
    assert report == KeptAlive(("carol",), {}, {}, (), 4)
    assert server.asked == {"carol": 1}
    assert not managers.manager("alice").logged_in


def test_one_that_ends_meanwhile_is_not_woken() -> None:
    """A session that is logged out between the look at it and its refresh stays so, and is told as ended."""
    server, store = Server(), LoggingOut()
    store.swap("alice", None, Session.begin("alice", "login", minted(20 * DAY)))
    assert TokenManagers(server, store=store).keep_alive(DAY).ended == {"alice": "logout"}
    assert not server.asked


class LoggingOut(MemoryStore):
    """A memory whose session ends just after the first look at it."""

    def load(self, key: str) -> Session | None:
        """Give it as it was."""
        session = super().load(key)
        if session is not None and session.ended is None:
            assert self.swap(key, session, session.over("logout", 0.0))
        return session


def test_the_trouble_of_one_stops_no_other() -> None:
    """Refused, unreachable, unreadable, broken: each is told by its key, without a secret, and the rest is kept."""
    server = Server()
    keys = ["alice", "bob", "carol", "dave", "erin", "frank"]
    store = Unreadable()
    for key in keys:
        store.swap(key, None, Session.begin(key, "login", minted(20 * DAY)))
    server.trouble = {"bob": Refused("over", error="invalid_grant"), "carol": NotSent("busy", retry_after=5.0)}

    def grant_for(key: str) -> Any:
        if key == "dave":
            raise ValueError("secret of dave")
        return server

    report = TokenManagers(grant_for=grant_for, store=store).keep_alive(DAY, at_once=2)
    assert set(report.kept) == {"alice", "frank"}
    assert report.ended == {"bob": "refused"}
    assert set(report.failed) == {"carol", "dave", "erin"}
    assert "busy" in report.failed["carol"]
    assert "ValueError" in report.failed["dave"]
    assert "secret" not in repr(report)
    assert report.failed["erin"] == "cannot read it"
    assert server.asked["carol"] == 1


class Unreadable(MemoryStore):
    """A memory in which one session cannot be read."""

    def load(self, key: str) -> Session | None:
        """Give it, unless it is Erin's."""
        if key == "erin":
            raise StoreError("cannot read it", key=key)
        return super().load(key)


def test_a_token_that_is_still_good_is_no_success() -> None:
    """When the server is out of reach, a session whose access token lives on is told as failed, with the cause."""
    server, store = Server(), stored(alice=minted(20 * DAY, lifetime=30 * DAY))
    server.trouble["alice"] = NotSent("busy", retry_after=5.0)
    managers = TokenManagers(server, store=store)
    for _ in range(2):
        report = managers.keep_alive(14 * DAY)
        assert set(report.failed) == {"alice"}
        assert "(busy" in report.failed["alice"]
    assert managers.manager("alice").token().access_token == "old"
    assert version(store, "alice") == 1


def test_what_is_set_up_wrongly_is_told() -> None:
    """A round on a store that was given without its seal fails for each session, says why, and sends nothing."""
    server, store = Server(), MemoryStore()
    assert Sealed(store, bytes(32)).swap("alice", None, Session.begin("alice", "login", minted(20 * DAY)))
    for older_than in (None, DAY):
        report = TokenManagers(server, store=store).keep_alive(older_than)
        assert (report.kept, report.unknown, report.untouched, len(server.asked)) == ((), (), 0, 0)
        assert "give this program Sealed(store, key)" in report.failed["alice"]
    assert TokenManagers(server, store=Sealed(store, bytes(32))).keep_alive(DAY).kept == ("alice",)


@pytest.mark.parametrize(("resources", "until_when", "kept"), [((), HOUR, 0), ((), -1.0, 1), (("api",), HOUR, 1)])
def test_a_mistake_that_was_mended_is_forgotten(resources: tuple[str, ...], until_when: float, kept: int) -> None:
    """What was refused for a mistake counts for as long as nothing is sent, and not when it was about another API."""
    server, store, now = Server(), stored(alice=minted(20 * DAY)), time.time()
    before = store.load("alice")
    assert before is not None
    failure = Failure("configuration", "no such client", now - 60.0, now + until_when, resources=resources)
    assert store.swap("alice", before, before.noted(intent=None, failure=failure))
    report = TokenManagers(server, store=store).keep_alive(DAY)
    assert (len(report.kept), report.failed) == (kept, {} if kept else {"alice": "no such client"})


def test_nobody_is_on_a_login_page_for_good() -> None:
    """While the program is on its login page nothing is sent, and no session counts as ended for that."""
    server, store = Server(), stored(alice=minted(20 * DAY))
    report = TokenManagers(server, store=store, on_login_page=lambda: True).keep_alive(DAY)
    assert (set(report.failed), report.ended, len(server.asked)) == ({"alice"}, {}, 0)


@pytest.mark.parametrize("at_once", [1, 3])
def test_no_more_than_so_many_at_once(at_once: int) -> None:
    """*at_once* sessions are refreshed at a time: that many, and never more."""
    together = threading.Barrier(at_once, timeout=20)
    inside: list[str] = []
    most: list[int] = []

    def grant(session: Session) -> dict[str, Any]:
        inside.append(session.key)
        most.append(len(inside))
        together.wait()
        inside.remove(session.key)
        together.wait()
        return {"access_token": "new", "expires_in": 3600}

    keys = [f"user {number}" for number in range(9)]
    store = stored(**{key: minted(20 * DAY) for key in keys})
    report = TokenManagers(grant, store=store).keep_alive(DAY, at_once=at_once)
    assert set(report.kept) == set(keys)
    assert max(most) == at_once


def test_rounds_go_their_own_ways() -> None:
    """Each round has an order of its own: those of several processes do not wait for each other at every session."""
    store = Noting()
    keys = [f"user {number}" for number in range(50)]
    managers = TokenManagers(Server(), store=store)
    for _ in range(2):
        managers.keep_alive(DAY, keys=keys, at_once=1)
    first, second = store.looked_at[:50], store.looked_at[50:]
    assert sorted(first) == sorted(second) == sorted(keys)
    assert first != second


class Noting(MemoryStore):
    """A memory that notes what was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_at: list[str] = []

    def load(self, key: str) -> Session | None:
        """Give it."""
        self.looked_at.append(key)
        return super().load(key)


def test_the_remembered_are_not_pushed_out() -> None:
    """A round over many idle sessions forgets no manager that is in use; listeners hear of every refresh."""
    keys = [f"user {number}" for number in range(20)]
    store = stored(**{key: minted(20 * DAY) for key in keys})
    managers = TokenManagers(Server(), store=store, limit=2)
    in_use = [managers.manager(key) for key in ("alice", "bob")]
    heard: list[str] = []
    managers.on(RefreshSucceeded, lambda event: heard.append(event.key))
    assert set(managers.keep_alive(DAY).kept) == set(keys)
    assert [managers.manager(key) for key in ("alice", "bob")] == in_use
    until(lambda: sorted(heard) == sorted(keys))


def test_a_session_in_use_is_served_meanwhile() -> None:
    """Callers of an idle session join the flight of a round, and are served by its one request."""
    server, store = Server(), stored(alice=minted(20 * DAY))
    managers = TokenManagers(server, store=store)
    callers = [threading.Thread(target=managers.manager("alice").token) for _ in range(8)]
    for caller in callers:
        caller.start()
    report = managers.keep_alive(14 * DAY)
    for caller in callers:
        caller.join(20)
    assert report.kept in {("alice",), ()}
    assert server.asked == {"alice": 1}


@pytest.fixture
def _ctrl_c() -> Iterator[None]:
    """Ctrl-C does what it does in a terminal, also where the tests run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c")
def test_ctrl_c_ends_the_round() -> None:
    """Ctrl-C is not held up by the sessions that are left: what is under way ends, and nothing else begins."""
    server, interrupted, first = Server(), threading.Event(), threading.Lock()

    def grant(session: Session) -> dict[str, Any]:
        if first.acquire(blocking=False):
            _thread.interrupt_main()
        assert interrupted.wait(20)
        return server(session)

    store = stored(**{f"user {number}": minted(20 * DAY) for number in range(50)})
    managers, others = TokenManagers(grant, store=store), set(threading.enumerate())
    with pytest.raises(KeyboardInterrupt):
        managers.keep_alive(DAY, at_once=2)
    interrupted.set()
    until(lambda: not [one for one in threading.enumerate() if one.name.startswith("unexpired") and one not in others])
    assert 1 <= server.asked.total() <= 2


PROGRAM = """
import os, threading, time
from tests.manager.test_managers_keeping import DAY, minted, stored
from unexpired import TokenManagers

def grant(session):
    os.write(1, b".")
    begun.set()
    time.sleep(0.01)
    return {"access_token": "new", "expires_in": 3600}

begun = threading.Event()
managers = TokenManagers(grant, store=stored(**{f"user {number}": minted(20 * DAY) for number in range(2000)}))
threading.Thread(target=managers.keep_alive, args=(DAY,), daemon=True).start()
assert begun.wait(20)
"""


def test_a_program_can_end_in_a_round() -> None:
    """A round on a daemon thread, a scheduler's for example, does not keep the program from ending.

    At the end it does not try all the sessions that are left, either.
    """
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, timeout=60, check=True)
    assert 1 <= done.stdout.count(b".") < 2000
    assert done.stderr.count(b"RefreshFailed") <= 4
    assert b"Traceback" not in done.stderr


class Without(MemoryStore):
    """A store that cannot list its sessions."""

    keys: Any = None


class Broken(MemoryStore):
    """A store whose list of sessions cannot be read to its end."""

    def keys(self) -> Iterator[str]:
        """One, and no more."""
        yield "alice"
        raise StoreError("gone")


def test_stores_that_cannot_list() -> None:
    """A store without ``keys()`` needs the keys to be named; a list that breaks off is the caller's to know."""
    managers = TokenManagers(Server(), store=Without())
    with pytest.raises(ConfigurationError, match="keys="):
        managers.keep_alive(DAY)
    assert managers.keep_alive(DAY, keys=iter(["alice"])).untouched == 1
    with pytest.raises(StoreError, match="gone"):
        TokenManagers(Server(), store=Broken()).keep_alive(DAY)


@pytest.mark.parametrize("settings", [{"older_than": -1.0}, {"older_than": "a day"}, {"at_once": 0}, {"at_once": 1.5}])
def test_bad_arguments_of_a_round(settings: dict[str, Any]) -> None:
    """Numbers that cannot work are refused before anything is looked at."""
    with pytest.raises(ConfigurationError, match=next(iter(settings))):
        TokenManagers(Server(), store=Broken()).keep_alive(**settings)
