from __future__ import annotations

import logging
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from unittest import mock

import psycopg
import pytest
from psycopg_pool import ConnectionPool

from tests.stores.ports import free_port
from tests.stores.postgres_server import PostgresServer, postgres_server
from tests.stores.postgres_stores import Make, make, schema, server
from tests.stores.postgres_worker import KEY, following
from tests.stores.proxy import Proxy
from tests.waiting import until
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import _postgres_connections as connections
from unexpired.stores.postgres import PostgresStore

LONG = 40.0
BOUND = 5.0
"""What a store takes for its *timeout* where none is given. Making its tables may take a while, too."""

__all__ = ["make", "schema", "server"]


@pytest.fixture
def proxy(server: PostgresServer) -> Iterator[Proxy]:
    """A line to the server that can be cut."""
    one = Proxy(server.port)
    yield one
    one.close()


def begun(store: PostgresStore) -> Session:
    """A first version, stored."""
    session = following(None)
    assert store.swap(KEY, None, session)
    return session


def raising(server: PostgresServer, schema: str, state: str, times: int = 1_000_000) -> None:
    """From now on the server refuses to write a session, that many times, with words that quote the row."""
    server.run(f"CREATE SEQUENCE {schema}.uses")
    server.run(
        f"CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF nextval('{schema}.uses') <= {times} THEN RAISE EXCEPTION '%', NEW.record USING ERRCODE = '{state}', "
        "DETAIL = NEW.record, HINT = NEW.record; END IF; RETURN NEW; END $$"
    )
    server.run(
        f"CREATE TRIGGER refuse BEFORE UPDATE ON {schema}.sessions FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
    )


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        ("53100", "disk is full"),
        ("53200", "out of memory"),
        ("25006", "target_session_attrs"),
        ("40P01", "rolled back again and again"),
        ("40001", "rolled back again and again"),
        ("42501", "grant"),
        ("57014", "statement_timeout"),
        ("58030", "trouble with its disk"),
        ("XX001", "damaged"),
        ("ZZ999", "see the server's log"),
    ],
)
def test_an_error_says_what_to_do(server: PostgresServer, make: Make, schema: str, state: str, advice: str) -> None:
    """Whatever the server refuses with is a StoreError with advice, which quotes nothing of what was to be stored."""
    store = make()
    session = begun(store)
    raising(server, schema, state)
    with pytest.raises(StoreError, match=advice) as found:
        store.swap(KEY, session, following(session))
    assert found.value.key == KEY
    assert found.value.__cause__ is None
    assert found.value.__context__ is None
    assert "access" not in str(found.value)
    assert "refresh" not in str(found.value)


@pytest.mark.parametrize("state", ["40P01", "40001"])
def test_a_deadlock_is_tried_again(server: PostgresServer, make: Make, schema: str, state: str) -> None:
    """What the server has undone because of others is done again, unnoticed."""
    store = make()
    session = begun(store)
    raising(server, schema, state, times=3)
    assert store.swap(KEY, session, following(session))


def test_one_wins_on_a_server_that_serialises(server: PostgresServer, make: Make) -> None:
    """On a server whose transactions are serializable, of eight swaps at once exactly one is done, without an error."""
    url = f"{server.url}?options=-cdefault_transaction_isolation%3Dserializable"
    stores = [make(url) for _ in range(4)]
    session = begun(stores[0])
    barrier = threading.Barrier(4)

    def contend(number: int) -> list[bool]:
        won, before = [], session
        for _ in range(10):
            barrier.wait(LONG)
            won.append(stores[number].swap(KEY, before, following(before)))
            before = following(before)
        return won

    with ThreadPoolExecutor(4) as pool:
        rounds = list(zip(*pool.map(contend, range(4)), strict=True))
    assert [sum(wins) for wins in rounds] == [1] * 10


@pytest.mark.parametrize("takes_effect", [True, False])
def test_what_became_of_a_lost_answer_is_looked_up(make: Make, *, takes_effect: bool) -> None:
    """A swap whose answer is lost is reported as it was: stored by the first try or by the second, exactly once."""
    store, real = make(), connections.execute
    session = begun(store)
    lost: list[bool] = []

    def losing(connection: connections.Connection, *args: object, **how: object) -> object:
        if lost:
            return real(connection, *args, **how)  # type: ignore[arg-type]
        lost.append(True)
        if takes_effect:
            real(connection, *args, **how)  # type: ignore[arg-type]
        connection.close()
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    with mock.patch.object(connections, "execute", losing):
        assert store.swap(KEY, session, following(session))
    stored = make().load(KEY)
    assert stored is not None
    assert stored.version == 2
    lost.clear()
    with mock.patch.object(connections, "execute", losing):
        assert not store.swap(KEY, session, following(session).minted(following(session).tokens[None]))


@pytest.mark.timeout(180)
def test_a_server_that_is_killed_and_started_again(make: Make) -> None:
    """While it is down calls fail at once with advice, its stamp stays; what was stored is there when it is back."""
    with postgres_server() as server:
        store = make(server.url)
        session = begun(store)
        stamp = store.stamp(KEY)
        before = stamp()
        lease = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        server.stop(signal.SIGQUIT)
        began = time.monotonic()
        with pytest.raises(StoreError, match=r"cut|listens|again"):
            store.swap(KEY, session, following(session))
        with pytest.raises(StoreError, match="listens"):
            make(server.url, schema="fresh").load(KEY)
        with pytest.raises(StoreError, match="cannot release"):
            lease.release()
        assert time.monotonic() - began < 20
        during = stamp()
        assert during == stamp()
        server.start()
        assert store.swap(KEY, session, following(session))
        until(lambda: stamp() not in (before, during))
        lease.release()
        taken = store.lease(KEY, owner="b", seconds=30.0, wait=0.0, stop=lambda: False)
        assert taken is not None
        store.close()


def test_a_read_only_server(server: PostgresServer, make: Make) -> None:
    """A server that turned read-only is read from, and a swap says what to do; later all is well."""
    store = make()
    session = begun(store)
    server.run("ALTER SYSTEM SET default_transaction_read_only = on")
    server.run("SELECT pg_reload_conf()")
    try:
        until(lambda: server.run("SHOW default_transaction_read_only") == [("on",)])
        store.close()
        with pytest.raises(StoreError, match="read-only"):
            store.swap(KEY, session, following(session))
        with pytest.raises(StoreError, match="read-only"):
            store.lease(KEY, owner="a", seconds=1.0, wait=5.0, stop=lambda: False)
        assert store.load(KEY) is not None
    finally:
        with psycopg.connect(server.url, autocommit=True, options="-cdefault_transaction_read_only=off") as one:
            one.execute("ALTER SYSTEM RESET default_transaction_read_only")
            one.execute("SELECT pg_reload_conf()")
    until(lambda: server.run("SHOW default_transaction_read_only") == [("off",)])
    store.close()
    assert store.swap(KEY, session, following(session))


def test_a_line_that_freezes(
    server: PostgresServer, make: Make, proxy: Proxy, caplog: pytest.LogCaptureFixture
) -> None:
    """On a line that lets nothing through a call ends within its bound, the stamp stays, and all is well afterwards."""
    store = make(server.at(proxy.port))
    session = begun(store)
    stamp = store.stamp(KEY)
    before = stamp()
    proxy.freeze()
    store._database.timeout = 0.5
    began = time.monotonic()
    with pytest.raises(StoreError, match=r"not answered for 0\.5 s"):
        store.swap(KEY, session, following(session))
    assert time.monotonic() - began < 10
    during = stamp()
    assert during == stamp()
    with caplog.at_level(logging.WARNING, "unexpired"):
        # Nobody says goodbye on such a line: the silence is noticed.
        until(lambda: "are not heard for now" in caplog.text)
    other = make()
    assert other.swap(KEY, other.load(KEY), following(other.load(KEY)))
    proxy.heal()
    store._database.timeout = BOUND
    until(lambda: stamp() not in (before, during))
    found = store.load(KEY)
    assert found is not None
    assert found.version == 2


def test_a_line_that_is_cut(server: PostgresServer, make: Make, proxy: Proxy) -> None:
    """On a line that is cut a call fails at once; a change by others meanwhile shows when it is back."""
    store, other = make(server.at(proxy.port)), make()
    session = begun(store)
    stamp = store.stamp(KEY)
    before = stamp()
    proxy.cut()
    with pytest.raises(StoreError, match=r"cut|again"):
        store.swap(KEY, session, following(session))
    assert other.swap(KEY, session, following(session))
    until(lambda: not store._board.live)
    kept = stamp()
    assert kept == stamp()
    assert before is not None
    proxy.heal()
    until(lambda: stamp() != kept)
    assert store.swap(KEY, following(session), following(following(session)))


def test_a_swap_that_takes_effect_after_it_failed(server: PostgresServer, make: Make, schema: str) -> None:
    """A swap that got no answer in time, and is committed by the server later on, shows in the stamp then."""
    store = make()
    session = begun(store)
    stamp = store.stamp(KEY)
    assert stamp() == stamp()
    with psycopg.connect(server.url) as blocker:
        blocker.execute(f"SELECT FROM {schema}.sessions FOR UPDATE".encode())
        store._database.timeout = 0.5
        with pytest.raises(StoreError, match="not answered"):
            store.swap(KEY, session, following(session))
        store._database.timeout = BOUND
        found = store.load(KEY)
        assert found is not None
        assert found.version == 1
        before = stamp()
    until(lambda: stamp() != before)
    found = store.load(KEY)
    assert found is not None
    assert found.version == 2


@pytest.mark.parametrize("timeout", [7.0, 1.0])
def test_hosts_that_are_dead(server: PostgresServer, make: Make, timeout: float) -> None:
    """Of three hosts the first two may answer nothing: the third one is used, if need be by the next call only."""
    begun(make())
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as two:
        hosts = ",".join(f"127.0.0.1:{port}" for port in (one.getsockname()[1], two.getsockname()[1], server.port))
        store = make(f"postgresql://unexpired@{hosts}/postgres", timeout=timeout)
        began = time.monotonic()
        if timeout < 2.0:
            for _ in range(2):
                with suppress(StoreError):
                    store.load(KEY)
        assert store.load(KEY) is not None
        assert time.monotonic() - began < LONG


def test_nobody_there(make: Make) -> None:
    """A server that was never there: calls fail with advice, a stamp never raises and is always new, a lease fails."""
    store = make(f"postgresql://alice:s3cret@127.0.0.1:{free_port()}/db")
    for call in (store.load, store.set_aside):
        with pytest.raises(StoreError, match=r"nobody listens there.*check its address") as found:
            call(KEY)
        assert "s3cret" not in str(found.value)
    stamp = store.stamp(KEY)
    assert stamp() != stamp()
    with pytest.raises(StoreError, match="nobody listens"):
        store.lease(KEY, owner="a", seconds=1.0, wait=1.0, stop=lambda: False)


def test_a_host_that_nobody_knows(make: Make) -> None:
    """A name that cannot be resolved is the trouble that is told."""
    store = make("postgresql://alice:s3cret@no%20such%20host/db")
    with pytest.raises(StoreError, match=r"its name could not be resolved.*check its address") as found:
        store.load(KEY)
    assert "s3cret" not in str(found.value)


def test_no_such_database_or_user(server: PostgresServer, make: Make) -> None:
    """A database or user that does not exist is named as the trouble."""
    for wrong in (server.url.replace("/postgres", "/nosuch"), server.url.replace("unexpired@", "nobody@")):
        with pytest.raises(StoreError, match="no such database or user"):
            make(wrong).load(KEY)


def test_a_user_who_may_not(server: PostgresServer, make: Make, schema: str) -> None:
    """A user without rights is told to let the owner make the tables, and to be granted them."""
    server.run("DROP ROLE IF EXISTS guest")
    server.run("CREATE ROLE guest LOGIN")
    guest = server.url.replace("unexpired@", "guest@")
    with pytest.raises(StoreError, match="let the owner"):
        make(guest).load(KEY)
    begun(make())
    server.run(f"GRANT USAGE ON SCHEMA {schema} TO guest")
    server.run(f"GRANT ALL ON ALL TABLES IN SCHEMA {schema} TO guest")
    assert make(guest).load(KEY) is not None


def test_tables_that_have_gone(server: PostgresServer, make: Make, schema: str) -> None:
    """When somebody drops the tables, one call fails and says so; the next one makes them anew."""
    store = make()
    begun(store)
    server.run(f"DROP SCHEMA {schema} CASCADE")
    with pytest.raises(StoreError, match="makes them anew"):
        store.load(KEY)
    assert store.load(KEY) is None


def test_all_connections_in_use(make: Make) -> None:
    """Whoever waits for a connection of ours longer than the bound is told so."""
    store = make(connections=1)
    begun(store)
    taken = store._database.connections.take(1.0)
    store._database.timeout = 0.3
    with pytest.raises(StoreError, match="all 1 connections"):
        store.load(KEY)
    store._database.timeout = BOUND
    store._database.connections.give_back(taken)
    assert store.load(KEY) is not None


@pytest.mark.parametrize("autocommit", [True, False])
def test_a_pool_whose_connections_were_cut(server: PostgresServer, make: Make, *, autocommit: bool) -> None:
    """A pool may hand out connections that the server has ended: the store asks for others, unnoticed."""
    settings = {"autocommit": autocommit, "application_name": "pooled"}
    with ConnectionPool(server.url, min_size=3, max_size=3, kwargs=settings, open=True) as pool:
        pool.wait(LONG)
        store = make(pool)
        session = begun(store)
        server.run("SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity WHERE application_name = 'pooled'")
        assert store.swap(KEY, session, following(session))
        with pool.connection() as connection:
            assert connection.autocommit == autocommit


def test_fsync_off_is_told(make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """A server that does not write to its disk cannot keep the promise, and one line of the log says so."""
    with postgres_server(fsync="off") as server, caplog.at_level(logging.WARNING, "unexpired"):
        store = make(server.url)
        store.load(KEY)
        store.stamp(KEY)()
        store.load(KEY)
        store.close()
    assert len([record for record in caplog.records if "fsync" in record.getMessage()]) == 1
