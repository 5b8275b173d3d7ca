"""Requests of pyreqwest: sent as copies, again if their body can be had again, and on along a redirect."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Lock
from typing import Any, Self

from pyreqwest.exceptions import PyreqwestError
from pyreqwest.request import RequestBody

from unexpired._core.scheme import Rendered
from unexpired.clients._dressing import with_cookies, with_parameters
from unexpired.clients._exchange import origin

__all__ = ["REDIRECTS", "Outgoing", "conceal", "dress", "origin_of_url"]

_BLOCK = 65536
REDIRECTS = frozenset({301, 302, 303, 307, 308})
_OF_A_BODY = ("content-type", "content-length", "content-encoding", "transfer-encoding")
_OF_AN_ORIGIN = ("authorization", "cookie", "proxy-authorization", "host")


def origin_of_url(url: Any) -> str:
    """The origin of an address, in the one spelling."""
    return origin(url.scheme, url.host_str or "", url.port)


def dress(request: Any, rendered: Rendered) -> None:
    """Put a token on. Its headers are marked as sensitive: pyreqwest hides them in every ``repr``."""
    headers = request.headers
    for name, value in rendered.headers:
        headers.insert(name, value, is_sensitive=True)
    if rendered.query:
        request.url = _url_with(request.url, rendered.query)
    if rendered.cookies:
        own = "; ".join(headers.getall("cookie"))
        headers.insert("cookie", with_cookies(own, rendered.cookies), is_sensitive=True)


def conceal(error: PyreqwestError, asked: Any, parameters: Any) -> None:
    """Let *error* name the address that was *asked* for, where it names the one with the token in its query."""
    details: Any = getattr(error, "details", None) or {}
    shown = str(_url_with(asked, parameters)) if parameters else ""
    for cause in (shown and details.get("causes")) or ():
        cause["message"] = cause["message"].replace(shown, str(asked))


def _url_with(url: Any, parameters: Any) -> Any:
    return url.with_query_string(with_parameters(url.query_string or "", parameters))


class Outgoing:
    """One request that a middleware was given to send on.

    What is sent is a copy: the caller's own request never holds a token. Where there can be no copy, because the body
    can be read only once, the request itself is sent, and that only once.
    """

    request: Any
    """What copies are made of; None when there is nothing left of a request that was sent itself."""
    _once = False
    _summary: tuple[str, Any] | None = None

    def summary(self) -> tuple[str, Any]:
        """Its method and its address. A request that was sent itself no longer knows them."""
        return self._summary or (self.request.method, self.request.url)

    def origin(self) -> str:
        """Where it goes."""
        return origin_of_url(self.summary()[1])

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        method, url = self.summary()
        return method, url.path

    def rewind(self) -> bool:
        """Whether it can be sent once more: each copy begins its body anew."""
        return not self._once

    def copy(self) -> Any:
        """What to send, this time."""
        request = self.request
        body = request.body
        stream = None if body is None else body.get_stream()
        if stream is not None and not hasattr(stream, "__copy__"):
            if not isinstance(stream, list | tuple) and not _is_file(stream):
                return self._itself()
            request.body = RequestBody.from_stream(_Turns(stream))
        try:
            return request.copy()
        except Exception:  # noqa: BLE001 - a form of pyreqwest's own, or what a stream of the user's raises
            return self._itself()

    def redirected(self, status: int, location: str | None) -> Any | None:
        """The request that an answer with this ``Location`` asks for, as reqwest makes it; None if it asks for none."""
        if location is None:
            return None
        method, here = self.summary()
        try:
            there = here.join(location)
        except ValueError:
            return None
        bare = (status == 303 and method != "HEAD") or (status in (301, 302) and method == "POST")
        if self.request is None or (self._once and not bare):
            return None
        follow = _without_body(self.request) if bare else self.copy()
        follow.url = there
        if bare:
            follow.method = "GET"
        strange = origin_of_url(here) != origin_of_url(there)
        for name in (*(_OF_A_BODY if bare else ()), *(_OF_AN_ORIGIN if strange else ())):
            follow.headers.popall(name, None)
        return follow

    def _itself(self) -> Any:
        """The request itself; what is kept of it has no body, and a form cannot be without its body."""
        request, self._once = self.request, True
        self._summary = self.summary()
        self.request = None if request.body is None else _without_body(request)
        return request


def _without_body(request: Any) -> Any:
    body = request.body
    request.body = RequestBody.from_bytes(b"")
    bare = request.copy()
    request.body = body
    return bare


def _is_file(stream: Any) -> bool:
    """Whether it is a file that can be taken back to where it is. One that is asynchronous answers with a coroutine."""
    try:
        return stream.seekable() is True and callable(stream.read)
    except (AttributeError, ValueError):
        return False


class _Turns:
    """A list or a file that is sent more than once. Of a file only the last sending still reads.

    A server may refuse a request whose body is still on its way: what sends that must not go on with the file when the
    next sending has begun.
    """

    def __init__(self, body: Any) -> None:
        self._body = body
        self._start = None if isinstance(body, list | tuple) else body.tell()
        self._turn = 0
        self._lock = Lock()

    def __copy__(self) -> Self:
        return self

    def __iter__(self) -> Iterator[bytes]:
        if self._start is None:
            yield from self._body
            return
        with self._lock:
            self._turn += 1
            mine = self._turn
            self._body.seek(self._start)
        while block := self._next(mine):
            yield block

    def _next(self, mine: int) -> bytes:
        with self._lock:
            if mine != self._turn:
                raise RuntimeError("this body is being sent again")
            block: bytes = self._body.read(_BLOCK)
            return block
