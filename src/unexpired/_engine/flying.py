"""One flight of this process: its thread, who waits for it, and the driver that carries out its effects."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from unexpired._core import effects
from unexpired._core.flight import Plan, flight
from unexpired._core.session import Failure, Session
from unexpired._core.token import Token
from unexpired._engine import asking
from unexpired._engine.circles import CURRENT, Waiting
from unexpired._engine.clock import TICK, boot, draw, instant, keeper_here, main_is_over
from unexpired._engine.rooms import AsyncRoom, ThreadRoom, room_here
from unexpired._engine.runway import Start
from unexpired._engine.tally import Tally
from unexpired.errors import StoreError, UnexpiredError, place_of
from unexpired.events import CallerWaited

if TYPE_CHECKING:
    from unexpired._core.ports import Grant, HeldLease
    from unexpired._engine.cell import Cell, Reading

__all__ = ["Flying"]

_log = logging.getLogger("unexpired")

_WATCH = 0.02
"""Seconds between two looks whether the record has changed."""
_HEAD_START = 0.004
"""Seconds that an event loop stands still for a flight: what it takes to write the intent and send the request."""
_BETWEEN_HEAD_STARTS = 0.1
"""Seconds; the flights of many sessions do not bring the loop to a standstill together."""


class Flying:
    """A flight in progress. Created and joined under its cell's lock; belongs to nobody."""

    in_air: ClassVar[list[Flying]] = []
    """The flights of this process that are under way."""

    last_head_start: ClassVar[float] = 0.0

    def __init__(self, cell: Cell, plan: Plan, grant: Grant, reading: Reading) -> None:
        self.plan = plan
        self.result: effects.Result | None = None
        self.done = False
        self._cell = cell
        self._grant = grant
        self._reading = reading
        self._needs: list[effects.Need] = []
        self._lease: HeldLease | None = None
        # Reentrant, like all of ours: a signal handler or a finalizer may ask for a token in the middle of anything.
        self._lock = threading.RLock()
        self._threads = ThreadRoom()
        self._rooms: dict[object, AsyncRoom] = {}
        self._callers = 0
        self._starters = 0
        self._keepers: set[threading.Thread] = set()
        self._start = Start(self.run, f"unexpired:{plan.key}")
        self._away = False
        self._run_once = threading.Lock()
        self.waiting_on: list[Flying] = []
        self._tally = Tally()

    # -- joining ------------------------------------------------------------------------------------------------

    def board(self, need: effects.Need, *, waits: bool) -> None:
        """Add what a caller needs; it counts until the flight decides. *waits*: the caller will wait for the result."""
        with self._lock:
            self._starters += waits and not self._needs
            self._needs.append(need)
            if waits:
                self._callers += 1
                if (keeper := keeper_here()) is not None:
                    self._keepers.add(keeper)

    def start(self) -> None:
        """Run on a thread of its own as soon as there is a place, or right here where no thread can be started.

        Everybody who joins calls it: a caller that Ctrl-C stops just before must not leave a flight that never runs.
        """
        self._start(nested=CURRENT.get() is not None)

    def wait(self, until: float) -> effects.Result | None:
        """Wait on this thread until the flight ends, at most until boot time *until* (None: it has not ended)."""
        began = boot()
        with Waiting(self):
            if self.result is None:
                self._threads.wait(until)
        return self._goes_on(began)

    async def await_(self, until: float) -> effects.Result | None:
        """The same for a task of any event loop."""
        began = boot()
        self._get_away()
        with Waiting(self):
            here, kind = room_here()
            with self._lock:
                room = self._rooms.get(here)
                if room is None:
                    room = self._rooms[here] = kind()
            if self.result is None:
                await room.wait(until)
        return self._goes_on(began)

    def _get_away(self) -> None:
        """Give the flight this thread's turns of the interpreter, once, until its request is on its way.

        An event loop that goes on with dozens of other refused calls would otherwise keep it waiting for longer.
        """
        if not self._away:
            self._away = True
            if boot() - Flying.last_head_start >= _BETWEEN_HEAD_STARTS:
                time.sleep(_HEAD_START)
                Flying.last_head_start = boot()

    def _goes_on(self, began: float) -> effects.Result | None:
        """What a caller gets that has waited since boot time *began*. It is told here, where its context is."""
        answer = self._answer()
        waited = CallerWaited(self.plan.key, self._tally.flight, boot() - began, answer is not None)
        self._cell.listeners.inform(waited)
        return answer

    def _answer(self) -> effects.Result | None:
        """A result published early, while its token cannot be stored, is no answer to those who need a later one."""
        result = self.result
        if result is None or self.done:
            return result
        now = instant().wall
        why = Failure("unsaved", "the newest token cannot be stored yet, so no other can be asked for", now, now + 1)
        return effects.Result(result.session, result.failure or why)

    # -- running ------------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Drive the flight to its end, once. Whatever happens, the lease is released and everybody is woken."""
        if not self._run_once.acquire(blocking=False):
            return
        CURRENT.set(self)
        Flying.in_air.append(self)
        flow = flight(self.plan)
        try:
            self._drive(flow)
        except Exception as error:  # noqa: BLE001 - not ours
            # Its text could hold a secret of somebody's store; its type and place cannot.
            _log.error("the flight for %r broke down: %s", self.plan.key, place_of(error))
        finally:
            Flying.in_air.remove(self)
            self._release()
            landed = self.done
            if not landed:
                now = instant().wall
                broken = Failure("unreachable", "the refresh broke down; see the log", now, now + 1)
                self._publish(effects.Publish(effects.Result(None, broken)))
            ended = self._tally.ended(self.plan.key, self.result if landed else None, self._callers, self._starters)
            self._cell.listeners.tell(ended)

    def _drive(self, flow: effects.Flow[None]) -> None:
        try:
            effect = next(flow)
            while True:
                try:
                    answer = self._perform(effect)
                except StoreError as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(answer)
        except StopIteration:
            return

    def _perform(self, effect: effects.Effect[Any]) -> object:
        perform: Callable[[Flying, Any], object] = _PERFORM[type(effect)]
        return perform(self, effect)

    def exiting(self) -> bool:
        """Whether the process is ending, and no caller of this flight keeps it alive.

        A caller's thread counts as long as it lives: the process cannot end before it anyway.
        """
        return main_is_over() and not any(
            keeper.is_alive() or keeper is threading.main_thread() for keeper in list(self._keepers)
        )

    def _now(self, _: effects.Now) -> effects.Instant:
        return instant(exiting=self.exiting())

    def _needed(self, _: effects.Needs) -> frozenset[effects.Need]:
        with self._lock:
            return frozenset(self._needs)

    def _take_lease(self, effect: effects.Lease) -> object:
        policy = self.plan.policy
        changed = self._reading.changed
        with self._tally.leasing():
            held = self._cell.store.lease(
                self.plan.key,
                owner=self.plan.owner,
                seconds=policy.deadline + policy.lease_margin,
                wait=effect.wait,
                stop=lambda: changed() or self.exiting(),
            )
        if held is None:
            return "changed" if changed() else "timeout"
        self._lease = held
        return effects.Granted(boot() - held.age(), held.granted_at, held.timed)

    def _renew(self, _: effects.Renew) -> None:
        if self._lease is not None:
            self._lease.renew()

    def _release(self, _: effects.Release | None = None) -> None:
        held, self._lease = self._lease, None
        if held is not None:
            try:
                held.release()
            except Exception as error:  # noqa: BLE001 - not ours
                _log.warning("the lease of %r could not be given back: %s", self.plan.key, place_of(error))

    def _load(self, _: effects.Load) -> Session | None:
        return self._reading.load()

    def _swap(self, effect: effects.Swap) -> bool:
        self._tally.writes()
        stored = self._cell.swap(effect.expected, effect.new)
        self._tally.wrote(stored=stored)
        return stored

    def _redeem(self, effect: effects.Redeem) -> Token | Mapping[str, Any] | UnexpiredError:
        with self._tally.requesting():
            return asking.redeem(self._grant, effect, self.plan.key)

    def _revoke(self, effect: effects.Revoke) -> bool:
        return asking.revoke(self._grant, effect.session)

    def _sleep(self, effect: effects.Sleep) -> bool:
        until = boot() + effect.seconds
        pause = threading.Event()
        step = _WATCH if effect.watchful else TICK
        while (left := until - boot()) > 0 and not (effect.watchful and self._reading.changed()):
            if self.exiting() and not effect.patient:
                return False
            pause.wait(min(left, step))
        return not self.exiting()

    def _publish(self, effect: effects.Publish) -> int:
        result = effect.result
        if result.session is not None or result.failure is None:
            known = self._cell.adopt(result.session)
            if known is not None and known.ended is not None:
                # It ended while its newest token could not be stored: nobody is to get that one any more.
                result = effects.Result(known)
        if result.failure is not None and not result.failure.resources:
            self._cell.quiet_until = boot() + max(1.0, result.failure.retry_at - result.failure.since)
        if effect.last:
            self._cell.detach()
        with self._lock:
            self.result = result
            self.done = effect.last
            rooms = list(self._rooms.values())
        self._threads.wake()
        for room in rooms:
            room.wake()
        if not effect.last:
            self._start.leave()  # it may go on trying to store its token for hours
        return self._callers

    def _emit(self, effect: effects.Emit) -> None:
        self._tally.hear(effect.event)
        self._cell.listeners.tell(effect.event)


def _draw(_: Flying, __: effects.Draw) -> float:
    return draw()


_PERFORM: dict[type[effects.Effect[Any]], Callable[[Flying, Any], object]] = {
    effects.Now: Flying._now,
    effects.Draw: _draw,
    effects.Needs: Flying._needed,
    effects.Lease: Flying._take_lease,
    effects.Renew: Flying._renew,
    effects.Release: Flying._release,
    effects.Load: Flying._load,
    effects.Swap: Flying._swap,
    effects.Redeem: Flying._redeem,
    effects.Revoke: Flying._revoke,
    effects.Sleep: Flying._sleep,
    effects.Publish: Flying._publish,
    effects.Emit: Flying._emit,
}
