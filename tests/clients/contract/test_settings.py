"""What the client itself can do beside carrying tokens: timeouts, proxies, retries, HTTP/2."""

from __future__ import annotations

import socket

import pytest

from tests.clients.contract.crew import crew, get, statuses
from tests.clients.contract.fitting import Body, Cell
from tests.clients.contract.listener import OK, REFUSED, Listener
from tests.clients.contract.listener2 import Listener2
from tests.clients.scripted import counting_manager
from unexpired import TokenManager
from unexpired.testing import ServerHandle


@pytest.mark.contract(14)
def test_timeout_is_the_callers(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """The client's own timeout is its caller's error as ever: no refresh, no replay, and later calls work."""
    server.api_faults([{"kind": "hold", "name": "api", "prefix": "/api/held"}])
    with crew(cell, manager, timeout=0.3) as callers:
        (error,) = callers.run(get(f"{server.url}/api/held"))
        assert type(error) is cell.fitting.timeout_error
        server.release("api")
    with crew(cell, manager) as callers:
        assert callers.send(f"{server.url}/open/x").status == 200
    stats = server.stats()
    assert (stats.token_posts, stats.api_calls) == (0, 1)


@pytest.mark.contract(14)
def test_timeout_is_not_the_refreshs(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """A refresh may take longer than the client lets one request take: its caller is served all the same."""
    # the timeout leaves a slow machine time to answer what is sent
    server.configure(refresh_latency=3.5)
    server.expire()
    with crew(cell, manager, timeout=3.0) as callers:
        assert callers.send(f"{server.url}/api/x").status == 200
    assert server.stats().token_posts == 1


@pytest.mark.contract(14)
def test_proxy(listener: Listener, cell: Cell) -> None:
    """The client's proxy gets the refused call and its replay, each with its token, and nothing else."""
    listener.respond = lambda _, before: OK if before else REFUSED
    with crew(cell, counting_manager(), proxy=listener.url) as callers:
        assert callers.send("http://api.test/x?n=1", "POST", Body("bytes", b"body")).status == 200
    assert [heard.target for heard in listener.heard] == ["http://api.test/x?n=1"] * 2
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.contract(14)
def test_retries_do_not_multiply(listener: Listener, cell: Cell) -> None:
    """With three retries of the client's own, a call that is refused for good is still sent twice, not eight times."""
    listener.respond = lambda _heard, _before: REFUSED
    with crew(cell, counting_manager(), retries=3) as callers:
        assert callers.send(f"{listener.url}/x").status == 401
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.contract(14)
def test_no_connection(server: ServerHandle, manager: TokenManager, cell: Cell) -> None:
    """Scenario 53: where nobody listens, the client's own error comes through, and no refresh is made of it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        with crew(cell, manager) as callers:
            (error,) = callers.run(get(f"http://127.0.0.1:{taken.getsockname()[1]}/x"))
            assert isinstance(error, cell.fitting.connect_error)
            assert callers.send(f"{server.url}/api/x").status == 200
    assert server.stats().token_posts == 0


@pytest.mark.contract(14)
def test_http2(cell: Cell) -> None:
    """Over HTTP/2 a refused burst costs one refresh, and calls and replays share one connection."""
    with (
        Listener2(lambda token: 401 if token == "t1" else 200) as there,
        crew(cell, counting_manager(), http2=True) as callers,
    ):
        assert callers.send(f"{there.url}/x", authenticated=False).status == 200
        crowd = [get(f"{there.url}/x")] * cell.at_once(20)
        for _ in range(20 // len(crowd)):
            assert statuses(callers.run(*crowd)) == [200] * len(crowd)
    assert set(there.tokens) == {"", "t1", "t2"}
    assert there.tokens.count("t2") == 20
    assert there.connections == 1
