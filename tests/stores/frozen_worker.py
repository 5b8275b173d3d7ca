"""A process that stops where it is told, in the middle of its flights.

`python -m tests.stores.frozen_worker <URL of a store>` hears one JSON line per order and says one per outcome.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from contextvars import ContextVar
from typing import Any
from unittest import mock

from unexpired import TokenManager
from unexpired._core import outcome
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import UnexpiredError
from unexpired.grants import RefreshTokenGrant, _http
from unexpired.stores import open_store

COOL_DOWN = 3.0
"""Seconds for which everybody is told to come back after a flight that failed."""


class Stopping:
    """A store that stops where it was told to, once."""

    def __init__(self, store: Any) -> None:
        self.stops: set[tuple[str, str]] = set()
        self.go = threading.Event()
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """The store's; stops before and after an intent, and before a result."""
        step = "result" if expected is None or new.version > expected.version else "intent"
        self.meet(key, f"before {step}")
        stored: bool = self._store.swap(key, expected, new)
        self.meet(key, f"after {step}")
        return stored

    def lease(self, key: str, **asked: Any) -> Any:
        """The store's; stops before it is asked for, once it is held, and before it is released."""
        self.meet(key, "asking")
        held: Any = self._store.lease(key, **asked)
        if held is not None:
            self.meet(key, "leased")
            release = held.release

            def late() -> None:
                self.meet(key, "before release")
                release()

            held.release = late
        return held

    def meet(self, key: str, point: str) -> None:
        """Say so and wait, if this is where to."""
        if (key, point) in self.stops:
            self.stops.discard((key, point))
            say(key, at=point)
            self.go.wait()


class Grant(RefreshTokenGrant):
    """The grant, which lets those who meet it on its way know for whom it goes."""

    key: ContextVar[str] = ContextVar("key")

    def __init__(self, url: str, grace: float) -> None:
        super().__init__(
            f"{url}/oauth/token",
            client_id="crm",
            client_secret="crm-secret",
            revocation_url=f"{url}/oauth/revoke",
            reuse_grace=grace,
        )

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token:
        """The same."""
        self.key.set(session.key)
        return super().redeem(session, resource=resource, timeout=timeout)


def stop_before_sending(store: Stopping) -> None:
    """A token request stops, too, where there is a connection and nothing has gone out on it."""
    real = _http._Exchange._connected

    def connected(exchange: Any, stream: Any) -> None:
        real(exchange, stream)
        store.meet(Grant.key.get(), "connected")

    mock.patch.object(_http._Exchange, "_connected", connected).start()


def say(key: str, **what: Any) -> None:
    """One line to who started us, whole."""
    os.write(1, (json.dumps({"key": key, **what}) + "\n").encode())


def carry_out(manager: TokenManager, do: str, order: dict[str, Any]) -> None:
    """Do it, and say what came of it."""
    try:
        if do == "seed":
            say(manager.key, got=do, version=manager.seed(order["answer"]).version)
        else:
            token = getattr(manager, do)()
            say(manager.key, got="token", minted=token.minted, login=token.login)
    except UnexpiredError as error:
        say(manager.key, got=type(error).__name__, why=getattr(error, "reason", str(error)))


def main(place: str) -> None:
    """Obey until told no more."""
    mock.patch.object(outcome, "cool_down", return_value=COOL_DOWN).start()  # long enough to be seen
    store: Any = Stopping(open_store(place))
    stop_before_sending(store)
    managers: dict[str, TokenManager] = {}
    say("", got="ready")
    for line in sys.stdin:
        order = json.loads(line)
        do, key = order["do"], order["key"]
        if do == "manage":
            grant = Grant(order["url"], order["grace"])
            managers[key] = TokenManager(grant, store=store, key=key, **order["settings"])
        elif do == "stop":
            store.go.clear()
            store.stops.add((key, order["at"]))
        elif do == "go":
            store.go.set()
        else:
            threading.Thread(target=carry_out, args=(managers[key], do, order)).start()
    store.go.set()


if __name__ == "__main__":
    main(sys.argv[1])
