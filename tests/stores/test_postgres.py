from __future__ import annotations

import gc
import hashlib
import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.rows import dict_row
from psycopg_pool import ConnectionPool

from tests.stores.postgres_server import PostgresServer
from tests.stores.postgres_stores import Make, make, schema, server
from tests.stores.postgres_worker import KEY, following
from unexpired._core.record import encode
from unexpired._core.session import Failure, Intent, Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import open_store
from unexpired.stores._postgres_schema import channel
from unexpired.stores.postgres import PostgresStore

LONG = 30.0

__all__ = ["make", "schema", "server"]


def never() -> bool:
    """Do not stop."""
    return False


def listeners() -> set[threading.Thread]:
    """The threads that listen for changes."""
    return {one for one in threading.enumerate() if one.name == "unexpired:postgres"}


def noted(session: Session, owner: str) -> Session:
    """The same version with an intent of *owner*."""
    return session.noted(intent=Intent(session.login, session.version, owner, 1, 1.0), failure=None)


def test_nothing_is_asked_before_it_is_used(schema: str) -> None:
    """Creating a store does not connect, and neither its repr nor an address that is wrong shows a password."""
    store = PostgresStore("postgresql://alice:s3cret@nowhere.invalid/db", schema=schema)
    assert repr(store) == f"PostgresStore('host=nowhere.invalid dbname=db', schema='{schema}')"
    for wrong in ("postgresql://alice:s3cret@[nowhere", "password=s3cret nonsense"):
        with pytest.raises(ConfigurationError) as error:
            PostgresStore(wrong)
        assert "s3cret" not in str(error.value)
        assert error.value.__context__ is None


@pytest.mark.parametrize(
    "how", [{"schema": ""}, {"schema": "a\nb"}, {"schema": "pg_mine"}, {"schema": "x" * 64}, {"timeout": 0}]
)
def test_settings_that_cannot_work_are_refused(how: dict[str, object]) -> None:
    """A schema that no server takes and bounds of nothing are refused at once."""
    with pytest.raises(ConfigurationError):
        PostgresStore("dbname=postgres", **how)  # type: ignore[arg-type]


def test_something_else_is_no_place() -> None:
    """What is neither a connection string nor a pool is refused at once."""
    with pytest.raises(ConfigurationError, match="ConnectionPool"):
        PostgresStore(7)  # type: ignore[arg-type]


def test_a_url_opens_it(server: PostgresServer) -> None:
    """`open_store` takes PostgreSQL's own URLs."""
    for url in (server.url, server.url.replace("postgresql:", "postgres:")):
        store = open_store(url)
        assert isinstance(store, PostgresStore)
        assert store.identity == PostgresStore(server.url).identity
        store.close()


def test_a_table_that_people_can_read(server: PostgresServer, make: Make, schema: str) -> None:
    """The table shows each session's key, version and end in plain columns."""
    store = make()
    first = following(None)
    store.swap(KEY, None, first)
    assert store.swap(KEY, first, first.over("logout", 1.0))
    found = server.run(f"SELECT convert_from(key, 'UTF8'), version, ended FROM {schema}.sessions")
    assert found == [(KEY, 2, True)]


def test_any_text_is_a_login(make: Make) -> None:
    """What a damaged record may hold as its login can be compared and replaced like any other."""
    store, odd = make(), replace(following(None), login="\ud800 \0 ä")
    assert store.swap(KEY, None, odd)
    assert store.swap(KEY, odd, following(odd))


def test_tables_are_made_once_by_many(make: Make, server: PostgresServer, schema: str) -> None:
    """Eight stores that are first used at the same moment make the tables once, and all of them work."""
    stores, barrier, failed = [make() for _ in range(8)], threading.Barrier(8), list[BaseException]()

    def use(number: int) -> None:
        try:
            barrier.wait(30)
            assert stores[number].swap(f"key {number}", None, replace(following(None), key=f"key {number}"))
        except BaseException as error:
            failed.append(error)
            raise

    threads = [threading.Thread(target=use, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert failed == []
    assert server.run(f"SELECT count(*), max(version) FROM {schema}.layout") == [(1, 1)]


def test_a_newer_layout_is_refused(make: Make, server: PostgresServer, schema: str) -> None:
    """Tables that a newer version of this library made are left alone."""
    make().load(KEY)
    server.run(f"UPDATE {schema}.layout SET version = 99")
    with pytest.raises(StoreError, match=r"newer unexpired.*update this program"):
        make().load(KEY)


def test_an_unreadable_record_is_set_aside(make: Make, server: PostgresServer, schema: str) -> None:
    """A damaged record is refused, kept in the table `aside`, and a new login takes its place."""
    store = make()
    store.swap(KEY, None, following(None))
    server.run(f"UPDATE {schema}.sessions SET record = 'torn'")
    fresh = make()
    with pytest.raises(StoreError, match="left as it is"):
        fresh.load(KEY)
    fresh.set_aside(KEY)
    assert fresh.load(KEY) is None
    assert server.run(f"SELECT record FROM {schema}.aside") == [("torn",)]
    assert fresh.swap(KEY, None, following(None))


def test_a_commit_is_on_disk_where_others_are_not(server: PostgresServer, make: Make) -> None:
    """Where the server commits asynchronously, a swap is synchronous all the same."""
    store = make(f"{server.url}?options=-csynchronous_commit%3Doff")
    before = following(None)
    store.swap(KEY, None, before)

    def is_on_disk() -> bool:
        nonlocal before
        after = following(before)
        assert store.swap(KEY, before, after)
        before = after
        return server.run("SELECT pg_current_wal_insert_lsn() = pg_current_wal_flush_lsn()") == [(True,)]

    for _ in range(5):
        # What the server writes for itself may come between a swap and the look, but not every time.
        assert any(is_on_disk() for _ in range(3))


def test_a_lease_ends_on_the_servers_clock(make: Make) -> None:
    """A lease that is not released is free after its seconds, for who waits, and its late release does nothing."""
    store, other = make(), make()
    long = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=never)
    assert long is not None
    assert long.timed
    assert abs(long.granted_at - time.time()) < 5.0
    assert other.lease(KEY, owner="b", seconds=30.0, wait=0.0, stop=never) is None
    long.release()
    began = time.monotonic()
    first = store.lease(KEY, owner="a", seconds=0.4, wait=0.0, stop=never)
    assert first is not None
    second = other.lease(KEY, owner="b", seconds=30.0, wait=20.0, stop=never)
    assert second is not None
    assert time.monotonic() - began >= 0.4
    assert second.granted_at - first.granted_at >= 0.39
    with pytest.raises(StoreError):
        first.renew()
    first.release()
    assert store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=never) is None
    second.renew()


def test_each_lease_is_its_own(make: Make) -> None:
    """The same owner that asks twice gets two leases: the first one's release does not end the second one."""
    store = make()
    first = store.lease(KEY, owner="me", seconds=0.05, wait=0.0, stop=never)
    second = store.lease(KEY, owner="me", seconds=30.0, wait=20.0, stop=never)
    assert first is not None
    assert second is not None
    first.release()
    assert store.lease(KEY, owner="me", seconds=1.0, wait=0.0, stop=never) is None


def test_renewing_prolongs_a_lease(make: Make, server: PostgresServer, schema: str) -> None:
    """A lease that is renewed lasts its seconds from then on, on the server's clock."""
    store, until = make(), f"SELECT until FROM {schema}.leases"
    mine = store.lease(KEY, owner="a", seconds=5.0, wait=0.0, stop=never)
    assert mine is not None
    before = server.run(until)
    mine.renew()
    assert server.run(until) > before
    assert server.run(f"SELECT until <= clock_timestamp() + interval '5 s' FROM {schema}.leases") == [(True,)]


def test_no_connection_is_held_with_a_lease(make: Make) -> None:
    """With one connection in all, everything goes on while a lease is held."""
    store = make(connections=1)
    mine = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=never)
    assert mine is not None
    assert store.swap(KEY, None, following(None))
    assert store.load(KEY) is not None
    mine.release()


def test_a_note_and_a_version_as_the_session_has_it(make: Make) -> None:
    """One statement compares just what `Session.replaces` compares, whatever is stored, expected and new."""
    store, old = make(), following(None)
    new = following(old)
    sessions = [old, noted(old, "me"), noted(noted(old, "me"), "them"), new, replace(new, login="other")]
    for number, (was, expected, after) in enumerate(itertools.product([None, *sessions], [None, *sessions], sessions)):
        key = str(number)
        here = [one and replace(one, key=key) for one in (was, expected, after)]
        if here[0] is not None:
            assert store.swap(key, None, here[0])
        assert here[2] is not None
        assert store.swap(key, here[1], here[2]) == after.replaces(was, expected), (was, expected, after)


def test_who_was_granted_the_lease_reads_anew(make: Make, server: PostgresServer, schema: str) -> None:
    """What was loaded before a lease was granted does not count, though nothing else has been told yet."""
    store, session = make(), following(None)
    stamp = store.stamp(KEY)
    assert stamp() == stamp()
    assert store.swap(KEY, None, session)
    record = encode(following(session)).decode()
    server.run(f"UPDATE {schema}.sessions SET version = 2, record = '{record}'")
    lease = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=never)
    assert lease is not None
    found = store.load(KEY)
    assert found is not None
    assert found.version == 2


def test_a_pool_of_the_programs_own(server: PostgresServer, make: Make) -> None:
    """A pool serves as well, whatever rows it makes, and gets its connections back as they were."""
    with ConnectionPool(server.url, min_size=1, max_size=2, kwargs={"row_factory": dict_row}, open=True) as pool:
        store = make(pool)
        assert store.swap(KEY, None, following(None))
        lease = store.lease(KEY, owner="a", seconds=5.0, wait=0.0, stop=never)
        assert lease is not None
        lease.release()
        stamp = store.stamp(KEY)
        assert stamp() == stamp()
        peer = make()
        assert peer.identity == store.identity
        store.close()
        with pool.connection() as connection:
            assert not connection.autocommit
            found: Any = connection.execute("SELECT 1 AS one").fetchone()
            assert found == {"one": 1}


def test_a_store_that_is_gone_leaves_nothing(server: PostgresServer, schema: str) -> None:
    """When the last store is closed, or is forgotten without it, its thread and its connections end."""
    application = f"of_{schema}"
    count = f"SELECT count(*) FROM pg_stat_activity WHERE application_name = '{application}'"
    before = listeners()
    for closes in (True, False):
        store = PostgresStore(f"{server.url}?application_name={application}", schema=schema)
        store.swap(KEY, None, following(None))
        stamp = store.stamp(KEY)
        assert stamp() == stamp()
        assert server.run(count) == [(2,)]
        if closes:
            store.close()
        else:
            store._database.connections.close()
        del store, stamp
        gc.collect()
        until = time.monotonic() + 30
        while server.run(count) != [(0,)] and time.monotonic() < until:
            time.sleep(0.01)
        assert server.run(count) == [(0,)]
        while not listeners() <= before and time.monotonic() < until:
            time.sleep(0.01)
        assert listeners() <= before


def test_statements_of_one_who_waits(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever waits for the lease is woken by its end: it asks twice, before and after."""
    monkeypatch.setattr("unexpired.stores.postgres._LOOK", LONG)
    store, other = make(), make()
    other.stamp(KEY)()
    asked: list[bytes] = []
    ask = other._database.run

    def counting(doing: str, statement: bytes, *rest: object) -> object:
        asked.append(statement)
        return ask(doing, statement, *rest)  # type: ignore[arg-type]

    mine = store.lease(KEY, owner="a", seconds=30.0, wait=0.0, stop=never)
    assert mine is not None
    other._database.run = counting  # type: ignore[method-assign, assignment]
    waits = threading.Event()

    def stop() -> bool:
        if not waits.is_set():
            waits.set()
            mine.release()
        return False

    began = time.monotonic()
    assert other.lease(KEY, owner="b", seconds=30.0, wait=2 * LONG, stop=stop) is not None
    assert time.monotonic() - began < LONG / 2
    assert len(asked) == 2


def test_what_is_told_to_others(make: Make, server: PostgresServer, schema: str) -> None:
    """Of a session another process is told its versions and failures; an intent is not told, and read when asked."""
    heard: list[str] = []
    store = make()
    session = following(None)
    store.load(KEY)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel(schema))))
        intent = noted(session, "me")
        failed = intent.noted(intent=None, failure=Failure("lost", "why", 1.0, 2.0))
        new = following(failed)
        for before, after in ((None, session), (session, intent), (intent, failed), (failed, new)):
            assert store.swap(KEY, before, after)
            fresh = make().load(KEY)
            assert fresh is not None
            assert (fresh.version, fresh.notes) == (after.version, after.notes)
        heard += [note.payload[0] for note in connection.notifies(timeout=LONG, stop_after=3)]
    assert heard == ["v", "n", "v"]


def test_of_many_who_look_one_asks(make: Make, server: PostgresServer, schema: str) -> None:
    """Twenty callers who look after one change cost one statement, and what one stores itself is not asked for."""
    store = make()
    session = following(None)
    assert store.swap(KEY, None, session)
    stamp = store.stamp(KEY)
    before = stamp()
    asked: list[bytes] = []
    real = store._database.run

    def counting(doing: str, statement: bytes, *rest: object) -> object:
        asked.append(statement)
        time.sleep(0.05)
        return real(doing, statement, *rest)  # type: ignore[arg-type]

    store._database.run = counting  # type: ignore[method-assign, assignment]
    told = f"v {hashlib.sha256(KEY.encode()).hexdigest()} somebody.1"
    server.run(f"SELECT pg_notify('{channel(schema)}', '{told}')")
    until = time.monotonic() + LONG
    while stamp() == before and time.monotonic() < until:
        time.sleep(0.001)
    with ThreadPoolExecutor(20) as pool:
        versions = [found and found.version for found in pool.map(lambda _: store.load(KEY), range(20))]
    assert versions == [1] * 20
    assert len(asked) == 1
    assert store.swap(KEY, session, following(session))
    found = store.load(KEY)
    assert found is not None
    assert found.version == 2
    assert len(asked) == 2


def test_a_connection_that_was_cut_is_made_again(server: PostgresServer, make: Make) -> None:
    """When an administrator ends the connections, the next calls work, and a stamp changes."""
    store = make()
    first = following(None)
    stamp = store.stamp(KEY)
    assert store.swap(KEY, None, first)
    before = stamp()
    server.run("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'unexpired'")
    assert store.swap(KEY, first, following(first))
    until = time.monotonic() + 30
    while stamp() == before and time.monotonic() < until:
        time.sleep(0.01)
    assert stamp() != before
    with psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
