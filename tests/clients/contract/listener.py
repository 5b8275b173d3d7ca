"""A small HTTP/1.1 server on a real socket: it answers as it is told and remembers every word it heard."""

from __future__ import annotations

import hashlib
import ssl
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from tests.grants.endpoint import CERTIFICATE


@dataclass(frozen=True)
class Heard:
    """One request, as it came over the wire."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    sha256: str
    length: int

    def all(self, name: str) -> list[str]:
        """Every value that a header was sent with."""
        return [value for key, value in self.headers if key.lower() == name.lower()]

    @property
    def token(self) -> str | None:
        """What came in ``Authorization``, without its scheme; it comes once or not at all."""
        values = self.all("authorization")
        assert len(values) <= 1
        return values[0].removeprefix("Bearer ") if values else None


Answer = tuple[int, dict[str, str], bytes | Iterator[bytes]]
"""Status, headers, and the body: whole, or in pieces of which each is sent before the next is asked for."""
OK: Answer = (200, {"content-type": "application/json"}, b'{"code": 0}')
REFUSED: Answer = (401, {}, b"no")


class Listener:
    """Answers by `respond`, which is told how many requests were heard before this one; by default `OK`."""

    def __init__(self, *, tls: bool = False, respond: Callable[[Heard, int], Answer] | None = None) -> None:
        self.heard: list[Heard] = []
        self.connections = 0
        self.respond = respond or (lambda _heard, _before: OK)
        self._lock = threading.Lock()
        listener = self

        class Handler(_Handler):
            owner = listener

        self._server = _Server(("127.0.0.1", 0), Handler)
        if tls:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(CERTIFICATE)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        self.port: int = self._server.server_address[1]
        self.url = f"{'https' if tls else 'http'}://127.0.0.1:{self.port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,), name="listener", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    @property
    def tokens(self) -> list[str | None]:
        """The token of each request."""
        return [heard.token for heard in self.heard]

    def answer(self, heard: Heard) -> Answer:
        """Note the request, and decide."""
        with self._lock:
            before = len(self.heard)
            self.heard.append(heard)
        return self.respond(heard, before)

    def connected(self) -> None:
        """Count a connection."""
        with self._lock:
            self.connections += 1


class _Server(ThreadingHTTPServer):
    block_on_close = False
    request_queue_size = 128

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that hangs up is none of the test's business."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1
    owner: Listener

    def setup(self) -> None:
        """A new connection."""
        super().setup()
        self.owner.connected()

    def handle_one_request(self) -> None:
        """Read one request, whatever its method, and answer it."""
        self.raw_requestline = self.rfile.readline(65537)
        if not self.raw_requestline or not self.parse_request():
            self.close_connection = True
            return
        digest, length = hashlib.sha256(), 0
        for chunk in self._body():
            digest.update(chunk)
            length += len(chunk)
        heard = Heard(self.command, self.path, tuple(self.headers.items()), digest.hexdigest(), length)
        status, headers, body = self.owner.answer(heard)
        self.send_response(status)
        whole = isinstance(body, bytes)
        framing = {"content-length": str(len(body))} if isinstance(body, bytes) else {"transfer-encoding": "chunked"}
        for name, value in (framing | headers).items():
            self.send_header(name, value)
        self.end_headers()
        for piece in (body,) if isinstance(body, bytes) else body:
            self.wfile.write(piece if whole else b"%x\r\n%s\r\n" % (len(piece), piece))
            self.wfile.flush()
        self.wfile.write(b"" if whole else b"0\r\n\r\n")
        self.wfile.flush()

    def _body(self) -> Any:
        if "chunked" in (self.headers.get("transfer-encoding") or ""):
            while size := int(self.rfile.readline().split(b";")[0], 16):
                yield self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return
        left = int(self.headers.get("content-length") or 0)
        while left:
            chunk = self.rfile.read(min(left, 65536))
            if not chunk:
                return
            left -= len(chunk)
            yield chunk

    def log_message(self, *_: object) -> None:
        """Nothing on standard error."""
