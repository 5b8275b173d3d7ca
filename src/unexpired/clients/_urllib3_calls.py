"""Requests of urllib3 and their answers, as the flow asks for them, and where they come past on their way."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from urllib3 import HTTPHeaderDict, Retry
from urllib3.connectionpool import HTTPConnectionPool
from urllib3.response import BaseHTTPResponse, HTTPResponse

from unexpired._core.scheme import Answer, Judgement, Scheme, Verdict
from unexpired._core.token import Token
from unexpired.clients._bodies import SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._dressing import url_with, with_cookies
from unexpired.clients._exchange import origin
from unexpired.clients._urllib3_bodies import judge_read, peek, take_in
from unexpired.clients._urllib3_quiet import Disguise

__all__ = ["ASKED", "Asked", "Hop", "start_of"]

ASKED = "unexpired_asked"
"""What goes along with a request through all its redirects, as a keyword of `urlopen`."""


Pairs = Iterable[tuple[str, str]]
Where = tuple[str, str, int | None]
"""Scheme, host and port, as written."""


class Asked:
    """What the caller asked for: the first hop says where."""

    __slots__ = ("resource", "where")

    def __init__(self, resource: str | None) -> None:
        self.resource = resource
        self.where: Where | None = None


class Hop:
    """The connections to one origin, as a pool manager uses them for one hop of a request."""

    __slots__ = ("calls", "connections", "where")

    def __init__(self, connections: HTTPConnectionPool, where: Where, calls: Calls) -> None:
        self.connections = connections
        self.where = where
        self.calls = calls

    def __str__(self) -> str:
        return str(self.connections)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connections, name)

    def urlopen(self, method: str, url: str, **settings: Any) -> BaseHTTPResponse:
        """Send it, with a token if it is for this origin; again, silently, if the token is refused."""
        asked: Asked = settings.pop(ASKED)
        first = asked.where = asked.where or self.where
        calls = self.calls
        here = calls.scheme.origins is None and first is self.where
        if not here and not calls.carries(origin(*self.where), origin(*first)):
            return self.connections.urlopen(method, url, **settings)
        sending = _Sending(self, method, url, asked.resource, settings)
        calls.run(sending)
        return sending.response


class _Sending:
    """One hop with a token, and the last answer to it."""

    __slots__ = ("_headers", "_hop", "_method", "_settings", "_url", "resource", "response")
    response: BaseHTTPResponse

    def __init__(self, hop: Hop, method: str, url: str, resource: str | None, settings: dict[str, Any]) -> None:
        self.resource = resource
        self._hop = hop
        self._method = method
        self._url = url
        self._settings = settings
        headers = settings["headers"]
        self._headers = hop.connections.headers if headers is None else headers
        retries: Any = settings.get("retries")
        retries = hop.connections.retries if retries is None else retries
        if isinstance(retries, Retry) and retries.status_forcelist:
            settings["retries"] = _without_refusals(hop.calls.scheme, retries)

    def origin(self) -> str:
        """Where it goes."""
        return origin(*self._hop.where)

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        path = self._url if self._url.startswith("/") else "/" + self._url.partition("://")[2].partition("/")[2]
        return self._method, path.partition("?")[0]

    def rewind(self) -> bool:
        """Whether the body can be had again: urllib3 goes back to a file's start itself."""
        body = self._settings.get("body")
        lasting = isinstance(body, bytes | bytearray | memoryview | str | list | tuple | SyncFactory)
        return body is None or lasting or isinstance(self._settings.get("body_pos"), int)

    def send(self, token: Token) -> int:
        """Send it with *token*; what the caller gave never holds it."""
        rendered, hop, settings = self._hop.calls.scheme.render(token), self._hop, self._settings
        settings["headers"] = _dressed(self._headers, rendered.headers, rendered.cookies)
        if rendered.query:
            url = url_with(self._url, rendered.query)
            disguise = Disguise(self._url.partition("?")[2], url.partition("?")[2], rendered.query)
            with disguise.worn():
                self.response = hop.connections.urlopen(self._method, url, **settings)
            disguise.of_answer(self.response)
        else:
            self.response = hop.connections.urlopen(self._method, self._url, **settings)
        return self.response.status

    def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        stream = self._stream()
        if stream is not None:
            judgement, self.response = peek(scheme, stream, self._method)
            return judgement
        decoded = self._settings.get("decode_content") is not False
        return judge_read(scheme, self.response, self._method, decoded=decoded)

    def take_in(self) -> None:
        """Read a refused answer if it is short."""
        stream = self._stream()
        if stream is not None:
            self.response = take_in(stream, self._method)

    def discard(self) -> None:
        """Let go of the answer and its connection."""
        self.response.close()
        self.response.release_conn()

    def _stream(self) -> HTTPResponse | None:
        """The answer, if it is still to be read."""
        unread = self._settings.get("preload_content") is False
        return self.response if unread and isinstance(self.response, HTTPResponse) else None


def start_of(body: Any) -> int | None:
    """Where a file that can go back begins to be sent; None for another body."""
    if not (hasattr(body, "tell") and hasattr(body, "seek")):
        return None
    try:
        start = body.tell()
        body.seek(start)
    except (OSError, ValueError):
        return None
    return start if isinstance(start, int) else None


def _dressed(headers: Mapping[str, str], ours: Pairs, cookies: Pairs) -> Any:
    """A copy of the caller's headers with ours in the place of any of the same names."""
    if isinstance(headers, HTTPHeaderDict):
        copied: Any = headers.copy()
        for name, value in ours:
            copied[name] = value
        if cookies:
            copied["Cookie"] = with_cookies(copied.get("Cookie") or "", cookies)
        return copied
    kept = dict(headers)
    for name, value in ours:
        if kept:
            same = name.lower()
            for old in [old for old in kept if old.lower() == same]:
                del kept[old]
        kept[name] = value
    if cookies:
        own = [kept.pop(name) for name in list(kept) if name.lower() == "cookie"]
        kept["Cookie"] = with_cookies("; ".join(own), cookies)
    return kept


def _without_refusals(scheme: Scheme, retries: Retry) -> Retry:
    """The caller's retries but for statuses that refuse the token: sending that again is of no use."""
    kept = {
        status for status in retries.status_forcelist if scheme.judge(Answer(status, {})).verdict is Verdict.ACCEPTED
    }
    return retries if len(kept) == len(retries.status_forcelist) else retries.new(status_forcelist=kept)
