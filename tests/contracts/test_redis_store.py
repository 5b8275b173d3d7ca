from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack
from itertools import count

import pytest
import redis

from tests.stores.redis_server import RedisCluster, RedisServer
from unexpired._core.ports import Store
from unexpired.stores.redis import RedisStore
from unexpired.stores.sealed import Sealed, new_key
from unexpired.testing.contract import StoreContract

KEY = new_key()
NUMBERS = count(1)


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis for all tests of this file."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisCluster]:
    """A cluster for all tests of this file."""
    cluster = RedisCluster(tmp_path_factory.mktemp("cluster")).start()
    yield cluster
    cluster.kill()


class TestRedisStore(StoreContract):
    """`RedisStore` keeps every promise of a store."""

    @pytest.fixture(autouse=True)
    def _place(self, redis_server: RedisServer) -> Iterator[None]:
        self.url = redis_server.url
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store under a prefix of its own."""
        return self.stack.enter_context(RedisStore(self.url, prefix=f"contract{next(NUMBERS)}"))

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


class TestRedisClusterStore(StoreContract):
    """So it does in a cluster."""

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


class TestSealedRedisStore(TestRedisStore):
    """Sealing keeps every promise of what it seals."""

    def make_store(self) -> Store:
        """A sealed store under a prefix of its own."""
        return Sealed(super().make_store(), KEY)

    def make_peer(self, store: Store) -> Store:
        """Another object with the same prefix and the same key."""
        assert isinstance(store, Sealed)
        return Sealed(super().make_peer(store._store), KEY)
