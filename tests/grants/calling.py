"""One redemption at a test's endpoint, and what tests of its timing share."""

from __future__ import annotations

import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2

from tests.grants.endpoint import CERTIFICATE, Endpoint, answer
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.grants import RefreshTokenGrant

SESSION = Session.begin("alice", "login", Token("a0", refresh_token="r0"))
FRESH = answer(200, {"access_token": "a1", "expires_in": 60, "refresh_token": "r1"})
BOUND = 9.0


def redeem(served: Endpoint | str, *, timeout: float = 5.0, **settings: Any) -> Token:
    """Redeem `SESSION` at *served*."""
    url = served if isinstance(served, str) else served.url
    return RefreshTokenGrant(url, client_id="crm", **settings).redeem(SESSION, resource=None, timeout=timeout)


@contextmanager
def bounded(limit: float = BOUND) -> Iterator[None]:
    """Fail when the block takes longer than *limit* seconds."""
    since = time.monotonic()
    yield
    assert time.monotonic() - since < limit


def trusting() -> httpx2.Client:
    """A client that trusts the endpoint's certificate."""
    return httpx2.Client(verify=ssl.create_default_context(cafile=str(CERTIFICATE)), trust_env=False)


def join_token_calls() -> None:
    """Wait for threads that were left behind to end."""
    for thread in threading.enumerate():
        if thread.name == "unexpired-token-call":
            thread.join(BOUND)
            assert not thread.is_alive()
