"""What one caller does: a request with a token, and what the product does with the answer."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any, TypeVar

from greenlet import GreenletExit

from tests.simulation import ops
from tests.simulation.scheduler import Cancelled, Process, Task
from unexpired._core.replay import Send, replay
from unexpired._core.scheme import ACCEPTED, Judgement, Verdict
from unexpired._core.token import Token
from unexpired.clients._exchange import aanswer, answer
from unexpired.errors import LoginRequired, UnexpiredError

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Caller"]

R = TypeVar("R")
ORIGIN = "https://api.test"
EXPIRED = Judgement(Verdict.EXPIRED)
OVER = Judgement(Verdict.LOGIN_REQUIRED)


class Caller:
    """One thread (or task, where *tasks*) of a process, which makes its requests one after another."""

    def __init__(self, world: World, process: Process, name: str, resource: str | None, *, tasks: bool) -> None:
        self.name = f"{process.name}.{name}"
        self.process = process
        self.over = False
        self.started = False
        self._short = name
        self._world = world
        self._resource = resource
        self._tasks = tasks
        self._task: Task | None = None
        self._manager = world.managers[process]
        # What the first two callers ask for may be refused whatever it is given, or be answered by a replica that lags.
        self._endpoint = "GET /a" if name in ("c0", "c1") else "GET /b"
        self._began = 0
        self._last = ACCEPTED

    def begin(self) -> None:
        """Start, unless the process has died meanwhile."""
        if not self.process.dead:
            self._task = self._world.spawn(self._short, self.process, self._run, ops.BEGIN)
            self.started = True
        else:
            self.over = True

    def cancel(self) -> None:
        """Interrupt its waiting, if it waits."""
        task = self._task
        if task is not None and task.parked and not self.process.paused and not self.process.dead:
            self._world.note(f"{self.name} is cancelled")
            task.cancelled = True
            self._world.wake(task)

    def _run(self) -> None:
        world = self._world
        try:
            for _ in range(world.plan.rounds):
                self._request()
        except Cancelled:
            world.answers["cancelled"] += 1
        except GreenletExit:
            raise
        except Exception as error:  # noqa: BLE001 - a promise: nothing but our own errors
            world.promises.breaks("P3", f"{self.name} got {type(error).__name__}: {error}")
        self.over = True

    def _request(self) -> None:
        """One request, and its end: P3 and P4 hold for each."""
        world = self._world
        task = world.task
        began, stopped, delayed = world.now, self.process.stopped_for, task.delayed
        asked = object()
        undisturbed = not (world.plan.events or world.plan.cancelled)
        quiet = undisturbed and world.quiet()
        try:
            self._last = ACCEPTED
            said = self._exchange(asked)
            if said is not asked:
                world.promises.breaks("P4", f"{self.name} got another caller's response")
            outcome = "response"
        except LoginRequired as error:
            outcome = f"LoginRequired: {error.reason}"
            self._told_over(error.reason)
        except UnexpiredError as error:
            outcome = type(error).__name__
        quiet = quiet and world.quiet()
        if quiet and (outcome != "response" or self._last is not ACCEPTED):
            world.promises.breaks("P3", f"{self.name} is not served ({outcome}), and nothing has gone wrong")
        if quiet and world.now - began > 4 * sum(world.plan.latency) * len(world.plan.resources) + 0.5:
            world.promises.breaks("P3", f"{self.name} waits {world.now - began:.1f} s, and nothing has gone wrong")
        if outcome == "TemporarilyUnavailable" and undisturbed and world.only_a_hiccup():
            world.promises.breaks("P3", f"{self.name} hears of one hiccup of the token endpoint")
        world.note(f"{self.name} gets {outcome}")
        world.answers[outcome] += 1
        excused = self.process.stopped_for - stopped + task.delayed - delayed
        bound = 2 * world.policy.wait + 2.0 + excused
        world.promises.finished(self.name, world.now - began, bound)

    def _told_over(self, reason: str) -> None:
        world = self._world
        record = world.shelf.record
        if not world.shelf.timed and (record is None or record.ended is None) and not world.logging_in:
            world.promises.breaks("P3", f"{self.name} was told to log in ({reason}), and the login goes on")

    def _exchange(self, asked: object) -> object:
        """The way of a request, as the adapters of the product take it."""
        world, manager, exchange = self._world, self._manager, self._manager.exchange
        self._began = world.steps
        token = manager.warm(self._resource)
        if token is None:
            token = self._now(manager.atoken(self._resource)) if self._tasks else manager.token(self._resource)
        judgement, said = self._send(token, asked)
        if judgement is ACCEPTED and not exchange.suspicions:
            return said
        world.may_be_cancelled(ops.REFUSED)
        flow = replay(manager.key, token, judgement, ORIGIN, self._endpoint)
        again = 0
        try:
            effect = next(flow)
            while True:
                if isinstance(effect, Send):
                    again += 1
                    world.promises.sent_again(self.name, again)
                    judgement, said = self._send(effect.token, asked)
                    effect = flow.send(judgement)
                    continue
                self._began = world.steps
                status = 200 if judgement is ACCEPTED else 401
                if self._tasks:
                    effect = flow.send(self._now(aanswer(exchange, effect, status)))
                else:
                    effect = flow.send(answer(exchange, effect, status))
        except StopIteration:
            return said

    def _send(self, token: Token, asked: object) -> tuple[Judgement, object]:
        """One trip to the API."""
        world = self._world
        world.promises.calling(token, self._began)
        world.note(f"{self.name} calls the API with {token.access_token}")
        fault = world.step(ops.API)
        if fault == "cancelled":
            raise Cancelled
        plan, issued = world.plan, world.server.tokens.get(token.access_token)
        lag = plan.lag if self._endpoint == "GET /a" else 0.0
        good = world.server.accepts(token.access_token, lag)
        if fault == "refused all the same":
            good = False
            world.api_faults += 2
        if plan.refusing and world.now < plan.refusing and self._endpoint == "GET /a":
            good = False
        if issued is not None and issued.resource != self._resource:
            world.promises.breaks("P4", f"{self.name} carries a token of another resource")
        judgement = ACCEPTED if good else EXPIRED
        if not good:
            world.promises.refused_by_api(issued)
            if plan.late_code and self._endpoint == "GET /a":
                judgement = OVER
                world.called_over.add(token.access_token)
        self._last = judgement
        delay = 9.0 if fault == "late answer" else plan.latency[0]
        if judgement is OVER:
            delay += 0.5
        if delay:
            task, until = world.task, world.now + delay
            task.delayed += delay
            while world.now < until:
                world.park(until)
            world.step(ops.JOINED)
        return judgement, asked

    def _now(self, work: Awaitable[R]) -> R:
        """What a coroutine comes to; wherever it waits, this task is parked."""
        steps: Any = work
        try:
            steps.send(None)
        except StopIteration as stop:
            return stop.value  # type: ignore[no-any-return]
        raise AssertionError("a coroutine waits for something that is not of this world")
