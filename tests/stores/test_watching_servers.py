from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.stores.ports import free_port
from tests.stores.postgres_server import postgres_server
from tests.stores.proxy import Proxy
from tests.stores.redis_server import KEY, RedisServer
from tests.waiting import until
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores._listening import Run
from unexpired.stores._postgres_connections import OwnConnections
from unexpired.stores._postgres_database import Database
from unexpired.stores._postgres_listening import Hearing
from unexpired.stores.postgres import PostgresStore
from unexpired.stores.redis import RedisStore

Store = RedisStore | PostgresStore


@dataclass(frozen=True)
class Place:
    """A server, by a line that can be cut and by one that cannot."""

    proxy: Proxy
    url: str
    open: Callable[[str], Store]

    def store(self) -> Store:
        """A store on the line that can be cut."""
        return self.open(self.url.replace(self.url.rpartition(":")[2].partition("/")[0], str(self.proxy.port)))

    def far(self) -> Store:
        """One that shares nothing with it, as another process would have it."""
        return self.open(self.url.replace("127.0.0.1", "localhost"))


@contextmanager
def redis_place(directory: Path) -> Iterator[Place]:
    """A Redis."""
    server = RedisServer(directory / "redis", "--appendonly", "yes").start()
    proxy = Proxy(server.port)
    try:
        yield Place(proxy, server.url, lambda url: RedisStore(f"{url}?socket_timeout=1&socket_connect_timeout=1"))
    finally:
        proxy.close()
        server.kill()


@contextmanager
def postgres_place(_: Path) -> Iterator[Place]:
    """A PostgreSQL."""
    with postgres_server() as server:
        proxy = Proxy(server.port)
        try:
            yield Place(proxy, server.url, PostgresStore)
        finally:
            proxy.close()


@pytest.fixture(params=[redis_place, postgres_place], ids=["redis", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    """Each kind of server that tells of changes."""
    with request.param(tmp_path) as place:
        yield place


def listening(store: Store) -> Run | None:
    """What listens for this store, if anything does."""
    return store._board._run


@pytest.mark.usefixtures("first_stamp_in_time")
def test_a_silent_server_bounds_the_first_look(place: Place) -> None:
    """A server that is silent from the start holds up no stamp for long; `load` raises in the store's bounds."""
    place.proxy.freeze()
    with place.store() as store:
        stamp = store.stamp(KEY)
        began = time.monotonic()
        seen = {stamp() for _ in range(50)}
        assert len(seen) == 50
        assert time.monotonic() - began < 5.0
        with pytest.raises(StoreError):
            store.load(KEY)
        assert time.monotonic() - began < 20.0
        place.proxy.heal()
        until(lambda: store._board.live, "it hears")
        assert stamp() == stamp()
        assert store.load(KEY) is None


def test_a_cut_line_is_heard_on_again(place: Place) -> None:
    """The stamps of a process that is cut off stay; when the line is mended it sees what others changed meanwhile."""
    with place.store() as store, place.far() as far:
        first = Session(KEY, "login", 1)
        assert far.swap(KEY, None, first)
        stamp = store.stamp(KEY)
        before = stamp()
        assert store.load(KEY) is not None
        place.proxy.cut()
        until(lambda: not store._board.live, "the cut is noticed")
        assert far.swap(KEY, first, first.over("logout", 1.0))
        assert stamp() == before
        place.proxy.heal()
        until(lambda: stamp() != before, "it is back")
        found = store.load(KEY)
        assert found is not None
        assert found.ended is not None


def test_a_closed_store_is_opened_by_its_next_use(place: Place) -> None:
    """Closing the last store ends its thread; a stamp alone does not start it again, the next use does."""
    with place.store() as store:
        stamp = store.stamp(KEY)
        assert stamp() == stamp()
        first = listening(store)
        assert first is not None
        store.close()
        until(lambda: not first.thread.is_alive(), "the thread ends")
        assert listening(store) is None
        assert stamp() != stamp()
        assert listening(store) is None
        assert store.load(KEY) is None
        assert stamp() == stamp()
        assert listening(store) is not None


def test_own_changes_are_no_news(place: Place) -> None:
    """What one stores oneself changes the stamp once, and is known without a look; an intent is not told to others."""
    with place.store() as store, place.far() as far:
        stamps = [store.stamp(KEY), far.stamp(KEY)]
        before = [stamp() for stamp in stamps]
        first = Session(KEY, "login", 1)
        assert store.swap(KEY, None, first)
        own = stamps[0]()
        assert own != before[0]
        assert store.load(KEY) is first
        until(lambda: stamps[1]() != before[1], "the other one hears")
        known = stamps[1]()
        noted = first.noted(intent=None, failure=None)
        assert store.swap(KEY, first, noted)
        assert stamps[0]() != own
        bob = far.stamp("bob")
        before_bob = bob()
        assert store.swap("bob", None, Session("bob", "login", 1))
        until(lambda: bob() != before_bob, "a later change is heard")
        assert stamps[1]() == known


def test_sessions_may_be_read_where_nothing_is_heard() -> None:
    """Whether sessions can be read is asked on the way they are read by, not on the one that listens."""
    with postgres_server() as server:
        ways = [OwnConnections(f"postgresql://unexpired@127.0.0.1:{free_port()}/postgres", 1)]
        ways.append(OwnConnections(server.url, 1))
        dead, living = [Database(way, "unexpired", "here", 5.0) for way in ways]
        with ExitStack() as stack:
            for way in ways:
                stack.callback(way.close)
            assert not Hearing(dead, 1.0, direct=True).reads()
            assert Hearing(dead, 1.0, direct=True, reads=living).reads()


def test_who_was_granted_the_lease_reads_anew(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was loaded before a lease was granted does not count, though nothing has been told of a change yet."""
    with place.store() as store, place.far() as far:
        first = Session(KEY, "login", 1)
        assert store.swap(KEY, None, first)
        stamp = store.stamp(KEY)
        assert stamp() == stamp()
        assert store.load(KEY) is not None
        monkeypatch.setattr(store._board, "told", lambda _: None)
        assert far.swap(KEY, first, first.over("logout", 1.0))
        lease = store.lease(KEY, owner="me", seconds=30.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        found = store.load(KEY)
        assert found is not None
        assert found.ended is not None
        lease.release()


def test_changes_are_seen_though_the_way_past_the_pooler_is_closed() -> None:
    """Where `listen` leads nowhere, but sessions can be read, changes by others are seen, a little later."""
    nowhere = f"postgresql://unexpired@127.0.0.1:{free_port()}/postgres"
    with postgres_server() as server, PostgresStore(server.url, listen=nowhere) as store:
        stamp = store.stamp(KEY)
        until(lambda: isinstance(stamp(), int), "sessions can be read")
        with PostgresStore(server.url.replace("127.0.0.1", "localhost")) as far:
            assert store.load(KEY) is None
            before = stamp()
            assert far.swap(KEY, None, Session(KEY, "login", 1))
            until(lambda: stamp() != before, "everybody looks again")
            assert store.load(KEY) is not None
