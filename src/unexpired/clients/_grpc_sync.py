"""Calls of blocking channels: done, still under way (futures), and streams."""

from __future__ import annotations

import copy
from collections.abc import Callable
from concurrent import futures
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import grpc

from unexpired._core.scheme import ACCEPTED, Judgement, Scheme, Verdict
from unexpired._core.token import Token
from unexpired.clients._grpc_calls import Asked, CallDetails, judged, status_of
from unexpired.clients._grpc_futures import Failed, Future, Way, all_here
from unexpired.errors import UnexpiredError

__all__ = ["Stream", "Unary", "Upload"]


class Unary(Asked):
    """A call with one request and one response."""

    call: Any = None

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
        # A future may be done before it is looked at, and is a future all the same: its caller is not to wait here. It
        # can be read like a stream. So can what an interceptor nearer to the wire raised, of which nothing will come.
        if not call.done() or hasattr(call, "__next__"):
            if self.repeatable:
                self.again()
            return Future(self, token)
        self.site.calls.go_on(self, token, self.status())
        return self.call

    def _send(self, metadata: Any, timeout: float | None) -> Any:
        how = self.details
        details = CallDetails(how.method, timeout, metadata, how.credentials, how.wait_for_ready, how.compression)
        request = self.request
        self.call = call = self._continuation(details, request)
        return call

    def send(self, token: Token) -> int:
        """Send it once more with *token*, and wait for the answer."""
        self.begin_again(token)
        return self.status()

    def begin_again(self, token: Token) -> None:
        """Send it once more with *token*."""
        self._send(self._own + self.site.pairs(token), self.left)

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

    gone_on = False
    error: UnexpiredError | None = None

    def _begun(self, token: Token, call: Any) -> Any:
        self.release()
        return _Responses(self, token, call)

    def judge(self, scheme: Scheme) -> Judgement:
        """Judge how the stream ended."""
        call = self.call
        return judged(scheme, call.code(), call.details(), call.initial_metadata(), call.trailing_metadata())

    def go_on(self, token: Token, code: object) -> None:
        """Go on from the end with *code*, once. Raises what came of it each time that it is asked for."""
        if not self.gone_on:
            self.settle(partial(self.site.calls.go_on, self, token, status_of(code)))
        if self.error is not None:
            raise copy.copy(self.error)

    def settle(self, going: Callable[[], object]) -> None:
        """Let *going* go on, and keep what it raises: a copy, which holds no frames and through them its call."""
        try:
            going()
        except UnexpiredError as error:
            self.error = copy.copy(error)
        self.gone_on = True


class _Responses:
    """A call with many responses: as gRPC made it, but for what is raised when the token is refused.

    Whatever says how the stream ended has the token refreshed first: who begins again has a fresh one.
    """

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
            code, end = grpc.StatusCode.OK, over
        except grpc.RpcError as error:
            code, end = self._call.code(), error
        self._stream.go_on(self._token, code)
        raise end

    next = __next__

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def result(self, timeout: float | None = None) -> Any:
        """As gRPC's. Raises our errors too."""
        error = self.exception(timeout)
        try:
            if error is not None:
                raise error
        finally:
            del error  # it holds this frame
        return self._call.result()

    def exception(self, timeout: float | None = None) -> Any:
        """Give what `result` would raise."""
        error = self._call.exception(timeout)
        if not isinstance(error, grpc.RpcError | None):
            return error  # what an interceptor nearer to the wire raised
        try:
            self._stream.go_on(self._token, self._call.code())
        except UnexpiredError as ours:
            return ours
        return error

    def traceback(self, timeout: float | None = None) -> TracebackType | Any:
        """Give the traceback of `exception`."""
        error = self.exception(timeout)
        return error.__traceback__ if isinstance(error, UnexpiredError) else self._call.traceback()

    def code(self) -> Any:
        """Give the code; if it is that of a refused token, when that has been refreshed."""
        code = self._call.code()
        # Who reads the stream is told what went wrong with that.
        with suppress(Exception):
            self._stream.go_on(self._token, code)
        return code

    def details(self) -> Any:
        """Give the words, as `code` gives the code."""
        self.code()
        return self._call.details()

    def trailing_metadata(self) -> Any:
        """Give the metadata after the end, as `code` gives the code."""
        self.code()
        return self._call.trailing_metadata()

    def debug_error_string(self) -> Any:
        """Give what gRPC knows of an error, as `code` gives the code."""
        self.code()
        return self._call.debug_error_string()

    def add_done_callback(self, fn: Callable[[Any], Any]) -> None:
        """Call *fn* with this when it is done, and it can be asked how without waiting."""
        self._call.add_done_callback(partial(self._tell, partial(fn, self)))

    def add_callback(self, callback: Callable[[], None]) -> Any:
        """Call *callback* when it is done, as `add_done_callback` does; False if it is done already."""
        return self._call.add_callback(partial(self._tell, callback))

    def _tell(self, callback: Callable[[], Any], *_: object) -> None:
        """Call *callback*: here, on gRPC's thread, unless a refresh has to be waited for."""
        stream, code = self._stream, self._call.code()
        calls, status = stream.site.calls, status_of(code)
        told: futures.Future[None] = futures.Future()
        told.add_done_callback(lambda _: callback())
        if not stream.gone_on and not calls.is_fine(status):
            with suppress(Exception):
                judgement = stream.judge(calls.scheme) if all_here(stream.call) else None
                if judgement is None or judgement.verdict is not Verdict.ACCEPTED:
                    step = partial(self._refresh, judgement, status, told)
                    if stream.site.line.put(stream.resource, step):
                        return
        told.set_result(None)

    def _refresh(self, judgement: Judgement | None, status: int, told: futures.Future[None], failed: Failed) -> None:
        stream = self._stream
        with suppress(Exception):
            judgement = judgement or stream.judge(stream.site.calls.scheme)
            stream.settle(partial(Way(stream, self._token, judgement).step, None, status, failed))
        told.set_result(None)


grpc.Call.register(_Responses)
grpc.Future.register(_Responses)
