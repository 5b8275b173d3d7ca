from __future__ import annotations

import shutil
import subprocess
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import psycopg
import pytest
import redis
from redis.cluster import LoadBalancingStrategy

from tests.stores.frozen_scene import BOUND, LOCAL, TIMED, Process, Scene, late, place_of, token
from tests.stores.postgres_server import PostgresServer, account, directory, postgres_server, program
from tests.stores.redis_server import RedisCluster, RedisServer
from tests.waiting import until
from unexpired import TokenManager
from unexpired._core.record import encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, StoreError, TemporarilyUnavailable
from unexpired.stores import open_store
from unexpired.stores.redis import RedisStore

pytestmark = pytest.mark.timeout(120)
NUMBERS = count(1)
CALLERS, FLIGHT, SAFETY_NET = 10, 2.0, 0.25
PAST = 3.0
"""Seconds: of a flight whose deadline is waited for."""


@dataclass(frozen=True)
class Fleet:
    """A place of one kind, and two processes that share it."""

    kind: str
    place: str
    scene: Scene
    one: Process
    two: Process


@pytest.fixture(scope="module", params=(*TIMED, *LOCAL))
def fleet(request: pytest.FixtureRequest) -> Iterator[Fleet]:
    """One for this file."""
    with place_of(request.param) as place, Scene(place) as scene:
        yield Fleet(request.param, place, scene, *scene.start(2))


@pytest.fixture
def key() -> str:
    """A session of this test's own."""
    return f"alice {next(NUMBERS)}"


def place_in_redis(key: str) -> str:
    """Where it has the session."""
    return f"unexpired:session:{{{quote(key)}}}"


def silently(fleet: Fleet, session: Session) -> None:
    """Store it as a process does whose news are lost, where there are any."""
    record = encode(session)
    if fleet.kind == "redis":
        fields: Any = {"version": session.version, "notes": session.notes, "record": record}
        with redis.Redis.from_url(fleet.place) as raw:
            raw.hset(place_in_redis(session.key), mapping=fields)
    elif fleet.kind == "postgres":
        update = "UPDATE unexpired.sessions SET version = %s, notes = %s, record = %s WHERE key = %s"
        with psycopg.connect(fleet.place, autocommit=True) as connection:
            connection.execute(update, (session.version, session.notes, record.decode(), session.key.encode()))
    else:
        assert fleet.scene.store.swap(session.key, fleet.scene.stored(session.key), session)


# ---- slow answers ---------------------------------------------------------------------------------------------------


def test_an_answer_that_takes_longer_than_the_deadline_counts_as_lost(fleet: Fleet, key: str) -> None:
    """Scenario 15: a flight does not outlast its lease, however slow the server: it ends at its deadline, unanswered.

    Everybody is told to come back, in every process; the token in hand is served meanwhile. Without a grace period the
    version is sent once more after the pause, and then never again.
    """
    issuer, patient = fleet.scene.begin(key), fleet.scene.begin(f"{key}, patient", grace=60.0)
    for process in (fleet.one, fleet.two):
        process.manage(key, issuer, patience=0, deadline=PAST)
        process.manage(f"{key}, patient", patient, grace=60.0, deadline=PAST)
    for server in (issuer, patient):
        late(server, "never")
    for name, server in ((key, issuer), (f"{key}, patient", patient)):
        fleet.one.order("refresh", name)
        server.wait("token_request_held")
        fleet.two.order("refresh", name)
    for process in (fleet.one, fleet.two):
        told = process.hear(key)
        assert told["got"] == "TemporarilyUnavailable"
        assert "was lost (no answer in time)" in told["why"]
    stored = fleet.scene.stored(key)
    assert stored.failure is not None
    assert stored.intent is not None
    assert (stored.version, stored.ended, stored.failure.kind, stored.intent.owner) == (1, None, "lost", "")
    assert fleet.two.ask("token", key) == token(key, 1, stored)
    assert issuer.stats().token_posts == 1
    retry_at = stored.failure.retry_at
    until(lambda: time.time() > retry_at, "the pause is over")
    over = {"key": key, "got": "LoginRequired", "why": "answer_lost"}
    assert fleet.two.ask("refresh", key) == over
    issuer.release("never")
    assert fleet.one.ask("refresh", key) == fleet.scene.told(fleet.two, key) == over
    assert issuer.stats().token_posts == 2
    served = token(f"{key}, patient", 2, fleet.scene.stored(f"{key}, patient"))
    assert fleet.one.hear(served["key"]) == fleet.two.hear(served["key"]) == served
    assert (patient.stats().token_posts, patient.stats().reuse_detected) == (2, 0), "once more, for both"


def test_with_a_grace_period_a_lost_answer_is_asked_for_again_at_once(fleet: Fleet, key: str) -> None:
    """The server rotated and the answer broke off: the same version is sent again in the same flight, unnoticed."""
    issuer = fleet.scene.begin(key, grace=60.0)
    fleet.one.manage(key, issuer, grace=60.0, patience=0)
    issuer.faults(["reset_after_commit"])
    assert fleet.one.ask("refresh", key) == token(key, 2, fleet.scene.stored(key))
    assert (issuer.stats().token_posts, issuer.stats().reuse_detected) == (2, 0)


# ---- waiting --------------------------------------------------------------------------------------------------------


def test_the_record_is_read_again_before_a_wait_ends_in_vain(fleet: Fleet, key: str) -> None:
    """Scenario 18: whoever has waited too long for the lease looks at the record first, even if no news came."""
    issuer = fleet.scene.begin(key)
    fleet.two.manage(key, issuer, lease_wait=0.5, patience=0)
    fleet.two.go_until(key, "asking")
    held = fleet.scene.store.lease(key, owner="test", seconds=60.0, wait=0.0, stop=lambda: False)
    assert held is not None
    new = fleet.scene.stored(key).minted(Token("there it is", expires_at=time.time() + 3600))
    silently(fleet, new)
    fleet.two.order("go", "")
    told = fleet.two.hear(key)
    held.release()
    assert told == token(key, 2, new)
    assert issuer.stats().token_posts == 0


@contextmanager
def counted(kind: str) -> Generator[tuple[str, str, Callable[[], list[str]]]]:
    """A place for sessions, the same for a process whose commands are counted, and what it has sent since the last."""
    with ExitStack() as stack:
        if kind == "redis":
            server = RedisServer(stack.enter_context(directory()))
            stack.callback(server.kill)
            server.start()
            raw: Any = stack.enter_context(server.client())
            monitor: Any = stack.enter_context(raw.monitor())
            yield server.url, f"{server.url}?client_name=waiter", lambda: _monitored(raw, monitor)
        else:
            logged = {"log_statement": "all", "log_min_messages": "log", "log_line_prefix": "%a|"}
            database = stack.enter_context(postgres_server(**logged))
            yield database.url, f"{database.url}?application_name=waiter", _reader(database.place / "log")


def _monitored(raw: Any, monitor: Any) -> list[str]:
    mark = f"mark {next(NUMBERS)}"
    raw.echo(mark)
    ours = {one["addr"] for one in raw.client_list() if one["name"] == "waiter"}
    sent = []
    while mark not in (said := monitor.next_command())["command"]:
        if f"{said['client_address']}:{said['client_port']}" in ours:
            sent.append(said["command"].partition(" ")[0].upper())
    return [one for one in sent if one != "PING"]


def _reader(log: Path) -> Callable[[], list[str]]:
    read = [0]

    def sent() -> list[str]:
        text = log.read_text()
        new, read[0] = text[read[0] :], len(text)
        said = [line.removeprefix("waiter|LOG:  ") for line in new.splitlines() if line.startswith("waiter|LOG:  ")]
        # The connection that listens asks by a statement without words whether the server is alive.
        return [one for one in said if one.startswith(("execute ", "statement: ")) and one.strip() != "statement:"]

    return sent


@pytest.mark.parametrize("kind", TIMED)
def test_waiters_are_woken_by_the_result(kind: str, key: str) -> None:
    """Scenario 22: ten callers in another process wait two seconds for a refresh, and cost a few commands together.

    They are served as soon as the result is stored, while its lease is still held: it was no question of theirs that
    found it. Once every 250 ms the lease is asked for, in case news are lost, and beyond that there are three commands.
    """
    with counted(kind) as (place, theirs, sent), Scene(place) as scene:
        issuer = scene.begin(key)
        (holder,), (waiter,) = scene.start(1), scene.start(1, theirs)
        holder.manage(key, issuer, deadline=2 * BOUND)
        waiter.manage(key, issuer, deadline=2 * BOUND, lease_wait=2 * BOUND, wait=2 * BOUND)
        waiter.ask("token", key)
        late(issuer, "flight")
        holder.order("stop", key, at="before release")
        holder.order("refresh", key)
        issuer.wait("token_request_committed")
        sent()
        began = time.monotonic()
        waiter.go_until(key, "asking")
        waiter.order("go", key)
        for _ in range(CALLERS - 1):
            waiter.order("refresh", key)
        time.sleep(FLIGHT)
        issuer.release("flight")
        assert holder.hear(key) == {"key": key, "at": "before release"}
        served = [waiter.hear(key) for _ in range(CALLERS)]
        seconds = time.monotonic() - began
        assert served == [token(key, 2, scene.stored(key))] * CALLERS
        assert scene.leased(key)
        commands = sent()
        holder.order("go", "")
        assert holder.hear(key) == served[0]
        assert 1 <= len(commands) <= 3 + seconds / SAFETY_NET
        print(f"{kind}: {len(commands)} commands of {CALLERS} callers in {seconds:.1f} s: {commands}")  # noqa: T201


# ---- places that lag ------------------------------------------------------------------------------------------------


def test_a_redis_client_that_reads_from_replicas_is_refused(tmp_path: Path) -> None:
    """Scenario 20: what a replica says may be old, so a client that asks one is refused before it is used."""
    sentinel: Any = cast("Any", redis).Sentinel([("127.0.0.1", 1)])
    with pytest.raises(ConfigurationError, match="reads from primaries"):
        RedisStore(sentinel.slave_for("crm"))
    cluster = RedisCluster(tmp_path)
    try:
        cluster.start()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # there are two ways to ask for it, one of them old
            old = cluster.client(read_from_replicas=True)
        new = cluster.client(load_balancing_strategy=LoadBalancingStrategy.ROUND_ROBIN)
        for client in (old, new):
            with client, pytest.raises(ConfigurationError, match="reads from primaries"):
                RedisStore(client)
    finally:
        cluster.kill()


@contextmanager
def standby_of(primary: PostgresServer) -> Generator[PostgresServer]:
    """A server that follows *primary*, made of a copy of it."""
    with directory() as place:
        data = place / "data"
        base = [program("pg_basebackup"), "-D", str(data), "-R", "-X", "stream", "-c", "fast", "-d", primary.url]
        subprocess.run(base, user=account(), check=True, cwd=place)
        standby = PostgresServer(place, {}, existing=True)
        standby.start()
        try:
            yield standby
        finally:
            standby.stop()
            shutil.rmtree(data, ignore_errors=True)


@contextmanager
def followed(kind: str, tmp_path: Path) -> Generator[tuple[str, str, Callable[[], object]]]:
    """A server, another that follows it, and what makes that one fall behind."""
    with ExitStack() as stack:
        if kind == "redis":
            first = RedisServer(tmp_path / "primary")
            stack.callback(first.kill)
            first.start()
            second = RedisServer(tmp_path / "replica", "--replicaof", "127.0.0.1", str(first.port))
            stack.callback(second.kill)
            second.start()
            raw = stack.enter_context(second.client())
            # Its primary is now one that is not there.
            yield first.url, second.url, lambda: raw.replicaof("127.0.0.1", 1)
        else:
            primary = stack.enter_context(postgres_server())
            with Scene(primary.url) as scene:
                scene.store.load("")  # makes the tables
            standby = stack.enter_context(standby_of(primary))
            url = f"{standby.url}?target_session_attrs=standby"
            yield primary.url, url, lambda: standby.run("SELECT pg_wal_replay_pause()")


class Split:
    """A store whose reads come from a replica."""

    def __init__(self, primary: Any, replica: Any) -> None:
        self.identity = ("split", id(self))
        self.load = replica.load
        self._primary = primary

    def __getattr__(self, name: str) -> Any:
        return getattr(self._primary, name)


@pytest.mark.parametrize("kind", TIMED)
def test_nothing_is_redeemed_by_what_a_replica_says(kind: str, tmp_path: Path, key: str) -> None:
    """Scenario 20: a replica grants no lease, so a program that was led to one refreshes nothing.

    Where reads alone come from one, a version that is gone on the primary is not sent, and nobody is logged out by it.
    """
    with (
        followed(kind, tmp_path) as (place, behind, lag),
        Scene(place) as scene,
        open_store(behind) as replica,  # type: ignore[attr-defined]
    ):
        issuer = scene.begin(key)
        until(lambda: replica.load(key), "the replica follows")
        lag()
        here = scene.manager(key)
        assert here.refresh().minted == 2
        assert replica.load(key).version == 1
        with pytest.raises(StoreError, match=r"replica|standby"):
            TokenManager(here._grant, store=replica, key=key).refresh()
        mixed: Any = Split(scene.store, replica)
        with pytest.raises(TemporarilyUnavailable):
            TokenManager(here._grant, store=mixed, key=key, lease_wait=0.5, patience=0).refresh()
        assert (issuer.stats().token_posts, issuer.stats().reuse_detected) == (1, 0)
        assert here.refresh().minted == 3


# ---- unrelated writers ----------------------------------------------------------------------------------------------


def test_what_others_write_meanwhile_costs_no_token(fleet: Fleet, key: str) -> None:
    """Scenario 30: what others write during a refresh does not keep the rotated token from being stored.

    Notes on the same version, the seed at another program's start, a login of somebody else, a field of a stranger's.
    """
    scene, neighbour = fleet.scene, f"{key}'s neighbour"
    issuer = scene.begin(key)
    first = issuer.login()
    begun = scene.manager(key).login(first)
    scene.begin(neighbour)
    for process in (fleet.one, fleet.two):
        process.manage(key, issuer, deadline=BOUND)
    late(issuer, "late")
    fleet.one.order("refresh", key)
    issuer.wait("token_request_held")
    noted = scene.stored(key)
    for _ in range(3):
        before, noted = noted, noted.noted(intent=noted.intent, failure=None)
        assert scene.store.swap(key, before, noted)
    assert fleet.two.ask("seed", key, answer=first) == {"key": key, "got": "seed", "version": 1}
    scene.manager(neighbour).login(scene.issuers[neighbour].login())
    stranger(fleet, key)
    issuer.release("late")
    served = token(key, 2, begun)
    assert fleet.one.hear(key) == scene.told(fleet.two, key) == served
    assert fleet.two.ask("refresh", key) == token(key, 3, begun)
    assert (issuer.stats().token_posts, issuer.stats().reuse_detected) == (2, 0)
    assert scene.stored(neighbour).version == 1


def stranger(fleet: Fleet, key: str) -> None:
    """Another program writes into the same record, where one could."""
    if fleet.kind == "redis":
        with redis.Redis.from_url(fleet.place) as raw:
            raw.hset(place_in_redis(key), "colour", "green")
            raw.expire(place_in_redis(key), 3600)
    elif fleet.kind == "postgres":
        with psycopg.connect(fleet.place, autocommit=True) as connection:
            connection.execute("UPDATE unexpired.sessions SET changed = now() WHERE key = %s", (key.encode(),))
