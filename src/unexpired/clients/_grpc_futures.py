"""Calls of blocking channels that are still under way when their callers have them, and what goes on behind them."""

from __future__ import annotations

import copy
import os
import threading
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any

import grpc

from unexpired._core.effects import Effect
from unexpired._core.replay import Replace, Send, replay
from unexpired._core.scheme import Judgement, Verdict
from unexpired._core.suspicion import endpoint_of
from unexpired._core.token import Token
from unexpired._engine.clock import boot
from unexpired.clients._exchange import answer, replayed
from unexpired.errors import LoginRequired, UnexpiredError

if TYPE_CHECKING:
    from unexpired.clients._grpc_sync import Unary

__all__ = ["Failed", "Future", "Line", "Way", "all_here"]

Failed = dict[int, UnexpiredError]
"""The refreshes that failed while one lot of calls was waiting, by the identity of the token that was refused."""
Step = Callable[[Failed], None]


class Line:
    """Where refused calls wait for a token: on one thread for each resource, however many they are."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._waiting: dict[str | None, list[Step]] = {}

    def put(self, resource: str | None, step: Step) -> bool:
        """Have *step* taken after those before it. False: no thread can be started, and it never will be."""
        if self._process != os.getpid():
            # The threads of a parent process are not there in its fork.
            self._begin()
        with self._lock:
            if resource in self._waiting:
                self._waiting[resource].append(step)
                return True
            name = "unexpired: calls of gRPC, again"
            self._waiting[resource] = [step]
            try:
                threading.Thread(target=self._work, args=(resource,), name=name, daemon=True).start()
            except RuntimeError:
                del self._waiting[resource]
                return False
            return True

    def _work(self, resource: str | None) -> None:
        while True:
            with self._lock:
                steps = self._waiting[resource]
                if not steps:
                    del self._waiting[resource]
                    return
                self._waiting[resource] = []
            # All of one lot were waiting while the first was: if its refresh fails, so does theirs.
            failed: Failed = {}
            while steps:
                # What a callback of the caller's raises, SystemExit included, is not for those who wait behind it.
                with suppress(BaseException):
                    steps.pop(0)(failed)


def all_here(call: Any) -> bool:
    """Whether all of an answer has come. gRPC calls back at its code, and its first metadata may come after that.

    What asks for them on gRPC's thread then waits for ever. Where it cannot be seen, the answer is no.
    """
    return getattr(getattr(call, "_state", None), "initial_metadata", None) is not None


class Way:
    """The way of one refused call, in steps of which each ends with a sending."""

    def __init__(self, unary: Unary, token: Token, judgement: Judgement) -> None:
        self._unary = unary
        self._exchange = unary.site.manager.exchange
        self._where = unary.origin()
        self._times = 0
        self._since = boot()
        key = unary.site.manager.key
        self._flow = replay(key, token, judgement, self._where, endpoint_of(*unary.target()))

    def step(self, judgement: Judgement | None, status: int, failed: Failed) -> Token | None:
        """Go on from an answer (None for the first) to the next sending: its token, or None when there is none.

        Raises as `TokenManager.token`, and ReplayRefused.
        """
        try:
            effect: Effect[Any] = self._flow.send(judgement)
            while not isinstance(effect, Send):
                effect = self._flow.send(self._answer(effect, status, failed))
        except StopIteration:
            replayed(self._exchange, self._where, self._times, self._since)
            return None
        except LoginRequired as error:
            raise self._exchange.address(error) from None
        self._times += 1
        self._unary.rewind()
        return effect.token

    def _answer(self, effect: Effect[Any], status: int, failed: Failed) -> Any:
        if not isinstance(effect, Replace):
            return answer(self._exchange, effect, status)
        known = failed.get(id(effect.carried))
        if known is not None:
            raise copy.copy(known)
        try:
            return answer(self._exchange, effect, status)
        except UnexpiredError as error:
            failed[id(effect.carried)] = copy.copy(error)
            raise


class Future:
    """A call under way. Where it has to wait to be sent again, neither its caller nor gRPC's thread does."""

    def __init__(self, unary: Unary, token: Token) -> None:
        self._unary = unary
        self._token = token
        self._way: Way | None = None
        self._lock = threading.Lock()
        self._ended = False
        self._cancelled = False
        self._error: BaseException | None = None
        self._over: futures.Future[None] = futures.Future()
        unary.call.add_done_callback(self._answered)

    def _answered(self, _: Any) -> None:
        """Look at an answer, on gRPC's thread."""
        unary = self._unary
        try:
            status, first = unary.status(), self._way is None
            if self._cancelled or unary.call.cancelled() or (first and unary.site.calls.is_fine(status)):
                self._end(None)
                return
            judgement = unary.judge(unary.site.calls.scheme) if all_here(unary.call) else None
            if judgement is not None and judgement.verdict is Verdict.ACCEPTED:
                self._step(judgement, status, {})
            elif not unary.site.line.put(unary.resource, partial(self._step, judgement, status)):
                # This thread is gRPC's: what it waited for here would never be answered.
                self._end(None)
        except BaseException as error:  # noqa: BLE001 - the caller's to see
            self._end(error)

    def _step(self, judgement: Judgement | None, status: int, failed: Failed) -> None:
        unary = self._unary
        if self._over.done():
            return
        try:
            judgement = judgement or unary.judge(unary.site.calls.scheme)
            if self._way is None:
                self._way = Way(unary, self._token, judgement)
                judgement = None
            token = self._way.step(judgement, status, failed)
            if token is None or self._over.done():
                self._end(None)
                return
            unary.begin_again(token)
            if self._cancelled:
                unary.call.cancel()
            unary.call.add_done_callback(self._answered)
        except BaseException as error:  # noqa: BLE001 - the caller's to see
            self._end(error)

    def _end(self, error: BaseException | None) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
        if first:
            self._error = error
            self._unary.release()
            self._over.set_result(None)
        return first

    def cancel(self) -> bool:
        """Cancel the call; a refresh that it waits for goes on."""
        with self._lock:
            if self._ended:
                return False
            self._cancelled = True
        self._unary.call.cancel()
        self._end(None)
        return True

    def cancelled(self) -> bool:
        """Whether it was cancelled before it was done."""
        return self._cancelled or (self.done() and self._unary.call.cancelled())

    def running(self) -> bool:
        """Whether it is still under way."""
        return not self.done()

    def done(self) -> bool:
        """Whether there is an answer, an error, or nobody to wait for them."""
        return self._over.done()

    def is_active(self) -> bool:
        """As `running`."""
        return not self.done()

    def time_remaining(self) -> Any:
        """Seconds until the deadline, None without one."""
        left = self._unary.left
        return None if left is None else max(left, 0.0)

    def result(self, timeout: float | None = None) -> Any:
        """Give the response. Raises grpc.FutureTimeoutError, FutureCancelledError, RpcError, and our errors."""
        error = self.exception(timeout)
        try:
            if error is not None:
                raise error
        finally:
            del error  # it holds this frame
        return self._unary.call.result()

    def exception(self, timeout: float | None = None) -> Any:
        """Give what `result` would raise, None for a response. Raises as `result` when there is neither."""
        try:
            self._over.result(timeout)
        except TimeoutError:
            raise grpc.FutureTimeoutError from None
        if self.cancelled():
            raise grpc.FutureCancelledError
        return self._unary.call.exception() if self._error is None else self._error

    def traceback(self, timeout: float | None = None) -> TracebackType | Any:
        """Give the traceback of `exception`."""
        error = self.exception(timeout)
        return self._unary.call.traceback() if self._error is None else error.__traceback__

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call *fn* with this when it is done."""
        self._over.add_done_callback(lambda _: fn(self))

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call *callback* when it is done; False if it is done already."""
        if self.done():
            return False
        self._over.add_done_callback(lambda _: callback())
        return True

    def _last(self) -> Any:
        self._over.result()
        return self._unary.call

    def code(self) -> Any:
        """Give the code of the last answer."""
        call = self._last()
        return grpc.StatusCode.CANCELLED if self._cancelled else call.code()

    def details(self) -> Any:
        """Give the words of the last answer."""
        call = self._last()
        return "Locally cancelled by application!" if self._cancelled else call.details()

    def initial_metadata(self) -> Any:
        """Give the metadata before the last answer."""
        return self._last().initial_metadata()

    def trailing_metadata(self) -> Any:
        """Give the metadata after the last answer."""
        return self._last().trailing_metadata()


grpc.Call.register(Future)
grpc.Future.register(Future)
