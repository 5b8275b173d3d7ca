"""The processes of a soak, and the sum of what they say."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections import Counter
from pathlib import Path
from typing import IO, Any

from tests.concurrency.soak.figures import BOUND, Durations, Figures, Process, Redemption, Sample

__all__ = ["Fleet"]

ROOT = Path(__file__).resolve().parents[3]


class _Member:
    """One process, and a thread that hears it."""

    def __init__(self, url: str, directory: Path, name: str, seed: int) -> None:
        command = [sys.executable, "-m", "tests.concurrency.soak.worker", url, str(directory), name, str(seed)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.stdin: IO[str] = self.process.stdin
        self.stdout: IO[str] = self.process.stdout
        self.seen = Process(name)
        self.state: dict[str, Any] = {}
        self.redemptions: list[Redemption] = []
        self.endings = 0
        self.heard = threading.Event()
        self._thread = threading.Thread(target=self._hear, name=f"hears {name}", daemon=True)
        self._thread.start()

    def _hear(self) -> None:
        for line in self.stdout:
            what = json.loads(line)
            kind = what.pop("say")
            if kind == "redeemed":
                self.redemptions.append(Redemption(**what))
            elif kind == "ended":
                self.endings += 1
            elif kind == "state":
                self.seen.samples.append(Sample(**what.pop("held")))
                self.seen.longest = what.pop("longest")
                self.state = what
            else:
                # The last state was told after the end, too: what is held then says nothing about the work.
                self.seen.samples.pop()
                self.seen.hung, self.seen.left = what["hung"], Sample(**what["held"])
            self.heard.set()
        self.heard.set()

    def stop(self) -> None:
        """Tell it to come to its end; one that is gone already is told nothing."""
        try:
            self.stdin.close()
        except BrokenPipeError:
            return

    def end(self) -> None:
        """Wait for its end, not for ever. A process that stays has not come to it."""
        try:
            self.process.wait(BOUND + 10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(10)
        self._thread.join(10)
        self.seen.over = self.process.returncode == 0 and self.seen.left is not None
        self.stdout.close()


class Fleet:
    """*count* processes on one FileStore. Thread-safe."""

    def __init__(self, url: str, directory: Path, count: int, seed: int) -> None:
        self._members = [_Member(url, directory, f"process {number + 1}", seed + number) for number in range(count)]

    def wait(self, seconds: float) -> None:
        """Return once every process has told its first figures, or has ended."""
        for member in self._members:
            member.heard.wait(seconds)

    @property
    def alive(self) -> bool:
        """Whether all processes run."""
        return all(member.process.poll() is None for member in self._members)

    def end(self) -> None:
        """Bring all of them to their end."""
        for member in self._members:
            member.stop()
        for member in self._members:
            member.end()

    def figures(self) -> Figures:
        """The sum of what was said so far."""
        sum_of = Figures(processes=[member.seen for member in self._members])
        for member in self._members:
            for name, told in member.state.get("adapters", {}).items():
                sum_of.adapters.setdefault(name, Durations()).add(Durations(told["counts"]))
                sum_of.served[name] += told["served"]
                sum_of.errors.update(Counter(told["errors"]))
            sum_of.events.update(Counter(member.state.get("events", {})))
            sum_of.failures.update(Counter(member.state.get("failures", {})))
            sum_of.redemptions += member.redemptions
            sum_of.endings += member.endings
        return sum_of
