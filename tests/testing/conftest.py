"""One server for all tests of a file, new before each of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from unexpired.testing import ServerHandle, running_server


@pytest.fixture(scope="module")
def _one_server() -> Iterator[ServerHandle]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(_one_server: ServerHandle) -> ServerHandle:
    """Give this file's server, reset."""
    _one_server.reset()
    return _one_server
