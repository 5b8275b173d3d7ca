"""Real load from other processes: locust, whose users are greenlets over a standard library that gevent has patched."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.clients.modes import grant_for
from unexpired import TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle, server_process

ROOT = Path(__file__).parents[3]
USERS = 20
EXPIRIES = 4
BETWEEN = 800  # calls from one expiry to the next
PATIENCE = 50.0  # seconds for all there is to wait for, each


@contextmanager
def locust(server: ServerHandle, store: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Run a locust until the block ends; all of its `USERS` users are at work when the block begins."""
    command = [sys.executable, "-m", "locust", "-f", str(Path(__file__).parent / "locustfile.py"), "--headless"]
    command += ["--users", str(USERS), "--spawn-rate", "100", "--json", "--only-summary", "--loglevel", "CRITICAL"]
    paths = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"LOAD_SERVER": server.url, "LOAD_STORE": str(store), "PYTHONPATH": paths}
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as child:
        try:
            assert child.stderr is not None
            assert child.stderr.readline() == b"ready\n"
            yield child
        finally:
            child.kill()


def summary(child: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a locust tells when it is told to stop."""
    child.send_signal(signal.SIGTERM)
    out, _ = child.communicate(timeout=PATIENCE)
    (told,) = json.loads(out)
    return dict(told)


@pytest.mark.timeout(300)
def test_load_over_several_expiries(tmp_path: Path) -> None:
    """Two processes with 20 users each make thousands of calls over 4 expiries: none fails, one refresh for each."""
    with server_process() as server, ExitStack() as stack:
        manager = TokenManager(grant_for(server), store=FileStore(tmp_path), key="alice")
        manager.login(server.login())
        children = [stack.enter_context(locust(server, tmp_path)) for _ in range(2)]
        server.wait("api_call_answered", server.stats().api_calls + BETWEEN, PATIENCE)
        for number in range(1, EXPIRIES + 1):
            server.expire()
            server.wait("token_request_answered", number, PATIENCE)
            server.wait("api_call_answered", server.stats().api_calls + BETWEEN, PATIENCE)
        told = [summary(child) for child in children]
        stats = server.stats()
    assert [one["num_failures"] for one in told] == [0, 0]
    assert [child.returncode for child in children] == [0, 0]
    served = sum(one["num_requests"] for one in told)
    assert min(one["num_requests"] for one in told) > EXPIRIES
    assert served > (EXPIRIES + 1) * BETWEEN
    assert (stats.token_posts, stats.refreshes, stats.reuse_detected) == (EXPIRIES, EXPIRIES, 0)
    # at each expiry every user is refused once at most
    assert EXPIRIES <= stats.refused <= EXPIRIES * 2 * USERS
