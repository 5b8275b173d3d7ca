"""The processes of a fleet, and the fleet that they are with one store and one login."""

from __future__ import annotations

import itertools
import json
import os
import select
import subprocess
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

from tests.clients.modes import grant_for
from tests.fleet.patience import LONG
from tests.fleet.worker import store_at
from unexpired import Session, TokenManager
from unexpired.testing import ServerHandle

ROOT = Path(__file__).resolve().parents[2]
MODES = ("threads", "asyncio", "trio")
TASKS = 25
_KEYS = itertools.count(1)


def environment() -> dict[str, str]:
    """That of a process of a fleet: no proxy is asked, and nobody counts which lines it runs, which would slow it."""
    left_out = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")
    return {
        name: value
        for name, value in os.environ.items()
        if name.lower() not in left_out and not name.startswith("COVERAGE_")
    }


class Worker:
    """One process, spoken to through its pipes."""

    def __init__(self, mode: str, prefix: Sequence[str] = ()) -> None:
        command = [*prefix, sys.executable, "-m", "tests.fleet.worker", mode]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=environment()
        )
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout
        self._number = 0

    def tell(self, do: str, **order: Any) -> None:
        """Give it an order."""
        self._number += 1
        self.stdin.write(json.dumps({"do": do, "number": self._number, **order}) + "\n")
        self.stdin.flush()

    def hear(self) -> Any:
        """What it says next to the last order. A test that failed may have left answers to earlier ones."""
        number = -1
        said: Any = None
        while number != self._number:
            line = self.stdout.readline()
            assert line, f"a process of the fleet has ended: {self.process.wait(LONG)}"
            number, said = json.loads(line)
        return said

    def has_spoken(self) -> bool:
        """Whether there is something to hear."""
        return bool(select.select([self.stdout], [], [], 0.0)[0])

    def end(self) -> None:
        """Leave nothing of it."""
        self.process.kill()
        self.process.wait(LONG)
        self.stdin.close()
        self.stdout.close()


def start(prefixes: Iterable[Sequence[str]], stack: ExitStack) -> list[Worker]:
    """A process for each of *prefixes*, ready to go."""
    workers = []
    for number, prefix in enumerate(prefixes):
        worker = Worker(MODES[number % len(MODES)], prefix)
        stack.callback(worker.end)
        workers.append(worker)
    assert [worker.hear() for worker in workers] == ["ready"] * len(workers)
    return workers


class Fleet:
    """*workers* with one login, each with its own URL of the same store; this process has one too."""

    def __init__(
        self, workers: Sequence[Worker], server: ServerHandle, near: str, far: Sequence[str], **settings: Any
    ) -> None:
        server.reset()
        self.workers = list(workers)
        self.server = server
        self.key = f"alice {next(_KEYS)} of {os.getpid()}"
        self.store = store_at(near)
        self.manager = TokenManager(grant_for(server), store=self.store, key=self.key)
        self.served = self.held = 0
        self._numbers = itertools.count(1)
        order = {"issuer": server.url, "key": self.key, "tasks": TASKS, "settings": settings}
        for worker, store in zip(self.workers, far, strict=True):
            worker.tell("open", store=store, **order)
        assert self.hear() == ["open"] * len(self.workers)

    def close(self) -> None:
        """Let go of this process's store."""
        self.manager.close()
        self.store.close()

    def hear(self, workers: Sequence[Worker] | None = None) -> list[Any]:
        """What each of them says next."""
        return [worker.hear() for worker in self._those(workers)]

    def login(self) -> Session:
        """A new login, which everybody knows of."""
        return self._know(self.manager.login(self.server.login()))

    def seen(self, session: Session, workers: Sequence[Worker] | None = None) -> None:
        """Wait until they all know of *session*."""
        for worker in self._those(workers):
            worker.tell("see", login=session.login, version=session.version)
        self.obey(workers)

    def obey(self, workers: Sequence[Worker] | None = None) -> None:
        """Each of them says that it has done what it was told."""
        said = self.hear(workers)
        assert said == [True] * len(said), said

    def ask(self, workers: Sequence[Worker] | None = None, count: int = TASKS) -> list[list[str]]:
        """Let each of them make *count* calls at once; the answers that they should get."""
        asked = [[str(next(self._numbers)) for _ in range(count)] for _ in self._those(workers)]
        for worker, numbers in zip(self._those(workers), asked, strict=True):
            worker.tell("call", numbers=numbers)
        return asked

    def answers(self, workers: Sequence[Worker] | None = None) -> list[list[Any]]:
        """What came of the calls."""
        return [outcomes for outcomes, _ in self.hear(workers)]

    def serve(self, workers: Sequence[Worker] | None = None, count: int = TASKS) -> None:
        """Let each of them make *count* calls at once: everyone is served, with the answer to its own call."""
        self.check(self.ask(workers, count), workers)

    def check(self, asked: list[list[str]], workers: Sequence[Worker] | None = None) -> None:
        """Everyone is served, with the answer to its own call."""
        wrong = [pair for each in zip(asked, self.answers(workers), strict=True) for pair in zip(*each, strict=True)]
        wrong = [(number, answer) for number, answer in wrong if number != answer]
        assert not wrong, f"{len(wrong)} calls were not served, or with another's answer, such as {wrong[:5]}"
        self.served += sum(map(len, asked))

    def refused_all_at_once(self) -> None:
        """The token expires, which nobody knows: all are refused, and not one hears of it before the last has asked."""
        self.server.expire()
        name = f"refusals {self.held}"
        self.server.api_faults([{"kind": "hold_refusals", "name": name}])
        asked = self.ask()
        self.held += sum(map(len, asked))
        self.server.wait("api_call_held", self.held, LONG)
        self.server.release(name)
        self.check(asked)

    def expired_by_the_clock(self) -> None:
        """The token expires, as everybody knows: its refresh token is what it was."""
        session = self.manager.session()
        assert session is not None
        known = {"access_token": session.tokens[None].access_token, "refresh_token": session.refresh_token}
        self._know(self.manager.login({**known, "expires_in": -1}))
        self.serve()

    def _know(self, session: Session) -> Session:
        self.seen(session)
        return session

    def _those(self, workers: Sequence[Worker] | None) -> Sequence[Worker]:
        return self.workers if workers is None else workers
