"""What stands before the services of these tests, and lets nobody in whose token the embedded server refuses."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.clients.contract.listener import Answer, Heard
from tests.clients.modes import BOUND, Outcome
from unexpired.testing import ServerHandle

JSON = {"content-type": "application/json"}
EVENTS = {"content-type": "text/event-stream"}


class Gate:
    """Asks the embedded server about each token, as an API does whose authorization server is another program."""

    def __init__(self, server: ServerHandle) -> None:
        self._host = urlsplit(server.url).netloc

    def admits(self, authorization: str | None) -> bool:
        """Whether the server takes what came as ``Authorization``. Blocks; the server may hold its refusal."""
        connection = http.client.HTTPConnection(self._host, timeout=BOUND)
        try:
            connection.request("GET", "/api/gate", headers={"authorization": authorization} if authorization else {})
            return connection.getresponse().status == 200
        finally:
            connection.close()


def admitted(gate: Gate, heard: Heard) -> Answer | None:
    """The refusal of this request, in words that its SDK understands; None if its token is good."""
    values = heard.all("authorization")
    assert len(values) <= 1
    if gate.admits(values[0] if values else None):
        return None
    return 401, JSON, json.dumps({"type": "error", "error": {"type": "authentication_error", "message": "no"}}).encode()


def asked(heard: Heard) -> dict[str, str]:
    """The query of a request."""
    return {name: values[0] for name, values in parse_qs(urlsplit(heard.target).query).items()}


def document(content: Any) -> Answer:
    """An answer in JSON."""
    return 200, JSON, json.dumps(content).encode()


def events(pieces: Iterable[tuple[str | None, Any]]) -> Answer:
    """A stream of events, of which each is sent before the next is asked for."""

    def sent() -> Iterator[bytes]:
        for name, data in pieces:
            kind = f"event: {name}\n" if name else ""
            text = data if isinstance(data, str) else json.dumps(data)
            yield f"{kind}data: {text}\n\n".encode()

    return 200, EVENTS, sent()


def kinds(outcomes: Iterable[Outcome]) -> set[str]:
    """The names of the types of what came out."""
    return {type(outcome).__name__ for outcome in outcomes}
