from __future__ import annotations

import itertools
import logging
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from tests.stores.postgres_server import (
    PostgresServer,
    account,
    certificate,
    directory,
    postgres_server,
    program,
)
from tests.stores.postgres_stores import Make, make, schema, server
from tests.stores.postgres_worker import KEY, following
from tests.waiting import until
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import MemoryStore, Sealed, SQLiteStore, Store, migrate
from unexpired.stores.postgres import PostgresStore

LONG = 40.0
SCHEMAS = itertools.count()
RIGHTS = {
    "layout": ["SELECT"],
    "sessions": ["SELECT", "INSERT", "UPDATE", "DELETE"],
    "aside": ["INSERT"],
    "leases": ["SELECT", "INSERT", "UPDATE"],
}
"""What a user who owns nothing is to be granted, beside USAGE of the schema."""

__all__ = ["make", "schema", "server"]


def begun(store: Store, key: str = KEY) -> Session:
    """A first version, stored."""
    session = replace(following(None), key=key)
    assert store.swap(key, None, session)
    return session


def use(store: PostgresStore, session: Session) -> Session:
    """Everything that a store can do, but set a record aside."""
    lease = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
    assert lease is not None
    lease.renew()
    lease.release()
    new = following(session)
    assert store.swap(KEY, session, new)
    found = store.load(KEY)
    assert found is not None
    assert found.version == new.version
    assert list(store.keys()) == [KEY]
    return new


@pytest.mark.parametrize("name", ['we ird "x"; DROP', "ä%(id)s{schema}", "SELECT", "a'b\\c", "%s $1 {{}}", "😀" * 15])
def test_a_schema_of_any_name(server: PostgresServer, make: Make, name: str) -> None:
    """A schema may be called as PostgreSQL lets it: everything works there, and changes are told."""
    store, other = make(schema=name), make(schema=name)
    session = begun(store)
    stamp = other.stamp(KEY)
    before = stamp()
    use(store, session)
    until(lambda: stamp() != before)
    with psycopg.connect(server.url) as connection:
        found = connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = %s", (name,)).fetchone()
    assert found == (4,)


def test_two_schemas_of_one_database(make: Make) -> None:
    """Stores in two schemas share nothing: no session, no lease, no news, no identity."""
    one, two = make(), make(schema=f"place_{next(SCHEMAS)}")
    assert one.identity != two.identity
    session = begun(one)
    assert two.load(KEY) is None
    stamp, own = two.stamp(KEY), make().stamp(KEY)
    before, owns = stamp(), own()
    mine = one.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
    theirs = two.lease(KEY, owner="b", seconds=30.0, wait=0.0, stop=lambda: False)
    assert mine is not None
    assert theirs is not None
    peer = make()
    assert peer.swap(KEY, session, following(session))
    assert own() != owns
    # What is told in both is told in turn: it would have been told by now.
    begun(two, "the end")
    end = make(schema=two._schema).stamp("the end")
    assert end() == end()
    assert stamp() == before
    assert begun(two).version == 1
    assert list(one.keys()) == [KEY]
    assert sorted(two.keys()) == sorted([KEY, "the end"])


def test_a_user_who_owns_nothing(server: PostgresServer, make: Make) -> None:
    """A user with the rights that the documentation names can do everything; without any one of them he is told so."""
    owner = make()
    session = begun(owner)
    schema = owner._schema
    server.run("DROP ROLE IF EXISTS crm")
    server.run("CREATE ROLE crm LOGIN")
    server.run(f"GRANT USAGE ON SCHEMA {schema} TO crm")
    for table, rights in RIGHTS.items():
        server.run(f"GRANT {', '.join(rights)} ON {schema}.{table} TO crm")
    url = server.url.replace("unexpired@", "crm@")

    def everything() -> None:
        nonlocal session
        with PostgresStore(url, schema=schema) as store:
            session = use(store, session)
            begun(store, "torn")
            server.run(f"UPDATE {schema}.sessions SET record = 'torn' WHERE key = 'torn'")
            store.set_aside("torn")
            assert store.load("torn") is None

    everything()
    for table, rights in RIGHTS.items():
        for right in rights:
            server.run(f"REVOKE {right} ON {schema}.{table} FROM crm")
            with pytest.raises(StoreError, match=r"InsufficientPrivilege.*grant this user"):
                everything()
            server.run(f"GRANT {right} ON {schema}.{table} TO crm")
            server.run(f"DELETE FROM {schema}.sessions WHERE key = 'torn'")
            found = owner.load(KEY)
            assert found is not None
            session = found
    everything()


@pytest.mark.parametrize(
    ("setting", "advice"), [("statement_timeout", "statement_timeout"), ("lock_timeout", "holds a lock for long")]
)
def test_a_server_that_bounds_statements(server: PostgresServer, make: Make, setting: str, advice: str) -> None:
    """A statement that the server stops is a StoreError, and did nothing, not even later."""
    session = begun(make())  # to make the tables may take longer
    store = make(f"{server.url}?options=-c{setting}%3D1000")
    with psycopg.connect(server.url) as blocker:
        blocker.execute(f"SELECT FROM {store._schema}.sessions FOR UPDATE".encode())
        with pytest.raises(StoreError, match=advice):
            store.swap(KEY, session, following(session))
    assert store.swap(KEY, session, following(session))


def test_a_server_that_ends_idle_sessions(server: PostgresServer, make: Make, caplog: pytest.LogCaptureFixture) -> None:
    """Where the server ends idle sessions, the connection that listens stays, and others are made again, unnoticed."""
    session = begun(make())  # between the statements that make the tables a session is idle, too
    store = make(f"{server.url}?options=-cidle_session_timeout%3D500&application_name=idle")
    assert store.load(KEY) is not None
    stamp = store.stamp(KEY)
    before = stamp()
    assert stamp() == before
    count = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'idle'"
    with caplog.at_level(logging.WARNING, "unexpired"):
        for _ in range(3):
            until(lambda: server.run(count) == [(1,)])
            old, session = session, following(session)
            assert store.swap(KEY, old, session)
        seen = stamp()
        peer = make()
        assert peer.swap(KEY, session, following(session))
        until(lambda: stamp() != seen)
    assert caplog.text == ""


@pytest.mark.timeout(180)
def test_a_server_that_became_a_standby_with_its_connections(make: Make) -> None:
    """When the primary turns read-only and keeps its connections, the store goes on at the next host, unnoticed."""
    with directory() as place, postgres_server() as old:
        session = begun(make(old.url))
        data = place / "data"
        base = [program("pg_basebackup"), "-D", str(data), "-X", "stream", "-c", "fast", "-d", old.url]
        subprocess.run(base, user=account(), check=True, cwd=place)
        new = PostgresServer(place, {}, existing=True)
        new.start()
        try:
            both = f"postgresql://unexpired@127.0.0.1:{old.port},127.0.0.1:{new.port}/postgres"
            store = make(f"{both}?target_session_attrs=read-write")
            mine = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=lambda: False)
            assert mine is not None
            old.run("ALTER SYSTEM SET default_transaction_read_only = on")
            old.run("SELECT pg_reload_conf()")
            until(lambda: old.run("SHOW default_transaction_read_only") == [("on",)])
            assert store.swap(KEY, session, following(session))
            stored = f"SELECT version FROM {store._schema}.sessions"
            assert (old.run(stored), new.run(stored)) == ([(1,)], [(2,)])
        finally:
            new.stop()


@pytest.fixture(scope="module")
def private() -> Iterator[tuple[PostgresServer, Path]]:
    """A server that speaks TLS, and the certificate that it has made for itself."""
    with directory() as place, postgres_server(**certificate(place)) as one:
        one.run("CREATE ROLE alice LOGIN")
        rules = one.place / "data" / "pg_hba.conf"
        rules.write_text("hostssl all alice all cert\nhost all unexpired all trust\n")
        one.run("SELECT pg_reload_conf()")
        until(lambda: one.run("SELECT count(*) FROM pg_hba_file_rules") == [(2,)])
        yield one, place / "server.crt"


@pytest.mark.parametrize("mode", ["require", "verify-full"])
def test_over_tls(private: tuple[PostgresServer, Path], make: Make, mode: str) -> None:
    """All connections, the one that listens too, are encrypted as the connection string says."""
    server, root = private
    store = make(f"{server.url}?sslmode={mode}&sslrootcert={root}&application_name={mode}")
    session = begun(store)
    stamp = store.stamp(KEY)
    before = stamp()
    assert stamp() == before
    for _ in range(10):
        session = use(store, session)
    assert make(server.url).swap(KEY, session, following(session))
    until(lambda: stamp() != before)
    ssl = f"SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE application_name = '{mode}'"
    assert server.run(ssl) == [(True,), (True,)]


@pytest.mark.parametrize(
    ("settings", "advice"),
    [
        ("sslmode=verify-full&sslrootcert=/nowhere", "certificate is not trusted; check sslmode and sslrootcert"),
        ("sslmode=verify-ca&sslrootcert={other}", "certificate is not trusted; check sslmode and sslrootcert"),
        ("sslmode=disable&user=alice", "check user and password, and its pg_hba.conf"),
        ("sslmode=require&user=alice", "give one by sslcert and sslkey"),
    ],
)
def test_tls_that_cannot_be_agreed_on(
    private: tuple[PostgresServer, Path], tmp_path: Path, settings: str, advice: str
) -> None:
    """A server that is not trusted is not spoken to; the error says which of the two has to show what."""
    certificate(tmp_path)
    url = private[0].url.replace("unexpired@", "") + "?" + settings.format(other=tmp_path / "server.crt")
    with pytest.raises(StoreError, match=advice):
        PostgresStore(url if "user=" in url else f"{url}&user=unexpired").load(KEY)


def test_a_server_without_tls(server: PostgresServer) -> None:
    """A server that does not speak TLS is not spoken to where that is asked for."""
    with pytest.raises(StoreError, match="no agreement on TLS; check sslmode"):
        PostgresStore(f"{server.url}?sslmode=require").load(KEY)


NAMES = ["alice", "a/b", "ä\u0301😀", "\ud800", "a" * 3000, "two\nlines", "nul\0", *map(str, range(1100))]


def test_all_keys_are_listed(make: Make, server: PostgresServer) -> None:
    """Every session is listed by its own key, once, whatever it is, an ended one too, also while others come."""
    store = make(f"{server.url}?options=-cbytea_output%3Descape")
    assert list(store.keys()) == []
    for name in NAMES:
        begun(store, name)
    assert store.swap("alice", replace(following(None), key="alice"), begun(MemoryStore(), "alice").over("logout", 1.0))
    seen: list[str] = []
    for name in store.keys():  # noqa: SIM118 - a store is no mapping
        seen.append(name)
        if len(seen) % 100 == 0:
            begun(store, f"meanwhile {len(seen)}")
    assert set(NAMES) <= set(seen)
    assert len(seen) == len(set(seen))
    server.run(f"DROP SCHEMA {store._schema} CASCADE")
    with pytest.raises(StoreError, match="cannot list"):
        list(store.keys())


@pytest.mark.parametrize("sealed", [False, True])
def test_sessions_move_in_and_out(make: Make, tmp_path: Path, *, sealed: bool) -> None:
    """All sessions of one machine's store move to PostgreSQL, sealed or not, and back again, without being named."""
    local: Store = SQLiteStore(tmp_path / "s.db")
    remote: Store = Sealed(make(), bytes(32)) if sealed else make()
    keys = sorted(["alice", "bob", "ä 😀"])
    tokens = {key: begun(local, key).tokens[None].access_token for key in keys}
    for source, target in ((local, remote), (remote, local), (local, remote)):
        report = migrate(source, target)
        assert (sorted(report.moved), dict(report.failed)) == (keys, {})
        for key in keys:
            found, left = target.load(key), source.load(key)
            assert found is not None
            assert left is not None
            assert found.tokens[None].access_token == tokens[key]
            assert (found.ended, left.ended and left.ended.reason, left.refresh_token) == (None, "moved", None)
    local.close()
