"""Calls of asyncio channels."""

from __future__ import annotations

import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
from contextlib import suppress
from typing import Any

import grpc.aio

from unexpired._core.scheme import Judgement, Scheme
from unexpired._core.token import Token
from unexpired.clients._grpc_calls import Asked, judged, status_of
from unexpired.errors import UnexpiredError

__all__ = ["Stream", "Unary"]


class Unary(Asked):
    """A call with one request and one response."""

    call: Any = None
    error: grpc.aio.AioRpcError | None = None

    async def begin(self) -> Any:
        """Send it with a token, and give the caller its call."""
        if not self.authenticated:
            return await self._send(self._own, self.details.timeout)
        manager = self.site.manager
        token, timeout = manager.warm(self.resource), self.details.timeout
        try:
            if token is None:
                token, timeout = await manager.atoken(self.resource), self.left
            return await self._begun(token, self._own + self.site.pairs(token), timeout)
        except UnexpiredError as error:
            # Raised from here, it would be raised by all that the caller's object can be asked, its end included.
            return _Ended(error, self.error)
        finally:
            self.release()
            self.error = None  # it holds this frame

    async def _begun(self, token: Token, metadata: Any, timeout: float | None) -> Any:
        self.again()
        status = await self._answered(metadata, timeout)
        if not self.site.calls.is_fine(status):
            await self.site.calls.ago_on(self, token, status)
        if self.call is None and self.error is not None:
            raise self.error
        return self.call

    def _send(self, metadata: Any, timeout: float | None) -> Any:
        how = self.details
        details = grpc.aio.ClientCallDetails(
            how.method, timeout, grpc.aio.Metadata(*metadata), how.credentials, how.wait_for_ready
        )
        return self._continuation(details, self.request)

    async def _answered(self, metadata: Any, timeout: float | None) -> int:
        self.call = self.error = None
        try:
            # An interceptor nearer to the wire may give a call, or raise how it ended.
            self.call = call = await self._send(metadata, timeout)
            await call
        except grpc.aio.AioRpcError as error:
            self.error = error
            return status_of(error.code())
        return 200

    async def send(self, token: Token) -> int:
        """Send it once more with *token*, and wait for the answer."""
        return await self._answered(self._own + self.site.pairs(token), self.left)

    async def judge(self, scheme: Scheme) -> Judgement:
        """Judge the answer."""
        end = self.error
        if end is not None:
            return judged(scheme, end.code(), end.details(), end.initial_metadata(), end.trailing_metadata())
        call = self.call
        return judged(scheme, await call.code(), "", await call.initial_metadata(), await call.trailing_metadata())

    async def take_in(self) -> None:
        """Nothing: an answer of gRPC is all here."""

    async def discard(self) -> None:
        """Nothing: it holds no connection."""


class Stream(Unary):
    """A call with many requests or responses. Its caller writes and reads them: the call is there before its end."""

    repeatable = False
    gone_on = False
    over: UnexpiredError | None = None

    async def _begun(self, token: Token, metadata: Any, timeout: float | None) -> Any:
        self.call = await self._send(metadata, timeout)
        return _Watched(self, token, self.call)

    async def judge(self, scheme: Scheme) -> Judgement:
        """Judge how the stream ended."""
        call = self.call
        code, details = await call.code(), await call.details()
        return judged(scheme, code, details, await call.initial_metadata(), await call.trailing_metadata())

    def rewind(self) -> bool:
        """Raise ReplayRefused: nobody keeps what was read from a stream."""
        raise self.refused("its messages were read only once: begin the stream again")

    async def go_on(self, token: Token, code: object) -> None:
        """Go on from the end with *code*, once. Raises what came of it each time that it is asked for."""
        if not self.gone_on:
            try:
                await self.site.calls.ago_on(self, token, status_of(code))
            except UnexpiredError as error:
                self.over = copy.copy(error)  # which holds no frames, and through them its call
            self.gone_on = True
        if self.over is not None:
            raise copy.copy(self.over)

    async def connected(self, token: Token) -> None:
        """Await the connection, and go on from a call that ended before."""
        end = None
        try:
            await self.call.wait_for_connection()
        except grpc.aio.AioRpcError as error:
            end = error
        if end is not None:
            await self._over(token, end)

    async def response(self, token: Token) -> Any:
        """Await the response, and go on from it."""
        response = end = None
        try:
            response = await self.call
        except grpc.aio.AioRpcError as error:
            end = error
        await self._over(token, end)
        return response

    async def responses(self, token: Token) -> AsyncGenerator[Any, None]:
        """Hand on the responses, and go on from their end."""
        end = None
        try:
            async for response in self.call:
                yield response
        except grpc.aio.AioRpcError as error:
            end = error
        await self._over(token, end)

    async def _over(self, token: Token, end: grpc.aio.AioRpcError | None) -> None:
        try:
            await self.go_on(token, grpc.StatusCode.OK if end is None else end.code())
            if end is not None:
                raise end
        finally:
            del end  # it holds this frame

    async def end(self, token: Token) -> Any:
        """Await the end, and a refresh if the token is refused: give the call, to be asked how it ended."""
        code = await self.call.code()
        # Who reads the stream is told what went wrong with that.
        with suppress(Exception):
            await self.go_on(token, code)
        return self.call


class _Watched:
    """The call of a stream: as gRPC made it, but for what is raised when the token is refused.

    Whatever says how the stream ended has the token refreshed first: who begins again has a fresh one.
    """

    def __init__(self, stream: Stream, token: Token, call: Any) -> None:
        self._stream = stream
        self._token = token
        self._call = call
        self._responses: AsyncGenerator[Any, None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._stream.response(self._token).__await__()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        if self._responses is None:
            self._responses = self._stream.responses(self._token)
        return self._responses

    async def read(self) -> Any:
        """Give the next response, or EOF."""
        return await anext(aiter(self), grpc.aio.EOF)

    async def wait_for_connection(self) -> None:
        """Wait until messages can be sent."""
        await self._stream.connected(self._token)

    async def code(self) -> Any:
        """Give the code; if it is that of a refused token, when that has been refreshed."""
        return await (await self._stream.end(self._token)).code()

    async def details(self) -> Any:
        """Give the words, as `code` gives the code."""
        return await (await self._stream.end(self._token)).details()

    async def trailing_metadata(self) -> Any:
        """Give the metadata after the end, as `code` gives the code."""
        return await (await self._stream.end(self._token)).trailing_metadata()

    async def debug_error_string(self) -> Any:
        """Give what gRPC knows of an error, as `code` gives the code."""
        return await (await self._stream.end(self._token)).debug_error_string()

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call *callback* with this when it is done."""

        def over(_: object) -> None:
            callback(self)

        self._call.add_done_callback(over)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Ended:
    """A call that is over with an error of ours; *answer* is how the server ended it, if it was ever sent."""

    _done_writing_flag = True

    def __init__(self, error: UnexpiredError, answer: grpc.aio.AioRpcError | None) -> None:
        # A copy, here and for each who reads it: what was raised holds frames, and these hold the call.
        self._error = copy.copy(error)
        if answer is None:
            words = "Exception raised while intercepting the RPC"  # what gRPC says of blocking calls
            none = grpc.aio.Metadata()
            answer = grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, words)
        self._answer = answer.with_traceback(None)

    async def read(self) -> Any:
        """Raise the error: so does awaiting this, and reading from it."""
        raise copy.copy(self._error)

    wait_for_connection = read

    def __await__(self) -> Generator[Any, None, Any]:
        return self.read().__await__()

    async def __aiter__(self) -> AsyncIterator[Any]:
        yield await self.read()

    def done(self) -> bool:
        """It is."""
        return True

    def cancel(self) -> bool:
        """Nothing: it is over."""
        return False

    cancelled = cancel

    def add_done_callback(self, callback: Callable[[Any], Any]) -> None:
        """Call *callback* now."""
        callback(self)

    async def code(self) -> Any:
        """Give the code of the last answer."""
        return self._answer.code()

    async def details(self) -> Any:
        """Give the words of the last answer."""
        return self._answer.details()

    async def initial_metadata(self) -> Any:
        """Give the metadata before the last answer."""
        return self._answer.initial_metadata()

    async def trailing_metadata(self) -> Any:
        """Give the metadata after the last answer."""
        return self._answer.trailing_metadata()


for _kind in (grpc.aio.UnaryUnaryCall, grpc.aio.UnaryStreamCall, grpc.aio.StreamUnaryCall, grpc.aio.StreamStreamCall):
    _kind.register(_Ended)
    _kind.register(_Watched)
