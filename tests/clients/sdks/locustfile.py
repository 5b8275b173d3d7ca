"""Users for `test_load`: each calls the API again and again, over one session of requests; all share one login."""

from __future__ import annotations

import os
import sys
from typing import Any

from locust import HttpUser, constant, events, task

from unexpired import TokenManager
from unexpired.clients.requests import TokenAuth
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import FileStore

SERVER, STORE = os.environ["LOAD_SERVER"], os.environ["LOAD_STORE"]
MANAGER = TokenManager(
    RefreshTokenGrant(f"{SERVER}/oauth/token", client_id="crm", client_secret="crm-secret"),
    store=FileStore(STORE),
    key="alice",
)


class Customer(HttpUser):
    """A user who never rests."""

    host = SERVER
    wait_time = constant(0)

    def on_start(self) -> None:
        """The token comes by the session's own setting."""
        self.client.auth = TokenAuth(MANAGER)

    @task
    def call(self) -> None:
        """One call; locust counts it as failed unless it is answered with a success."""
        self.client.get("/api/x")


def ready(**_: Any) -> None:
    """Tell the test that all users are at work."""
    sys.stderr.write("ready\n")
    sys.stderr.flush()


events.spawning_complete.add_listener(ready)  # type: ignore[no-untyped-call]  # locust leaves its events untyped
