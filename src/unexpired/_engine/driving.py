"""Drives what one caller does: on its own thread, or as a task of whatever event loop runs it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from unexpired._core import effects
from unexpired._engine import asking
from unexpired._engine.clock import TICK, boot, instant, main_is_over
from unexpired._engine.flying import Flying
from unexpired._engine.rooms import async_sleep
from unexpired.errors import StoreError

if TYPE_CHECKING:
    from unexpired._core.effects import Flow, Need
    from unexpired._core.ports import Grant
    from unexpired._engine.cell import Cell

__all__ = ["adrive", "change", "drive", "in_thread"]

R = TypeVar("R")
Joiner = Callable[["Need"], Flying]


def drive(flow: Flow[R], join: Joiner) -> R:
    """Run a caller's flow on this thread."""
    try:
        effect = next(flow)
        while True:
            if isinstance(effect, effects.Join):
                answer: object = join(effect.need).wait(effect.until)
            elif isinstance(effect, effects.Sleep):
                answer = _sleep(effect.seconds)
            else:
                answer = instant(exiting=main_is_over())
            effect = flow.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def adrive(flow: Flow[R], join: Joiner) -> R:
    """Run a caller's flow as a task. Cancelling it leaves the flight alone."""
    try:
        effect = next(flow)
        while True:
            if isinstance(effect, effects.Join):
                answer: object = await join(effect.need).await_(effect.until)
            elif isinstance(effect, effects.Sleep):
                await async_sleep(effect.seconds)
                answer = True
            else:
                answer = instant()
            effect = flow.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


def _sleep(seconds: float) -> bool:
    until = boot() + seconds
    pause = threading.Event()
    while (left := until - boot()) > 0:
        pause.wait(min(left, TICK))
    return True


def change(flow: Flow[R], cell: Cell, grant: Grant) -> R:
    """Carry out a login, a logout or an end on this thread: a few store calls, no lease."""
    perform: dict[type[effects.Effect[Any]], Callable[[Any], object]] = {
        effects.Now: lambda _: instant(),
        effects.Load: lambda _: cell.store.load(cell.key),
        effects.Swap: lambda effect: cell.swap(effect.expected, effect.new),
        effects.SetAside: lambda _: cell.store.set_aside(cell.key),
        effects.Revoke: lambda effect: asking.revoke(grant, effect.session),
    }
    try:
        effect = next(flow)
        while True:
            try:
                answer = perform[type(effect)](effect)
            except StoreError as error:
                effect = flow.throw(error)
            else:
                effect = flow.send(answer)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]


async def in_thread(work: Callable[[], R]) -> R:
    """Do *work*, which blocks, on a worker thread; it is finished even when the waiting task is cancelled."""
    from anyio.to_thread import run_sync  # noqa: PLC0415 - only where a loop runs

    return await run_sync(work)
