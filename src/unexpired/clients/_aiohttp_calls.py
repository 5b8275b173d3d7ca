"""Requests of aiohttp and their answers, as the flow asks for them."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from aiohttp import (
    ClientError,
    ClientHandlerType,
    ClientRequest,
    ClientResponse,
    ClientResponseError,
    RequestInfo,
    hdrs,
)
from aiohttp.payload import BytesPayload
from multidict import CIMultiDict, CIMultiDictProxy
from yarl import URL

from unexpired._core.scheme import Judgement, Rendered, Scheme
from unexpired._core.token import Token
from unexpired.clients._aiohttp_bodies import can_be_sent_again, peek, steady, take_in, unsteady
from unexpired.clients._dressing import Pairs, url_with, with_cookies, without_parameters
from unexpired.clients._exchange import origin

__all__ = ["Sending", "url_origin"]

_SAME = {"ws": "http", "wss": "https"}
"""A WebSocket begins as a request to the same server (RFC 6455 §4.1)."""

_LEADING_ON = ("location", "uri")
"""Headers in which aiohttp looks for where a redirect leads."""


def url_origin(url: URL) -> str:
    """The origin of an address."""
    return origin(_SAME.get(url.scheme, url.scheme), url.raw_host or "", url.port)


class Sending:
    """One request, as one hop of a redirect or the only one, and its last answer."""

    __slots__ = ("_handler", "_scheme", "_sent", "request", "resource", "response")

    response: ClientResponse

    def __init__(
        self, scheme: Scheme, request: ClientRequest, handler: ClientHandlerType, resource: str | None
    ) -> None:
        self._scheme = scheme
        self.request = request
        self._handler = handler
        self.resource = resource
        self._sent = False

    def origin(self) -> str:
        """Where it goes."""
        return url_origin(self.request.url)

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        return self.request.method, self.request.url.raw_path

    def rewind(self) -> bool:
        """Whether the body can be had again: aiohttp goes back to its start by itself."""
        return can_be_sent_again(self.request.body)

    async def send(self, token: Token) -> int:
        """Send it with *token*, which is on the request for no longer than that takes."""
        request, rendered = self.request, self._scheme.render(token)
        if self._sent:
            # The server may have refused without the "100 Continue" that the last sending waited for.
            request.update_expect_continue()
        self._sent = True
        body = request._body
        if (
            rendered.query
            or rendered.cookies
            or request._traces
            or not (body is None or isinstance(body, BytesPayload))
        ):
            self.response = await self._send_with_care(rendered)
            return self.response.status
        headers = request.headers
        own = _put_on(headers, rendered.headers)
        try:
            self.response = response = await self._handler(request)
        finally:
            _take_off(headers, own)
        return response.status

    async def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        return await peek(scheme, self.response)

    async def take_in(self) -> None:
        """Read a refused answer if it is short."""
        await take_in(self.response)

    async def discard(self) -> None:
        """Close the answer, and wait until nobody reads the request's body any more."""
        self.response.close()
        with suppress(ClientError, OSError):
            await self.request.close()

    async def _send_with_care(self, rendered: Rendered) -> ClientResponse:
        """Send a request with more to it than a header on a body in memory."""
        request = self.request
        headers, url, traces, body = request.headers, request.url, request._traces, request._body
        put = rendered.headers
        if rendered.cookies:
            cookies = with_cookies("; ".join(headers.getall(hdrs.COOKIE, ())), rendered.cookies)
            put = (*put, (hdrs.COOKIE, cookies))
        own = _put_on(headers, put)
        shown = url
        if rendered.query:
            request.url = shown = URL(url_with(str(url), rendered.query), encoded=True)
        if traces:
            request._traces = [_Veiled(trace, url, own) for trace in traces]  # type: ignore[misc]  # acts as one
        steady(body)
        try:
            response = await self._handler(request)
        except Exception as error:
            _conceal(error, shown, RequestInfo(url, request.method, request.request_info.headers, request.original_url))
            raise
        finally:
            unsteady(body)
            request._traces, request.url = traces, url
            _take_off(headers, own)
        if rendered.query and response._request_info.url == shown:
            response._request_info = request.request_info
            response._cache.pop("request_info", None)
        if rendered.query:
            _hush(response, rendered.query)
        return response


_Own = list[tuple[str, Any]]
"""What headers had under the names that now hold a token."""


def _put_on(headers: CIMultiDict[str], put: tuple[tuple[str, str], ...]) -> _Own:
    own: _Own = []
    for name, value in put:
        own.append((name, headers.popall(name, ())))
        headers[name] = value
    return own


def _take_off(headers: CIMultiDict[str], own: _Own) -> None:
    for name, values in own:
        headers.popall(name, None)
        for value in values:
            headers.add(name, value)


def _hush(response: ClientResponse, parameters: Pairs) -> None:
    """Take the token out of a redirect that repeats the query: the session would carry it anywhere, and keep it."""
    if not any(name in response.headers for name in _LEADING_ON):
        return

    def bare(value: str) -> str:
        return without_parameters(value, parameters)

    lines = [(name, bare(value) if name.lower() in _LEADING_ON else value) for name, value in response.headers.items()]
    raw = [
        (name, _encoded(bare(_decoded(value))) if _decoded(name).lower() in _LEADING_ON else value)
        for name, value in response.raw_headers
    ]
    response._headers, response._raw_headers = CIMultiDictProxy(CIMultiDict(lines)), tuple(raw)
    for name in ("headers", "raw_headers"):
        response._cache.pop(name, None)


def _decoded(text: bytes) -> str:
    return text.decode("utf-8", "surrogateescape")


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


class _Veiled:
    """A trace of the session's, to which the request looks as its caller made it."""

    def __init__(self, trace: Any, url: URL, own: _Own) -> None:
        self._trace = trace
        self._url = url
        self._own = own

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trace, name)

    async def send_request_headers(self, method: str, _: URL, headers: CIMultiDict[str]) -> None:
        """Tell which headers were sent, without the token's."""
        bare = headers.copy()
        _take_off(bare, self._own)
        await self._trace.send_request_headers(method, self._url, bare)

    async def send_request_chunk_sent(self, method: str, _: URL, chunk: bytes) -> None:
        """Tell which piece of the body was sent."""
        await self._trace.send_request_chunk_sent(method, self._url, chunk)


def _conceal(error: Exception, shown: URL, info: RequestInfo) -> None:
    """Take a token in the query out of an error: some name the address."""
    if shown == info.url:
        return
    if isinstance(error, ClientResponseError):
        error.request_info = info
        error.args = (info, error.history)
        return
    secret, plain = str(shown), str(info.url)
    error.args = tuple(arg.replace(secret, plain) if isinstance(arg, str) else arg for arg in error.args)
    if isinstance(error, OSError) and isinstance(error.strerror, str):
        error.strerror = error.strerror.replace(secret, plain)
