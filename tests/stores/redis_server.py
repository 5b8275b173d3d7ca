"""A real Redis for tests: a process on a free port of 127.0.0.1, with its files in a directory of its own."""

from __future__ import annotations

import shutil
import socket
import subprocess
from contextlib import ExitStack
from itertools import count
from pathlib import Path
from typing import Any, Self

import pytest
import redis

from tests.stores.ports import free_port
from tests.waiting import until
from unexpired.stores.redis import RedisStore

__all__ = ["BOUND", "KEY", "NUMBERS", "RedisCluster", "RedisServer", "Stores", "free_port"]

BOUND = 30.0
KEY = "alice@crm"
NUMBERS = count(1)


class RedisServer:
    """One redis-server. It can be killed and started again, with what it has on its disk."""

    def __init__(self, directory: Path, *options: str) -> None:
        self.directory = directory
        self.port = free_port()
        self.options = options
        self.process: subprocess.Popen[bytes] | None = None
        directory.mkdir(parents=True, exist_ok=True)

    @property
    def url(self) -> str:
        """For a store."""
        return f"redis://127.0.0.1:{self.port}/0"

    def client(self, **settings: Any) -> redis.Redis:
        """For the test's own looks."""
        return redis.Redis(port=self.port, decode_responses=True, **settings)

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        command = [
            self.program(), "--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.directory), "--save", "",
            "--logfile", "log", "--repl-diskless-sync-delay", "0", *self.options,
        ]  # fmt: skip
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            until(self.answers, f"{command} answers")
        except BaseException:
            self.kill()
            raise
        return self

    def program(self) -> str:
        """What is started: that of the system. Fails, in one sentence, where there is none."""
        program = shutil.which("redis-server")
        if program is None:
            pytest.fail("these tests need redis-server, which `make system-packages` installs", pytrace=False)
        return program

    def answers(self) -> bool:
        """Whether it is there."""
        assert self.process is not None
        assert self.process.poll() is None, (self.directory / "log").read_text()
        try:
            with socket.create_connection(("127.0.0.1", self.port), 1.0) as connection:
                connection.sendall(b"PING\r\n")
                said = connection.recv(100)
        except OSError:
            return False
        return said.startswith((b"+PONG", b"-NOAUTH"))

    def kill(self) -> None:
        """As `kill -9` does."""
        if self.process is not None:
            self.process.kill()
            self.process.wait(BOUND)
            self.process = None


class RedisCluster:
    """Two primaries that share the keys between them."""

    def __init__(self, directory: Path) -> None:
        self.nodes = [RedisServer(directory / str(one), "--cluster-enabled", "yes") for one in range(2)]

    def start(self) -> RedisCluster:
        """Start them, and wait until they know each other."""
        for node, slots in zip(self.nodes, ((0, 8000), (8001, 16383)), strict=True):
            with node.start().client() as raw:
                raw.execute_command("CLUSTER ADDSLOTSRANGE", *slots)
        with self.nodes[0].client() as raw:
            raw.execute_command("CLUSTER MEET", "127.0.0.1", self.nodes[1].port)
        for node in self.nodes:
            with node.client() as raw:
                until(lambda raw=raw: "cluster_state:ok" in _plain(raw), "the cluster is whole")  # type: ignore[misc]
                until(lambda raw=raw: "cluster_known_nodes:2" in _plain(raw), "both are known")  # type: ignore[misc]
        return self

    def client(self, **settings: Any) -> redis.RedisCluster:
        """A client that finds its way."""
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port, **settings)

    def kill(self) -> None:
        """Leave nothing of it."""
        for node in self.nodes:
            node.kill()


def _plain(raw: Any) -> str:
    said = raw.execute_command("CLUSTER INFO")
    return said if isinstance(said, str) else "\n".join(f"{name}:{value}" for name, value in said.items())


class Stores:
    """Stores with the same sessions, under a prefix that no other test uses."""

    def __init__(self, server: RedisServer, stack: ExitStack) -> None:
        self.prefix = f"test{next(NUMBERS)}"
        self.session = f"{self.prefix}:session:{{{KEY}}}"
        self._server = server
        self._stack = stack

    def here(self, **settings: Any) -> RedisStore:
        """One of this process."""
        return self._stack.enter_context(RedisStore(self._server.url, prefix=self.prefix, **settings))

    def far(self, **settings: Any) -> RedisStore:
        """One that shares nothing with those here, as another process would have it."""
        url = self._server.url.replace("127.0.0.1", "localhost")
        return self._stack.enter_context(RedisStore(url, prefix=self.prefix, **settings))
