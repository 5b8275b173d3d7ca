"""Tasks, virtual time, and whose turn it is. One thread, no waiting: a task that waits is parked.

A task is a greenlet that runs the product's own blocking code. It hands the turn back wherever it touches something
shared (a *step*) or waits (*parks*). Everything that can happen next is a list; `Choices` picks from it.
"""

from __future__ import annotations

import heapq
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from greenlet import GreenletExit, getcurrent, greenlet

from tests.simulation.choices import Choices

__all__ = ["NEVER", "Cancelled", "Message", "Op", "Process", "Scheduler", "Task"]

NEVER = float("inf")
LONGEST = 20_000
"""Steps after which a world counts as one that does not end."""


class Cancelled(BaseException):
    """A caller is cancelled, or interrupted by Ctrl-C, while it waits."""


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """What a task is about to do: which faults can meet it there, and what it reads and writes of the shared world."""

    name: str
    faults: tuple[str, ...] = ()
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()


WOKEN = Op("wake up", ("kill", "pause past the lease"))
"""A task has waited for something, or for long enough."""


class Process:
    """One process of the fleet, with clocks of its own. A restarted one is another object."""

    def __init__(self, name: str, number: int, boot_offset: float = 0.0, skew: float = 0.0) -> None:
        self.name = name
        self.number = number
        self.boot_offset = boot_offset
        self.skew = skew
        self.dead = False
        self.paused = False
        self.stopped_for = 0.0
        self.tasks: list[Task] = []
        self.held_back: list[Task] = []
        self.unstored: Any = None
        self.blind = False


class Task:
    """One thread or task of a process."""

    __slots__ = ("cancelled", "delayed", "flies", "greenlet", "joined", "name", "op", "parked", "process", "ticket")

    def __init__(self, name: str, process: Process, body: Callable[[Any], None], op: Op) -> None:
        self.name = name
        self.process = process
        self.greenlet = greenlet(body)
        self.op = op
        self.parked = False
        self.ticket = 0
        self.cancelled = False
        self.delayed = 0.0
        self.flies = False
        self.joined = False

    @property
    def owner(self) -> Process:
        """The process whose memory its steps touch."""
        return self.process


class Message:
    """Something on the wire or in the air that belongs to no process: it happens, whoever has died."""

    __slots__ = ("action", "name", "op", "owner")

    def __init__(self, name: str, op: Op, action: Callable[[], None], owner: Process | None = None) -> None:
        self.name = name
        self.owner = owner
        self.op = op
        self.action = action


class Scheduler(ABC):
    """Runs tasks and messages, one step at a time, until nothing is left to do."""

    def __init__(self, choices: Choices, faults: int) -> None:
        self.choices = choices
        self.faults_left = faults
        self.faults_done: list[str] = []
        self.now = 0.0
        self.steps = 0
        self.stop = False
        self.runnable: list[Task | Message] = []
        self._timers: list[tuple[float, int, Task | Message, int]] = []
        self._order = 0
        self._hub = getcurrent()
        self._nobody = Task("-", Process("-", -1), lambda _: None, Op("none"))
        self.task: Task = self._nobody
        self.process: Process = self.task.process

    # -- called by tasks --------------------------------------------------------------------------------------------

    def step(self, op: Op) -> Any:
        """Hand the turn back just before doing *op*: the fault that meets it there, None for none."""
        task = self.task
        if task.process.dead:
            raise GreenletExit
        task.op = op
        self.runnable.insert(0, task)
        return self._hub.switch()

    def may_be_cancelled(self, op: Op) -> None:
        """A step at which the caller may be cancelled. Raises Cancelled."""
        if self.step(op) == "cancelled":
            raise Cancelled

    def meet(self, op: Op) -> str | None:
        """The fault that meets an *op* which is done at once, without handing the turn back."""
        if self.task.process.dead:
            raise GreenletExit
        chosen = self.choices.fault(len(op.faults), likely=True) if self.faults_left else 0
        if not chosen:
            return None
        self.faults_left -= 1
        self.faults_done.append(f"{op.faults[chosen - 1]} at {op.name} of {self.task.name}")
        return op.faults[chosen - 1]

    def park(self, until: float) -> None:
        """Wait to be woken, or until the time *until*. Raises Cancelled."""
        task = self.task
        if task.process.dead:
            raise GreenletExit
        task.op = WOKEN
        task.parked = True
        task.ticket += 1
        if until < NEVER:
            self._push(until, task, task.ticket)
        self._hub.switch()
        if task.cancelled:
            task.cancelled = False
            raise Cancelled

    def wake(self, task: Task) -> None:
        """Let a parked task go on."""
        if task.parked:
            task.parked = False
            if task.process.dead:
                return
            (task.process.held_back if task.process.paused else self.runnable).append(task)

    def spawn(self, name: str, process: Process, body: Callable[[], object], op: Op) -> Task:
        """A new task of *process*."""

        def run(_: Any) -> None:
            try:
                body()
            except Cancelled:
                return

        task = Task(f"{process.name}.{name}", process, run, op)
        task.greenlet.parent = self._hub
        process.tasks.append(task)
        (process.held_back if process.paused else self.runnable).append(task)
        return task

    def post(self, delay: float, message: Message) -> None:
        """Let *message* happen after *delay* seconds."""
        if delay <= 0.0:
            self.runnable.append(message)
        else:
            self._push(self.now + delay, message, 0)

    def _push(self, when: float, what: Task | Message, ticket: int) -> None:
        self._order += 1
        heapq.heappush(self._timers, (when, self._order, what, ticket))

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Go on until nothing is left to do, or something says `stop`."""
        runnable, choices = self.runnable, self.choices
        while not self.stop:
            if not runnable:
                if not self._advance():
                    return
                continue
            turn = choices.turn(runnable, self.faults_left)
            if turn < 0:
                self.stop = True
                return
            what = runnable.pop(turn)
            self.steps += 1
            if self.steps > LONGEST:
                self.endless()
                return
            if self.faults_left and what.op.faults:
                chosen = choices.fault(len(what.op.faults))
                if chosen:
                    self.faults_left -= 1
                    self._fault(what, what.op.faults[chosen - 1])
                    continue
            self._resume(what, None)

    def _fault(self, what: Task | Message, name: str) -> None:
        self.faults_done.append(f"{name} at {what.op.name} of {what.name}")
        if not self.strikes(what, name):
            self._resume(what, name)

    def _resume(self, what: Task | Message, fault: str | None) -> None:
        if isinstance(what, Task):
            if what.process.paused:
                what.process.held_back.append(what)
                return
            self.task, self.process = what, what.process
            what.greenlet.switch(fault)
        else:
            self.task, self.process = self._nobody, self._nobody.process
            what.action()

    def _advance(self) -> bool:
        """Nobody can go on: let time pass until somebody can. False when there is nothing to wait for."""
        timers = self._timers
        while timers:
            when, _, what, ticket = heapq.heappop(timers)
            if isinstance(what, Task):
                if not what.parked or what.ticket != ticket or what.process.dead:
                    continue
                self.now = max(self.now, when)
                self.wake(what)
            else:
                self.now = max(self.now, when)
                self.runnable.append(what)
            if timers and timers[0][0] <= self.now:
                continue
            return True
        return bool(self.runnable)

    # -- what befalls processes -------------------------------------------------------------------------------------

    def kill(self, process: Process) -> None:
        """As `kill -9` does: none of its tasks does anything any more."""
        process.dead = True
        self.runnable[:] = [one for one in self.runnable if isinstance(one, Message) or one.process is not process]
        before = self.task, self.process
        for task in process.tasks:
            if task.greenlet:
                self.task, self.process = task, process
                task.greenlet.throw(GreenletExit)
        self.task, self.process = before
        process.held_back.clear()

    def pause(self, process: Process, seconds: float) -> None:
        """As SIGSTOP does, and SIGCONT after *seconds*."""
        process.paused = True
        process.stopped_for += seconds
        mine = [one for one in self.runnable if isinstance(one, Task) and one.process is process]
        self.runnable[:] = [one for one in self.runnable if not (isinstance(one, Task) and one.process is process)]
        process.held_back.extend(mine)
        self.post(seconds, Message(f"{process.name} goes on", Op("continue"), lambda: self._go_on(process)))

    def _go_on(self, process: Process) -> None:
        process.paused = False
        self.runnable.extend(process.held_back)
        process.held_back.clear()

    # -- told by worlds ---------------------------------------------------------------------------------------------

    @abstractmethod
    def strikes(self, what: Task | Message, name: str) -> bool:
        """Carry out a fault that befalls the process and not the step. False: it is the step's own."""

    @abstractmethod
    def endless(self) -> None:
        """The world does not end."""
