from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis import exceptions as wrong

from tests.stores.ports import free_port
from tests.stores.redis_server import BOUND, RedisServer
from tests.waiting import until
from unexpired._core.session import Failure, Intent, Session
from unexpired.errors import StoreError
from unexpired.stores import open_store
from unexpired.stores._redis_listening import Hearing
from unexpired.stores.redis import RedisStore

KEY = "alice@crm"
SESSION = Session(KEY, "login", 1, "refresh 1")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of its own, which a test may spoil."""
    server = RedisServer(tmp_path / "redis", "--appendonly", "yes").start()
    yield server
    server.kill()


def operations(store: RedisStore) -> dict[str, Any]:
    """Everything that a store can be asked for."""
    return {
        "load": lambda: store.load(KEY),
        "swap": lambda: store.swap(KEY, None, SESSION),
        "lease": lambda: store.lease(KEY, owner="o", seconds=1.0, wait=0.0, stop=lambda: False),
        "set_aside": lambda: store.set_aside(KEY),
        "keys": lambda: list(store.keys()),
    }


def checked(store: RedisStore) -> bool:
    """Whether the server's settings were looked at."""
    hearing = store._board.how
    return isinstance(hearing, Hearing) and hearing.checked


def complaint(store: RedisStore, operation: str) -> str:
    """What the StoreError says."""
    with pytest.raises(StoreError) as refused:
        operations(store)[operation]()
    assert refused.value.__cause__ is None
    return str(refused.value)


@pytest.mark.parametrize("operation", ["load", "swap", "lease", "set_aside", "keys"])
def test_a_server_that_is_away_is_named(operation: str) -> None:
    """Whatever is asked of a Redis that is not there raises StoreError, which says where it should be."""
    with RedisStore("redis://crm:hunter2@127.0.0.1:1/0") as store:
        assert "127.0.0.1:1/0: it is not to be reached" in complaint(store, operation)
        stamp = store.stamp(KEY)
        assert stamp() != stamp()


def test_what_keeps_a_server_away_is_said_every_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is refused without being kept waiting is told what was found a moment ago, and what to do about it."""
    monkeypatch.setattr("unexpired.stores._redis_link._LET_IT_BE", 30.0)
    with RedisStore("redis://127.0.0.1:1/0") as store:
        first, second = complaint(store, "load"), complaint(store, "load")
    assert second == f"{first}, a moment ago"


def test_a_database_that_is_not_there_is_named(server: RedisServer) -> None:
    """A number beyond the databases of the server is the trouble that is told, in every operation."""
    with RedisStore(server.url.replace("/0", "/99")) as store:
        for operation in operations(store):
            assert "no database of that number" in complaint(store, operation)


def test_a_server_without_tls_is_named(server: RedisServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `rediss:` URL for a server that does not speak TLS says so; without TLS nobody speaks of it."""
    monkeypatch.setattr("unexpired.stores._redis_link._CONNECT_TIMEOUT", 0.1)
    with RedisStore(server.url.replace("redis:", "rediss:")) as store:
        assert "or does not speak TLS" in complaint(store, "load")
    with RedisStore(f"redis://127.0.0.1:{free_port()}/0") as store:
        assert "TLS" not in complaint(store, "load")


def test_a_full_memory_is_named(server: RedisServer) -> None:
    """A Redis without memory refuses what is new, and says so; what is stored can still be read, a lease given back."""
    with server.client() as raw, RedisStore(server.url) as store:
        assert store.swap(KEY, None, SESSION)
        held = store.lease("bob", owner="o", seconds=9.0, wait=0.0, stop=lambda: False)
        assert held is not None
        raw.config_set("maxmemory", "1")
        assert "no memory left" in complaint(store, "lease")
        with pytest.raises(StoreError, match="no memory left"):
            store.swap(KEY, SESSION, SESSION.over("logout", 1.0))
        held.release()
        found = store.load(KEY)
        assert found is not None
        assert found.version == 1
        raw.config_set("maxmemory", "0")
        assert store.swap(KEY, found, SESSION.over("logout", 1.0))


def test_a_replica_is_named(server: RedisServer) -> None:
    """A read-only replica refuses to store and to lease, and says what to do."""
    with server.client() as raw, RedisStore(server.url) as store:
        raw.replicaof("127.0.0.1", 1)
        raw.config_set("replica-serve-stale-data", "yes")
        for operation in ("swap", "lease"):
            assert "read-only replica" in complaint(store, operation)


def test_a_wrong_password_is_named_and_not_shown(server: RedisServer) -> None:
    """A password that is missing or wrong is asked for, in words that do not repeat it."""
    with server.client() as raw:
        raw.config_set("requirepass", "wonderland")
    with RedisStore(server.url) as store:
        assert "password" in complaint(store, "load")
    with RedisStore(server.url.replace("//", "//:hunter2@")) as store:
        assert "password" in complaint(store, "swap")
        assert "hunter2" not in repr(store)
        stamp = store.stamp(KEY)
        assert stamp() != stamp()
        with RedisStore(server.url.replace("//", "//:wonderland@")) as right:
            assert right.swap(KEY, None, SESSION)
            until(lambda: right._board.live, "it hears, though another store here does not know the password")


def test_the_rights_that_the_docs_list_are_enough(server: RedisServer) -> None:
    """A user with the documented rights can do all a store does; one without is told which page lists them."""
    page = (Path(__file__).parents[2] / "docs/how-to/redis.md").read_text()
    (rights,) = [line for line in page.splitlines() if line.startswith("ACL SETUSER unexpired ")]
    with server.client() as raw:
        raw.execute_command(*rights.replace("<password>", "wonderland").split())
        raw.execute_command("ACL", "SETUSER", "reader", "on", ">wonderland", "~*", "+hmget")
    with RedisStore(server.url.replace("//", "//unexpired:wonderland@")) as store:
        for operation in operations(store).values():
            operation()
        stamp = store.stamp(KEY)
        before = stamp()
        assert stamp() == before
        assert store._board.live
        with server.client() as raw:
            raw.hset("unexpired:session:{alice@crm}", "record", "no JSON")
        store.set_aside(KEY)
        assert store.load(KEY) is None
    with RedisStore(server.url.replace("//", "//reader:wonderland@")) as store:
        assert store.load(KEY) is None
        assert "docs/how-to/redis.md" in complaint(store, "swap")


def test_who_may_not_subscribe_looks_by_the_clock(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """Without the right to listen, changes by others are seen within 250 ms, waiters go on, and the log says why."""
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "deaf", "on", ">wonderland", "~*", "allchannels", "+@all", "-subscribe")
    url = server.url.replace("//", "//deaf:wonderland@")
    with RedisStore(url) as store, RedisStore(server.url.replace("127.0.0.1", "localhost")) as far:
        stamp = store.stamp(KEY)
        before = stamp()
        assert far.swap(KEY, None, SESSION)
        until(lambda: stamp() != before, "the clock ticks")
        assert store.swap(KEY, SESSION, SESSION.over("logout", 1.0))
        theirs = far.lease(KEY, owner="o", seconds=0.5, wait=0.0, stop=lambda: False)
        assert theirs is not None
        mine = store.lease(KEY, owner="o", seconds=9.0, wait=30.0, stop=lambda: False)
        assert mine is not None
        mine.release()
    assert [record.getMessage().count("docs/how-to/redis.md") for record in caplog.records] == [1]


def test_who_may_not_publish_stores_nothing(server: RedisServer) -> None:
    """What nobody would be told of is refused, before anything is sent or stored: a login, an intent, a logout."""
    with server.client() as raw:
        raw.execute_command("ACL", "SETUSER", "mute", "on", ">wonderland", "~*", "resetchannels", "+@all")
    with RedisStore(server.url) as far, RedisStore(server.url.replace("//", "//mute:wonderland@")) as store:
        assert far.swap(KEY, None, SESSION)
        intent = SESSION.noted(intent=Intent("login", 1, "me", 1, 1.0), failure=None)
        for before, after in ((SESSION, intent), (SESSION, SESSION.over("logout", 1.0))):
            with pytest.raises(StoreError, match=r"redis\.md"):
                store.swap(KEY, before, after)
            found = far.load(KEY)
            assert found is not None
            assert (found.version, found.notes, found.ended) == (SESSION.version, SESSION.notes, None)


@pytest.mark.parametrize(
    ("error", "answers"),
    [(None, True), (wrong.NoPermissionError("x"), True), (wrong.BusyLoadingError("x"), False), (OSError(), False)],
)
def test_a_refusal_is_an_answer(error: Exception | None, answers: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies are looked at again where the server answers, though it refuses; not where it is away or loading."""

    def ping() -> None:
        if error is not None:
            raise error

    with RedisStore("redis://127.0.0.1:1/0") as store:
        monkeypatch.setattr(store._link.client, "ping", ping)
        assert store._link.answers() is answers


def test_a_subscription_that_nobody_confirms_counts_as_cut_off(caplog: pytest.LogCaptureFixture) -> None:
    """A server that takes the connection and says nothing to the subscription is told in the log, and tried again."""

    class Mute:
        """A subscription that is never confirmed."""

        tries = 0
        connection: Any = property(lambda self: self)

        def subscribe(self, _: str) -> None:
            Mute.tries += 1

        def can_read(self, timeout: float) -> bool:
            del timeout
            return False

        def close(self) -> None:
            """Nothing."""

    with RedisStore("redis://127.0.0.1:1/1") as store:
        store._link.client.pubsub = Mute
        stamp = store.stamp(KEY)
        assert stamp() != stamp()
        until(lambda: Mute.tries > 1, "it is tried again")
    assert [record.getMessage().count("it fell silent") for record in caplog.records] == [1]


def test_what_is_told_to_others(server: RedisServer) -> None:
    """Others are told of versions, failures and leases given back, of an intent idly; not of what was not stored."""
    with server.client() as raw, RedisStore(server.url) as store, raw.pubsub(ignore_subscribe_messages=True) as news:
        news.subscribe("unexpired:news")
        until(lambda: raw.pubsub_numsub("unexpired:news") == [("unexpired:news", 1)], "it listens")
        intent = SESSION.noted(intent=Intent("login", 1, "me", 1, 1.0), failure=None)
        failed = intent.noted(intent=None, failure=Failure("lost", "why", 1.0, 2.0))
        for before, after in (
            (None, SESSION),
            (SESSION, intent),
            (intent, failed),
            (failed, failed.over("logout", 1.0)),
        ):
            assert store.swap(KEY, before, after)
        assert not store.swap(KEY, failed, SESSION)
        held = store.lease(KEY, owner="o", seconds=9.0, wait=0.0, stop=lambda: False)
        assert held is not None
        held.release()
        raw.publish("unexpired:news", "the end")
        said: list[str] = []
        end = time.monotonic() + BOUND
        while "the end" not in said and time.monotonic() < end:
            message: Any = news.get_message(timeout=0.1)
            said += [message["data"]] if message else []
    assert [one.split(" ")[:2] for one in said] == [*([kind, KEY] for kind in "vunvf"), ["the", "end"]]


def test_it_speaks_tls(tmp_path: Path) -> None:
    """A `rediss:` URL reaches a server that speaks TLS only, and a server that nobody vouches for is refused."""
    pem = str(Path(__file__).parents[1] / "grants/self_signed.pem")
    port = free_port()
    options = ("--tls-port", str(port), "--tls-cert-file", pem, "--tls-key-file", pem, "--tls-auth-clients", "no")
    server = RedisServer(tmp_path / "tls", *options, "--tls-ca-cert-file", pem).start()
    try:
        url = f"rediss://127.0.0.1:{port}/0"
        with open_store(f"{url}?ssl_ca_certs={pem}") as store:  # type: ignore[attr-defined]
            assert store.swap(KEY, None, SESSION)
            stamp = store.stamp(KEY)
            before = stamp()
            assert stamp() == before
            assert store._board.live
        with RedisStore(url) as stranger:
            assert "ssl_ca_certs" in complaint(stranger, "load")
    finally:
        server.kill()


def test_a_node_of_a_cluster_is_named(tmp_path: Path) -> None:
    """A plain client that meets a cluster is told which client to use."""
    server = RedisServer(tmp_path / "node", "--cluster-enabled", "yes").start()
    try:
        with RedisStore(server.url) as store:
            assert "cluster is down" in complaint(store, "swap")
    finally:
        server.kill()


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (wrong.MovedError("1 127.0.0.1:7000"), "RedisCluster"),
        (wrong.BusyLoadingError("x"), "loading"),
        (wrong.MasterDownError("x"), "failover"),
        (wrong.ClusterDownError("x"), "cluster is down"),
        (wrong.MaxConnectionsError("x"), "max_connections"),
        (wrong.ResponseError("MISCONF Redis is configured"), "disk"),
        (wrong.ResponseError("NOREPLICAS not enough"), "replicas"),
        (wrong.ResponseError("BUSY Redis is busy"), "script"),
        (wrong.ResponseError("Error running script (call to f_1): @user_script:4: -OOM command"), "memory"),
        (wrong.ResponseError("unknown command, with args beginning with: refresh 1"), "ResponseError"),
        (wrong.RedisClusterException("refresh 1"), "RedisClusterException at"),
        (ValueError("refresh 1"), "ValueError at"),
    ],
)
def test_whatever_a_client_raises_is_a_store_error(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each kind of error becomes a StoreError that says what to do; no word of the server's own is repeated."""

    def fail(*_: object) -> None:
        raise error

    with RedisStore("redis://127.0.0.1:1/0") as store:
        monkeypatch.setattr(store._link.client, "evalsha", fail)
        said = complaint(store, "swap")
    assert says in said
    assert "refresh 1" not in said
    assert "args" not in said


def test_settings_that_lose_sessions_are_warned_of_once(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A server without append-only file, or that evicts keys, is told in the log at the first use, and only then."""
    server = RedisServer(tmp_path / "redis", "--maxmemory", "100mb", "--maxmemory-policy", "allkeys-lru").start()
    try:
        with caplog.at_level(logging.WARNING, "unexpired"), RedisStore(server.url) as store:
            for _ in range(3):
                store.stamp(KEY)()
                store.swap(KEY, None, SESSION)
                until(lambda: checked(store), "the look is over")
        said = [record.getMessage() for record in caplog.records]
        assert [("appendonly" in one, "noeviction" in one) for one in said] == [(True, False), (False, True)]
    finally:
        server.kill()


def test_settings_that_keep_sessions_are_not_warned_of(server: RedisServer, caplog: pytest.LogCaptureFixture) -> None:
    """With an append-only file and no eviction the log stays silent."""
    with caplog.at_level(logging.DEBUG, "unexpired"), RedisStore(server.url) as store:
        store.stamp(KEY)()
        until(lambda: checked(store), "the look is over")
    assert caplog.records == []


def test_replicas_can_be_waited_for(server: RedisServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With `wait_replicas` a session counts as stored when a replica has it; without one a StoreError says how many."""
    with RedisStore(f"{server.url}?socket_timeout=30", wait_replicas=1) as store:
        with pytest.raises(StoreError, match="0 of 1 replicas"):
            store.swap(KEY, None, SESSION)
        replica = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(server.port)).start()
        try:
            with replica.client() as raw, server.client() as primary:
                until(lambda: primary.set("probe", "x") and primary.wait(1, 100) == 1, "the replica is there")
                over = SESSION.over("logout", 1.0)
                monkeypatch.setattr("unexpired.stores._redis_link._patience", lambda _: 10_000)
                assert store.swap(KEY, SESSION, over)
                assert raw.hget("unexpired:session:{alice@crm}", "version") == "2"
        finally:
            replica.kill()


def test_without_redis_py_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where redis-py is missing, the error says what to install."""
    monkeypatch.setitem(sys.modules, "redis", None)
    for module in ("redis", "_redis_link", "_redis_lease", "_redis_listening"):
        monkeypatch.delitem(sys.modules, f"unexpired.stores.{module}")
    with pytest.raises(ModuleNotFoundError, match=r"unexpired\[redis\]"):
        open_store("redis://127.0.0.1:1/0")


def test_a_client_of_ones_own_stays_open(server: RedisServer) -> None:
    """Closing a store leaves a client alone that was given to it, whatever its settings for text and protocol."""
    with redis.Redis(port=server.port, decode_responses=True, protocol=3) as client:
        with RedisStore(client) as store:
            assert store.swap(KEY, None, SESSION)
            stamp = store.stamp(KEY)
            before = stamp()
            assert stamp() == before
            connections = client.connection_pool
        assert client.ping()
        assert client.connection_pool is connections
        found = store.load(KEY)
        assert found is not None
        assert found.login == "login"
