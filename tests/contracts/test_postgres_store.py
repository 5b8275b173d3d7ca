from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.stores.postgres_server import PostgresServer, pgbouncer
from tests.stores.versions import POSTGRES_VERSIONS, PostgresOfVersion, Version, postgres_of
from unexpired._core.ports import Store
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.stores.postgres import PostgresStore
from unexpired.testing.contract import StoreContract

DOCS = Path(__file__).parents[2] / "docs" / "how-to"
SCHEMAS = itertools.count()
SESSION = Session.begin("alice", "login", Token("access 1", refresh_token="refresh 1"))


@pytest.fixture(scope="module", params=POSTGRES_VERSIONS, ids=str)
def version(request: pytest.FixtureRequest) -> Version:
    """Each version of PostgreSQL that stores are held to."""
    one: Version = request.param
    return one


@pytest.fixture(scope="module")
def server(version: Version) -> Iterator[PostgresOfVersion]:
    """One server for this file; each store has a schema of its own."""
    with postgres_of(version) as one:
        yield one


@pytest.fixture(scope="module")
def pooled(server: PostgresServer) -> Iterator[str]:
    """The way through PgBouncer in transaction mode."""
    with pgbouncer(server) as url:
        yield url


@pytest.fixture(scope="module")
def user(server: PostgresServer) -> str:
    """The way to the server for a user who owns nothing."""
    server.run("CREATE ROLE crm LOGIN")
    return server.url.replace("unexpired@", "crm@")


def test_the_server_is_of_the_version_that_the_tests_name(server: PostgresOfVersion, version: Version) -> None:
    """The server says itself that it is what the test is named after."""
    assert server.says() == (version.name, version.number)


def test_what_is_stored_survives_a_crash(server: PostgresOfVersion) -> None:
    """What a swap stored is there when the server ended at once and was started again; leases can be taken, too."""
    with PostgresStore(server.url, schema=f"contract_{next(SCHEMAS)}") as store:
        assert store.swap("alice", None, SESSION)
        server.stop()
        server.start()
        found = store.load("alice")
        assert found is not None
        assert encode(found) == encode(SESSION)
        assert store.swap("alice", found, found.over("logout", 1.0))
        lease = store.lease("alice", owner="o", seconds=60.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        lease.release()


def test_one_of_many_who_come_first_makes_the_tables(server: PostgresOfVersion) -> None:
    """Stores that use a schema for the first time at once all find tables, made once."""
    schema = f"contract_{next(SCHEMAS)}"
    together = threading.Barrier(6)
    with ExitStack() as stack:
        stores = [stack.enter_context(PostgresStore(server.url, schema=schema)) for _ in range(together.parties)]

        def first(store: PostgresStore) -> bool:
            together.wait(30.0)
            return store.swap("alice", None, SESSION)

        with ThreadPoolExecutor(len(stores)) as pool:
            assert sorted(pool.map(first, stores)) == [False] * 5 + [True]


class TestPostgresStore(StoreContract):
    """`PostgresStore` keeps every promise of a store, on each version."""

    with_processes = False  # test_contract_servers.py holds it to them

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


class TestPostgresStoreOfAUserWithFewRights(TestPostgresStore):
    """So it does for a user that was granted what the docs list, and owns nothing."""

    @pytest.fixture(autouse=True)
    def _place(self, server: PostgresServer, user: str) -> Iterator[None]:
        self.server, self.url = server, user
        with ExitStack() as self.stack:
            yield

    def make_store(self) -> Store:
        """A store in a schema that its owner has used once."""
        schema = f"contract_{next(SCHEMAS)}"
        with PostgresStore(self.server.url, schema=schema) as owner:
            assert owner.load("anything") is None
        page = (DOCS / "postgresql.md").read_text()
        grants = [line for line in page.splitlines() if line.startswith("GRANT ")]
        assert len(grants) == 5
        for grant in grants:
            self.server.run(grant.replace("unexpired", schema))
        return self.stack.enter_context(PostgresStore(self.url, schema=schema))
