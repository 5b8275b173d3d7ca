from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.stores.postgres_server import PostgresServer, pgbouncer, postgres_server
from unexpired._core.ports import Store
from unexpired.stores.postgres import PostgresStore
from unexpired.testing.contract import StoreContract

SCHEMAS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for this file; each store has a schema of its own."""
    with postgres_server() as one:
        yield one


@pytest.fixture(scope="module")
def pooled(server: PostgresServer) -> Iterator[str]:
    """The way through PgBouncer in transaction mode."""
    with pgbouncer(server) as url:
        yield url


class TestPostgresStore(StoreContract):
    """`PostgresStore` keeps every promise of a store."""

    @pytest.fixture(autouse=True)
    def _place(self, server: PostgresServer) -> Iterator[None]:
        self.url = server.url
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store in a schema of its own, which does not exist yet."""
        return self.stack.enter_context(PostgresStore(self.url, schema=f"contract_{next(SCHEMAS)}"))

    def make_peer(self, store: Store) -> Store:
        """Another object on the same schema."""
        assert isinstance(store, PostgresStore)
        return self.stack.enter_context(PostgresStore(self.url, schema=store._schema))


class TestPooledPostgresStore(TestPostgresStore):
    """Behind PgBouncer in transaction mode it keeps them too."""

    @pytest.fixture(autouse=True)
    def _place(self, pooled: str) -> Iterator[None]:
        self.url = pooled
        with ExitStack() as self.stack:
            yield
