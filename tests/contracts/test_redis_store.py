from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count
from pathlib import Path

import pytest
import redis

from tests.stores.redis_server import RedisCluster
from tests.stores.versions import REDIS_VERSIONS, RedisOfVersion, Version, redis_cluster_of, redis_of
from unexpired._core.ports import Store
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.stores.redis import RedisStore
from unexpired.stores.sealed import Sealed, new_key
from unexpired.testing.contract import StoreContract

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
KEY = new_key()
NUMBERS = count(1)


@pytest.fixture(scope="module", params=REDIS_VERSIONS, ids=str)
def version(request: pytest.FixtureRequest) -> Version:
    """Each version of Redis and Valkey that stores are held to."""
    one: Version = request.param
    return one


@pytest.fixture(scope="module")
def redis_server(version: Version, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisOfVersion]:
    """A Redis for all tests of this file."""
    with redis_of(version, tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture(scope="module")
def redis_cluster(version: Version, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster for all tests of this file."""
    with redis_cluster_of(version, tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def user(redis_server: RedisOfVersion) -> str:
    """The way to the server for a user with the rights that the docs list."""
    (rights,) = [line for line in (DOCS / "redis.md").read_text().splitlines() if line.startswith("ACL SETUSER ")]
    with redis_server.client() as raw:
        raw.execute_command(*rights.replace("<password>", "wonderland").split())
    return redis_server.url.replace("//", "//unexpired:wonderland@")


def test_the_servers_are_of_the_version_that_the_tests_name(
    redis_server: RedisOfVersion, redis_cluster: RedisCluster, version: Version
) -> None:
    """Each server says itself that it is what the test is named after."""
    for server in (redis_server, *redis_cluster.nodes):
        assert isinstance(server, RedisOfVersion)
        assert server.says() == (version.name, version.number)


def test_what_is_stored_survives_kill_9(redis_server: RedisOfVersion) -> None:
    """What a swap stored is there when the server was killed and started again; the scripts, which it forgot, too."""
    session = Session.begin("alice", "login", Token("access 1", refresh_token="refresh 1"))
    with RedisStore(redis_server.url, prefix=f"contract{next(NUMBERS)}") as store:
        assert store.swap("alice", None, session)
        redis_server.kill()
        redis_server.start()
        found = store.load("alice")
        assert found is not None
        assert encode(found) == encode(session)
        assert store.swap("alice", found, found.over("logout", 1.0))
        lease = store.lease("alice", owner="o", seconds=60.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        lease.release()


class TestRedisStore(StoreContract):
    """`RedisStore` keeps every promise of a store, on each version."""

    with_processes = False  # test_contract_servers.py holds it to them

    @pytest.fixture(autouse=True)
    def _place(self, redis_server: RedisOfVersion) -> Iterator[None]:
        self.url = redis_server.url
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store under a prefix of its own."""
        return self.stack.enter_context(RedisStore(self.url, prefix=f"unexpired:contract{next(NUMBERS)}"))

    def make_peer(self, store: Store) -> Store:
        """Another object with the same prefix, and connections of its own."""
        assert isinstance(store, RedisStore)
        return self.stack.enter_context(RedisStore(self.url, prefix=store._link.prefix))


class TestRedisStoreOfAClient(TestRedisStore):
    """So it does with a client of one's own, which speaks the newer protocol and in texts."""

    def make_store(self) -> Store:
        """A store under a prefix of its own."""
        client = redis.Redis.from_url(self.url, decode_responses=True, protocol=3)
        self.stack.callback(client.close)
        return self.stack.enter_context(RedisStore(client, prefix=f"contract{next(NUMBERS)}"))


class TestRedisStoreOfAUserWithFewRights(TestRedisStore):
    """So it does for a user that may do what the docs list, and nothing else."""

    @pytest.fixture(autouse=True)
    def _place(self, user: str) -> Iterator[None]:
        self.url = user
        with ExitStack() as self.stack:
            yield


class TestRedisClusterStore(StoreContract):
    """So it does in a cluster."""

    with_processes = False  # test_contract_servers.py holds it to them

    @pytest.fixture(autouse=True)
    def _place(self, redis_cluster: RedisCluster) -> Iterator[None]:
        self.cluster = redis_cluster
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store under a prefix of its own."""
        return self._store(f"contract{next(NUMBERS)}")

    def make_peer(self, store: Store) -> Store:
        """Another object with the same prefix, and a client of its own."""
        assert isinstance(store, RedisStore)
        return self._store(store._link.prefix)

    def _store(self, prefix: str) -> RedisStore:
        client = self.cluster.client()
        self.stack.callback(client.close)
        return self.stack.enter_context(RedisStore(client, prefix=prefix))


@pytest.mark.parametrize("version", REDIS_VERSIONS[:1], ids=str, indirect=True, scope="module")
class TestSealedRedisStore(TestRedisStore):
    """Sealing keeps every promise of what it seals. To a server of any version it is a session like others."""

    def make_store(self) -> Store:
        """A sealed store under a prefix of its own."""
        return Sealed(super().make_store(), KEY)

    def make_peer(self, store: Store) -> Store:
        """Another object with the same prefix and the same key."""
        assert isinstance(store, Sealed)
        return Sealed(super().make_peer(store._store), KEY)
