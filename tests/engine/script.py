"""Runs a script in a process of its own, with a token server in it that counts in a file."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

from unexpired import Session
from unexpired.stores import FileStore

_PRELUDE = """
import asyncio, atexit, contextlib, os, sys, threading, time
from unexpired import TokenManager
from unexpired.events import Event
from unexpired.stores import FileStore, MemoryStore

EXPIRED = {"access_token": "access 0", "refresh_token": "refresh 0", "expires_in": -1}
store = FileStore(sys.argv[1])
main = threading.main_thread()

def main_is_over():
    while main.is_alive():
        time.sleep(0.001)

def until(condition):
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.001)

def answer(session):
    number = int(session.refresh_token.split()[1]) + 1
    with open(sys.argv[1] + ".calls", "a") as calls:
        calls.write(session.refresh_token + "\\n")
    return {"access_token": f"access {number}", "refresh_token": f"refresh {number}", "expires_in": 3600}
"""

# All processes of a machine have the same monotonic clock.
_LAST = """
with open(sys.argv[1] + ".over", "w") as over:
    over.write(str(time.monotonic()))
"""


class Finished:
    """A script that has ended."""

    def __init__(self, directory: Path, done: subprocess.CompletedProcess[str], ended: float) -> None:
        self.output = done.stdout
        self.errors = done.stderr
        self.status = done.returncode
        self._ended = ended
        self._directory = directory

    @property
    def seconds(self) -> float:
        """How long it took to exit, from the end of its last line on."""
        return self._ended - float(Path(f"{self._directory}.over").read_text())

    @property
    def calls(self) -> list[str]:
        """The refresh tokens that were sent, in order."""
        record = Path(f"{self._directory}.calls")
        return record.read_text().splitlines() if record.exists() else []

    @property
    def session(self) -> Session:
        """What it left in its store."""
        session = FileStore(self._directory).load("default")
        assert session is not None
        return session


def run(directory: Path, script: str) -> Finished:
    """Run *script* to its end. Fails if that takes longer than 30 s, or if it prints a traceback."""
    source = _PRELUDE + textwrap.dedent(script) + _LAST
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", source, os.fspath(directory)],
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    finished = Finished(directory, done, time.monotonic())
    assert "Traceback" not in finished.errors, finished.errors
    return finished
