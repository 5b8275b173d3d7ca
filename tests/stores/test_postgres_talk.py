from __future__ import annotations

from dataclasses import replace
from unittest import mock

import pytest
from psycopg_pool import ConnectionPool

from tests.stores.postgres_server import PostgresServer, pgbouncer
from tests.stores.postgres_stores import Make, make, schema, server
from tests.stores.postgres_worker import KEY, following
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import _postgres_connections as connections
from unexpired.stores import _postgres_talk as talk
from unexpired.stores._postgres_trouble import Cut
from unexpired.stores.postgres import PostgresStore

MANY = 12
PREPARED = talk.Statement("SELECT name FROM pg_prepared_statements WHERE name LIKE 'unexpired%'", {})

__all__ = ["make", "schema", "server"]


def begun(store: PostgresStore) -> Session:
    """A first version, stored."""
    session = following(None)
    assert store.swap(KEY, None, session)
    return session


def used(store: PostgresStore, session: Session) -> Session:
    """After as many of each statement as it takes to prepare them."""
    for _ in range(MANY):
        assert store.load(KEY) is not None
        before, session = session, following(session)
        assert store.swap(KEY, before, session)
        lease = store.lease(KEY, owner="a", seconds=5.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        lease.release()
    return session


def stored(store: PostgresStore, key: str = KEY) -> bytes:
    """What is there."""
    found = store.load(key)
    assert found is not None
    return encode(found)


def prepared(store: PostgresStore) -> int:
    """How many statements are prepared on the connection that it used last."""
    connection = store._database.connections.take(1.0)
    try:
        return len(talk.execute(connection, PREPARED, {}, talk.Bound(10.0), prepare=False))
    finally:
        store._database.connections.give_back(connection)


def test_what_is_used_often_is_prepared(make: Make) -> None:
    """Each statement is prepared on a connection when that has seen it a few times, and brings the same as before."""
    store = make(connections=1)
    session = begun(store)
    assert prepared(store) == 0
    assert used(store, session).version == 1 + MANY
    assert prepared(store) == 4, "load, swap, take and release"


def test_nothing_is_prepared_behind_a_pooler(server: PostgresServer, make: Make) -> None:
    """Behind PgBouncer in transaction mode nothing is prepared on the server's connections, whoever they belong to."""
    with pgbouncer(server) as pooled:
        store = make(pooled, connections=1)
        used(store, begun(store))
        assert store._database.pooled
        assert [prepared(store) for _ in range(3)] == [0, 0, 0]


def test_a_pool_that_prepares_nothing(server: PostgresServer, make: Make) -> None:
    """A pool whose connections are told to prepare nothing, for the pooler behind it, is taken at its word."""
    with ConnectionPool(server.url, min_size=1, max_size=1, kwargs={"prepare_threshold": None}, open=True) as pool:
        store = make(pool)
        used(store, begun(store))
        assert prepared(store) == 0


def test_a_pool_that_takes_prepared_statements_away(server: PostgresServer, make: Make) -> None:
    """A pool that discards all state between two uses costs no call: what is not known any more is sent as it is."""

    def reset(connection: connections.Connection) -> None:
        connection.autocommit = True
        connection.execute("DISCARD ALL", prepare=False)
        connection.autocommit = False

    with ConnectionPool(server.url, min_size=1, max_size=1, reset=reset, open=True) as pool:
        store = make(pool)
        assert used(store, begun(store)).version == 1 + MANY
        assert prepared(store) == 0


def test_a_column_that_changes_its_type(server: PostgresServer, make: Make) -> None:
    """A plan that the server cannot carry out any more, because a column has another type now, is not used again."""
    store = make(connections=1)
    session = used(store, begun(store))
    server.run(f"ALTER TABLE {store._schema}.sessions ALTER record TYPE varchar")
    for _ in range(MANY):
        assert stored(store) == encode(session)


def test_tables_that_went_and_came_back(server: PostgresServer, make: Make) -> None:
    """Statements that were prepared for tables that have gone work on those that took their place."""
    store = make(connections=1)
    used(store, begun(store))
    server.run(f"DROP SCHEMA {store._schema} CASCADE")
    with pytest.raises(StoreError, match="makes them anew"):
        store.load(KEY)
    used(store, begun(store))


@pytest.mark.parametrize("times", [1, MANY])
def test_a_record_larger_than_what_the_line_takes_at_once(make: Make, times: int) -> None:
    """A record of 8 MB is stored and read, whether the statement is prepared or not."""
    store = make()
    session = begun(store)
    for _ in range(times):
        before, session = session, following(session)
        assert store.swap(KEY, before, session)
    large = session.minted(Token("a" * 8_000_000, refresh_token="refresh"))
    assert store.swap(KEY, session, large)
    assert stored(store) == encode(large)


def test_a_wait_that_is_interrupted(make: Make) -> None:
    """Ctrl-C in the middle of a statement leaves no connection on which somebody else would get its answer."""
    store = make(connections=1)
    begun(store)
    other = replace(following(None), key="other")
    assert store.swap("other", None, other)
    real = talk.is_ready

    def interrupted(socket: int, seconds: float, *, writes: bool = False) -> bool:
        if seconds:
            raise KeyboardInterrupt
        return real(socket, seconds, writes=writes)

    with mock.patch.object(talk, "is_ready", interrupted), pytest.raises(KeyboardInterrupt):
        store.load(KEY)
    assert stored(store, "other") == encode(other)


def test_all_idle_connections_are_cut(server: PostgresServer, make: Make) -> None:
    """When all connections were cut just after they were used, the next call works, unnoticed."""
    store = make(f"{server.url}?application_name=cut", connections=4)
    session = begun(store)
    for _ in range(3):
        pool = store._database.connections
        taken = [pool.take(1.0) for _ in range(4)]
        for connection in taken:
            pool.give_back(connection)
        server.run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'cut'")
        before, session = session, following(session)
        assert store.swap(KEY, before, session)


def test_a_lease_whose_answer_is_lost_is_had(make: Make) -> None:
    """Who was granted the lease by an answer that never came gets it by the second try, not after its seconds."""
    store, real = make(), connections.execute
    begun(store)
    lost: list[bool] = []

    def losing(connection: connections.Connection, *args: object, **how: object) -> object:
        rows = real(connection, *args, **how)  # type: ignore[arg-type]
        if lost:
            return rows
        lost.append(True)
        connection.close()
        raise Cut("the connection was cut")

    with mock.patch.object(connections, "execute", losing):
        lease = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
    assert lost
    assert lease is not None
    lease.renew()
    assert make().lease(KEY, owner="b", seconds=30.0, wait=0.0, stop=lambda: False) is None


def test_a_name_may_look_like_a_placeholder() -> None:
    """What is quoted in a statement is not looked at again, and the same text has the same handle everywhere."""
    statement = talk.Statement("SELECT {one}, %(a)s, {two}, %(b)s, %(a)s", {"one": '"%(a)s"', "two": '"{one}"'})
    assert statement.text == b'SELECT "%(a)s", $1, "{one}", $2, $1'
    assert statement.names == ("a", "b")
    same = talk.Statement("SELECT {x}, %(b)s, {y}, %(c)s, %(b)s", {"x": '"%(a)s"', "y": '"{one}"'})
    assert (same.text, same.handle) == (statement.text, statement.handle)
    assert talk.Statement("SELECT {x}", {"x": "1"}).handle != talk.Statement("SELECT {x}", {"x": "2"}).handle
