"""A test's hand on a running server."""

from __future__ import annotations

import http.client
import json
import ssl
from collections.abc import Iterable, Mapping
from typing import Any, cast
from urllib.parse import urlencode, urlsplit

from unexpired.testing._ledger import ServerEvent, Stats
from unexpired.testing._steps import Step, as_steps

__all__ = ["ServerHandle"]

_SLACK_SECONDS = 5.0


class ServerHandle:
    """Tells a running server what to do and asks what it saw.

    Every method is one blocking call to the server's `/_control` on a connection of its own: safe from any
    thread and any process, also after a fork. In asynchronous code only `wait` takes long: give that one to a
    thread. Methods raise `ValueError` with the server's sentence when what they were given makes no sense,
    and `OSError` when the server is gone.
    """

    def __init__(self, url: str, pid: int) -> None:
        self.url = url
        """The server's origin, without a slash at its end."""
        self.pid = pid
        """The process that serves: this one, or the child."""
        self.token_url = f"{url}/oauth/token"
        """The token endpoint (RFC 6749 §3.2)."""
        self.revocation_url = f"{url}/oauth/revoke"
        """The revocation endpoint (RFC 7009 §2)."""

    def __repr__(self) -> str:
        return f"<ServerHandle {self.url} pid={self.pid}>"

    def login(
        self,
        *,
        subject: str = "alice",
        client_id: str | None = None,
        scope: str | None = None,
        single: bool = False,
    ) -> dict[str, Any]:
        """Begin a new login and give its token answer (RFC 6749 §5.1).

        With *client_id* only that client may redeem it. With *single* the access token is its own refresh
        token.
        """
        chosen = {"subject": subject, "client_id": client_id, "scope": scope, "single": single}
        return self._tell("login", chosen)

    def stats(self) -> Stats:
        """Give the counts since the start or the last reset."""
        return Stats.from_json(self._call("GET", "stats"))

    def expire(self, token: str | None = None) -> None:
        """Let all access tokens be expired, or those of *token*'s login; the clients aren't told."""
        self._tell("expire", {"token": token})

    def revoke_family(self, token: str | None = None) -> None:
        """End the login that *token* belongs to, or every login."""
        self._tell("revoke-family", {"token": token})

    def configure(self, **changes: object) -> None:
        """Change fields of the `ServerConfig` for everything that is decided from now on."""
        self._tell("config", changes)

    def faults(self, steps: Step | Iterable[Step]) -> None:
        """Let the next token requests meet *steps*, one each, and no others; see `FAULT_KINDS`.

        A step is a kind, or a mapping with the kind and its settings: `faults(["503", {"kind": "html"}])`. One
        step needs no list; an empty list takes back what is left.
        """
        self._tell("faults", {"steps": as_steps(steps, "step")})

    def api_faults(self, rules: Step | Iterable[Step]) -> None:
        """Let API calls meet *rules*, and no others, from now on; see `API_FAULT_KINDS`.

        Rules are written as the steps of `faults` are.
        """
        self._tell("api-faults", {"rules": as_steps(rules, "rule")})

    def wait(self, event: ServerEvent, count: int = 1, timeout: float = 30.0) -> None:
        """Return once *event* has happened *count* times since the start or the last reset.

        Raises `TimeoutError` when that takes longer than *timeout* seconds.
        """
        asked = urlencode({"event": event, "count": count, "timeout": timeout})
        self._call("GET", f"wait?{asked}", timeout=timeout + _SLACK_SECONDS)

    def release(self, name: str) -> None:
        """Let everybody go on who is held under *name*, now or later."""
        self._tell("release", {"name": name})

    def reset(self) -> None:
        """Begin anew: no logins, faults or counts, and the settings of the start. Who is held is let go."""
        self._tell("reset", {})

    def _tell(self, name: str, document: Mapping[str, object]) -> dict[str, Any]:
        return self._call("POST", name, json.dumps(document).encode())

    def _call(self, method: str, name: str, body: bytes | None = None, timeout: float = 10.0) -> dict[str, Any]:
        connection = _connect(self.url, timeout)
        try:
            connection.request(method, f"/_control/{name}", body)
            response = connection.getresponse()
            document = cast("dict[str, Any]", json.loads(response.read()))
        finally:
            connection.close()
        if response.status == 408:
            raise TimeoutError(document["error"])
        if response.status != 200:
            raise ValueError(document["error"])
        return document


def _connect(url: str, timeout: float) -> http.client.HTTPConnection:
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port
    if parts.scheme == "http":
        return http.client.HTTPConnection(host, port, timeout=timeout)
    # control calls stay on loopback, carry nothing worth guarding, and the certificate is the test's affair
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(host, port, timeout=timeout, context=context)
