"""Requests of requests and their answers, as the flow asks for them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from requests import PreparedRequest, Response, exceptions
from requests.adapters import BaseAdapter
from requests.utils import rewind_body
from urllib3 import HTTPResponse
from urllib3.exceptions import ProtocolError, ReadTimeoutError

from unexpired._core.scheme import Answer, Judgement, Scheme
from unexpired._core.token import Token
from unexpired.clients._bodies import SyncFactory
from unexpired.clients._dressing import url_with, with_cookies
from unexpired.clients._exchange import url_origin
from unexpired.clients._urllib3_bodies import is_whole, peek, take_in

__all__ = ["Carried", "Sending", "notes_of"]


def notes_of(request: PreparedRequest) -> dict[str, Any]:
    """What goes along with a request through all its redirects: requests has no other place for it."""
    return cast("dict[str, Any]", request.hooks)


class _Exchanged:
    """One request and its last answer."""

    response: Response

    def __init__(self, scheme: Scheme, request: PreparedRequest, resource: str | None) -> None:
        self.resource = resource
        self.request = request
        self.scheme = scheme

    def origin(self) -> str:
        """Where it goes."""
        return url_origin(str(self.request.url))

    def target(self) -> tuple[str, str]:
        """Its method and its path."""
        return str(self.request.method), urlsplit(str(self.request.url)).path

    def rewind(self) -> bool:
        """Go back to where the body began, if it can be had again."""
        body = cast("object", self.request.body)
        if body is None or isinstance(body, bytes | str | SyncFactory):
            return True
        try:
            rewind_body(self.request)
        except exceptions.UnrewindableBodyError:
            return False
        return True

    def judge(self, scheme: Scheme) -> Judgement:
        """Look into the answer."""
        raw: object = self.response.raw
        if not isinstance(raw, HTTPResponse):
            return scheme.judge(Answer(self.response.status_code, self.response.headers))
        with _in_words_of_requests():
            judgement, self.response.raw = peek(scheme, raw, str(self.request.method))
        return judgement

    def take_in(self) -> None:
        """Read a refused answer if it is short."""
        if isinstance(self.response.raw, HTTPResponse):
            with _in_words_of_requests():
                self.response.raw = take_in(self.response.raw, str(self.request.method))

    def discard(self) -> None:
        """Close an answer that holds a connection; a short one stays readable in the history."""
        if not is_whole(self.response.raw):
            self.response.close()


class Sending(_Exchanged):
    """A request that an adapter was given to send."""

    def __init__(
        self,
        scheme: Scheme,
        request: PreparedRequest,
        resource: str | None,
        adapter: BaseAdapter,
        how: tuple[tuple[Any, ...], dict[str, Any]],
    ) -> None:
        super().__init__(scheme, request, resource)
        self._adapter = adapter
        self._how = how

    def send(self, token: Token) -> int:
        """Send a copy with *token*: the session's own request never holds it."""
        rendered = self.scheme.render(token)
        dressed = self.request.copy()
        for name, value in rendered.headers:
            dressed.headers[name] = value
        if rendered.query:
            dressed.url = url_with(str(dressed.url), rendered.query)
        if rendered.cookies:
            own = dressed.headers.get("Cookie") or ""
            dressed.headers["Cookie"] = with_cookies(own if isinstance(own, str) else own.decode(), rendered.cookies)
        args, settings = self._how
        self.response = self._adapter.send(dressed, *args, **settings)
        return self.response.status_code


class Carried(_Exchanged):
    """A request that the session sends with the token on it."""

    settings: dict[str, Any]

    def __init__(self, scheme: Scheme, request: PreparedRequest, token: Token, resource: str | None) -> None:
        super().__init__(scheme, request, resource)
        self.token = token

    def dress(self) -> None:
        """Put the token on."""
        ((name, value),) = self.scheme.render(self.token).headers
        self.request.headers[name] = value

    def reached(self, request: PreparedRequest) -> bool:
        """Whether a redirect took the token along to here: if not, what is said here of it means nothing."""
        ((name, value),) = self.scheme.render(self.token).headers
        if request.headers.get(name) != value or url_origin(str(request.url)) != self.origin():
            return False
        self.request = request
        return True

    def send(self, token: Token) -> int:
        """Send it once more, by what sent it before; what goes on from here carries *token*."""
        refused, self.token = self.response, token
        refused.request = self.request.copy()
        self.dress()
        self.response = cast("Any", refused).connection.send(self.request, **self.settings)
        self.response.history.append(refused)
        return self.response.status_code


@contextmanager
def _in_words_of_requests() -> Generator[None, None, None]:
    """The errors that a session raises for those of urllib3."""
    try:
        yield
    except ProtocolError as error:
        raise exceptions.ChunkedEncodingError(error) from error
    except ReadTimeoutError as error:
        raise exceptions.ConnectionError(error) from error
