"""Requests of niquests and their answers, as the flow asks for them: of its blocking and its asynchronous sessions."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast
from urllib.parse import urlsplit

from niquests import AsyncResponse, PreparedRequest, Response, exceptions
from niquests.cookies import get_cookie_header
from niquests.packages.urllib3 import AsyncHTTPResponse, HTTPResponse
from niquests.utils import rewind_body

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.token import Token
from unexpired.clients._bodies import Factory
from unexpired.clients._dressing import url_with, with_cookies
from unexpired.clients._exchange import url_origin
from unexpired.clients._niquests_bodies import apeek, atake_in, is_whole, peek, take_in
from unexpired.clients._peeking import sniffer_for
from unexpired.clients._urllib3_quiet import Disguise

__all__ = [
    "AsyncSending",
    "Awaiting",
    "Blocking",
    "Sending",
    "cookies_of",
    "is_task",
    "notes_of",
    "status_of",
    "twin_of",
]


def notes_of(request: PreparedRequest) -> dict[str, Any]:
    """What goes along with a request through all its redirects: niquests has no other place for it."""
    return request.hooks


def is_task(function: object) -> bool:
    """Whether what *function* returns is to be awaited. A session is known by the functions it gives its adapter."""
    code = getattr(function, "__code__", None)
    return code is not None and bool(code.co_flags & 0x80)  # inspect.CO_COROUTINE


class _Exchanged:
    """One request and its last answer."""

    response: Any
    _seek: Callable[[int], Awaitable[object]] | None = None

    def __init__(
        self, scheme: Scheme, request: PreparedRequest, resource: str | None, settings: dict[str, Any]
    ) -> None:
        self.scheme = scheme
        self.request = request
        self.resource = resource
        self.settings = settings

    def origin(self) -> str:
        """Where it goes."""
        return url_origin(str(self.request.url))

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        return str(self.request.method), urlsplit(str(self.request.url)).path

    def rewind(self) -> bool:
        """Go back to where the body began, if it can be had again."""
        body = cast("object", self.request.body)
        if body is None or isinstance(body, bytes | bytearray | memoryview | str | Factory):
            return True
        seek = getattr(body, "seek", None)
        if is_task(getattr(seek, "__func__", seek)):
            self._seek = seek
            return isinstance(self.request._body_position, int)
        try:
            rewind_body(self.request)
        except exceptions.UnrewindableBodyError:
            return False
        return True

    def _judge_content(self, scheme: Scheme, content: bytes | None) -> Judgement:
        status, headers = self.response.status_code, self.response.headers
        sniffer = sniffer_for(scheme, status, headers, str(self.request.method), decoded=True)
        if sniffer is None or content is None:
            return scheme.judge(Answer(status, headers))
        return sniffer.feed(content) or sniffer.finish()


class Blocking(_Exchanged):
    """What a blocking session does with it."""

    def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        raw: object = self.response.raw
        if not isinstance(raw, HTTPResponse):
            # An adapter of another make: its answers are whole unless their caller streams them.
            return self._judge_content(scheme, None if self.settings.get("stream") else self.response.content)
        judgement, self.response.raw = peek(scheme, raw, str(self.request.method))
        return judgement

    def take_in(self) -> None:
        """Read a refused answer if it is short."""
        if isinstance(self.response.raw, HTTPResponse):
            self.response.raw = take_in(self.response.raw, str(self.request.method))

    def discard(self) -> None:
        """Close an answer that holds a connection; a short one stays readable in the history."""
        if not is_whole(self.response.raw):
            self.response.close()


class Awaiting(_Exchanged):
    """What an asynchronous session does with it."""

    async def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        raw: object = self.response.raw
        if not isinstance(raw, AsyncHTTPResponse):
            return self._judge_content(scheme, None if self.settings.get("stream") else await _content(self.response))
        judgement, self.response.raw = await apeek(scheme, raw, str(self.request.method))
        return judgement

    async def take_in(self) -> None:
        """Read a refused answer if it is short."""
        if isinstance(self.response.raw, AsyncHTTPResponse):
            self.response.raw = await atake_in(self.response.raw, str(self.request.method))

    async def discard(self) -> None:
        """Close an answer that holds a connection; a short one stays readable in the history."""
        if not is_whole(self.response.raw) and isinstance(self.response, AsyncResponse):
            await self.response.close()

    async def sought(self) -> None:
        """Go back in a body whose file is asynchronous itself."""
        if self._seek is not None:
            await self._seek(cast("int", self.request._body_position))


class _Copied(_Exchanged):
    """A request that an adapter was given to send: what goes out is a copy."""

    _disguise: Disguise | None = None
    _cookies: tuple[tuple[str, str], ...] = ()
    _headers: tuple[str, ...] = ()

    def __init__(
        self, scheme: Scheme, request: PreparedRequest, resource: str | None, adapter: Any, settings: dict[str, Any]
    ) -> None:
        self.scheme, self.request, self.resource, self.settings = scheme, request, resource, settings
        self._adapter = adapter
        self._early = early = settings.get("on_early_response")
        if early is not None:
            settings["on_early_response"] = partial(_early, early, request, None)
        # An answer that is still to come cannot be judged.
        if settings.get("multiplexed"):
            settings["multiplexed"] = False

    def _dressed(self, token: Token) -> PreparedRequest:
        """A copy with *token*: the session's own request, and what it hears of it, never hold it."""
        rendered = self.scheme.render(token)
        dressed = twin_of(self.request)
        for name, value in rendered.headers:
            dressed.headers[name] = value
        if rendered.query:
            own = str(dressed.url)
            dressed.url = url_with(own, rendered.query)
            self._disguise = disguise = Disguise(urlsplit(own).query, urlsplit(dressed.url).query, rendered.query)
            if self._early is not None:
                self.settings["on_early_response"] = partial(_early, self._early, self.request, disguise)
        if rendered.cookies or self._cookies:
            add_cookies(dressed, [*self._cookies, *rendered.cookies])
        return dressed

    def _keep_cookies(self) -> None:
        """Its replay takes the cookies of a refused answer along, and its last answer takes them to the session."""
        self._cookies += tuple(cookies_of(self.response, self.request))
        message = _message(self.response)
        self._headers += tuple(message.getlist("Set-Cookie")) if message is not None else ()

    def finish(self, sender: object) -> Any:
        """The last answer, with the cookies of those before it. Who sends on from it is to come by at *sender*."""
        self.response.connection = sender
        message = _message(self.response) if self._headers else None
        if message is not None:
            # The session reads its cookies there. The headers that its caller sees are the same object.
            self.response.raw._original_response.msg = together = message.copy()
            together.discard("Set-Cookie")
            for value in (*self._headers, *message.getlist("Set-Cookie")):
                together.add("Set-Cookie", value)
        return self.response


class Sending(_Copied, Blocking):
    """One that a blocking adapter sends."""

    def send(self, token: Token) -> int:
        """Send a copy with *token*."""
        dressed = self._dressed(token)
        try:
            if self._disguise is None:
                response = self._adapter.send(dressed, **self.settings)
            else:
                with self._disguise.worn():
                    response = self._adapter.send(dressed, **self.settings)
        except exceptions.RequestException as error:
            error.request = self.request
            raise
        self.response = response = _shown(response, self.request, self._disguise)
        return status_of(response)

    def discard(self) -> None:
        """Let go of the answer, but not of its cookies."""
        self._keep_cookies()
        super().discard()


class AsyncSending(_Copied, Awaiting):
    """One that an asynchronous adapter sends."""

    async def send(self, token: Token) -> int:
        """Send a copy with *token*."""
        await self.sought()
        dressed = self._dressed(token)
        try:
            if self._disguise is None:
                response = await self._adapter.send(dressed, **self.settings)
            else:
                with self._disguise.worn():
                    response = await self._adapter.send(dressed, **self.settings)
        except exceptions.RequestException as error:
            error.request = self.request
            raise
        self.response = response = _shown(response, self.request, self._disguise)
        return status_of(response)

    async def discard(self) -> None:
        """Let go of the answer, but not of its cookies."""
        self._keep_cookies()
        await super().discard()


def _shown(response: Any, request: PreparedRequest, disguise: Disguise | None) -> Any:
    """*response*, as its caller may see it."""
    if disguise is not None and isinstance(response.raw, HTTPResponse):
        disguise.of_answer(cast("Any", response.raw))
        if "location" in response.headers:
            response.headers["location"] = response.raw.headers["location"]
    response.request, response.url = request, request.url
    return response


def _early(early: Any, request: PreparedRequest, disguise: Disguise | None, response: Any) -> Any:
    return early(_shown(response, request, disguise))


def status_of(response: Any) -> int:
    """Its status, without asking first whether *response* is still to come, which takes long."""
    status: int = object.__getattribute__(response, "status_code")
    return status


def twin_of(request: PreparedRequest) -> PreparedRequest:
    """The same request with headers of its own, for a tenth of the time that its `copy` takes, which copies cookies."""
    twin = PreparedRequest.__new__(type(request))
    twin.__dict__.update(request.__dict__)
    twin.headers = request.headers.copy()
    return twin


def add_cookies(request: PreparedRequest, cookies: list[tuple[str, str]]) -> None:
    """Put *cookies* beside those that are on it."""
    own: object = request.headers.get("Cookie") or ""
    request.headers["Cookie"] = with_cookies(own.decode() if isinstance(own, bytes) else str(own), cookies)


def cookies_of(response: Response, request: PreparedRequest) -> list[tuple[str, str]]:
    """The cookies of an answer that belong on the replay of its request."""
    if not response.cookies:
        return []
    bare = twin_of(request)
    bare.headers.pop("Cookie", None)
    header = get_cookie_header(response.cookies, bare) or ""
    return [(name, value) for name, _, value in (pair.partition("=") for pair in header.split("; ")) if name]


def _message(response: Response) -> Any:
    return getattr(getattr(response.raw, "_original_response", None), "msg", None)


async def _content(response: Response) -> bytes | None:
    return await cast("Any", response).content if isinstance(response, AsyncResponse) else response.content
