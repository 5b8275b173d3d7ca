"""Calls of blocking channels: done, still under way (futures), and streams."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent import futures
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from unexpired._core.scheme import ACCEPTED, Judgement, Scheme
from unexpired._core.token import Token
from unexpired.clients._grpc_calls import Asked, CallDetails, judged, status_of

__all__ = ["Stream", "Unary", "Upload"]


class _Cancelled(Exception):
    """The caller gave the call up while it was to be sent again."""


class Unary(Asked):
    """A call with one request and one response."""

    call: Any = None
    given_up = False

    def begin(self) -> Any:
        """Send it with a token, and give the caller its call."""
        if not self.authenticated:
            return self._send(self._own, self.details.timeout)
        manager = self.site.manager
        token, timeout = manager.warm(self.resource), self.details.timeout
        if token is None:
            token, timeout = manager.token(self.resource), self.left
        return self._begun(token, self._send(self._own + self.site.pairs(token), timeout))

    def _begun(self, token: Token, call: Any) -> Any:
        # A future may be done before it is looked at, and is a future all the same: its caller is not to wait here.
        # Of what gRPC makes, only futures can be read like streams.
        if not call.done() or hasattr(call, "__next__"):
            if self.repeatable:
                self.again()
            return _Future(self, token)
        self.site.calls.go_on(self, token, self.status())
        return self.call

    def _send(self, metadata: Any, timeout: float | None) -> Any:
        how = self.details
        details = CallDetails(how.method, timeout, metadata, how.credentials, how.wait_for_ready, how.compression)
        self.call = call = self._continuation(details, self.request)
        return call

    def send(self, token: Token) -> int:
        """Send it once more with *token*, and wait for the answer."""
        self._stop_if_given_up()
        self._send(self._own + self.site.pairs(token), self.left)
        self._stop_if_given_up()
        return self.status()

    def _stop_if_given_up(self) -> None:
        if self.given_up:
            self.call.cancel()
            raise _Cancelled

    def status(self) -> int:
        """The status of the answer, once it is here."""
        try:
            if self.call.exception() is None:
                return 200
        except grpc.FutureCancelledError:
            return 499
        return status_of(self.call.code())

    def judge(self, scheme: Scheme) -> Judgement:
        """Judge the answer; what an interceptor nearer to the wire raised is none."""
        call = self.call
        error = None if call.cancelled() else call.exception()
        if not isinstance(error, grpc.RpcError | None):
            return ACCEPTED
        return judged(scheme, call.code(), call.details(), call.initial_metadata(), call.trailing_metadata())

    def take_in(self) -> None:
        """Nothing: an answer of gRPC is all here."""

    def discard(self) -> None:
        """Nothing: it holds no connection."""


class Upload(Unary):
    """A call with many requests and one response."""

    repeatable = False

    def rewind(self) -> bool:
        """Raise ReplayRefused: nobody keeps what was read from a stream."""
        raise self.refused("its messages were read only once: begin the stream again")


class Stream(Upload):
    """A call with many responses."""

    def _begun(self, token: Token, call: Any) -> Any:
        return _Responses(self, token, call)

    def judge(self, scheme: Scheme) -> Judgement:
        """Judge how the stream ended."""
        call = self.call
        return judged(scheme, call.code(), call.details(), call.initial_metadata(), call.trailing_metadata())


class _Future:
    """A call under way, which is sent again on a thread of its own: neither its caller nor gRPC's thread waits."""

    def __init__(self, unary: Unary, token: Token) -> None:
        self._unary = unary
        self._token = token
        self._lock = threading.Lock()
        self._ended = False
        self._cancelled = False
        self._error: BaseException | None = None
        self._over: futures.Future[None] = futures.Future()
        unary.call.add_done_callback(self._answered)

    def _answered(self, _: Any) -> None:
        status = self._unary.status()
        if self._cancelled or self._unary.call.cancelled() or self._unary.site.settles(status):
            self._end(None)
            return
        name = "unexpired: a call of gRPC, again"
        try:
            threading.Thread(target=self._go_on, args=(status,), name=name, daemon=True).start()
        except RuntimeError:
            # There are no threads to be had. This one is gRPC's: what it waited for here would never be answered.
            self._end(None)

    def _go_on(self, status: int) -> None:
        try:
            self._unary.site.calls.go_on(self._unary, self._token, status)
        except BaseException as error:  # noqa: BLE001 - the caller's to see
            self._end(error)
        else:
            self._end(None)

    def _end(self, error: BaseException | None) -> bool:
        with self._lock:
            first, self._ended = not self._ended, True
        if first:
            self._error = error
            self._over.set_result(None)
        return first

    def cancel(self) -> bool:
        """Cancel the call; a refresh that it waits for goes on."""
        with self._lock:
            if self._ended:
                return False
            self._cancelled = self._unary.given_up = True
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
        if error is not None:
            raise error
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


class _Responses:
    """A call with many responses: as gRPC made it, but for what is raised to its reader when the token is refused."""

    def __init__(self, stream: Stream, token: Token, call: Any) -> None:
        self._stream = stream
        self._token = token
        self._call = call

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Any:
        end: BaseException
        try:
            return next(self._call)
        except StopIteration as over:
            status, end = 200, over
        except grpc.RpcError as error:
            status, end = status_of(self._call.code()), error
        self._stream.site.calls.go_on(self._stream, self._token, status)
        raise end

    next = __next__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call *fn* with this when it is done."""
        self._call.add_done_callback(partial(_told_of, self, fn))


def _told_of(call: _Responses, fn: Callable[[Any], Any], _: Any) -> None:
    fn(call)


for kind in (_Future, _Responses):
    grpc.Call.register(kind)
    grpc.Future.register(kind)
