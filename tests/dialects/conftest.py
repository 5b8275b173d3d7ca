"""The dialects are spoken over the clients that `tests/clients` knows how to run."""

from __future__ import annotations

import pytest

from tests.clients.conftest import _no_proxy, _one_server, _reads_refusals_to_their_end, mode, server
from tests.clients.modes import HTTPX2, Library

__all__ = ["_no_proxy", "_one_server", "_reads_refusals_to_their_end", "mode", "server"]


@pytest.fixture
def library() -> Library:
    """Give one client library: the rest is a matter of the scheme."""
    return HTTPX2
