"""Where callers wait for a flight: one room per event loop, one for all threads. Waking never blocks."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Protocol

from unexpired._engine.clock import TICK, Bell, boot

if TYPE_CHECKING:
    import asyncio

    import trio

__all__ = ["AsyncRoom", "ThreadRoom", "async_sleep", "room_here"]

_NEVER = float("inf")
_STEP = 0.005


class AsyncRoom(Protocol):
    """The waiting callers of one event loop."""

    def wake(self) -> None:
        """Wake them all, from any thread, with one call into the loop. A loop that has closed is skipped."""
        ...

    async def wait(self, until: float) -> None:
        """Wait to be woken, or until boot time *until*."""
        ...


class ThreadRoom:
    """The waiting threads of this process."""

    def __init__(self) -> None:
        self._woken = Bell()

    def wake(self) -> None:
        """Wake them all."""
        self._woken.set()

    def wait(self, until: float) -> None:
        """Wait to be woken, or until boot time *until*; Ctrl-C interrupts it."""
        while (left := until - boot()) > 0 and not self._woken.wait(min(left, TICK)):
            pass


class AsyncioRoom:
    """The waiting tasks of one asyncio event loop. They share one timer: one each would weigh more than the rest."""

    def __init__(self) -> None:
        import asyncio  # noqa: PLC0415 - only where a loop runs

        self.loop = asyncio.get_running_loop()
        self._bounds: dict[asyncio.Future[None], float] = {}
        self._alarm: asyncio.TimerHandle | None = None
        self._rings = _NEVER

    def wake(self) -> None:
        """See `AsyncRoom`."""
        try:
            self.loop.call_soon_threadsafe(self._release)
        except RuntimeError:
            return

    def _release(self) -> None:
        for future in self._bounds:
            _finish(future)

    async def wait(self, until: float) -> None:
        """See `AsyncRoom`."""
        future = self.loop.create_future()
        self._bounds[future] = until
        if until < self._rings:
            self._set_alarm(until)
        try:
            await future
        finally:
            del self._bounds[future]
            if not self._bounds:
                self._set_alarm(_NEVER)

    def _set_alarm(self, at: float) -> None:
        if self._alarm is not None:
            self._alarm.cancel()
        self._rings = at
        self._alarm = self.loop.call_later(max(0.0, at - boot()), self._ring) if at < _NEVER else None

    def _ring(self) -> None:
        """Finish whoever has waited long enough; look again when the next one has, but not for each one alone."""
        now = boot()
        for future, until in self._bounds.items():
            if until <= now:
                _finish(future)
        left = [until for future, until in self._bounds.items() if not future.done()]
        self._set_alarm(max(min(left), now + _STEP) if left else _NEVER)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class TrioRoom:
    """The waiting tasks of one trio run."""

    def __init__(self) -> None:
        import trio  # noqa: PLC0415 - only where trio runs

        self._trio = trio
        self._token = trio.lowlevel.current_trio_token()
        self._woken = trio.Event()

    def wake(self) -> None:
        """See `AsyncRoom`."""
        try:
            self._token.run_sync_soon(self._woken.set)
        except self._trio.RunFinishedError:
            return

    async def wait(self, until: float) -> None:
        """See `AsyncRoom`."""
        with self._trio.move_on_after(max(0.0, until - boot())):
            await self._woken.wait()


def room_here() -> tuple[object, type[AsyncioRoom | TrioRoom]]:
    """What tells the running event loop from others, and the kind of room it needs."""
    sniffio = sys.modules.get("sniffio")
    asyncio = sys.modules.get("asyncio")
    # A trio run can be a guest in an asyncio loop, which then counts as running too; trio tells sniffio who it is.
    guest = sniffio is not None and sniffio.thread_local.name == "trio"
    if not guest and asyncio is not None and (loop := asyncio._get_running_loop()) is not None:
        return loop, AsyncioRoom
    trio_now: trio.lowlevel.TrioToken = sys.modules["trio"].lowlevel.current_trio_token()
    return trio_now, TrioRoom


async def async_sleep(seconds: float) -> None:
    """Sleep in the running event loop."""
    _, kind = room_here()
    if kind is AsyncioRoom:
        import asyncio  # noqa: PLC0415 - only where a loop runs

        await asyncio.sleep(seconds)
    else:
        import trio  # noqa: PLC0415 - only where trio runs

        await trio.sleep(seconds)
