"""A process that does what it is told: `python -m tests.concurrency.crashing.program <url> <directory> <settings>`.

Hears one JSON line per order and says one per outcome, on its main thread unless an order says otherwise.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import resource
import shutil
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, SupportsIndex

import anyio
import httpx2

from tests.clients.modes import grant_for
from unexpired import TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.errors import UnexpiredError
from unexpired.events import RefreshSucceeded, Unsaved
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

_CAPABILITIES_3 = 0x20080522
_MAY_IGNORE_MODES = 1 << 1 | 1 << 2


def say(*what: object) -> None:
    """One line to who started us, whole, from whatever thread or process of ours."""
    os.write(1, (json.dumps(what) + "\n").encode())


class Program:
    """One manager, and what can be asked of it. Each method is an order; what it returns is said."""

    def __init__(self, url: str, directory: Path, *, reuse_grace: float = 0.0, **settings: Any) -> None:
        self._directory = directory
        self._server = ServerHandle(url, 0)
        grant = grant_for(self._server, reuse_grace=reuse_grace)
        self._settings: dict[str, Any] = {"store": FileStore(directory), "key": "alice", "patience": 0.0, **settings}
        self._manager = TokenManager(grant, **self._settings)
        self._client = httpx2.Client(auth=TokenAuth(self._manager), base_url=url, timeout=30.0)
        self._manager.on(Unsaved, lambda event: say("Unsaved", event.version))
        self._manager.on(RefreshSucceeded, lambda event: say("stored", event.version))

    def token(self, wait: float | None = None) -> tuple[object, ...]:
        """The version that minted the token, and how long that took."""
        began = time.monotonic()
        try:
            return "token", self._manager.token(wait=wait).minted
        except UnexpiredError as error:
            reason = str(error) if not hasattr(error, "reason") else error.reason
            return type(error).__name__, reason, time.monotonic() - began

    def atoken(self, kind: str) -> tuple[object, ...]:
        """The same, in an event loop."""
        return "token", anyio.run(self._manager.atoken, backend=kind).minted

    def begin(self) -> tuple[object, ...]:
        """Ask for a token on a thread that does not keep the process; it says what comes of it."""
        threading.Thread(target=lambda: say(*self.token()), daemon=True).start()
        return ("begun",)

    def close_loop(self) -> tuple[object, ...]:
        """Ask for a token in an event loop that is closed when the server has the request."""
        loop = asyncio.new_event_loop()
        task = loop.create_task(self._manager.atoken())
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        loop.run_until_complete(asyncio.to_thread(self._server.wait, "token_request_held"))
        loop.close()
        return ("closed",)

    def call(self, count: int = 1) -> tuple[object, ...]:
        """The status of each of *count* calls, one after another."""
        return tuple(self._client.get("/api/x").status_code for _ in range(count))

    def fork(self) -> tuple[object, ...]:
        """Fork; the child asks for a token, says what comes of it, and stays until it is killed."""
        warnings.simplefilter("ignore", DeprecationWarning)  # newer Pythons warn of just this
        child = os.fork()
        if child == 0:
            with suppress(BaseException):
                say("child asks", os.getpid())
                say("child", *self.token())
                signal.pause()
            os._exit(1)
        return "forked", child

    def stored(self) -> tuple[object, ...]:
        """What is on the disk: the version, and whether its refresh token is being redeemed."""
        session = FileStore(self._directory).load("alice")
        return ("nothing",) if session is None else (session.version, session.intent is not None)

    def clocks(self) -> tuple[object, ...]:
        """The time by the clocks that the product looks at, as this process sees them."""
        return time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()

    def break_disk(self, how: str) -> tuple[object, ...]:
        """Let nothing more be stored: the disk is full, a limit is reached, or the directory is read-only."""
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.RLIM_INFINITY))
        elif how == "read-only":
            self._directory.chmod(0o500)
        else:
            with (self._directory / "filler").open("wb", buffering=0) as filler, suppress(OSError):
                while True:
                    filler.write(b"x" * 4096)
        return ("broken",)

    def mend_disk(self, how: str) -> tuple[object, ...]:
        """As before."""
        if how == "limit":
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        elif how == "read-only":
            self._directory.chmod(0o700)
        else:
            (self._directory / "filler").unlink()
        return ("mended",)

    def delete_store(self) -> tuple[object, ...]:
        """Remove the directory with everything in it."""
        shutil.rmtree(self._directory)
        return ("deleted",)

    def log_in(self, lifetime: float) -> tuple[object, ...]:
        """Log in with a token that is said to live *lifetime* seconds."""
        return "logged in", self._manager.login({**self._server.login(), "expires_in": lifetime}).version


def _respect_modes() -> None:
    """Root may write where the mode says that nobody may: give that up. For this thread and those it starts."""
    if os.geteuid() != 0:
        return
    libc = ctypes.CDLL(None, use_errno=True)
    header = (ctypes.c_uint32 * 2)(_CAPABILITIES_3, 0)
    data = (ctypes.c_uint32 * 6)()
    for call in (libc.capget, libc.capset):
        if call is libc.capset:
            data[0] &= ~_MAY_IGNORE_MODES
        if call(header, data) != 0:
            raise OSError(ctypes.get_errno(), "the capability to ignore modes cannot be given up")


def _sleep_by_waiting() -> None:
    """Under libfaketime 0.9.10 an absolute sleep on a clock that it leaves alone fails with EINVAL: wait instead."""

    def sleep(seconds: float | SupportsIndex) -> None:
        threading.Event().wait(float(seconds))

    time.sleep = sleep


def _leave(*_: object) -> None:
    sys.exit(7)


def main(url: str, directory: Path, settings: dict[str, Any]) -> None:
    """Obey until told no more."""
    if settings.pop("leaves_at_sigterm", False):
        signal.signal(signal.SIGTERM, _leave)
    if "faketime" in os.environ.get("LD_PRELOAD", ""):
        _sleep_by_waiting()
    if settings.pop("respects_modes", False):
        _respect_modes()
    program = Program(url, directory, **settings)
    say("ready")
    for line in sys.stdin:
        order, *arguments = json.loads(line)
        obey: Callable[..., tuple[object, ...]] = getattr(program, order)
        try:
            said = obey(*arguments)
        except BaseException as error:
            say("stopped", type(error).__name__, str(error))
            raise
        say(*said)
    say("ending")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), json.loads(sys.argv[3]))
