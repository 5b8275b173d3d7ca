from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.stores.ports import free_port
from tests.stores.redis_server import BOUND, RedisCluster, RedisServer
from tests.waiting import until
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, UnexpiredError
from unexpired.grants import FunctionGrant
from unexpired.stores.redis import RedisStore

KEY = "alice@crm"
ANSWER = {"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 3600}


class Watched:
    """A primary, its replica, and a Sentinel that watches over them."""

    def __init__(self, directory: Path) -> None:
        self.primary = RedisServer(directory / "primary", "--appendonly", "yes")
        self.replica = RedisServer(
            directory / "replica", "--appendonly", "yes", "--replicaof", "127.0.0.1", str(self.primary.port)
        )
        self.port = free_port()
        self.settings = directory / "sentinel.conf"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Watched:
        """Start them, and wait until they know each other."""
        self.primary.start()
        self.replica.start()
        with self.primary.client() as raw:
            until(lambda: raw.set("probe", "x") and raw.wait(1, 100) == 1, "the replica follows")
        self.settings.write_text(
            f"port {self.port}\nbind 127.0.0.1\nsentinel monitor crm 127.0.0.1 {self.primary.port} 1\n"
            "sentinel down-after-milliseconds crm 2000\nsentinel failover-timeout crm 3000\n"
        )
        command = ["redis-server", str(self.settings), "--sentinel"]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        until(lambda: self._knows() == 1, "Sentinel knows the replica")
        return self

    def _knows(self) -> int:
        with redis.Redis(port=self.port, decode_responses=True) as raw:
            try:
                return len([one for one in raw.sentinel_slaves("crm") if not one["is_sdown"]])
            except redis.RedisError:
                return 0

    def kill(self) -> None:
        """Leave nothing of it."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(BOUND)
        self.primary.kill()
        self.replica.kill()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    """Two servers and a Sentinel."""
    with ExitStack() as stack:
        watched = Watched(tmp_path)
        stack.callback(watched.kill)
        yield watched.start()


def sentinel_client(watched: Watched) -> redis.Redis:
    """What the docs recommend."""
    patience: dict[str, Any] = {"socket_timeout": 1.0, "socket_connect_timeout": 1.0, "retry": Retry(NoBackoff(), 0)}
    made: Any = redis.Sentinel
    client: redis.Redis = made([("127.0.0.1", watched.port)], sentinel_kwargs=patience, **patience).master_for("crm")
    return client


def test_a_failover_is_survived(watched: Watched) -> None:
    """When the primary dies, calls go on, and the next refresh is made once, in the former replica."""
    asked: list[int] = []

    def refresh(session: Session) -> dict[str, Any]:
        asked.append(session.version)
        return {**ANSWER, "access_token": f"access {session.version + 1}"}

    with sentinel_client(watched) as client, RedisStore(client, wait_replicas=1) as store:
        assert repr(store) == "RedisStore('crm/0', prefix='unexpired')"
        assert store.swap("bob", None, Session("bob", "login", 1))
    with sentinel_client(watched) as client, RedisStore(client) as store:
        manager = TokenManager(FunctionGrant(refresh), store=store, key=KEY)
        manager.login(ANSWER)
        assert manager.token().access_token == "access 1"
        watched.primary.kill()
        assert manager.token().access_token == "access 1"

        def refreshed() -> bool:
            try:
                return manager.refresh().access_token == "access 2"
            except UnexpiredError:
                return False

        until(refreshed, "the replica has taken over")
        assert asked == [1]
        with watched.replica.client() as raw:
            assert raw.hget("unexpired:session:{alice@crm}", "version") == "2"


def test_a_cluster_is_one_place(tmp_path: Path) -> None:
    """Sessions in a cluster lie on all its nodes, changes are heard from each, and every key can be listed."""
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        with cluster.client() as one, cluster.client(decode_responses=True) as other, ExitStack() as stack:
            near, far = stack.enter_context(RedisStore(one)), stack.enter_context(RedisStore(other))
            assert near.identity == far.identity
            with pytest.raises(ConfigurationError, match="cluster"):
                RedisStore(one, wait_replicas=1)
            names = [f"user {number}" for number in range(20)] + ["a}b", "{", ""]
            stamps = [near.stamp(name) for name in names]
            before = [stamp() for stamp in stamps]
            for name in names:
                assert RedisStore(other, prefix=far._link.prefix).swap(name, None, Session(name, "login", 1))
            until(lambda: all(old != new() for old, new in zip(before, stamps, strict=True)), "all is heard")
            assert set(near.keys()) == set(names)
            spread = [int(node.client().dbsize()) for node in cluster.nodes]
            assert sum(spread) == len(names)
            assert min(spread) > 0
    finally:
        cluster.kill()


def test_many_waiters_are_served_once_each(tmp_path: Path) -> None:
    """Twenty threads with stores of their own get the lease one after another, and never two at once."""
    server = RedisServer(tmp_path / "redis").start()
    inside: list[int] = []
    most: list[int] = []

    def work() -> None:
        with RedisStore(server.url) as store:
            for _ in range(5):
                held = store.lease(KEY, owner="same", seconds=30.0, wait=BOUND, stop=lambda: False)
                assert held is not None
                inside.append(1)
                most.append(len(inside))
                inside.pop()
                held.release()

    try:
        threads = [threading.Thread(target=work) for _ in range(20)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(BOUND)
        assert len(most) == 100
        assert max(most) == 1
    finally:
        server.kill()
