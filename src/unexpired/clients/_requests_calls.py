"""Requests of requests and their answers, as the flow asks for them."""

from __future__ import annotations

import time
from datetime import timedelta
from typing import Any, Self, cast
from urllib.parse import urlsplit
from weakref import ref

from requests import PreparedRequest, Response, exceptions
from requests.adapters import BaseAdapter
from requests.cookies import get_cookie_header
from requests.structures import CaseInsensitiveDict
from requests.utils import rewind_body
from urllib3 import HTTPResponse

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.token import Token
from unexpired.clients._bodies import SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._dressing import url_with, with_cookies
from unexpired.clients._exchange import url_origin
from unexpired.clients._urllib3_bodies import is_whole, peek, take_in
from unexpired.clients._urllib3_quiet import Disguise

__all__ = ["Sending", "Watch", "notes_of"]

Pairs = tuple[tuple[str, str], ...]


def notes_of(request: PreparedRequest) -> dict[str, Any]:
    """What goes along with a request through all its redirects: requests has no other place for it."""
    return cast("dict[str, Any]", request.hooks)


class _Exchanged:
    """One request and its last answer."""

    __slots__ = ("request", "resource", "response")
    resource: str | None
    request: PreparedRequest
    response: Response

    def origin(self) -> str:
        """Where it goes."""
        return url_origin(str(self.request.url))

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        return str(self.request.method), urlsplit(str(self.request.url)).path

    def rewind(self) -> bool:
        """Go back to where the body began, if it can be had again."""
        body = cast("object", self.request.body)
        if body is None or isinstance(body, bytes | bytearray | memoryview | str | SyncFactory):
            return True
        try:
            rewind_body(self.request)
        except exceptions.UnrewindableBodyError:
            return False
        return True

    def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        raw = self._raw()
        if raw is None:
            return scheme.judge(Answer(self.response.status_code, self.response.headers))
        judgement, self.response.raw = peek(scheme, raw, str(self.request.method))
        return judgement

    def take_in(self) -> None:
        """Read a refused answer if it is short."""
        if (raw := self._raw()) is not None:
            self.response.raw = take_in(raw, str(self.request.method))

    def discard(self) -> None:
        """Close an answer that holds a connection; a short one stays readable in the history."""
        if not is_whole(self.response.raw):
            self.response.close()

    def _raw(self) -> HTTPResponse | None:
        """What the answer is read from, while nobody has begun to, and if urllib3 made it."""
        raw: object = self.response.raw
        return raw if isinstance(raw, HTTPResponse) and cast("Any", self.response)._content is False else None


class Sending(_Exchanged):
    """A request that an adapter was given to send: with a token, and silently once more if that is refused."""

    __slots__ = ("_adapter", "_args", "_calls", "_cookies", "_headers", "_settings")

    def __init__(
        self,
        calls: Calls,
        request: PreparedRequest,
        resource: str | None,
        adapter: BaseAdapter,
        how: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        self.request = request
        self.resource = resource
        self._calls = calls
        self._adapter = adapter
        self._args, self._settings = how
        self._cookies: Pairs = ()
        self._headers: list[str] | None = None

    def send(self, token: Token) -> int:
        """Send a copy with *token*: the session's own request, and what it hears of it, never hold it."""
        request, rendered = self.request, self._calls.scheme.render(token)
        dressed = _twin(request)
        for name, value in rendered.headers:
            dressed.headers[name] = value
        if rendered.cookies or self._cookies:
            _add_cookies(dressed, (*self._cookies, *rendered.cookies))
        try:
            if rendered.query:
                self.response = response = self._send_disguised(dressed, rendered.query)
            else:
                self.response = response = self._adapter.send(dressed, *self._args, **self._settings)
        except exceptions.RequestException as error:
            error.request = request
            raise
        response.request, response.url = request, cast("str", request.url)
        return response.status_code

    def discard(self) -> None:
        """Let go of the answer, but not of its cookies: the replay takes them along, and its answer to the session."""
        self._cookies = (*self._cookies, *_cookies_of(self.response, self.request))
        self._headers = [*(self._headers or ()), *_set_cookies(self.response)]
        super().discard()

    def finish(self) -> Response:
        """The last answer, with the cookies of those before it."""
        if self._headers and (message := _message(self.response)) is not None:
            headers = self._headers + _set_cookies(self.response)
            if hasattr(message, "discard"):
                # urllib3-future: these are the headers that the caller sees, too.
                message = self.response.raw._original_response.msg = message.copy()
            if "Set-Cookie" in message:
                del message["Set-Cookie"]
            add = getattr(message, "add", message.__setitem__)
            for value in headers:
                add("Set-Cookie", value)
        return self.response

    def _send_disguised(self, dressed: PreparedRequest, query: Pairs) -> Response:
        own = str(dressed.url)
        dressed.url = url_with(own, query)
        disguise = Disguise(urlsplit(own).query, urlsplit(dressed.url).query, query)
        with disguise.worn():
            response = self._adapter.send(dressed, *self._args, **self._settings)
        raw: object = response.raw
        if isinstance(raw, HTTPResponse):
            disguise.of_answer(raw)
            if "location" in response.headers:
                response.headers["location"] = raw.headers["location"]
        return response


class Watch:
    """The hook on a request that its session sends with the token on it, and on all that redirects make of it.

    A request may be sent any number of times, by any number of threads: what it carried is told by its header, and for
    the one that was dressed anew meanwhile by when it was sent.
    """

    __slots__ = ("_request", "_url", "_worn", "calls", "resource")

    def __init__(self, calls: Calls, request: PreparedRequest, token: Token, resource: str | None) -> None:
        self.calls = calls
        self.resource = resource
        # The request holds this hook: holding it in turn would leave both, and a body, to the garbage collector.
        self._request = ref(request)
        self._url = str(request.url)
        self._worn = (token, token, 0.0)

    def __call__(self, response: Response, **settings: Any) -> Response:
        """Replay a refused request that carried the token."""
        calls = self.calls
        if calls.is_fine(response.status_code):
            return response
        token = self._carried(response)
        if token is None:
            return response
        carried = _Carried(self, response, settings)
        calls.go_on(carried, token, response.status_code)
        return carried.response

    def __deepcopy__(self, _: object) -> Self:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        # Answers are pickled together with their requests, and in another place nobody sends these again.
        return _Unwatched, ()

    def dress(self, request: PreparedRequest, token: Token) -> None:
        """Put *token* on what goes on from here."""
        for one in (request, self._request()):
            for name, value in self.calls.scheme.render(token).headers:
                if one is not None:
                    one.headers[name] = value
        now, _, _ = self._worn
        if token is not now:
            # In this order: who sends in between is taken to carry the older token, and so refreshes nothing.
            self._worn = (token, now, time.perf_counter())

    def _carried(self, response: Response) -> Token | None:
        """The token that the answered request carried; None if a redirect took off the token, or led elsewhere."""
        request, scheme = response.request, self.calls.scheme
        if url_origin(str(request.url)) != url_origin(self._url):
            return None
        now, before, since = self._worn
        if request is self._request() and time.perf_counter() - response.elapsed.total_seconds() < since:
            return before
        for token in (now, before):
            ((name, value),) = scheme.render(token).headers
            if request.headers.get(name) == value:
                return token
        return None


class _Unwatched:
    def __call__(self, response: Response, **_: Any) -> Response:
        return response


class _Carried(_Exchanged):
    """A request that the session sent with the token on it."""

    __slots__ = ("_settings", "_watch")

    def __init__(self, watch: Watch, response: Response, settings: dict[str, Any]) -> None:
        self.resource = watch.resource
        self.request = response.request
        self.response = response
        self._watch = watch
        self._settings = settings

    def send(self, token: Token) -> int:
        """Send it once more, by what sent it before; what goes on from here carries *token*."""
        refused, request = self.response, self.request
        refused.request = _twin(request)
        self._watch.dress(request, token)
        again, cookies = request, _cookies_of(refused, request)
        if cookies:
            again = _twin(request)
            _add_cookies(again, cookies)
        began = time.perf_counter()
        self.response = cast("Any", refused).connection.send(again, **self._settings)
        self.response.elapsed = timedelta(seconds=time.perf_counter() - began)
        self.response.request = request
        self.response.history.append(refused)
        return self.response.status_code


def _twin(request: PreparedRequest) -> PreparedRequest:
    """The same request with headers of its own; its `copy` copies all cookies, too, which takes ten times as long."""
    twin = PreparedRequest.__new__(type(request))
    vars(twin).update(vars(request))
    headers: Any = request.headers
    try:
        # In a quarter of the time that `copy` takes.
        stored = headers._store.copy()
        twin.headers = CaseInsensitiveDict.__new__(CaseInsensitiveDict)
        cast("Any", twin.headers)._store = stored
    except AttributeError:
        twin.headers = headers.copy()
    return twin


def _add_cookies(request: PreparedRequest, cookies: Pairs) -> None:
    own: object = request.headers.get("Cookie") or ""
    request.headers["Cookie"] = with_cookies(own.decode() if isinstance(own, bytes) else str(own), cookies)


def _message(response: Response) -> Any:
    return getattr(getattr(response.raw, "_original_response", None), "msg", None)


def _set_cookies(response: Response) -> list[str]:
    message = _message(response)
    return [] if message is None else message.get_all("Set-Cookie") or []


def _cookies_of(response: Response, request: PreparedRequest) -> Pairs:
    """The cookies of an answer that belong on the replay of its request."""
    if not response.cookies:
        return ()
    bare = _twin(request)
    bare.headers.pop("Cookie", None)
    header = get_cookie_header(response.cookies, bare) or ""
    return tuple((name, value) for name, _, value in (pair.partition("=") for pair in header.split("; ")) if name)
