"""One server for all tests of a file, new before each, and each way to run the callers of a front."""

from __future__ import annotations

import pytest

from tests.api.fronts import Front
from tests.clients.conftest import _no_proxy, _one_server, _reads_refusals_to_their_end, server

__all__ = ["_no_proxy", "_one_server", "_reads_refusals_to_their_end", "front", "server"]


@pytest.fixture(params=["threads", "asyncio", "trio"])
def front(request: pytest.FixtureRequest) -> Front:
    """Give each way to run callers."""
    return Front(request.param)
