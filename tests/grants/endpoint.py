"""A token endpoint made of one socket and one function: it does exactly what a test wants, faults included."""

from __future__ import annotations

import json
import select
import socket
import ssl
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

CERTIFICATE = Path(__file__).with_name("self_signed.pem")
PATIENCE = 10.0


@dataclass
class Request:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes

    @property
    def query(self) -> list[tuple[str, str]]:
        """The parameters in the address, in order."""
        return parse_qsl(urlsplit(self.target).query, keep_blank_values=True)

    @property
    def form(self) -> dict[str, str]:
        """The parameters in a form body."""
        return dict(parse_qsl(self.body.decode(), keep_blank_values=True))


@dataclass
class Peer:
    """The caller's connection, from the server's side."""

    wire: socket.socket
    stop: threading.Event

    def send(self, data: bytes) -> None:
        """Send *data* at once."""
        self.wire.sendall(data)

    def dribble(self, data: bytes) -> None:
        """Send *data* byte by byte, as slowly as it takes for nobody's timeout between two bytes to end."""
        for byte in data:
            if self.stop.wait(0.02):
                return
            self.send(bytes([byte]))

    def hold(self) -> None:
        """Say nothing until the caller hangs up or the test is over."""
        while not self.stop.is_set():
            if select.select([self.wire], [], [], 0.01)[0] and not self.wire.recv(4096):
                return

    def reset(self) -> None:
        """End the connection with a TCP reset."""
        self.wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.wire.close()


Script = Callable[[Peer, Request], None]


@dataclass
class Endpoint:
    """Where it listens, and what it was asked."""

    port: int
    scheme: str = "http"
    requests: list[Request] = field(default_factory=list)
    connections: int = 0

    @property
    def url(self) -> str:
        """Its address."""
        return f"{self.scheme}://127.0.0.1:{self.port}/token"

    @property
    def only(self) -> Request:
        """The one request that there was."""
        (request,) = self.requests
        return request


@contextmanager
def endpoint(script: Script, *, tls: bool = False, handshake: bool = True) -> Iterator[Endpoint]:
    """Serve *script* to each caller on a loopback port. Without *handshake* nothing is ever read."""
    stop = threading.Event()
    with ExitStack() as cleanup:
        listener = cleanup.enter_context(socket.create_server(("127.0.0.1", 0)))
        listener.settimeout(0.02)
        served = Endpoint(listener.getsockname()[1], "https" if tls else "http")

        def serve() -> None:
            while not stop.is_set():
                with suppress(OSError):
                    wire, _ = listener.accept()
                    wire.settimeout(PATIENCE)
                    served.connections += 1
                    with wire:
                        if not handshake:
                            Peer(wire, stop).hold()
                            continue
                        secured = _server_tls().wrap_socket(wire, server_side=True) if tls else wire
                        with secured:
                            _converse(secured, script, served, stop)

        thread = threading.Thread(target=serve, name="endpoint")
        thread.start()
        cleanup.callback(thread.join)
        cleanup.callback(stop.set)
        yield served


def answer(
    status: int = 200,
    body: bytes | dict[str, Any] = b"",
    headers: dict[str, str] | None = None,
    *,
    length: int | None = None,
) -> bytes:
    """A whole HTTP answer; *length* may promise more bytes than there are."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    kind = "application/json" if isinstance(body, dict) else "text/html"
    fields = {"Content-Type": kind, "Content-Length": str(length or len(content)), **(headers or {})}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{head}Connection: close\r\n\r\n".encode() + content


def saying(data: bytes) -> Script:
    """A script that says *data* and hangs up."""

    def script(peer: Peer, _request: Request) -> None:
        peer.send(data)

    return script


def silent(peer: Peer, _request: Request) -> None:
    """Never answer."""
    peer.hold()


def reset(peer: Peer, _request: Request) -> None:
    """Take the request and end the connection hard."""
    peer.reset()


def dribbling_head(peer: Peer, _request: Request) -> None:
    """Send headers without an end, a byte at a time."""
    peer.send(b"HTTP/1.1 200 OK\r\nX: ")
    peer.dribble(b"x" * 10_000)


def dribbling_body(peer: Peer, _request: Request) -> None:
    """Send a body without an end, a byte at a time."""
    peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 10000\r\n\r\n{")
    peer.dribble(b" " * 10_000)


@contextmanager
def closed_port() -> Iterator[int]:
    """A port where nobody listens, nor can."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield int(taken.getsockname()[1])


def _server_tls() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(CERTIFICATE)
    return context


def _converse(wire: socket.socket, script: Script, served: Endpoint, stop: threading.Event) -> None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = wire.recv(65536)
        if not more:
            return
        data += more
        if data.startswith(b"\x16"):  # a TLS greeting, to which a server without TLS says:
            wire.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            return
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    method, target, _ = first.split(" ", 2)
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    while len(body) < int(headers.get("content-length", "0")):
        body += wire.recv(65536)
    request = Request(method, target, headers, body)
    served.requests.append(request)
    script(Peer(wire, stop), request)
