"""Several processes that share nothing but a directory: each is one `TaskCrew`, told what to do over a pipe."""

from __future__ import annotations

import gc
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from unexpired import TokenManager
from unexpired.cli._demo.dialects import DIALECTS, DialectName, Dress
from unexpired.cli._demo.results import Call, call_to_json, clock
from unexpired.cli._demo.runners import Burst, TaskCrew
from unexpired.stores import FileStore

__all__ = ["ProcessCrew", "work"]

_SLACK = 10.0
_FAREWELL = 3.0


class ProcessCrew:
    """*count* processes whose managers share the `FileStore` in *directory*. Returns while they are starting."""

    def __init__(self, count: int, dialect: DialectName, directory: str, key: str, url: str) -> None:
        self._count = count
        setting = {"dialect": dialect, "directory": directory, "key": key, "url": url}
        command = [sys.executable, "-m", "unexpired.cli._demo.processes"]
        self._workers: list[subprocess.Popen[str]] = []
        try:
            for _ in range(count):
                # this interpreter and this package; what a worker is told comes over its pipe
                self._workers.append(
                    subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603
                )
            self._tell([setting] * count)
        except BaseException:
            self.close()
            raise

    def burst(self, numbers: Sequence[int], bound: float, dress: Dress | None = None) -> Burst:
        """See `Crew`. The calls of a process that has died count as hanging."""
        shares = [list(numbers[index :: self._count]) for index in range(self._count)]
        constant = None if dress is None else {"headers": dict(dress.headers), "params": dict(dress.params)}
        watch = threading.Timer(bound + _SLACK, self._kill)
        watch.start()
        try:
            self._tell([{"numbers": share, "bound": bound, "dress": constant} for share in shares])
            for worker in self._workers:
                _line(worker)
            released = clock()
            for worker in self._workers:
                _say(worker, "go\n")
            calls: list[Call] = []
            for group, (worker, share) in enumerate(zip(self._workers, shares, strict=True)):
                line = _line(worker)
                if line:
                    calls += [Call.from_json(row, group) for row in json.loads(line)]
                else:
                    calls += [Call(number, group, released, outcome="the end of its process") for number in share]
        finally:
            watch.cancel()
        return Burst(released, clock(), calls)

    def close(self) -> None:
        """Let the processes end, and see to it that they did."""
        for worker in self._workers:
            with worker:
                try:
                    worker.communicate(timeout=_FAREWELL)
                except subprocess.TimeoutExpired:
                    worker.kill()

    def _tell(self, documents: Sequence[Mapping[str, Any]]) -> None:
        for worker, document in zip(self._workers, documents, strict=True):
            _say(worker, json.dumps(document) + "\n")

    def _kill(self) -> None:
        for worker in self._workers:
            worker.kill()


def _say(worker: subprocess.Popen[str], line: str) -> None:
    # a worker that has died is seen when it does not answer
    with suppress(BrokenPipeError):
        if worker.stdin is not None:
            worker.stdin.write(line)
            worker.stdin.flush()


def _line(worker: subprocess.Popen[str]) -> str:
    return "" if worker.stdout is None else worker.stdout.readline()


def work() -> None:
    """Be one of the processes: a line of JSON says who we are, each further one asks for a burst, until the input ends.

    A burst is prepared, announced with ``ready``, made when the next line comes, and reported as a line of JSON.
    """
    # a terminal sends Ctrl-C to us too; our parent ends us by closing the pipe
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    setting = json.loads(sys.stdin.readline() or "null")
    if setting is None:
        return
    dialect = DIALECTS[setting["dialect"]]
    with TokenManager(
        dialect.grant(setting["url"]), store=FileStore(setting["directory"]), key=setting["key"]
    ) as manager:
        crew = TaskCrew(dialect, manager, setting["url"])
        for line in iter(sys.stdin.readline, ""):
            order = json.loads(line)
            dress = None if order["dress"] is None else Dress(**order["dress"])
            gc.collect()  # not while callers are being measured
            print("ready", flush=True)
            if not sys.stdin.readline():
                break
            calls = crew.burst(order["numbers"], order["bound"], dress).calls
            print(json.dumps([call_to_json(call) for call in calls]), flush=True)
        crew.close()


if __name__ == "__main__":
    work()
