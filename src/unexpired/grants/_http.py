"""The token request on the wire: one attempt, one deadline for all of it, and not a word in anybody's log.

Only this module knows httpx2, and it is imported at the first request. The request runs on a thread of its
own while the caller watches the clock:

* Timeouts of HTTP clients are per operation, so a server that sends a byte per second is never late. At the
  deadline the caller shuts the socket down, which ends any read, write or handshake on it.
* Name resolution cannot be interrupted at all. The caller leaves such a thread behind, and the gate in front
  of the first byte of the request, which is closed by then, keeps it from ever sending.
"""

from __future__ import annotations

import contextvars
import logging
import socket
import ssl
import threading
import time
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any
from urllib.request import getproxies

import httpx2

from unexpired.errors import AnswerLost, ConfigurationError, NotSent, UnexpiredError
from unexpired.grants.answer import HTTPAnswer, TokenCall

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ask", "require_client"]

_LARGEST_BODY = 1024 * 1024
_POLL = 0.5  # seconds between two looks at whether the program is ending
_GRACE = 0.5  # seconds for a thread to notice that its socket was shut down

# httpx2 logs whole URLs, httpcore2 response headers, hpack request headers. A filter does not reach child
# loggers.
_TALKATIVE = (
    "httpx2",
    *(f"httpcore2.{part}" for part in ("connection", "http11", "http2", "proxy", "socks")),
    *(f"hpack.{part}" for part in ("hpack", "table")),
)
_silent = contextvars.ContextVar("unexpired_token_call", default=False)


def _not_about_a_token_call(record: logging.LogRecord) -> bool:  # noqa: ARG001 - a filter
    return not _silent.get()


def require_client(http: object) -> None:
    """Raise ConfigurationError unless *http* is an `httpx2.Client`."""
    if not isinstance(http, httpx2.Client):
        given = f"{type(http).__module__.partition('.')[0]}.{type(http).__qualname__}"
        raise ConfigurationError(f"http= takes an httpx2.Client (the token request is blocking), not {given}")


def ask(call: TokenCall, *, http: httpx2.Client | None, timeout: float) -> HTTPAnswer:
    """Send *call* once and return what came back, within *timeout* seconds in all (and half a second to end).

    Without *http* it goes over a connection of its own, by the proxy of the environment if there is one.
    Redirects are not followed. Thread-safe. Raises NotSent when the request surely did not go out, AnswerLost
    when it may have, ConfigurationError when it cannot be sent as it is configured; none of them shows more
    than the endpoint.
    """
    if timeout <= 0:
        raise NotSent(f"no time was left to ask {call.endpoint}")
    until = time.monotonic() + timeout
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(_not_about_a_token_call)
    try:
        client = http if http is not None else _own_client(call)
        exchange = _Exchange(client, _request(client, call, timeout), call.endpoint, until)
    except Exception as error:  # noqa: BLE001 - no such request can be built; the text may be secret
        problem = type(error).__name__
    else:
        try:
            return exchange.run()
        finally:
            if client is not http:
                client.close()
    raise ConfigurationError(f"the request to {call.endpoint} cannot be built with these settings ({problem})")


def _own_client(call: TokenCall) -> httpx2.Client:
    """A client for one request: nothing is shared with other requests, not even a cookie."""
    headers = {"User-Agent": _user_agent(), "Connection": "close"}
    # Loading certificates takes longer than a whole plain request, and everybody is waiting for this one.
    plain = call.url.startswith("http://") and not getproxies()
    verify = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT) if plain else _tls()
    return httpx2.Client(verify=verify, headers=headers, limits=httpx2.Limits(max_keepalive_connections=0))


def _request(client: httpx2.Client, call: TokenCall, timeout: float) -> httpx2.Request:
    if client.is_closed:
        raise ValueError
    return client.build_request(call.method, call.url, headers=dict(call.headers), content=call.body, timeout=timeout)


@cache
def _tls() -> ssl.SSLContext:
    return httpx2.create_ssl_context()


@cache
def _user_agent() -> str:
    try:
        return f"unexpired/{version('unexpired')}"
    except PackageNotFoundError:  # used from a source tree
        return "unexpired"


class _TooLateError(Exception):
    """The deadline passed before the request went out."""


class _Exchange:
    """One request on its way: sent by a thread of its own, watched and cut short by the caller's."""

    def __init__(self, client: httpx2.Client, request: httpx2.Request, endpoint: str, until: float) -> None:
        self._client = client
        self._request = request
        self._endpoint = endpoint
        self._until = until
        self._done = threading.Event()
        self._gate = threading.Lock()
        self._closed = False
        self._traced = False
        self._sent = False
        self._socket: socket.socket | None = None
        self._answer: HTTPAnswer | None = None
        self._error: BaseException | None = None
        request.extensions = {**request.extensions, "trace": self._trace}

    def run(self) -> HTTPAnswer:
        """Send it and wait until the deadline. An answer that is here is returned, however late."""
        context = contextvars.copy_context()
        context.run(_silent.set, True)
        thread = threading.Thread(target=context.run, args=(self._send,), name="unexpired-token-call", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads: at exit, or by a limit. Then the client's own timeouts must do.
            context.run(self._send)
        try:
            self._wait()
        finally:
            self._cut()
        self._done.wait(_GRACE)
        if self._answer is not None:
            return self._answer
        raise self._failure() from None

    def _wait(self) -> None:
        """Until it is done, or the deadline, or the end of the program as long as nothing was sent."""
        while (left := self._until - time.monotonic()) > 0 and not self._done.wait(min(left, _POLL)):
            if not self._sent and not threading.main_thread().is_alive():
                return

    def _send(self) -> None:
        try:
            response = self._client.send(self._request, stream=True, auth=None, follow_redirects=False)
            try:
                self._answer = self._read(response)
            finally:
                response.close()
        except BaseException as error:  # noqa: BLE001 - it is sorted by the caller, on its own thread
            self._error = error
        finally:
            self._done.set()
            with self._gate:
                if self._socket is not None:
                    self._socket.close()

    def _read(self, response: httpx2.Response) -> HTTPAnswer:
        body, broken = bytearray(), None
        try:
            for chunk in response.iter_bytes():
                body += chunk
                if len(body) > _LARGEST_BODY:
                    broken = "too long"
                elif time.monotonic() >= self._until:
                    broken = "too slow"
                if broken:
                    break
        except httpx2.HTTPError as error:
            broken = type(error).__name__
        headers = {name.lower(): value for name, value in response.headers.items()}
        return HTTPAnswer(response.status_code, headers, bytes(body[:_LARGEST_BODY]), broken)

    def _trace(self, event: str, info: Mapping[str, Any]) -> None:
        """Called by httpcore2 at each step, on the sending thread. What is raised here ends the request."""
        step = event.partition(".")[2]
        if step in ("connect_tcp.started", "connect_unix_socket.started"):
            self._traced = True
        elif step in ("connect_tcp.complete", "connect_unix_socket.complete"):
            self._connected(info["return_value"])
        elif step == "send_request_headers.started" and info["request"].method != b"CONNECT":
            with self._gate:
                if self._closed or time.monotonic() >= self._until:
                    raise _TooLateError
                self._traced = self._sent = True

    def _connected(self, stream: Any) -> None:
        """Keep a handle of our own on the connection: TLS takes the original socket away."""
        found = stream.get_extra_info("socket")
        with self._gate:
            if not self._closed and isinstance(found, socket.socket):
                self._socket = found.dup()
        if self._closed:
            stream.close()
            raise _TooLateError

    def _cut(self) -> None:
        """Let nothing out from now on, and end what is under way."""
        with self._gate:
            self._closed = True
            if self._socket is not None and not self._done.is_set():
                with suppress(OSError):
                    self._socket.shutdown(socket.SHUT_RDWR)

    def _failure(self) -> UnexpiredError:
        """What went wrong, without the text of any other exception: those may quote the server or the URL."""
        error, endpoint = self._error, self._endpoint
        unconnected = (httpx2.ConnectError, httpx2.ConnectTimeout, httpx2.PoolTimeout, httpx2.ProxyError)
        # A socket that was shut down fails with errors that do not say why.
        cut = time.monotonic() >= self._until and not isinstance(error, httpx2.TimeoutException)
        name = "no answer in time" if cut or error is None else type(error).__name__
        if isinstance(error, httpx2.UnsupportedProtocol):
            return ConfigurationError(f"{endpoint} cannot be reached with this client ({name})")
        if self._sent or not (self._traced or isinstance(error, unconnected)):
            return AnswerLost(f"the answer of {endpoint} was lost ({name})")
        if _is_about_a_certificate(error):
            return NotSent(f"the certificate of {endpoint} could not be verified", connecting=False)
        return NotSent(f"{endpoint} could not be reached ({name})", connecting=True)


def _is_about_a_certificate(error: BaseException | None) -> bool:
    while error is not None and not isinstance(error, ssl.SSLCertVerificationError):
        error = error.__cause__ or error.__context__
    return error is not None
