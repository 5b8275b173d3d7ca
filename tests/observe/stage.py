"""Flights of every outcome, for whoever tells of them."""

from __future__ import annotations

import contextlib
import time
from typing import Any

from tests.engine.staging import Attempt, Crowd, Server, aboard, manager_for
from tests.waiting import until
from unexpired import Session, Token, UnexpiredError
from unexpired._core.session import Intent
from unexpired.errors import NotSent, Refused
from unexpired.events import Event, FlightEnded, FreshTokenRefused, RequestReplayed, Unsaved
from unexpired.stores import MemoryStore

KEY = "alice@crm"


def busy(_: Session) -> dict[str, Any]:
    """Send nothing."""
    raise NotSent("the line is busy", retry_after=30.0)


def refusing(_: Session) -> dict[str, Any]:
    """Refuse the refresh token."""
    raise Refused("no", error="invalid_grant")


class Stage:
    """One manager of its own store, and what has happened to it."""

    def __init__(self, grant: Any = None, *, key: str = KEY) -> None:
        self.server = Server(gated=True)
        self.store = MemoryStore()
        self.manager = manager_for(grant or self.server, None, store=self.store, key=key)
        self.key = key
        self.ends: list[FlightEnded] = []

    def log_in(self, expires_in: float = -1) -> None:
        """Begin a login. From now on the ends of flights are noted, after everybody else has heard of them."""
        self.manager.login({"access_token": "access 0", "refresh_token": "refresh 0", "expires_in": expires_in})
        self.manager.on(FlightEnded, self.ends.append)

    def fly(self, callers: int = 1) -> FlightEnded:
        """One flight that so many callers wait for, and its end."""
        before = len(self.ends)
        self.server.gate.clear()
        crowd = Crowd("threads", callers, self.manager, "refresh")
        until(lambda: aboard(self.manager) == callers)
        self.server.gate.set()
        crowd.tokens()
        return self.end(before)

    def try_to(self) -> FlightEnded:
        """One flight that brings nothing, and its end."""
        before = len(self.ends)
        with contextlib.suppress(UnexpiredError):
            self.manager.token()
        return self.end(before)

    def end(self, before: int) -> FlightEnded:
        """The end that is told after so many."""
        until(lambda: len(self.ends) > before)
        return self.ends[before]

    def session(self) -> Session:
        """What is stored."""
        session = self.store.load(self.key)
        assert session is not None
        return session

    def others_refresh(self) -> Token:
        """Another process stores a newer token."""
        before = self.session()
        token = Token("access 9", refresh_token="refresh 9", expires_at=time.time() + 600.0)
        assert self.store.swap(self.key, before, before.minted(token))
        return token

    def others_vanish(self) -> None:
        """Another process announces a request, and is killed."""
        before = self.session()
        intent = Intent(before.login, before.version, "somebody", 1, time.time())
        assert self.store.swap(self.key, before, before.noted(intent=intent, failure=before.failure))

    def adopt_in_flight(self) -> FlightEnded:
        """A flight that waits for another process, which then has a token for it."""
        before = len(self.ends)
        lease = self.store.lease(self.key, owner="another", seconds=10.0, wait=0.0, stop=lambda: False)
        assert lease is not None
        caller = Attempt(self.manager.refresh)
        until(lambda: aboard(self.manager) == 1)
        self.others_refresh()
        lease.release()
        caller.result()
        return self.end(before)

    def adopt_by_look(self) -> None:
        """Another process refreshes, and the next caller finds that."""
        self.others_refresh()
        assert self.manager.token().access_token == "access 9"

    def overtake(self) -> FlightEnded:
        """A flight whose answer comes after a login."""
        before = len(self.ends)
        self.server.arrived.clear()
        self.server.gate.clear()
        caller = Attempt(self.manager.refresh)
        assert self.server.arrived.wait(20)
        self.manager.login({"access_token": "new", "refresh_token": "new too", "expires_in": 60})
        self.server.gate.set()
        caller.result()
        return self.end(before)

    def say(self, *news: Event) -> None:
        """What an adapter, a desk or a flight would tell."""
        for event in news:
            self.manager.exchange.tell(event)

    def replay(self) -> None:
        """A request is sent again."""
        self.say(RequestReplayed(self.key, "https://api.example.com", 1, 0.25))

    def alarm(self) -> None:
        """A fresh token is refused, and one cannot be stored."""
        self.say(FreshTokenRefused(self.key, "https://api.example.com", 1.0), Unsaved(self.key, 2, 3, "disk full"))
