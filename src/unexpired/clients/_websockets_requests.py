"""The token on a handshake of websockets, put on as it is sent; headers and addresses of websockets as ours."""

from __future__ import annotations

from collections.abc import Callable, Generator
from functools import partial
from typing import Any, cast

from websockets.client import ClientProtocol
from websockets.datastructures import Headers
from websockets.http11 import Request
from websockets.uri import WebSocketURI

from unexpired._core.scheme import Rendered
from unexpired.clients._dressing import Pairs, url_with, with_cookies, without_parameters
from unexpired.clients._exchange import origin

__all__ = ["Lines", "discreet", "hush", "uri_origin"]


class _Discreet(Request):
    """A handshake that gets its token as it goes on the wire: neither the client's objects nor its log hold it."""

    def __init__(self, bare: Request, rendered: Rendered) -> None:
        super().__init__(bare.path, bare.headers)
        self._rendered = rendered

    def serialize(self) -> bytes:
        """What is sent."""
        rendered, path, headers = self._rendered, self.path, self.headers.copy()
        for name, value in rendered.headers:
            _set(headers, name, value)
        if rendered.query:
            path = url_with(path, rendered.query)
        if rendered.cookies:
            _set(headers, "Cookie", with_cookies("; ".join(headers.get_all("Cookie")), rendered.cookies))
        return Request(path, headers).serialize()


def discreet(bare: Callable[[], Request], rendered: Rendered) -> Request:
    """The request that *bare* makes, to be sent with what is *rendered*."""
    return _Discreet(bare(), rendered)


def hush(protocol: ClientProtocol, parameters: Pairs) -> None:
    """Have *protocol* find no ``Location`` that repeats the token in the query: the client logs and follows it."""
    reader = cast("Any", protocol.reader)
    reader.read_line = partial(_line_without, reader.read_line, parameters)
    # It has begun to read, in the way that it knew when it was made.
    protocol.parser.close()
    protocol.parser = protocol.parse()
    next(protocol.parser)


def _line_without(
    read_line: Callable[..., Generator[None, None, bytes]], parameters: Pairs, *limits: Any
) -> Generator[None, None, bytes]:
    line = bytes((yield from read_line(*limits)))
    name, _, value = line.partition(b":")
    if name.lower() != b"location":
        return line
    target = value.strip()
    return line.replace(target, without_parameters(target.decode("latin-1"), parameters).encode("latin-1"))


def _set(headers: Headers, name: str, value: str) -> None:
    if name in headers:
        del headers[name]
    headers[name] = value


class Lines:
    """Headers whose several lines of one name come joined (RFC 9110 §5.3)."""

    def __init__(self, headers: Headers) -> None:
        self._headers = headers

    def get(self, name: str, /) -> str | None:
        """The value of the header *name*."""
        return ", ".join(self._headers.get_all(name)) or None


def uri_origin(uri: WebSocketURI) -> str:
    """As a scheme's ``origins`` name it: a socket is of the origin of the page that it belongs to."""
    return origin("https" if uri.secure else "http", uri.host, uri.port)
