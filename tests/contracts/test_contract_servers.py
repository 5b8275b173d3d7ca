from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.stores.postgres_server import PostgresServer, postgres_server
from tests.stores.redis_server import RedisServer
from unexpired._core.ports import Store
from unexpired.stores import PostgresStore, RedisStore, Sealed
from unexpired.stores.sealed import new_key
from unexpired.testing._process_contract import ProcessContract

KEY = new_key()
NUMBERS = itertools.count()


@pytest.fixture(scope="module")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """The system's Redis."""
    server = RedisServer(tmp_path_factory.mktemp("redis"), "--appendonly", "yes").start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def postgres() -> Iterator[PostgresServer]:
    """The system's PostgreSQL."""
    with postgres_server() as server:
        yield server


class TestRedisProcesses(ProcessContract):
    """`RedisStore` keeps what a store promises to several processes."""

    @pytest.fixture(autouse=True)
    def _place(self, redis_server: RedisServer) -> Iterator[None]:
        self.url = redis_server.url
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store under a prefix of its own."""
        return self.stack.enter_context(RedisStore(self.url, prefix=f"contract{next(NUMBERS)}"))

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same prefix, in another process."""
        assert isinstance(store, RedisStore)
        return "tests.contracts.peers:redis_store", self.url, store._link.prefix


class TestSealedRedisProcesses(TestRedisProcesses):
    """Sealing keeps what it seals promises to several processes."""

    def make_store(self) -> Store:
        """A sealed store under a prefix of its own."""
        return Sealed(super().make_store(), KEY)

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same prefix and the same key, in another process."""
        assert isinstance(store, Sealed)
        return "tests.contracts.peers:sealed", KEY.hex(), *super().peer_process(store._store)


class TestPostgresProcesses(ProcessContract):
    """`PostgresStore` keeps what a store promises to several processes."""

    @pytest.fixture(autouse=True)
    def _place(self, postgres: PostgresServer) -> Iterator[None]:
        self.url = postgres.url
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store in a schema of its own."""
        return self.stack.enter_context(PostgresStore(self.url, schema=f"contract_{next(NUMBERS)}"))

    def peer_process(self, store: Store) -> tuple[str, ...]:
        """The same schema, in another process."""
        assert isinstance(store, PostgresStore)
        return "tests.contracts.peers:postgres_store", self.url, store._schema
