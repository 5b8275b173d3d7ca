from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.stores.proxy import Proxy
from tests.stores.redis_server import BOUND, RedisServer
from tests.waiting import until
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import NotSent, StoreError, UnexpiredError
from unexpired.events import Unsaved
from unexpired.grants import FunctionGrant
from unexpired.stores.redis import RedisStore

KEY = "alice@crm"
ANSWER = {"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 3600}


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own, with an append-only file."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture
def proxy(server: RedisServer) -> Iterator[Proxy]:
    """A way to it that can be cut."""
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


@pytest.fixture
def store(proxy: Proxy, monkeypatch: pytest.MonkeyPatch) -> Iterator[RedisStore]:
    """A store behind the proxy, which notices a silent server after a second and a half."""
    monkeypatch.setattr("unexpired.stores._listening._SILENCE", 0.1)
    monkeypatch.setattr("unexpired.stores._listening.PATIENCE", 1.5)
    monkeypatch.setattr("unexpired.stores._listening._BEAT", 0.05)
    with RedisStore(f"redis://127.0.0.1:{proxy.port}/0?socket_timeout=1.5") as store:
        yield store


def never(_: Session) -> Token:
    """A grant that is not to be asked."""
    raise NotSent("nobody asked for a refresh")


def there(store: RedisStore) -> bool:
    """Whether the news are heard."""
    return store._board.live


def logged_out(manager: TokenManager) -> bool:
    """Whether that is known by now; for a second after an outage nobody asks."""
    try:
        return not manager.logged_in
    except StoreError:
        return False


def test_what_was_stored_survives_kill_9(server: RedisServer, store: RedisStore) -> None:
    """P5: what a swap reported as stored is there when the server is killed and started again; the store goes on."""
    session = None
    for number in range(20):
        new = Session(KEY, "login", number, f"refresh {number}")
        assert store.swap(KEY, session, new)
        session = new
    assert session is not None
    stamp = store.stamp(KEY)
    before = stamp()
    server.kill()
    with pytest.raises(StoreError, match="not to be reached"):
        store.load(KEY)
    assert stamp() == before
    server.start()
    until(lambda: stamp() != before, "the server is heard again, and everything is looked at")
    found = store.load(KEY)
    assert found is not None
    assert (found.version, found.refresh_token) == (19, "refresh 19")
    assert store.swap(KEY, found, found.over("logout", 1.0))


@pytest.mark.parametrize("outage", ["cut", "freeze", "kill"])
def test_calls_with_a_good_token_go_on(server: RedisServer, proxy: Proxy, store: RedisStore, outage: str) -> None:
    """While Redis is away, calls with a valid token neither fail nor wait; a logout made meanwhile is seen after it."""
    manager = TokenManager(FunctionGrant(never), store=store, key=KEY, refresh_ahead=0)
    manager.login(ANSWER)
    assert manager.token().access_token == "access 1"
    {"cut": proxy.cut, "freeze": proxy.freeze, "kill": server.kill}[outage]()
    began = time.monotonic()
    for _ in range(200):
        assert manager.token().access_token == "access 1"
        time.sleep(0.005)
    assert time.monotonic() - began < 10.0
    until(lambda: not there(store), "the outage is noticed")
    assert manager.token().access_token == "access 1"
    if outage == "kill":
        server.start()
    with RedisStore(server.url) as elsewhere:
        TokenManager(FunctionGrant(never), store=elsewhere, key=KEY).logout()
    proxy.heal()
    until(lambda: logged_out(manager), "the logout is seen")


def test_a_flight_without_redis_ends_in_time(proxy: Proxy, store: RedisStore) -> None:
    """Without Redis and a valid token nothing is sent: a typed error within the bound, and a token when it is back."""
    asked: list[int] = []

    def refresh(session: Session) -> dict[str, Any]:
        asked.append(session.version)
        return {**ANSWER, "access_token": f"access {session.version + 1}"}

    manager = TokenManager(FunctionGrant(refresh), store=store, key=KEY, wait=3.0)
    manager.login({**ANSWER, "expires_in": -1})
    proxy.freeze()
    began = time.monotonic()
    with pytest.raises(UnexpiredError):
        manager.token()
    assert time.monotonic() - began < 15.0
    assert asked == []
    proxy.heal()
    until(lambda: bring(manager) == "access 2", "the store is back")
    assert asked == [1]


def bring(manager: TokenManager) -> str:
    """The token, or what is wrong."""
    try:
        return manager.token().access_token
    except UnexpiredError as error:
        return type(error).__name__


@pytest.mark.parametrize("outage", ["cut", "freeze"])
def test_an_answer_that_cannot_be_stored_is_not_asked_for_again(
    proxy: Proxy, store: RedisStore, server: RedisServer, outage: str
) -> None:
    """Redis goes away while the token request is under way: it is stored when it is back, and redeemed once."""
    asked: list[int] = []

    def refresh(session: Session) -> dict[str, Any]:
        asked.append(session.version)
        {"cut": proxy.cut, "freeze": proxy.freeze}[outage]()
        return {**ANSWER, "access_token": "access 2", "refresh_token": "refresh 2"}

    manager = TokenManager(FunctionGrant(refresh), store=store, key=KEY)
    unsaved = threading.Event()
    manager.on(Unsaved, lambda _: unsaved.set())
    manager.login({**ANSWER, "expires_in": -1})
    callers = [threading.Thread(target=bring, args=(manager,)) for _ in range(5)]
    for caller in callers:
        caller.start()
    assert unsaved.wait(BOUND)
    proxy.heal()
    for caller in callers:
        caller.join(BOUND)
    with RedisStore(server.url) as elsewhere:
        until(lambda: (elsewhere.load(KEY) or Session(KEY, "", 0)).refresh_token == "refresh 2", "it is stored")
    until(lambda: bring(manager) == "access 2", "it is served")
    assert asked == [1]


def test_a_forked_child_has_connections_of_its_own(server: RedisServer) -> None:
    """A child sees changes and makes them, does not hold its parent's lease, and disturbs none of its connections."""
    with RedisStore(server.url) as store:
        first = Session(KEY, "login", 1)
        store.swap(KEY, None, first)
        stamp = store.stamp(KEY)
        before = stamp()
        mine = store.lease(KEY, owner="parent", seconds=60.0, wait=0.0, stop=lambda: False)
        assert mine is not None
        child = os.fork()
        if child == 0:
            code = 1
            try:
                mine.release()
                assert store.lease(KEY, owner="child", seconds=60.0, wait=0.0, stop=lambda: False) is None
                with pytest.raises(StoreError):
                    mine.renew()
                here = store.stamp(KEY)
                known = here()
                assert here() == known
                with RedisStore(server.url.replace("127.0.0.1", "localhost")) as far:
                    assert far.swap(KEY, first, first.over("logout", 1.0))
                    until(lambda: here() != known, "the change is heard in the child")
                code = 0
            finally:
                os._exit(code)
        assert os.waitpid(child, 0)[1] == 0
        until(lambda: stamp() != before, "the child's change is heard")
        found = store.load(KEY)
        assert found is not None
        assert found.version == 2
        mine.renew()
        mine.release()
