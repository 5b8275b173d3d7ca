"""Many threads on one `RedisStore`: they share its connections, and wait for one where there is none."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.stores.redis_server import RedisServer
from unexpired._core.session import Session
from unexpired.stores.redis import RedisStore

THREADS = 200


def test_more_threads_than_connections(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hundred threads that ask a slow server at the same moment are all answered, by a bounded few connections."""
    # They take turns, and so do two hundred threads on a slow machine.
    monkeypatch.setattr("unexpired.stores._redis_link._TIMEOUT", 30.0)
    server = RedisServer(tmp_path / "redis").start()
    try:
        with RedisStore(server.url) as store, server.client() as raw:
            for number in range(THREADS):
                assert store.swap(f"user {number}", None, Session(f"user {number}", "login", 1))
            raw.execute_command("CLIENT", "PAUSE", 300, "ALL")
            with ThreadPoolExecutor(THREADS) as pool:
                found = list(pool.map(lambda number: store.load(f"user {number}"), range(THREADS)))
            assert [session.key for session in found if session is not None] == [
                f"user {number}" for number in range(THREADS)
            ]
            assert len(raw.client_list()) <= 64 + 2
    finally:
        server.kill()
