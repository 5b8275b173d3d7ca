"""A client of bare sockets: it shows what really happened on the wire, which HTTP clients smooth over."""

from __future__ import annotations

import base64
import json
import socket
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode, urlsplit

from unexpired.testing import ServerHandle

TIMEOUT = 10.0


@dataclass
class Answer:
    """What came back: the bytes as they were, and how the connection ended."""

    raw: bytes
    reset: bool
    chunks: int
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""

    def __post_init__(self) -> None:
        head, _, self.body = self.raw.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        if first.startswith("HTTP/"):
            self.status = int(first.split()[1])
        for line in lines:
            name, _, value = line.partition(":")
            self.headers[name.lower()] = value.strip()

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)


def send(
    server: ServerHandle,
    method: str,
    target: str,
    body: bytes = b"",
    headers: dict[str, str] | None = None,
) -> Answer:
    """Send one request on a connection of its own and read until the connection ends."""
    with open_socket(server) as wire:
        wire.sendall(request_bytes(method, target, body, headers))
        return read_to_end(wire)


def open_socket(server: ServerHandle) -> socket.socket:
    """Connect to *server*."""
    parts = urlsplit(server.url)
    assert parts.port is not None
    return socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT)


def request_bytes(method: str, target: str, body: bytes = b"", headers: dict[str, str] | None = None) -> bytes:
    """Word a request after which the server closes."""
    lines = {"Host": "127.0.0.1", "Connection": "close", **(headers or {})}
    if body or method not in ("GET", "HEAD"):
        lines["Content-Length"] = str(len(body))
    head = "".join(f"{name}: {value}\r\n" for name, value in lines.items())
    return f"{method} {target} HTTP/1.1\r\n{head}\r\n".encode() + body


def read_to_end(wire: socket.socket) -> Answer:
    """Read until the connection ends, in good order or by a reset."""
    parts: list[bytes] = []
    try:
        while data := wire.recv(65536):
            parts.append(data)
    except ConnectionResetError:
        return Answer(b"".join(parts), True, len(parts))
    return Answer(b"".join(parts), False, len(parts))


def refresh_body(refresh_token: str, **more: str) -> bytes:
    """Word a refresh as a form."""
    return urlencode({"grant_type": "refresh_token", "refresh_token": refresh_token, **more}).encode()


def refresh_request(refresh_token: str) -> bytes:
    """Word a whole refresh by the client `crm`."""
    return request_bytes("POST", "/oauth/token", refresh_body(refresh_token), FORM | basic())


def refresh(server: ServerHandle, refresh_token: str) -> Answer:
    """Redeem *refresh_token* as the client `crm`."""
    return send(server, "POST", "/oauth/token", refresh_body(refresh_token), FORM | basic())


def basic(client_id: str = "crm", secret: str = "crm-secret") -> dict[str, str]:
    """Word Basic credentials."""
    return {"Authorization": "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()}


def bearer(token: dict[str, Any] | str) -> dict[str, str]:
    """Word a bearer token, or that of a token answer."""
    text = token if isinstance(token, str) else token["access_token"]
    return {"Authorization": f"Bearer {text}"}


FORM = {"Content-Type": "application/x-www-form-urlencoded"}
JSON = {"Content-Type": "application/json"}
