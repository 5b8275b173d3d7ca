from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tests.stores.test_sqlite import FIRST, KEY, SECOND, path, raw, store
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import _sqlite_database
from unexpired.stores.sqlite import SQLiteStore

__all__ = ["path", "store"]

# Ctrl-C reaches the main thread while it waits inside SQLite: it is raised when the transaction has just begun.
CTRL_C = """
import queue, signal, sqlite3, sys, threading
from tests.stores.test_sqlite import FIRST, KEY, SECOND
from unexpired.stores.sqlite import SQLiteStore
store = SQLiteStore(sys.argv[1])
assert store.swap(KEY, None, FIRST)
begun = queue.SimpleQueue()
store._database._writer.connection.set_trace_callback(begun.put)
other = sqlite3.connect(sys.argv[1], isolation_level=None, check_same_thread=False)
other.execute("BEGIN IMMEDIATE")

def interrupt():
    while "BEGIN" not in begun.get(timeout=60):
        pass
    signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
    other.execute("COMMIT")

thread = threading.Thread(target=interrupt)
thread.start()
try:
    store.swap(KEY, FIRST, SECOND)
except KeyboardInterrupt:
    print("interrupted")
thread.join(60)
other.execute("BEGIN IMMEDIATE")
other.execute("COMMIT")
print("others can write")
print(store.load(KEY).version, store.swap(KEY, FIRST, SECOND))
"""


def test_ctrl_c_while_a_swap_waits_holds_nobody_up(tmp_path: Path) -> None:
    """A swap that is interrupted while it waits for another program leaves no transaction open behind it."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CTRL_C, str(tmp_path / "sessions" / "sessions.db")],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.stdout.splitlines() == ["interrupted", "others can write", "1 True"], done.stderr


def test_a_swap_inside_a_swap_is_refused_and_spoils_none(store: SQLiteStore) -> None:
    """A signal handler that stores something in the middle of a swap gets an error, and the swap goes on."""
    another = Session.begin("another", "login", "refresh")
    with store._database.written(KEY) as writing:
        writing.execute("INSERT INTO aside (key, record, at) VALUES (?, ?, ?)", (b"kept", b"", "now"))
        with pytest.raises(StoreError, match="a signal handler cannot store anything in the middle of a swap"):
            store.swap("another", None, another)
    with closing(raw(Path(store._path))) as other:
        assert other.execute("SELECT key FROM aside").fetchall() == [(b"kept",)]
    assert store.swap("another", None, another)


def test_a_reader_does_not_wait_for_who_holds_it_all(store: SQLiteStore, path: Path) -> None:
    """A program that holds the whole database while ours opens it costs a reader half a second, and says so."""
    assert FIRST.same_version(store.load(KEY))
    waits = [
        link.connection.execute("PRAGMA busy_timeout").fetchone()[0]
        for link in (store._database._reader, store._database._writer)
        if link is not None
    ]
    assert waits == [500, 10_000]
    store.close()
    with closing(raw(path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(StoreError, match="SQLITE_BUSY; somebody holds it"):
            store.load(KEY)
        assert store.stamp(KEY)() is None
        other.execute("ROLLBACK")
    assert store.swap(KEY, FIRST, SECOND)


def test_a_reader_that_has_to_make_the_changes_waits_no_longer(
    store: SQLiteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does one that finds the file of changes missing while another program writes."""
    store.close()
    Path(f"{path}-changes").unlink()
    monkeypatch.setattr(_sqlite_database, "BUSY", 1e6)
    with closing(raw(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError, match="SQLITE_BUSY"):
            store.load(KEY)
        other.execute("ROLLBACK")
    assert FIRST.same_version(store.load(KEY))


def test_a_path_that_is_too_long_is_told(tmp_path: Path) -> None:
    """A name that leaves no room for SQLite's own suffixes is a StoreError, at every use."""
    store = SQLiteStore(tmp_path / ("x" * 250))
    for _ in range(2):
        with pytest.raises(StoreError, match="File name too long"):
            store.swap(KEY, None, FIRST)
    with pytest.raises(StoreError, match="File name too long"):
        store.load(KEY)
    assert not isinstance(store.stamp(KEY)(), sqlite3.Row | bytes)
