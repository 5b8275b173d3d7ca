"""A burst of expiries in a web back end: threads, connections and token requests stay bounded, and all are served."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.manager.test_managers_fleet import Place, managers, place
from tests.manager.test_managers_keeping import DAY, Server, minted, stored
from unexpired import Session, TokenManagers
from unexpired._engine.runway import Runway, Start

__all__ = ["managers", "place"]

SESSIONS, PLACES = 300, 24
KEYS = [f"burst {number}" for number in range(SESSIONS)]


class Endpoint:
    """A token endpoint that sees how many ask it at a time."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.inside: set[str] = set()
        self.most = 0

    def __call__(self, session: Session) -> dict[str, Any]:
        """Answer for one session."""
        self.asked.append(session.key)
        self.inside.add(session.key)
        self.most = max(self.most, len(self.inside))
        threading.Event().wait(0.1)
        self.inside.discard(session.key)
        return {"access_token": f"new {session.key}", "refresh_token": "r", "expires_in": 3600}


@pytest.mark.parametrize("kind", ["tasks", "threads"])
def test_a_burst_is_bounded(
    kind: str, place: Place, managers: Callable[..., TokenManagers], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Hundreds of sessions that expire in one moment refresh once each, so many at a time as there are places."""
    monkeypatch.setattr(Start, "runway", Runway(PLACES))
    endpoint = Endpoint()
    here = managers(endpoint)
    for key in KEYS:
        here.manager(key).login({"access_token": "old", "refresh_token": "r", "expires_in": -1})
    served = place.connections()
    if kind == "tasks":

        async def main() -> list[str]:
            tokens = await asyncio.gather(*(here.manager(key).atoken() for key in KEYS))
            return [token.access_token for token in tokens]

        found = asyncio.run(main())
    else:
        with ThreadPoolExecutor(SESSIONS) as pool:
            found = list(pool.map(lambda key: here.manager(key).token().access_token, KEYS))
    assert found == [f"new {key}" for key in KEYS]
    assert sorted(endpoint.asked) == sorted(KEYS)
    assert endpoint.most <= PLACES
    assert place.connections() - served <= 64 + 2


def test_where_too_few_threads_start_the_others_do_the_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """At a limit of threads a round takes longer, and leaves nobody out."""
    server, start, started = Server(), threading.Thread.start, list[threading.Thread]()

    def limited(thread: threading.Thread) -> None:
        if thread.name == "unexpired:keep-alive":
            if started:
                raise RuntimeError("can't start new thread")
            started.append(thread)
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", limited)
    keys = [f"user {number}" for number in range(20)]
    report = TokenManagers(server, store=stored(**{key: minted(20 * DAY) for key in keys})).keep_alive(DAY, at_once=4)
    assert sorted(report.kept) == sorted(keys)
    assert len(started) == 1
