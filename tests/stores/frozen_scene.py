"""The hand on processes that stop in the middle of their flights, and what they share; see `frozen_worker`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import psycopg
import redis

from tests.stores.postgres_server import postgres_server
from tests.stores.redis_server import RedisServer
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import open_store
from unexpired.testing import ServerConfig, ServerHandle, running_server

BOUND = 50.0
DEADLINE, MARGIN = 5.0, 2.0
"""Seconds: of a flight here, and what a timed lease and the wait for another owner's intent last beyond it."""
TIMED, LOCAL = ("redis", "postgres"), ("file", "sqlite")
ROOT = Path(__file__).resolve().parents[2]


@contextmanager
def place_of(kind: str) -> Generator[str]:
    """Where sessions can be kept for a while: a file: or URL, with a server of its own where it needs one."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="unexpired-")))
        if kind == "redis":
            server = RedisServer(directory, "--appendonly", "yes")
            stack.callback(server.kill)
            yield server.start().url
        elif kind == "postgres":
            yield stack.enter_context(postgres_server()).url
        else:
            yield f"{kind}:{directory / 'sessions'}"


class Process:
    """The hand on one such process."""

    def __init__(self, place: str) -> None:
        command = [sys.executable, "-m", "tests.stores.frozen_worker", place]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        self._said: list[dict[str, Any]] = []
        self._more = threading.Condition()
        self._listener = threading.Thread(target=self._listen)
        self._listener.start()

    def manage(self, key: str, issuer: ServerHandle, *, grace: float = 0.0, **settings: Any) -> None:
        """Make a manager for *key*."""
        settings = {"deadline": DEADLINE, "refresh_ahead": 0, **settings}
        self.order("manage", key, url=issuer.url, grace=grace, settings=settings)

    def order(self, do: str, key: str, **more: Any) -> None:
        """Tell it to do something: what comes of it is heard."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"do": do, "key": key, **more}) + "\n")
        self._process.stdin.flush()

    def go_until(self, key: str, point: str, do: str = "refresh") -> None:
        """Let it *do* something for *key*, up to that *point*, where it waits for the word to go on."""
        self.order("stop", key, at=point)
        self.order(do, key)
        assert self.hear(key) == {"key": key, "at": point}

    def hear(self, key: str) -> dict[str, Any]:
        """What it says next of *key*."""
        with self._more:
            heard = self._more.wait_for(lambda: [one for one in self._said if one["key"] == key], BOUND)
            assert heard, f"nothing was said of {key!r}, but {self._said}"
            self._said.remove(heard[0])
            return heard[0]

    def ask(self, do: str, key: str, **more: Any) -> dict[str, Any]:
        """Tell it, and hear what comes of it."""
        self.order(do, key, **more)
        return self.hear(key)

    def freeze(self) -> None:
        """Stop it where it is, all of it: what it is told from now on it finds when it goes on."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def thaw(self) -> None:
        """Let it go on, from wherever it waits."""
        self.order("go", "")
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """As `kill -9` does, a frozen one too."""
        self._process.kill()
        self._process.wait(BOUND)
        self._listener.join(BOUND)

    def end(self) -> None:
        """Leave nothing of it."""
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._more:
                self._said.append(json.loads(line))
                self._more.notify_all()


def late(issuer: ServerHandle, name: str, kind: str = "timeout_after") -> None:
    """The next answer of *issuer* is held back until told, when the token has been redeemed or, for others, before."""
    issuer.faults([{"kind": kind, "hold_after" if kind == "timeout_after" else "hold": name}])


def token(key: str, minted: int, stored: Session) -> dict[str, Any]:
    """What a caller is told who gets that version's token."""
    return {"key": key, "got": "token", "minted": minted, "login": stored.login}


class Scene:
    """One place for sessions, an authorization server for each of them, and the processes that share them."""

    def __init__(self, place: str) -> None:
        self.store: Any = open_store(place)
        # By another name for the server it shares nothing with the first one, not even what that one remembers.
        self._far: Any = open_store(place.replace("127.0.0.1", "localhost"))
        self.issuers: dict[str, ServerHandle] = {}
        self._place = place
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        self._stack.enter_context(self.store)
        self._stack.enter_context(self._far)
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, count: int, place: str | None = None) -> list[Process]:
        """Processes that are ready."""
        started = [Process(place or self._place) for _ in range(count)]
        for one in started:
            self._stack.callback(one.end)
        for one in started:
            assert one.hear("") == {"key": "", "got": "ready"}
        return started

    def begin(self, key: str, **config: Any) -> ServerHandle:
        """A login of that name, at a server of its own that rotates and takes a second redemption for theft."""
        issuer = self.issuers[key] = self._stack.enter_context(running_server(ServerConfig(**config)))
        self.manager(key).login(issuer.login())
        return issuer

    def manager(self, key: str, **settings: Any) -> TokenManager:
        """A manager of this process, which revokes nothing."""
        grant = RefreshTokenGrant(self.issuers[key].token_url, client_id="crm", client_secret="crm-secret")
        return TokenManager(grant, store=self.store, key=key, refresh_ahead=0, **settings)

    def stored(self, key: str) -> Session:
        """What the store has."""
        found: Session | None = self._far.load(key)
        assert found is not None
        return found

    def told(self, process: Process, key: str) -> dict[str, Any]:
        """What *process* says of the token once it has heard of the latest version."""
        stored, end = self.stored(key), time.monotonic() + BOUND
        while (told := process.ask("token", key)).get("minted", stored.version) != stored.version:
            assert time.monotonic() < end, told
        return told

    def lose_lease(self, key: str) -> None:
        """The server has lost the lease, as in a failover."""
        if self._place.startswith("redis"):
            with redis.Redis.from_url(self._place) as raw:
                assert raw.delete(f"unexpired:lease:{{{quote(key)}}}") == 1
        elif self._place.startswith("postgres"):
            with psycopg.connect(self._place, autocommit=True) as connection:
                lost = connection.execute("DELETE FROM unexpired.leases WHERE id = sha256(%s)", (key.encode(),))
                assert lost.rowcount == 1

    def leased(self, key: str, wait: float = 0.0) -> bool:
        """Whether somebody still holds the lease after *wait* seconds."""
        lease = self.store.lease(key, owner="test", seconds=30.0, wait=wait, stop=lambda: False)
        if lease is not None:
            lease.release()
        return lease is None
