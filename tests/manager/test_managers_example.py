"""The web back end to copy runs as it is, in two processes on one store, against the server."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx2
import pytest

from tests.waiting import until
from unexpired.testing import ServerHandle, server_process

EXAMPLES = Path(__file__).parents[2] / "examples"
USERS = [f"user{number}" for number in range(5)]


@pytest.fixture
def server() -> Iterator[ServerHandle]:
    """Give a server in a process of its own."""
    with server_process() as handle:
        yield handle


@pytest.fixture
def processes(server: ServerHandle, tmp_path: Path) -> Iterator[list[httpx2.Client]]:
    """Two processes of the program, and a client for each."""
    with ExitStack() as stack:
        kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
        environment = kept | {"CRM_URL": server.url, "STORE": f"sqlite:{tmp_path / 'sessions.db'}"}
        ports = []
        for _ in range(2):
            with socket.create_server(("127.0.0.1", 0)) as listener:
                ports.append(listener.getsockname()[1])
                command = [sys.executable, "-m", "uvicorn", "--app-dir", str(EXAMPLES), "web_backend:app"]
                options = ["--fd", str(listener.fileno()), "--log-level", "error"]
                started = subprocess.Popen([*command, *options], env=environment, pass_fds=[listener.fileno()])
            stack.callback(started.wait, 30)
            stack.callback(started.terminate)
        clients = [
            stack.enter_context(httpx2.Client(base_url=f"http://127.0.0.1:{port}", timeout=30, trust_env=False))
            for port in ports
        ]
        for client in clients:
            until(lambda client=client: _answers(client))  # type: ignore[misc]
        yield clients


def _answers(client: httpx2.Client) -> bool:
    try:
        return client.get("/nobody/orders").status_code == 401
    except httpx2.TransportError:
        return False


def test_a_web_backend_in_two_processes(server: ServerHandle, processes: list[httpx2.Client]) -> None:
    """Each user's login is refreshed once for 20 requests to both processes; a logout in one holds in the other."""
    one, other = processes
    for user in USERS:
        assert one.put(f"/{user}", json=server.login(subject=user)).status_code == 200
    server.expire()
    with ThreadPoolExecutor(20) as pool:
        calls = [(client, user) for user in USERS for client in processes for _ in range(10)]
        answers = list(pool.map(lambda call: call[0].get(f"/{call[1]}/orders").status_code, calls))
    assert answers == [200] * 100
    assert (server.stats().token_posts, server.stats().reuse_detected) == (len(USERS), 0)
    assert other.delete(f"/{USERS[0]}").status_code == 200
    over = one.get(f"/{USERS[0]}/orders")
    assert (over.status_code, over.json()) == (401, {"login": "/login?reason=logout"})
    assert one.get(f"/{USERS[1]}/orders").status_code == 200
