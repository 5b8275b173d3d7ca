"""A server process of its own for these tests, and programs that can be stopped, killed and spoken to."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pytest

from tests.clients.modes import grant_for
from unexpired import Session, TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

ROOT = Path(__file__).resolve().parents[3]
PROMPT = 8.0
"""Seconds; less than any of the bounds that an exit could wait for by mistake."""


class Started:
    """A process that runs `program`."""

    def __init__(self, arguments: Sequence[str], prefix: Sequence[str], environment: Mapping[str, str]) -> None:
        command = [*prefix, sys.executable, "-m", "tests.concurrency.crashing.program", *arguments]
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, **environment},
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout
        self.stderr: IO[str] = self.process.stderr

    def order(self, *what: object) -> None:
        """Tell it what to do."""
        self.stdin.write(json.dumps(what) + "\n")
        self.stdin.flush()

    def hear(self) -> Any:
        """What it says next."""
        line = self.stdout.readline()
        if not line:
            pytest.fail(f"it has ended: {self.stderr.read()}")
        return json.loads(line)

    def hear_all(self, *expected: list[Any]) -> None:
        """Hear just these, in whatever order several threads say them."""
        left = list(expected)
        while left:
            said = self.hear()
            assert said in left
            left.remove(said)

    def ask(self, *what: object) -> Any:
        """An order, and what it says to it."""
        self.order(*what)
        return self.hear()

    def send(self, number: signal.Signals) -> None:
        """A signal. A stop is awaited."""
        self.process.send_signal(number)
        if number == signal.SIGSTOP:
            os.waitid(os.P_PID, self.process.pid, os.WSTOPPED | os.WNOWAIT)

    def end(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(10)
        for pipe in (self.stdin, self.stdout, self.stderr):
            pipe.close()


Start = Callable[..., Started]


@pytest.fixture
def manager(server: ServerHandle, tmp_path: Path) -> TokenManager:
    """This process's manager, which all programs share a store with; its login has an expired token."""
    manager = TokenManager(grant_for(server), store=FileStore(tmp_path / "sessions"), key="alice")
    manager.login({**server.login(), "expires_in": -1})
    return manager


@pytest.fixture
def start(server: ServerHandle, tmp_path: Path) -> Iterator[Start]:
    """Starts programs on the shared store (or *directory*), and leaves none behind."""
    with ExitStack() as stack:

        def one(
            *, prefix: Sequence[str] = (), environment: Mapping[str, str] | None = None, **settings: Any
        ) -> Started:
            directory = settings.pop("directory", tmp_path / "sessions")
            started = Started([server.url, str(directory), json.dumps(settings)], prefix, environment or {})
            stack.callback(started.end)
            assert started.hear() == ["ready"]
            return started

        yield one


def stored(manager: TokenManager) -> Session:
    """What is on the disk now."""
    session = manager._cell.store.load("alice")
    assert session is not None
    return session
