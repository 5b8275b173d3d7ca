"""Real servers, processes that live through all tests, and the table of what they did."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.clients.conftest import _no_proxy
from tests.fleet import networks
from tests.fleet.crew import ROOT, Fleet, Worker, environment, start
from tests.fleet.networks import Network
from tests.fleet.patience import LONG
from tests.fleet.summary import show
from tests.stores.postgres_server import PostgresServer, directory, postgres_server
from tests.stores.redis_server import RedisServer
from unexpired.testing import ServerHandle

__all__ = ["_no_proxy"]

PROCESSES = 8
PER_MACHINE = 3
EXPIRIES = int(os.environ.get("UNEXPIRED_FLEET_EXPIRIES", "20"))

Open = Callable[..., Fleet]
URL = Callable[[str, Callable[[int], tuple[str, int]]], str]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Give each test of a fleet time for its expiries."""
    for item in items:
        if item.path.is_relative_to(Path(__file__).parent) and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(240 + 5 * EXPIRIES))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the fleets did."""
    show(terminalreporter)


@pytest.fixture(scope="session")
def network() -> Iterator[Network]:
    """Three machines."""
    with networks.network() as one:
        yield one


@pytest.fixture(scope="session")
def redis_server(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis with an append-only file, for all machines."""
    options = ("--appendonly", "yes", "--protected-mode", "no", "--bind", *_hosts(network))
    server = RedisServer(tmp_path_factory.mktemp("redis"), *options).start()
    yield server
    server.kill()


@pytest.fixture(scope="session")
def postgres(network: Network) -> Iterator[PostgresServer]:
    """A PostgreSQL for all machines."""
    with directory() as place:
        rules = place / "pg_hba.conf"
        rules.write_text("".join(f"host all all {host}/24 trust\n" for host in _hosts(network)))
        rules.chmod(0o644)
        settings = {"listen_addresses": ",".join(_hosts(network)), "hba_file": str(rules), "max_connections": "100"}
        with postgres_server(**settings) as server:
            yield server


@pytest.fixture(scope="session")
def server(network: Network) -> Iterator[ServerHandle]:
    """An authorization server that takes a reused refresh token for theft, and its API, for all machines."""
    command = [sys.executable, "-m", "tests.fleet.issuer", network.api_host]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    process = subprocess.Popen(command, cwd=ROOT, env=environment(), **pipes)
    try:
        assert process.stdout is not None
        ready = json.loads(process.stdout.readline())
        yield ServerHandle(ready["url"], ready["pid"])
    finally:
        process.communicate(timeout=LONG)


@pytest.fixture(scope="session")
def eight() -> Iterator[list[Worker]]:
    """Eight processes on this machine."""
    with ExitStack() as stack:
        yield start([()] * PROCESSES, stack)


@pytest.fixture(scope="session")
def nine(network: Network) -> Iterator[list[Worker]]:
    """Three processes on each of three machines."""
    with ExitStack() as stack:
        yield start([machine.prefix for machine in network.machines for _ in range(PER_MACHINE)], stack)


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> URL:
    """Give the URL of a kind of store, from where its server is found."""

    def url(kind: str, place: Callable[[int], tuple[str, int]]) -> str:
        match kind.split("+"):
            case ["redis"]:
                host, port = place(request.getfixturevalue("redis_server").port)
                return f"redis://{host}:{port}/0"
            case ["postgresql"]:
                host, port = place(request.getfixturevalue("postgres").port)
                return f"postgresql://unexpired@{host}:{port}/postgres"
            case ["sealed", inner]:
                return f"sealed+{url(inner, place)}"
            case _:
                return f"{kind}:{tmp_path / 'sessions'}"

    return url


def here(port: int) -> tuple[str, int]:
    """Where a server is found on its own machine."""
    return "127.0.0.1", port


def _hosts(network: Network) -> list[str]:
    return sorted({"127.0.0.1", network.store_host})


@pytest.fixture
def on_one_machine(eight: list[Worker], server: ServerHandle, url: URL) -> Iterator[Open]:
    """Make a fleet of eight processes on a kind of store."""
    with ExitStack() as stack:

        def one(kind: str) -> Fleet:
            place = url(kind, here)
            fleet = Fleet(eight, server, place, [place] * len(eight))
            stack.callback(fleet.close)
            return fleet

        yield one


@pytest.fixture
def on_three_machines(nine: list[Worker], network: Network, server: ServerHandle, url: URL) -> Iterator[Open]:
    """Make a fleet of three processes on each of three machines on a kind of store."""
    with ExitStack() as stack:

        def one(kind: str, **settings: Any) -> Fleet:
            far = [url(kind, machine.reach) for machine in network.machines for _ in range(PER_MACHINE)]
            fleet = Fleet(nine, server, url(kind, here), far, **settings)
            stack.callback(fleet.close)
            return fleet

        yield one
