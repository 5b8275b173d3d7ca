"""One world: a fleet of processes on one store and one authorization server, from its beginning to its end."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.simulation import ops
from tests.simulation.callers import Caller
from tests.simulation.choices import Choices
from tests.simulation.engine import EPOCH, inside
from tests.simulation.grant import SimulatedGrant
from tests.simulation.promises import Broken, Promises, Sent
from tests.simulation.scheduler import Message, Op, Process, Scheduler, Task
from tests.simulation.servers import Model, Server
from tests.simulation.shelf import Facade, Shelf
from unexpired._core import changes
from unexpired._core.policy import Policy
from unexpired._core.token import Token
from unexpired._engine import driving
from unexpired.errors import StoreError
from unexpired.manager import TokenManager

if TYPE_CHECKING:
    from tests.simulation.trace import Trace

__all__ = ["Outcome", "Plan", "World"]

KEY = "alice"
RESTART = 1.0


@dataclass(frozen=True, slots=True)
class Plan:
    """What a world is made of. Times are seconds after its beginning.

    A process that was killed starts again, *restarts* times in all. *start* is how the first token is: ``expired``,
    ``refused`` (by the API, before its time) or ``fresh``.
    *events* happen to everybody: the access tokens end, somebody logs in or out, the server ends the login.
    *refusing*: until when the API refuses everything at one endpoint. *lag*: how far a replica of it is behind.
    *late_code*: at one endpoint the API says "login required", and half a second later, of tokens that are not good.
    """

    model: Model
    processes: int = 2
    callers: int = 2
    rounds: int = 1
    faults: int = 1
    restarts: int = 3
    timed: bool = False
    as_bytes: bool = False
    deadline: float = 10.0
    start: str = "expired"
    lifetime: float = 3600.0
    resources: tuple[str | None, ...] = (None,)
    skews: tuple[float, ...] = ()
    events: tuple[tuple[float, str], ...] = ()
    cancelled: tuple[tuple[float, int], ...] = ()
    refusing: float = 0.0
    lag: float = 0.0
    late_code: bool = False
    latency: tuple[float, ...] = (0.0,)
    spread: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How a world went."""

    broken: Broken | None
    steps: int
    seconds: float
    redemptions: int
    lost: str
    faults: tuple[str, ...]
    answers: Counter[str]


class World(Scheduler):
    """See the module. Use once."""

    def __init__(self, plan: Plan, choices: Choices, trace: Trace | None = None) -> None:
        super().__init__(choices, plan.faults)
        self.plan = plan
        self.trace = trace
        self.policy = Policy(reuse_grace=plan.model.grace, deadline=plan.deadline)
        self.shelf = Shelf(timed=plan.timed, as_bytes=plan.as_bytes)
        self.server = Server(plan.model, plan.lifetime, lambda: self.now)
        self.promises = Promises(self)
        self.callers: list[Caller] = []
        self.answers: Counter[str] = Counter()
        self.called_over: set[str] = set()
        self.lease_was_lost = False
        self.logging_in: set[Task] = set()
        self.jumps = 2 * max(map(abs, plan.skews), default=0.0)
        self.store_troubled = False
        self.api_faults = 0
        self.lost = ""
        self._names = 0
        self.flights: list[float] = []
        self._restarts = 0
        self._rejected: set[str] = set()
        self.managers: dict[Process, TokenManager] = {}

    # -- from the beginning to the end ------------------------------------------------------------------------------

    def play(self) -> Outcome:
        """Live through it."""
        plan = self.plan
        with inside(self):
            first = self.server.log_in(lifetime=-1.0 if plan.start == "expired" else None)
            self._store_first(first)
            for number in range(plan.processes):
                self._start(f"p{number}", number)
            for when, what in plan.events:
                self.post(when, Message(what, Op(what), lambda what=what: self._happens(what)))  # type: ignore[misc]
            for when, number in plan.cancelled:
                self.post(when, Message("cancel", Op("cancel"), lambda number=number: self._cancel(number)))  # type: ignore[misc]
            self.run()
            if not self.stop:
                self.promises.at_the_end()
            for process in list(self.managers):
                if not process.dead:
                    self.kill(process)
        return Outcome(
            self.promises.broken,
            self.steps,
            self.now,
            len(self.promises.sent),
            self.lost,
            tuple(self.faults_done),
            self.answers,
        )

    def _store_first(self, answer: dict[str, object]) -> None:
        from unexpired._core.session import Session

        token = Token.from_response(answer, now=EPOCH)
        self.shelf.record = self.shelf.before = Session.begin(KEY, "login1", token)
        self.promises.storing(None, self.shelf.record)
        if self.plan.start == "refused":
            self.server.end_access()

    def _start(self, name: str, number: int, *, again: bool = False) -> None:
        plan = self.plan
        skew = plan.skews[number] if number < len(plan.skews) else 0.0
        process = Process(name, len(self.managers), boot_offset=1000.0 * number, skew=skew)
        store = Facade(self, self.shelf, process)
        self.process = process
        self.managers[process] = TokenManager(
            SimulatedGrant(self, process), store=store, key=KEY, deadline=plan.deadline
        )
        for index in range(plan.callers):
            resource = plan.resources[index % len(plan.resources)]
            caller = Caller(self, process, f"c{index}", resource, tasks=index % 2 == 1)
            self.callers.append(caller)
            when = 0.0 if again else self.choices.pick(8) / 8 * plan.spread
            if when:
                self.post(when, Message(f"{name} begins", ops.ARRIVE, caller.begin))
            else:
                caller.begin()

    # -- what happens to everybody ----------------------------------------------------------------------------------

    def _happens(self, what: str) -> None:
        self.note(what)
        if what == "tokens end":
            self.server.end_access()
        elif what == "login ends":
            for family in list(self.server.families.values()):
                self.server.revoke(family, "ended")
        else:
            living = [process for process in self.managers if not process.dead and not process.paused]
            if living:
                person = living[self.choices.pick(len(living))]
                do = self._log_in if what == "log in" else self._log_out
                self.spawn(what, person, lambda: do(person), ops.PERSON)

    def _log_out(self, process: Process) -> None:
        try:
            self.managers[process].logout()
        except StoreError:
            return

    def _log_in(self, process: Process) -> None:
        answer = self.server.log_in()
        manager = self.managers[process]
        token = Token.from_response(answer, now=EPOCH + self.now + process.skew)
        login = f"login{len(self.server.families)}"
        try:
            self.logging_in.add(self.task)
            manager._cell.adopt(driving.change(changes.login(KEY, login, token), manager._cell, manager._grant))
        except StoreError:
            return

    def _cancel(self, number: int) -> None:
        if number < len(self.callers):
            self.callers[number].cancel()

    # -- what the parts ask of their world --------------------------------------------------------------------------

    def note(self, what: str) -> None:
        """A line for the trace."""
        if self.trace is not None:
            self.trace.note(self, what)

    def store_clock(self) -> float:
        """UNIX time as the store has it."""
        return EPOCH + self.now

    def wall_of(self, process: Process) -> float:
        """UNIX time as a process has it."""
        return EPOCH + self.now + process.skew

    def unique(self) -> str:
        """A name that no other has."""
        self._names += 1
        return f"{self.process.name}#{self._names}"

    def flight_number(self) -> int:
        """Flights are numbered."""
        self.flights.append(self.now)
        return len(self.flights)

    def store_changed(self) -> None:
        """Whoever waits for the lease looks again."""
        for task, _ in list(self.shelf.waiting):
            self.wake(task)

    def free_lease(self) -> None:
        """The next one may have it."""
        self.shelf.holder = None
        self.store_changed()

    def quiet(self) -> bool:
        """Whether nothing has gone wrong, and nothing odd is going on: then everybody is simply served."""
        plan = self.plan
        # With two resources each refresh ends the other one's token.
        restless = plan.lifetime < 100.0 or (plan.model.kills_old and len(plan.resources) > 1)
        return not (self.faults_done or self._is_odd() or restless)

    def _is_odd(self) -> bool:
        """Whether the API or a clock has its own ideas, without any fault."""
        return bool(self.plan.refusing or self.plan.lag or self.plan.late_code or self.jumps)

    def only_a_hiccup(self) -> bool:
        """Whether all that went wrong is one token request that the server did not process, and it is no slow one."""
        one = len(self.faults_done) == 1 and self.faults_done[0].startswith(_HICCUPS)
        return one and max(self.plan.latency) < 5.0 and not self._is_odd()

    def hindered_unseen(self) -> bool:
        """Whether something else may have stopped a request that nobody heard of again."""
        return self.store_troubled or self.lease_was_lost or any(fault.startswith(_HALTS) for fault in self.faults_done)

    def was_hindered(self) -> bool:
        """Whether more than one thing kept the fleet from coming again within a grace period."""
        slow = max(self.plan.latency) > 5.0 and bool(self.faults_done)
        times = sum(" at send" in fault or fault.startswith("kill") for fault in self.faults_done)
        return slow or self.was_stopped() or times > 1

    def was_stopped(self) -> bool:
        """Whether something kept a whole fleet waiting for seconds: then a grace period can pass by unused."""
        return any(fault.partition(" at ")[0] in _STOPS for fault in self.faults_done)

    def unanswered(self) -> list[str]:
        """Callers of living processes that never came to an end."""
        return [caller.name for caller in self.callers if not caller.over and not caller.process.dead]

    def patience_with_apis(self) -> int:
        """How many refreshes an API that refuses good tokens may cause: the pauses between them double from 1 s."""
        each = 2 + int(math.log2(1.0 + self.now)) + self.api_faults
        return each * len(self.managers) * len(self.plan.resources)

    def endless(self) -> None:
        """See `Scheduler`."""
        self.promises.breaks("P3", "a world goes on and on")

    # -- faults -----------------------------------------------------------------------------------------------------

    def strikes(self, what: Task | Message, name: str) -> bool:
        """See `Scheduler`."""
        if not isinstance(what, Task):
            return False
        strike = _STRIKES.get(name)
        if strike is None:
            return False
        self.note(f"FAULT {name}: {what.name} at {what.op.name}")
        strike(self, what)
        return True

    def meet_on_the_wire(self, task: Task, sent: Sent, delay: float) -> None:
        """Let something befall a process whose request is on the wire, before the server has it or after."""
        if not delay or not self.faults_left:
            return
        chosen = self.choices.fault(len(ops.WIRE.faults), likely=True)
        if chosen:
            self.faults_left -= 1
            name, when = ops.WIRE.faults[chosen - 1], (1 + 2 * self.choices.pick(2)) * delay / 4
            self.post(when, Message(f"{name} for {task.name}", Op("trouble"), lambda: self._strike(task, sent, name)))

    def _strike(self, task: Task, sent: Sent, name: str) -> None:
        if sent.given_up or task.process.dead:
            return
        self.faults_done.append(f"{name} at wire of {task.name}")
        self.note(f"FAULT {name}: {task.name} on the wire")
        if name == "kill":
            self._kill(task)
        elif name == "lease lost":
            self._lose_lease()
        else:
            self.pause(task.process, 13.0)

    def _kill(self, what: Task) -> None:
        process = what.process
        self.kill(process)
        holder = self.shelf.holder
        if holder is not None and holder.process is process and not self.shelf.timed:
            self.free_lease()
        self._restarts += 1
        if self._restarts <= self.plan.restarts:
            name = process.name.partition("'")[0] + "'" * self._restarts
            number = int(process.name[1:].partition("'")[0])
            again = Message(f"{name} starts", ops.ARRIVE, lambda: self._start(name, number, again=True))
            self.post(RESTART, again)

    def _pause(self, what: Task, seconds: float) -> None:
        self.runnable.insert(0, what)
        self.pause(what.process, seconds)

    def _slow(self, what: Task) -> None:
        what.delayed += 3.0
        self.post(3.0, Message(f"{what.name} goes on", Op("continue"), lambda: self._again(what)))

    def _again(self, what: Task) -> None:
        if not what.process.dead:
            (what.process.held_back if what.process.paused else self.runnable).append(what)

    def _jump(self, what: Task) -> None:
        by = (600.0, -600.0, 30.0, -30.0)[self.choices.pick(4)]
        what.process.skew += by
        self.jumps += abs(by)
        self.runnable.insert(0, what)

    def _lose_lease(self, what: Task | None = None) -> None:
        if self.shelf.timed:
            self.lease_was_lost = True
            self.free_lease()
        if what is not None:
            self.runnable.insert(0, what)


_STOPS = frozenset({
    "pause past the lease", "slow", "slow server", "store down", "disk full", "timeout before", "timeout after",
})  # fmt: skip
_HALTS = ("kill", "pause past", "slow")
_HICCUPS = ("no connection", "busy (429)", "error 500 before")
_STRIKES: dict[str, Callable[[World, Task], None]] = {
    "kill": World._kill,
    "pause past the lease": lambda world, what: world._pause(what, 13.0),
    "pause for a moment": lambda world, what: world._pause(what, 0.5),
    "slow": World._slow,
    "clock jumps": World._jump,
    "lease lost": World._lose_lease,
}
