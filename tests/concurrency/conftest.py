"""What the tests of several threads, loops and processes share: a server in a process of its own for each file."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unexpired.testing import ServerHandle, server_process


@pytest.fixture(scope="module")
def _one_server() -> Iterator[ServerHandle]:
    with server_process() as server:
        yield server


@pytest.fixture
def server(_one_server: ServerHandle) -> ServerHandle:
    """Give this file's server, reset."""
    _one_server.reset()
    return _one_server
