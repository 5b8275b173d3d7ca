"""Behind a real nginx: TLS, HTTP/2, and uploads that are refused while they are on their way."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.contract.crew import BOUND, CROWD, crew, get, outcomes, statuses
from tests.clients.contract.fitting import Body, Cell, Reply
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.contract.nginx import Nginx, nginx
from tests.clients.scripted import counting_manager
from unexpired import ReplayRefused, TokenManager
from unexpired.testing import ServerHandle

BLOCK = bytes(range(256)) * 256
BLOCKS = 256
WHOLE = hashlib.sha256(BLOCK * BLOCKS).hexdigest()
"""Sixteen MiB: more than fits into the sockets on the way."""
FEW = 16
A_PART = hashlib.sha256(BLOCK * FEW).hexdigest()
"""One MiB: more than a stream of HTTP/2 may begin with."""


@pytest.mark.contract(2)
def test_burst_over_tls(server: ServerHandle, manager: TokenManager, proxy: Nginx, cell: Cell) -> None:
    """Scenarios 1, 2, 41: over TLS, too, 50 callers refused at once cost one refresh, and each gets its own answer."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    with crew(cell, manager) as callers:
        batch = callers.start(*[get(f"{proxy.tls}/api/x?n={number}") for number in range(CROWD)])
        server.wait("api_call_held", CROWD)
        server.release("all")
        found = outcomes(batch)
    assert statuses(found) == [200] * CROWD
    assert [json.loads(reply.body)["n"] for reply in found] == [str(number) for number in range(CROWD)]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, CROWD)
    assert sorted(one.status for one in proxy.passed(2 * CROWD)) == [200] * CROWD + [401] * CROWD


@pytest.mark.contract(14, like="test_http2")
def test_http2_over_tls(server: ServerHandle, manager: TokenManager, proxy: Nginx, cell: Cell) -> None:
    """Over HTTP/2 and TLS, 50 refused calls and their replays share one connection, and cost one refresh."""
    crowd = cell.at_once(CROWD)
    with crew(cell, manager, http2=True) as callers:
        assert callers.send(f"{proxy.tls}/api/x").status == 200
        server.expire()
        server.api_faults([{"kind": "hold_refusals", "name": "all"}])
        batch = callers.start(*[get(f"{proxy.tls}/api/x?n={number}") for number in range(crowd)])
        server.wait("api_call_held", crowd)
        server.release("all")
        found = outcomes(batch)
    assert statuses(found) == [200] * crowd
    assert [json.loads(reply.body)["n"] for reply in found] == [str(number) for number in range(crowd)]
    assert (server.stats().token_posts, server.stats().refused) == (1, crowd)
    passed = proxy.passed(1 + 2 * crowd)
    assert {one.protocol for one in passed} == {"HTTP/2.0"}
    assert len({one.connection for one in passed}) == 1


class Gate:
    """A server that refuses the first token: at the gate, where it is asked about the head, or after the body."""

    def __init__(self, listener: Listener) -> None:
        self.refused = threading.Event()
        self._listener = listener
        listener.respond = self.respond

    def respond(self, heard: Heard, _: int) -> Answer:
        """Refuse t1, and who brings no token."""
        if heard.token not in ("t1", None):
            return OK
        self.refused.set()
        return REFUSED

    @property
    def uploads(self) -> list[tuple[str | None, str]]:
        """The token and the body of each upload that arrived here."""
        return [(heard.token, heard.sha256) for heard in self._listener.heard if heard.target == "/x"]


def file_of(path: Path, blocks: int = BLOCKS) -> Body:
    """A file."""
    path.write_bytes(BLOCK * blocks)
    return Body("file", path)


def made_for(gate: Gate) -> Body:
    """Sixteen MiB that are made on the way, and not to their end before the gate has refused them."""

    def made() -> Iterator[bytes]:
        for number in range(BLOCKS):
            yield BLOCK
            assert number != BLOCKS // 8 or gate.refused.wait(BOUND)

    return Body("generator", made)


@pytest.mark.contract(17)
@pytest.mark.parametrize("buffering", [True, False], ids=["spooled", "streamed"])
def test_upload_through_a_proxy(listener: Listener, cell: Cell, buffering: bool, tmp_path: Path) -> None:
    """An upload is replayed whole, whether the proxy keeps it until it is there or passes it on while it comes."""
    gate = Gate(listener)
    with (
        nginx(tmp_path / "nginx", listener.url, buffering=buffering) as proxy,
        crew(cell, counting_manager()) as callers,
    ):
        assert callers.send(f"{proxy.url}/x", "POST", file_of(tmp_path / "body")).status == 200
    assert gate.uploads == [("t1", WHOLE), ("t2", WHOLE)]


@pytest.mark.contract(17)
def test_file_refused_on_its_way(listener: Listener, cell: Cell, tmp_path: Path) -> None:
    """A gateway that refuses a file while it is being sent gets it once more, from its beginning to its end."""
    gate = Gate(listener)
    with (
        nginx(tmp_path / "nginx", listener.url, guard=True, buffering=False) as proxy,
        crew(cell, counting_manager()) as callers,
    ):
        assert callers.send(f"{proxy.url}/x", "POST", file_of(tmp_path / "body")).status == 200
    assert gate.uploads == [("t2", WHOLE)]


@pytest.mark.contract(17)
def test_generator_refused_on_its_way(listener: Listener, cell: Cell, tmp_path: Path) -> None:
    """A body that is made on the way and refused half-way is never sent on cut: that is said, and the token is new."""
    gate = Gate(listener)
    body = made_for(gate)
    with (
        nginx(tmp_path / "nginx", listener.url, guard=True, buffering=False) as proxy,
        crew(cell, counting_manager()) as callers,
    ):
        with pytest.raises(ReplayRefused, match="send the request again"):
            callers.send(f"{proxy.url}/x", "POST", body)
        assert callers.send(f"{proxy.url}/x", "POST", body).status == 200
    assert gate.uploads == [("t2", WHOLE)]


@pytest.mark.contract(17, like="test_http2")
@pytest.mark.filterwarnings(
    # trio tells of the request bodies that httpx leaves behind at its timeout, without us too
    "ignore:.*async_generator object (AsyncIteratorByteStream|AsyncFactory):pytest.PytestUnraisableExceptionWarning"
)
def test_file_refused_on_its_way_over_http2(listener: Listener, cell: Cell, tmp_path: Path) -> None:
    """Over HTTP/2 it is the same for a client that sees an early answer; the error of one that does not comes through.

    Some send on until their timeout when the server has answered and stopped the stream (RFC 9113 §8.1), whatever the
    request carries: what a client makes of it is tried without a token first.
    """
    gate = Gate(listener)
    body = file_of(tmp_path / "body", FEW)
    with (
        nginx(tmp_path / "nginx", listener.url, guard=True, buffering=False) as proxy,
        # for some clients the handshake of TLS and the replay are within this time, too
        crew(cell, counting_manager(), http2=True, timeout=4.0) as callers,
    ):
        (plain,) = callers.run(lambda caller: caller.send(f"{proxy.tls}/x", "POST", body, authenticated=False))
        (found,) = callers.run(lambda caller: caller.send(f"{proxy.tls}/x", "POST", body))
        uploads = gate.uploads
        if isinstance(plain, Reply):
            assert (plain.status, found.status) == (401, 200)
            assert uploads == [("t2", A_PART)]
        else:
            assert type(found) is type(plain) is cell.fitting.timeout_error
            assert uploads == []
        assert callers.send(f"{proxy.tls}/x", "POST", Body("bytes", b"short")).status == 200
    assert {one.protocol for one in proxy.passed(3)} == {"HTTP/2.0"}


@pytest.mark.contract(14)
def test_upload_that_is_too_large(listener: Listener, cell: Cell, tmp_path: Path) -> None:
    """What a proxy says of a body that it does not take, before it was sent whole, is the caller's answer."""
    body, manager = file_of(tmp_path / "body"), counting_manager()
    with nginx(tmp_path / "nginx", listener.url, largest="1m") as proxy, crew(cell, manager) as callers:
        assert callers.send(f"{proxy.url}/x", "POST", body).status == 413
    assert listener.heard == []
    assert manager.token().access_token == "t1"
