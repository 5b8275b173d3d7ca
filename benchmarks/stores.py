"""What each store costs, beside the same work done by hand; and the places and servers that benchmarks share."""

from __future__ import annotations

import base64
import fcntl
import os
import random
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from filelock import FileLock

from benchmarks.measure import Row, median, timed
from tests.stores.redis_server import RedisServer
from unexpired import TokenManager
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.grants import FunctionGrant
from unexpired.stores import FileStore, Sealed, SQLiteStore, Store, open_store

__all__ = ["KEY", "REFRESH", "Floor", "chain", "each", "figures", "first", "leased", "manager_of", "opened",
           "redis_server", "session_of"]  # fmt: skip

KEY = "bench"
_SEALING_KEY = b"s" * 32
_TARGET = 1.5
_LOOKUPS, _TIMES, _IN_ALL = 500, 10, 400
"""Short rounds, many of them: what else the machine does then falls on all alike."""
REFRESH = "r" * 40


@dataclass(frozen=True)
class Floor:
    """What stands beside one thing that a store does: its name and the seconds of one; *aside* goes into the note."""

    name: str
    seconds: Callable[[], float]
    aside: tuple[str, Callable[[], float]] | None = None


def opened(place: str) -> Store:
    """The store at *place*: a URL, or ``sealed:<directory>`` for sealed files."""
    if place.startswith("sealed:"):
        return Sealed(FileStore(place.removeprefix("sealed:")), _SEALING_KEY)
    return open_store(place)


@contextmanager
def redis_server() -> Iterator[RedisServer]:
    """A Redis of our own that keeps what it is told, as the documentation asks for."""
    with tempfile.TemporaryDirectory() as directory:
        server = RedisServer(Path(directory), "--appendonly", "yes")
        try:
            yield server.start()
        finally:
            server.kill()


def manager_of(store: Store) -> TokenManager:
    """A manager that never refreshes by itself."""

    def never(_: Session) -> Token:
        raise RuntimeError("somebody else refreshes here")

    return TokenManager(FunctionGrant(never), store=store, key=KEY, refresh_ahead=0)


def session_of(key: str) -> Session:
    """A login whose token is fresh all day."""
    token = Token("a" * 40, refresh_token=REFRESH, expires_at=time.time() + 86400, lifetime=86400.0)
    return Session.begin(key, os.urandom(16).hex(), token)


def first(store: Store, key: str) -> Session:
    """That login, stored."""
    session = session_of(key)
    if not store.swap(key, store.load(key), session):
        raise RuntimeError("a first swap was refused")
    return session


def chain(session: Session, length: int) -> list[Session]:
    """What is stored one after another, beginning with what is there."""
    found = [session]
    for _ in range(length):
        found.append(found[-1].minted(replace(session.tokens[None], refresh_token=REFRESH)))
    return found


def each(work: Callable[[], object], times: int) -> float:
    """Seconds that *work* takes, one after another."""

    def loop() -> None:
        for _ in range(times):
            work()

    return timed(loop) / times


def swapping(store: Store, session: Session, times: int) -> Callable[[], float]:
    """Seconds of one swap, *times* new versions each time it is called."""
    last = session

    def seconds() -> float:
        nonlocal last
        steps = chain(last, times)
        left, last = pairwise(steps), steps[-1]

        def swap() -> None:
            if not store.swap(session.key, *next(left)):
                raise RuntimeError("a swap was refused")

        return each(swap, times)

    return seconds


def leased(store: Store) -> None:
    """Take the lease and give it back."""
    held = store.lease(KEY, owner="me", seconds=10.0, wait=1.0, stop=lambda: False)
    if held is None:
        raise RuntimeError("a free lease was not granted")
    held.release()


def figures(title: str, store: Store, warm_limit: float, times: int, floors: Mapping[str, Floor]) -> list[Row]:
    """The rows of one store: a warm call, and ``load``, ``swap`` and ``lease``, each beside its floor.

    *times* is how many of them are taken in a round; the floors do as many in one.
    """
    session = first(store, KEY)
    # Nobody looks out for changes of this one, so each load is a cold one.
    first(store, "cold")
    token = manager_of(store).token

    def warm() -> float:
        token()  # the last swap is news
        return each(token, _LOOKUPS)

    works: dict[str, Callable[[], float]] = {
        "warm": warm,
        "load": lambda: each(lambda: store.load("cold"), times),
        "swap": swapping(store, session, times),
        "lease": lambda: each(lambda: leased(store), times),
    }
    for name, floor in floors.items():
        works[f"floor of {name}"] = floor.seconds
        if floor.aside is not None:
            works[f"aside of {name}"] = floor.aside[1]
    took = {name: median(seconds) for name, seconds in _shuffled(works, times).items()}
    look = took["warm"] * 1e6
    found = [Row(f"{title}: warm call", look, "µs", None, f"≤ {warm_limit}", look <= warm_limit)]
    for name, floor in floors.items():
        beside = took[f"floor of {name}"]
        ratio = took[name] / beside
        note = f"{took[name] * 1e6:.0f} µs beside {beside * 1e6:.0f} µs"
        if floor.aside is not None:
            note += f"; {took[f'aside of {name}'] * 1e6:.0f} µs {floor.aside[0]}"
        found.append(
            Row(f"{title}: {name}, beside {floor.name}", ratio, "times", beside, f"≤ {_TARGET}", ratio <= _TARGET, note)
        )
    return found


def _shuffled(works: Mapping[str, Callable[[], float]], times: int) -> dict[str, list[float]]:
    """All works in each round, in changing order: a warm cache or a used-up turn of the processor is luck for all."""
    found: dict[str, list[float]] = {name: [] for name in works}
    for _ in range(max(7, _IN_ALL // times)):
        for name in random.sample(list(works), len(works)):
            found[name].append(works[name]())
    return found


# -- by hand ---------------------------------------------------------------------------------------------------------


def _read(path: str) -> Session:
    with open(path, "rb") as file:
        return decode(file.read(), KEY, path)


def _write(path: str, data: bytes) -> None:
    """As whoever wants a file to be whole and durable does it."""
    temporary = f"{path}.tmp"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    os.write(descriptor, data)
    os.fsync(descriptor)
    os.close(descriptor)
    os.replace(temporary, path)
    directory = os.open(os.path.dirname(path), os.O_RDONLY)
    os.fsync(directory)
    os.close(directory)


def _locks(path: str) -> Floor:
    def lock() -> None:
        with FileLock(path):
            pass

    def flock() -> None:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        os.close(descriptor)

    aside = ("by flock alone", lambda: each(flock, _TIMES))
    return Floor("filelock", lambda: each(lock, _TIMES), aside)


def _in_files(directory: str) -> list[Row]:
    path = f"{directory}/session"
    data = encode(session_of(KEY))
    _write(path, data)

    def swap() -> None:
        with FileLock(f"{path}.swap"):
            _read(path)
            _write(path, data)

    aside = ("without lock and look", lambda: each(lambda: _write(path, data), _TIMES))
    floors = {
        "load": Floor("open, read and decode", lambda: each(lambda: _read(path), _TIMES)),
        "swap": Floor("filelock, read, write, two fsync", lambda: each(swap, _TIMES), aside),
        "lease": _locks(f"{directory}/lock"),
    }
    with closing(FileStore(f"{directory}/files")) as store:
        return figures("FileStore", store, 2.0, _TIMES, floors)


def _in_sqlite(directory: str) -> list[Row]:
    record, name = encode(session_of(KEY)), KEY.encode()
    raw = sqlite3.connect(f"{directory}/by-hand.db", isolation_level=None)
    raw.execute("PRAGMA journal_mode = WAL")
    raw.execute("PRAGMA synchronous = FULL")
    raw.execute("CREATE TABLE sessions (key BLOB PRIMARY KEY, version INTEGER, record BLOB) WITHOUT ROWID")
    raw.execute("INSERT INTO sessions VALUES (?, 1, ?)", (name, record))
    select = "SELECT record FROM sessions WHERE key = ?"

    def load() -> Session:
        return decode(raw.execute(select, (name,)).fetchone()[0], KEY, "by hand")

    def swap(look: Callable[[], object] = load) -> None:
        raw.execute("BEGIN IMMEDIATE")
        look()
        raw.execute("UPDATE sessions SET version = version + 1, record = ? WHERE key = ?", (record, name))
        raw.execute("COMMIT")

    aside = ("without the look", lambda: each(lambda: swap(bool), _TIMES))
    floors = {
        "load": Floor("sqlite3 and decode", lambda: each(load, _TIMES)),
        "swap": Floor("sqlite3 and decode", lambda: each(swap, _TIMES), aside),
        "lease": _locks(f"{directory}/lock"),
    }
    with closing(raw), closing(SQLiteStore(f"{directory}/sessions.db")) as store:
        return figures("SQLiteStore", store, 2.0, _TIMES, floors)


def _sealed(directory: str) -> list[Row]:
    files, cipher, nonce = FileStore(f"{directory}/unsealed"), AESGCM(_SEALING_KEY), b"n" * 12
    record = encode(session_of(KEY))
    sealed = base64.b64encode(cipher.encrypt(nonce, record, None)).decode()
    session = replace(session_of(KEY), tokens={}, refresh_token=sealed)
    files.swap(KEY, None, session)
    last = session

    def load() -> Session:
        found = files.load(KEY)
        assert found is not None
        return decode(cipher.decrypt(nonce, base64.b64decode(found.refresh_token or ""), None), KEY, "by hand")

    def swap() -> None:
        nonlocal last
        text = base64.b64encode(cipher.encrypt(nonce, record, None)).decode()
        before, last = last, replace(last, version=last.version + 1, refresh_token=text)
        files.swap(KEY, before, last)

    floors = {
        "load": Floor("FileStore, AES-GCM and decode", lambda: each(load, _TIMES)),
        "swap": Floor("AES-GCM and FileStore", lambda: each(swap, _TIMES)),
        "lease": Floor("FileStore", lambda: each(lambda: leased(files), _TIMES)),
    }
    with closing(opened(f"sealed:{directory}/sealed")) as store:
        return figures("Sealed(FileStore)", store, 2.0, _TIMES, floors)


def rows() -> Iterator[Row]:
    """The stores of one machine; `redis_store` and `postgres_store` have those with a server."""
    for kind in (_in_files, _in_sqlite, _sealed):
        with tempfile.TemporaryDirectory() as directory:
            yield from kind(directory)
