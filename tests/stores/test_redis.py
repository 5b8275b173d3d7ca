from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
import redis.asyncio

from tests.stores.redis_server import BOUND, KEY, RedisServer, Stores
from tests.waiting import until
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, StoreError
from unexpired.grants import FunctionGrant
from unexpired.stores import open_store
from unexpired.stores._redis_lease import RedisLease
from unexpired.stores.redis import RedisStore

SENTINEL: Any = redis.Sentinel  # has no types


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture
def raw(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """The bare client."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def stores(redis_server: RedisServer) -> Iterator[Stores]:
    """The stores of one test."""
    with ExitStack() as stack:
        yield Stores(redis_server, stack)


def begun() -> Session:
    """A login."""
    return Session.begin(KEY, "login", Token("access 1", expires_at=2e9, refresh_token="refresh 1"))


def take(
    store: RedisStore, *, seconds: float = 60.0, wait: float = 0.0, stop: Any = lambda: False
) -> RedisLease | None:
    """The lease, if it is free within *wait* seconds."""
    return store.lease(KEY, owner="owner", seconds=seconds, wait=wait, stop=stop)


def test_a_url_opens_a_store_and_shows_no_password(redis_server: RedisServer) -> None:
    """`open_store` takes redis: and rediss: URLs, and what is shown of one holds no password."""
    with open_store(redis_server.url) as store:  # type: ignore[attr-defined]
        assert isinstance(store, RedisStore)
        assert store.load("nobody") is None
    for scheme in ("redis", "rediss"):
        other = open_store(f"{scheme}://crm:hunter2@cache.example:7000/3")
        assert repr(other) == "RedisStore('cache.example:7000/3', prefix='unexpired')"
        assert "hunter2" not in str(other.identity)


@pytest.mark.parametrize(
    ("client", "settings", "says"),
    [
        ("redis://:hunter2@host:port/0", {}, "no URL"),
        ("http://:hunter2@host/0", {}, "no URL"),
        ("redis://:hunter2@host/0?foo=1", {}, "redis-py knows no setting 'foo'"),
        (redis.asyncio.Redis(), {}, "not <class"),
        (7, {}, "not <class 'int'>"),
        ("redis://localhost", {"prefix": "a{b}"}, "no prefix"),
        ("redis://localhost", {"prefix": ""}, "no prefix"),
        ("redis://localhost", {"ended_ttl": 0}, "ended_ttl"),
        ("redis://localhost", {"wait_replicas": -1}, "wait_replicas"),
        (SENTINEL([("localhost", 1)]).slave_for("crm"), {}, "primaries"),
    ],
)
def test_what_cannot_work_is_refused(client: Any, settings: dict[str, Any], says: str) -> None:
    """Settings that cannot work raise ConfigurationError at once, without a word of the URL."""
    with pytest.raises(ConfigurationError, match=says):
        RedisStore(client, **settings)


def test_a_change_anywhere_is_heard(stores: Stores) -> None:
    """A change by another process makes a copy stale, without a request; what does not change stays."""
    here, far, session = stores.here(), stores.far(), begun()
    stamp, other = here.stamp(KEY), here.stamp("bob")
    before, bobs = stamp(), other()
    assert stamp() == before
    assert far.swap(KEY, None, session)
    until(lambda: stamp() != before, "the change is heard")
    before = stamp()
    assert far.swap(KEY, session, session.over("logout", 1.0))
    until(lambda: stamp() != before, "the logout is heard")
    assert other() == bobs


def test_logout_is_seen_by_others_within_moments(stores: Stores) -> None:
    """After a logout elsewhere the very next calls here raise LoginRequired, and cost no request until then."""
    here, far = stores.here(), stores.far()
    managers = [TokenManager(FunctionGrant(lambda _: Token("never")), store=one, key=KEY) for one in (here, far)]
    managers[0].login({"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 3600})
    assert managers[1].logged_in
    for _ in range(3):
        assert managers[0].logged_in
    managers[1].logout()
    until(lambda: not managers[0].logged_in, "the logout is seen")


def test_a_lease_ends_by_itself(stores: Stores) -> None:
    """After its seconds a lease is free, its late holder's release does nothing, and it cannot be renewed."""
    here, far = stores.here(), stores.far()
    mine = take(here, seconds=0.2)
    assert mine is not None
    assert mine.timed
    theirs = take(far, wait=BOUND)
    assert theirs is not None
    assert mine.age() >= 0.2
    with pytest.raises(StoreError, match="not held"):
        mine.renew()
    mine.release()
    assert take(here) is None
    theirs.release()


def test_each_grant_is_a_lease_of_its_own(stores: Stores) -> None:
    """The same owner does not share its lease with itself, and releasing the first does not release the second."""
    store = stores.here()
    first = take(store)
    assert first is not None
    assert take(store) is None
    first.release()
    second = take(store)
    first.release()
    assert second is not None
    assert take(store) is None
    second.release()


def test_renewing_starts_the_seconds_anew(stores: Stores, raw: redis.Redis) -> None:
    """A renewed lease lasts as long as a new one, and no longer."""
    mine = take(stores.here(), seconds=50.0)
    assert mine is not None
    name = f"{stores.prefix}:lease:{{{KEY}}}"
    raw.pexpire(name, 30_000)
    mine.renew()
    assert 40_000 < int(raw.pttl(name)) <= 50_000


def test_a_lease_is_dated_by_the_clock_of_redis(
    stores: Stores, raw: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`granted_at` is the server's time, whatever the time is here; `age` counts from before the question was asked."""
    store = stores.here()
    earlier, began = raw.time(), time.monotonic()
    monkeypatch.setattr(time, "time", lambda: 1e9)
    mine = take(store)
    later = raw.time()
    assert mine is not None
    assert earlier[0] + earlier[1] / 1e6 <= mine.granted_at <= later[0] + later[1] / 1e6
    assert 0.0 <= mine.age() <= time.monotonic() - began + 0.01


def test_a_release_that_nobody_heard_of_is_found(stores: Stores, raw: redis.Redis) -> None:
    """A lease that vanished without a word is asked for again after a quarter of a second."""
    here, waiting = stores.here(), threading.Event()
    assert take(here) is not None

    def stop() -> bool:
        waiting.set()
        return False

    taken: list[RedisLease | None] = []
    waiter = threading.Thread(target=lambda: taken.append(take(here, wait=BOUND, stop=stop)))
    waiter.start()
    assert waiting.wait(BOUND)
    raw.delete(f"{stores.prefix}:lease:{{{KEY}}}")
    waiter.join(15.0)
    assert taken
    assert taken[0] is not None


def test_a_waiter_is_woken_by_the_release(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits gets the lease when it is released elsewhere, without asking again until then."""
    monkeypatch.setattr("unexpired.stores._redis_lease._LOOK", 20.0)
    here, far = stores.here(), stores.far()
    here.stamp(KEY)()
    theirs = take(far)
    assert theirs is not None
    asked, waiting = counting(here), threading.Event()
    taken: list[RedisLease | None] = []

    def stop() -> bool:
        waiting.set()
        return False

    waiter = threading.Thread(target=lambda: taken.append(take(here, wait=BOUND, stop=stop)))
    waiter.start()
    assert waiting.wait(BOUND)
    theirs.release()
    waiter.join(15.0)
    assert taken
    assert taken[0] is not None
    assert len(asked) == 2


def test_a_waiter_needs_two_commands(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for another process asks for the lease once and reads the result, while the lease is still held."""
    monkeypatch.setattr("unexpired.stores._redis_lease._LOOK", 20.0)
    here, far, session = stores.here(), stores.far(), begun()
    far.swap(KEY, None, session)
    manager = TokenManager(FunctionGrant(lambda _: Token("never")), store=here, key=KEY)
    asked: list[str] = []
    for number in (2, 3):
        manager.token()
        lease = take(far, wait=BOUND)
        assert lease is not None
        asked = counting(here)
        waiter = threading.Thread(target=manager.refresh)
        waiter.start()
        until(lambda asked=asked: "EVALSHA" in asked, "the lease was asked for")  # type: ignore[misc]
        new = session.minted(Token(f"access {number}", expires_at=2e9))
        assert far.swap(KEY, session, new)
        session = new
        if number == 2:
            lease.release()  # a process that never waited before does so for the lease
        waiter.join(15.0)
        assert not waiter.is_alive()
        lease.release()
        assert manager.token().access_token == f"access {number}"
    assert asked == ["EVALSHA", "HMGET"]


def counting(store: RedisStore) -> list[str]:
    """The commands that *store* sends from now on, its look at the server's settings not among them."""
    store.stamp("probe")()
    hearing: Any = store._board.how
    until(lambda: hearing.checked, "the look is over")
    client, sent = store._link.client, []
    ask = getattr(client, "plain", client.execute_command)
    client.plain = ask

    def counted(*command: Any, **options: Any) -> Any:
        sent.append(str(command[0]))
        return ask(*command, **options)

    client.execute_command = counted
    return sent


def test_the_end_of_a_wait_needs_no_answer(stores: Stores) -> None:
    """*stop* is asked every few milliseconds while a lease is waited for."""
    here, far = stores.here(), stores.far()
    assert take(far) is not None
    asked: list[float] = []

    def stop() -> bool:
        asked.append(time.monotonic())
        return len(asked) > 50

    assert take(here, wait=BOUND, stop=stop) is None
    assert asked[-1] - asked[0] < 5.0


def test_a_swap_whose_answer_was_lost_counts_once(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """A swap that was carried out, but whose connection broke, is told as stored, and stored once."""
    store, session = stores.here(), begun()
    client = store._link.client
    ask, left = client.evalsha, [1]

    def broken(*command: Any) -> Any:
        answer = ask(*command)
        if left and left.pop():
            raise redis.ConnectionError("gone")
        return answer

    store.swap("bob", None, Session("bob", "login", 1))
    monkeypatch.setattr(client, "evalsha", broken)
    assert store.swap(KEY, None, session)
    assert store.swap(KEY, session, session.minted(Token("access 2")))
    found = store.load(KEY)
    assert found is not None
    assert found.version == 2


def test_a_change_that_may_have_been_made_is_looked_at(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a swap of unknown outcome the copy is stale: what was stored after all is seen."""
    store, session = stores.here(), begun()
    store.swap(KEY, None, session)
    stamp = store.stamp(KEY)
    before, client = stamp(), store._link.client
    ask = client.evalsha

    def slow(*command: Any) -> Any:
        ask(*command)
        raise redis.TimeoutError("late")

    monkeypatch.setattr(client, "evalsha", slow)
    with pytest.raises(StoreError, match="in time"):
        store.swap(KEY, session, session.over("logout", 1.0))
    assert stamp() != before


def test_scripts_are_sent_again_when_the_server_forgot_them(stores: Stores, raw: redis.Redis) -> None:
    """SCRIPT FLUSH, a restart or a failover changes nothing for a store."""
    store, session = stores.here(), begun()
    assert store.swap(KEY, None, session)
    raw.script_flush()
    assert store.swap(KEY, session, session.minted(Token("access 2")))


def test_an_ended_session_is_forgotten_in_time(stores: Stores, raw: redis.Redis) -> None:
    """An ended session has a time to live, a living or moved one has none, and a new login takes it away again."""
    store, session = stores.here(ended_ttl=100.0), begun()
    store.swap(KEY, None, session)
    assert raw.ttl(stores.session) == -1
    over = session.over("logout", 1.0)
    store.swap(KEY, session, over)
    assert 0 < int(raw.ttl(stores.session)) <= 100
    store.swap(KEY, over, begun())
    assert raw.ttl(stores.session) == -1
    lasting = stores.here(ended_ttl=None)
    lasting.swap(KEY, begun(), begun().over("logout", 1.0))
    assert raw.ttl(stores.session) == -1
    store.swap(KEY, begun().over("logout", 1.0), begun())
    store.swap(KEY, begun(), begun().over("moved", 1.0))
    assert raw.ttl(stores.session) == -1


@pytest.mark.parametrize("damage", ["record", "fields", "kind"])
def test_a_damaged_record_is_set_aside(stores: Stores, raw: redis.Redis, damage: str) -> None:
    """A record that cannot be read is refused, kept under another name at the next login, and destroyed by nobody."""
    store = stores.here()
    manager = TokenManager(FunctionGrant(lambda _: Token("never")), store=store, key=KEY)
    for number in (1, 2):
        manager.login({"access_token": f"access {number}", "refresh_token": "refresh 1"})
        if damage == "record":
            raw.hset(stores.session, "record", "no JSON")
        elif damage == "fields":
            raw.hset(stores.session, "version", "77")
        else:
            raw.delete(stores.session)
            raw.set(stores.session, "somebody else's")
        with pytest.raises(StoreError, match="cannot read"):
            store.load(KEY)
        manager.login({"access_token": "access 9", "refresh_token": "refresh 1"})
        assert store.load(KEY) is not None
        assert len(raw.keys(f"{stores.prefix}:session:*set-aside-*")) == number


def test_keys_are_listed(stores: Stores) -> None:
    """`keys` names every session under the prefix: any string, ended or not, nothing set aside, nobody else's."""
    store = stores.here()
    keys = {"alice", "", "%", "a{b}", "ä😀\n", "*", "\ud800"}
    for key in keys:
        store.swap(key, None, Session(key, "login", 1))
    assert set(store.keys()) == keys


def test_closing_a_store_leaves_the_others_alone(stores: Stores, caplog: pytest.LogCaptureFixture) -> None:
    """When the store is closed that began to listen, the others of the process hear on, without a break."""
    first, second, far = stores.here(), stores.here(), stores.far()
    first.stamp(KEY)()
    stamp = second.stamp(KEY)
    before = stamp()
    first.close()
    assert second.load(KEY) is None
    assert stamp() == before
    assert far.swap(KEY, None, begun())
    until(lambda: stamp() != before, "the change is heard")
    assert caplog.records == []


def test_listening_ends_with_the_last_store(stores: Stores) -> None:
    """One thread listens for all stores of a process in one place; it ends when the last one is closed, or gone."""
    first, second = stores.here(), stores.here()
    first.stamp(KEY)()
    second.stamp(KEY)()
    run = first._board._run
    assert run is not None
    assert second._board._run is run
    first.close()
    assert run.thread.is_alive()
    second.close()
    until(lambda: not run.thread.is_alive(), "the thread ends")
    third = RedisStore(stores.here()._link.client, prefix="gone")
    third.stamp(KEY)()
    other = third._board._run
    assert other is not None
    thread = other.thread
    del third, other
    until(lambda: not thread.is_alive(), "the thread ends with its store")
