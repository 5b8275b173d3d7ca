"""Answers of pyreqwest, as the flow asks for them: once for threads, once for tasks."""

from __future__ import annotations

from contextlib import suppress
from functools import cache
from typing import Any

from pyreqwest.client import Client, ClientBuilder, SyncClient, SyncClientBuilder
from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import StreamRequest, SyncStreamRequest
from pyreqwest.response import ResponseBuilder

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired._core.token import Token
from unexpired.clients._dressing import without_parameters
from unexpired.clients._exchange import RESOURCE
from unexpired.clients._peeking import Intake, sniffer_for
from unexpired.clients._pyreqwest_requests import REDIRECTS, Outgoing, conceal, dress

__all__ = ["AsyncSending", "Sending"]

_NOWHERE = "http://closed.invalid/"
_STREAMED = (StreamRequest, SyncStreamRequest)


class _Joined:
    """Headers, the lines of one name in one."""

    __slots__ = ("_headers",)

    def __init__(self, headers: Any) -> None:
        self._headers = headers

    def get(self, name: str, /) -> str | None:
        """All that a header says; None for one that is no text."""
        try:
            return ", ".join(self._headers.getall(name)) or None
        except ValueError:
            return None


class _Exchanged(Outgoing):
    """A request and its last answer.

    Unless its caller asked for a stream, pyreqwest has read an answer before anybody sees it. What is read of a stream
    cannot be put back, only handed on whole in an answer made anew: so no more is read here than a short body of a
    stated length.
    """

    response: Any = None
    _pieces: tuple[bytes, ...] = ()
    _whole = False
    _query: tuple[tuple[str, str], ...] = ()

    def __init__(self, request: Any, following: Any, scheme: Scheme | None, extensions: dict[str, Any]) -> None:
        self.request = request
        self.resource: str | None = extensions.get(RESOURCE)
        self._next = following
        self._scheme = scheme
        self._kind: type[Any] = type(request)

    def redirect(self) -> Any | None:
        """The request that the answer asks for in place of this one."""
        response = self.response
        if response.status not in REDIRECTS:
            return None
        location = _Joined(response.headers).get("location")
        # A server may repeat what it was asked, and whoever is to have the token gets it anew.
        return self.redirected(response.status, location and without_parameters(location, self._query))

    def dressed(self, token: Token | None) -> Any:
        """What to send: a copy with *token*, if there is one."""
        request = self.copy()
        if token is not None and self._scheme is not None:
            rendered = self._scheme.render(token)
            self._query = rendered.query
            dress(request, rendered)
        return request

    def conceal(self, error: PyreqwestError, token: Token | None) -> None:
        """Take the token out of what an error says of the address."""
        if token is not None and self._scheme is not None:
            conceal(error, self.summary()[1], self._scheme.render(token).query)

    def _head(self) -> Answer:
        return Answer(self.response.status, _Joined(self.response.headers))

    def _sniffer(self, scheme: Scheme, head: Answer) -> Sniffer | None:
        """What judges the body; None if there is no need to, or no way."""
        if self._streamed and not head.headers.get("content-length"):
            return None
        return sniffer_for(scheme, head.status, head.headers, self.target()[0])

    def _worth_reading(self) -> bool:
        """Whether a refused answer is a stream that is short."""
        if not self._streamed or self._whole:
            return False
        length = _Joined(self.response.headers).get("content-length") or ""
        return length.isascii() and length.isdigit() and int(length) <= SNIFF_LIMIT

    def is_read(self) -> bool:
        """Whether something was read of a stream: the caller then gets an `answer` made anew."""
        return self._whole or bool(self._pieces)

    @property
    def _streamed(self) -> bool:
        return self._kind in _STREAMED

    def _anew(self) -> ResponseBuilder:
        """The answer with what was read of it, which is all."""
        old = self.response
        made = ResponseBuilder().status(old.status).version(old.version).headers(old.headers)
        return made.extensions(old.extensions).body_bytes(b"".join(self._pieces))

    def _left(self) -> Any | None:
        """Forget the answer: what is to be closed of it."""
        response, whole = self.response, self._whole
        self.response, self._whole, self._pieces = None, False, ()
        return response if self._streamed and not whole else None


class Sending(_Exchanged):
    """For threads."""

    def send(self, token: Token | None) -> int:
        """Send a copy with *token*, if there is one."""
        try:
            self.response = response = self._next.run(self.dressed(token))
        except PyreqwestError as error:
            self.conceal(error, token)
            raise
        status: int = response.status
        return status

    def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        head = self._head()
        sniffer = self._sniffer(scheme, head)
        if sniffer is None:
            return scheme.judge(head)
        if self._streamed:
            self._read(None)
            return sniffer.feed(b"".join(self._pieces)) or sniffer.finish()
        return sniffer.feed(self.response.bytes()[: SNIFF_LIMIT + 1].to_bytes()) or sniffer.finish()

    def take_in(self) -> None:
        """Read a refused answer if it is short."""
        if self._worth_reading():
            with suppress(PyreqwestError):
                self._read(Intake())

    def discard(self) -> None:
        """Close an answer that nobody will read."""
        response = self._left()
        if response is not None:
            _close(response)

    def answer(self) -> Any:
        """The answer, for the caller to read, when it is not as pyreqwest gave it."""
        if not self._whole:
            self._read(None)
        return self._anew().build_sync()

    def _read(self, intake: Intake | None) -> None:
        reader = self.response.body_reader
        while (piece := reader.read_chunk()) is not None:
            self._pieces += (piece.to_bytes(),)
            if intake is not None and intake.enough(self._pieces[-1]):
                return
        self._whole = True


class AsyncSending(_Exchanged):
    """For tasks."""

    async def send(self, token: Token | None) -> int:
        """As `Sending.send`."""
        try:
            self.response = response = await self._next.run(self.dressed(token))
        except PyreqwestError as error:
            self.conceal(error, token)
            raise
        status: int = response.status
        return status

    async def judge(self, scheme: Scheme) -> Judgement:
        """As `Sending.judge`."""
        head = self._head()
        sniffer = self._sniffer(scheme, head)
        if sniffer is None:
            return scheme.judge(head)
        if self._streamed:
            await self._read(None)
            return sniffer.feed(b"".join(self._pieces)) or sniffer.finish()
        return sniffer.feed((await self.response.bytes())[: SNIFF_LIMIT + 1].to_bytes()) or sniffer.finish()

    async def take_in(self) -> None:
        """As `Sending.take_in`."""
        if self._worth_reading():
            with suppress(PyreqwestError):
                await self._read(Intake())

    async def discard(self) -> None:
        """As `Sending.discard`."""
        response = self._left()
        if response is not None:
            await _aclose(response)

    async def answer(self) -> Any:
        """As `Sending.answer`; a caller who is cancelled meanwhile leaves nothing open."""
        try:
            if not self._whole:
                await self._read(None)
            return await self._anew().build()
        except BaseException:
            await self.discard()
            raise

    async def _read(self, intake: Intake | None) -> None:
        reader = self.response.body_reader
        while (piece := await reader.read_chunk()) is not None:
            self._pieces += (piece.to_bytes(),)
            if intake is not None and intake.enough(self._pieces[-1]):
                return
        self._whole = True


# pyreqwest closes an answer only at the end of a streamed request that returned it, not when nobody refers to it any
# more. So it is returned by one, which is sent nowhere.


@cache
def _closer() -> SyncClient:
    return SyncClientBuilder().no_proxy().build()


@cache
def _async_closer() -> Client:
    return ClientBuilder().no_proxy().build()


def _close(response: Any) -> None:
    with _closer().get(_NOWHERE).with_middleware(lambda _request, _next: response).build_streamed():
        pass


async def _aclose(response: Any) -> None:
    async def given(_request: object, _next: object) -> Any:
        return response

    async with _async_closer().get(_NOWHERE).with_middleware(given).build_streamed():
        pass
