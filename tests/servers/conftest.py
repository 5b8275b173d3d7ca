"""The authorization server that the tests of this directory share, one per test file and test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.servers.oidc.provider import Provider, running_provider


@pytest.fixture(scope="module")
def started_provider() -> Iterator[Provider]:
    """A running server. Without Node or its packages the tests fail, and the message says what to do."""
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(started_provider: Provider) -> Provider:
    """The running server, with access tokens that live an hour, and counting from zero."""
    started_provider.access_lifetime(3600)
    started_provider.zero()
    return started_provider
