"""Calls of asyncio channels."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator
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

    async def _begun(self, token: Token, metadata: Any, timeout: float | None) -> Any:
        self.again()
        status = await self._answered(metadata, timeout)
        if not self.site.settles(status):
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

    async def _begun(self, token: Token, metadata: Any, timeout: float | None) -> Any:
        self.call = await self._send(metadata, timeout)
        return _Watched(self, token, self.call)

    def rewind(self) -> bool:
        """Raise ReplayRefused: nobody keeps what was read from a stream."""
        raise self.refused("its messages were read only once: begin the stream again")

    async def watch(self, token: Token, answer: Any) -> Any:
        """Await *answer*, and go on from it."""
        response = None
        try:
            response = await answer
        except grpc.aio.AioRpcError as error:
            self.error = error
        await self.site.calls.ago_on(self, token, 200 if self.error is None else status_of(self.error.code()))
        if self.error is not None:
            raise self.error
        return response

    async def responses(self, token: Token) -> AsyncGenerator[Any, None]:
        """Hand on the responses, and go on from their end."""
        try:
            async for response in self.call:
                yield response
        except grpc.aio.AioRpcError as error:
            self.error = error
        await self.watch(token, _nothing())


async def _nothing() -> None:
    """The responses were read where they are handed on."""


class _Watched:
    """The call of a stream: as gRPC made it, but for what is raised when the token is refused."""

    def __init__(self, stream: Stream, token: Token, call: Any) -> None:
        self._stream = stream
        self._token = token
        self._call = call
        self._responses: AsyncGenerator[Any, None] | None = None

    def __await__(self) -> Generator[Any, None, Any]:
        return self._stream.watch(self._token, self._call).__await__()

    def __aiter__(self) -> AsyncGenerator[Any, None]:
        if self._responses is None:
            self._responses = self._stream.responses(self._token)
        return self._responses

    async def read(self) -> Any:
        """Give the next response, or EOF."""
        return await anext(aiter(self), grpc.aio.EOF)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)


class _Ended:
    """A call that is over with an error of ours; *answer* is how the server ended it, if it was ever sent."""

    _done_writing_flag = True

    def __init__(self, error: UnexpiredError, answer: grpc.aio.AioRpcError | None) -> None:
        self._error = error
        words = "Exception raised while intercepting the RPC"  # what gRPC says of blocking calls
        none = grpc.aio.Metadata()
        self._answer = answer or grpc.aio.AioRpcError(grpc.StatusCode.INTERNAL, none, none, words)

    async def read(self) -> Any:
        """Raise the error: so does awaiting this, and reading from it."""
        raise self._error

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
