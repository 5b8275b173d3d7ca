"""Kills processes at every point of a refresh while all others work on, and counts what was lost.

`python -m tests.concurrency.crashing.sweep` prints the table; with `--write` it goes into the documentation.
"""

from __future__ import annotations

import json
import queue
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

from tests.clients.modes import grant_for
from tests.concurrency.crashing.points import DECIDED, IN_THE_WINDOW, POINTS, UNDECIDED, Arm, Death
from unexpired import Session, TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerConfig, ServerHandle, server_process
from unexpired.testing._ledger import fingerprint

__all__ = ["GRACE", "POINTS", "Sweep", "Tally", "run", "table"]

ROOT = Path(__file__).resolve().parents[3]
PAGE = ROOT / "docs" / "reference" / "crash-sweep.md"
MODES = ("threads", "asyncio", "trio")
PROCESSES, CALLERS = 8, 2
GRACE = 10.0
BOUND = 50.0
"""Seconds within which every caller must have an answer: a manager's own bound is 30."""

_FAULTS = {
    UNDECIDED: {"kind": "reset_before_commit", "hold": "dead"},
    DECIDED: {"kind": "timeout_after", "hold_after": "dead"},
}
Caller = tuple[int, int]


@dataclass
class Tally:
    """What came of the kills at one point."""

    kills: int = 0
    lost: int = 0
    hung: int = 0
    served: int = 0
    told: int = 0


@dataclass
class Sweep:
    """What a sweep found. *expected* and *seen* are the server's log: each refresh token, and what came of it."""

    grace: float
    rotations: int = 0
    points: dict[str, Tally] = field(default_factory=lambda: {point: Tally() for point in POINTS})
    hung: int = 0
    surprises: list[str] = field(default_factory=list)
    early: int = 0
    expected: list[tuple[str, str]] = field(default_factory=list)
    seen: list[tuple[str, str]] = field(default_factory=list)
    calls: int = 0
    seconds: float = 0.0

    @property
    def kills(self) -> int:
        """At all points."""
        return sum(tally.kills for tally in self.points.values())

    @property
    def kept(self) -> bool:
        """Whether everything was kept that is promised: see `docs/explanation/promises.md`."""
        losable = IN_THE_WINDOW if self.grace == 0 else frozenset[str]()
        allowed = all(tally.lost == (tally.kills if point in losable else 0) for point, tally in self.points.items())
        return allowed and not (self.hung or self.surprises or self.early) and self.seen == self.expected

    @property
    def lost(self) -> int:
        """Sessions lost, at all points."""
        return sum(tally.lost for tally in self.points.values())


class Fleet:
    """The processes, each replaced as soon as it dies; and what every caller said last."""

    def __init__(self, server: ServerHandle, directory: Path, grace: float) -> None:
        self.said: dict[Caller, tuple[str, str] | None] = {}
        self.deaths = 0
        self._lines: queue.SimpleQueue[tuple[int, str]] = queue.SimpleQueue()
        self._arguments = (server.url, str(directory))
        self._grace = grace
        self._processes: dict[int, tuple[subprocess.Popen[str], threading.Thread]] = {}

    def start(self, place: int) -> None:
        """Start a process in this place of the fleet."""
        for number in range(CALLERS):
            self.said[place, number] = None
        mode = MODES[place % len(MODES)]
        command = [sys.executable, "-m", "tests.concurrency.crashing.worker", *self._arguments, mode]
        process = subprocess.Popen(
            [*command, str(self._grace), str(CALLERS)], stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        reader = threading.Thread(target=self._read, args=(place, process))
        self._processes[place] = process, reader
        reader.start()

    def _read(self, place: int, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                self._lines.put((place, line))
        self._lines.put((place, ""))

    def listen(self, done: Callable[[], bool], surprised: Callable[[str], None], until: float) -> bool:
        """Take note of what callers say, until *done*. False when that is not so by *until*."""
        while not done():
            try:
                place, line = self._lines.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                return False
            if line:
                number, kind, what = json.loads(line)
                self.said[place, number] = kind, what
                if kind == "failed":
                    surprised(f"{MODES[place % len(MODES)]}: {what}")
                continue
            status = self._processes[place][0].wait(10)
            if status != -9:
                surprised(f"a process ended with status {status}")
            self.deaths += 1
            self.start(place)
        return True

    def end(self) -> None:
        """Leave nothing of it."""
        for process, _ in self._processes.values():
            process.kill()
        for process, reader in self._processes.values():
            process.wait(10)
            reader.join(10)


class Controller:
    """Lets tokens expire, one rotation after another, and lays the orders to die."""

    def __init__(self, server: ServerHandle, directory: Path, fleet: Fleet, sweep: Sweep) -> None:
        self._server = server
        self._directory = directory
        self._fleet = fleet
        self._sweep = sweep
        self._store = FileStore(directory / "sessions")
        self._manager = TokenManager(grant_for(server), store=self._store, key="alice")
        self._holds = 0
        self._kills: list[tuple[str, str]] = []

    def begin(self) -> bool:
        """Log in and start everybody; whether all of them are served."""
        self._manager.login(self._server.login())
        for place in range(PROCESSES):
            self._fleet.start(place)
        return self._listen(lambda: self._all("served", _access(self._session())))

    def rotate(self, point: str | None) -> bool:
        """Let the token expire, and somebody die at *point*. False when a caller hangs."""
        before, deaths, hung = self._session(), self._fleet.deaths, self._sweep.hung
        if point is not None:
            self._arm(point, before)
        self._server.expire()
        over = False

        def settled() -> bool:
            nonlocal over
            if point is not None and self._fleet.deaths == deaths:
                return False
            now = self._session()
            over = now.ended is not None
            if over:
                return self._all("told", "answer_lost")
            return _access(now) != _access(before) and self._all("served", _access(now))

        going = self._listen(settled)
        self._expect(str(before.refresh_token), point)
        if point is not None:
            self._count(point, over=over, going=going)
        if going and over:
            self._manager.login(self._server.login())
            going = self._listen(lambda: self._all("served", _access(self._session())))
        if point is not None:
            self._sweep.points[point].hung += self._sweep.hung - hung
        self._sweep.rotations += going
        return going

    def _arm(self, point: str, session: Session) -> None:
        self._kills.append((point, fingerprint(str(session.refresh_token))))
        held = 0
        if (fault := _FAULTS.get(point)) is not None:
            self._holds += 1
            held = self._holds
            self._server.faults({key: f"dead {held}" if value == "dead" else value for key, value in fault.items()})
        Arm(point, session.version, held).lay(self._directory)

    def _expect(self, refresh_token: str, point: str | None) -> None:
        """Each token is redeemed once; once more where its holder died over it. Nothing else is in the log."""
        name = fingerprint(refresh_token)
        if point == UNDECIDED:
            self._sweep.expected.append((name, "fault:reset_before_commit"))
        self._sweep.expected.append((name, "rotated"))
        if point in IN_THE_WINDOW:
            self._sweep.expected.append((name, "grace" if self._sweep.grace else "reuse"))

    def _count(self, point: str, *, over: bool, going: bool) -> None:
        tally, kinds = self._sweep.points[point], Counter(said[0] for said in self._fleet.said.values() if said)
        tally.kills += 1
        tally.lost += over
        if going:
            tally.served += kinds["served"]
            tally.told += kinds["told"]
        if point in _FAULTS:
            self._server.release(f"dead {self._holds}")

    def close_books(self) -> None:
        """Compare the server's log with the deaths."""
        stats = self._server.stats()
        self._sweep.calls = stats.api_calls
        self._sweep.seen = [(row.refresh_token, row.outcome) for row in stats.redemptions]
        deaths = Death.record(self._directory)
        if [death.point for death in deaths] != [point for point, _ in self._kills]:
            self._sweep.surprises.append("somebody died elsewhere than told")
        for death, (point, name) in zip(deaths, self._kills, strict=False):
            last = [row.received for row in stats.redemptions if row.refresh_token == name][-1]
            self._sweep.early += (point in IN_THE_WINDOW or point == UNDECIDED) and last < death.at

    def _listen(self, done: Callable[[], bool]) -> bool:
        heard = self._fleet.listen(done, self._sweep.surprises.append, time.monotonic() + BOUND)
        if not heard:
            current = ("served", _access(self._session()))
            self._sweep.hung += sum(
                said not in (current, ("told", "answer_lost")) for said in self._fleet.said.values()
            )
        return heard

    def _all(self, kind: str, what: str) -> bool:
        return all(said == (kind, what) for said in self._fleet.said.values())

    def _session(self) -> Session:
        session = self._store.load("alice")
        assert session is not None
        return session


def _access(session: Session) -> str:
    return fingerprint(session.tokens[None].access_token) if session.tokens else ""


@contextmanager
def _fleet(server: ServerHandle, directory: Path, grace: float) -> Iterator[Fleet]:
    fleet = Fleet(server, directory, grace)
    try:
        yield fleet
    finally:
        fleet.end()


def run(*, grace: float, rotations: int, each: int, directory: Path) -> Sweep:
    """*rotations* of a fleet's token, with *each* kills at every point, evenly spread, on a server with *grace*."""
    sweep = Sweep(grace)
    kills = each * len(POINTS)
    turns = {number * rotations // kills: POINTS[number % len(POINTS)] for number in range(kills)}
    began = time.monotonic()
    with (
        server_process(ServerConfig(grace=grace)) as server,
        _fleet(server, directory, grace) as fleet,
    ):
        controller = Controller(server, directory, fleet, sweep)
        going = controller.begin()
        for turn in range(rotations):
            going = going and controller.rotate(turns.get(turn))
        controller.close_books()
    sweep.seconds = time.monotonic() - began
    return sweep


def table(sweep: Sweep) -> str:
    """The sweep as a Markdown table, with a line of totals."""
    kind = f"a grace period of {sweep.grace:g} s" if sweep.grace else "no grace period"
    lines = [
        f"Server with {kind}: {sweep.rotations} rotations, {sweep.kills} kills, {len(sweep.seen)} token requests.",
        "",
        "| killed | kills | sessions lost | hung callers | callers served | callers told |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for point, tally in sweep.points.items():
        lines.append(f"| {point} | {tally.kills} | {tally.lost} | {tally.hung} | {tally.served} | {tally.told} |")
    everything = [sum(getattr(tally, name) for tally in sweep.points.values()) for name in ("served", "told")]
    lines.append(f"| **all** | {sweep.kills} | {sweep.lost} | {sweep.hung} | {everything[0]} | {everything[1]} |")
    return "\n".join(lines)


_TOP = f"""# The crash sweep

    .venv/bin/python -m tests.concurrency.crashing.sweep --write

writes this page; `make crash` prints the same tables anew. {PROCESSES} processes with {CALLERS} callers each share one
session in files and call an API all the time, from threads, asyncio and trio. Their token expires again and again. At
some of these rotations the process that refreshes is killed with `kill -9` at a named point, and replaced at once.

- *sessions lost*: logins that ended because of the kill. This can only be where the server has rotated, its answer is
  not stored yet, and the spent token is not taken again.
- *hung callers*: callers of any process without an answer after {BOUND:g} seconds.
- *callers served*: callers, those of the replacement too, that went on with the rotated token.
- *callers told*: callers that got `LoginRequired` with the reason `answer_lost`. Then somebody logs in, and they go on.

In both runs the server's log held one redemption for each refresh token, and one more where the holder died over it,
never before its death.
"""


def main(arguments: list[str]) -> int:
    """Sweep both servers and print the tables; 1 if a promise was broken."""
    tables, broken = [], False
    for grace in (GRACE, 0.0):
        with TemporaryDirectory() as directory:
            sweep = run(grace=grace, rotations=300, each=5, directory=Path(directory))
        tables.append(table(sweep))
        broken |= not sweep.kept
        sys.stdout.write(f"{tables[-1]}\n\n")
    if "--write" in arguments and not broken:
        PAGE.write_text("\n\n".join([_TOP.rstrip(), *tables]) + "\n")
    return broken


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
