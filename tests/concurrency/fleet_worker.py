"""One process of a fleet on one store: `python -m tests.concurrency.fleet_worker <url> <directory or URL> <mode>`.

Hears one JSON line per order and says one per outcome.
"""

from __future__ import annotations

import json
import sys
from typing import Any

from tests.clients.modes import Mode, get, grant_for, statuses
from unexpired import TokenManager
from unexpired.errors import UnexpiredError
from unexpired.stores import FileStore, open_store
from unexpired.testing import ServerHandle


def say(what: object) -> None:
    """One line to who started us."""
    print(json.dumps(what), flush=True)  # noqa: T201 - how it speaks


def calls(manager: TokenManager, mode: Mode, url: str, count: int) -> list[Any]:
    """Make *count* calls at once: the number in each answer, or the name of what went wrong."""
    outcomes = mode.run(mode.options(manager, "auth", base_url=url), [get(f"/api/x?n={n}") for n in range(count)])
    if statuses(outcomes) == [200] * count:
        return [outcome.json()["n"] for outcome in outcomes]
    return [getattr(outcome, "reason", status) for outcome, status in zip(outcomes, statuses(outcomes), strict=True)]


def refresh(manager: TokenManager, times: int) -> str:
    """Ask for *times* newer tokens, one after another."""
    try:
        for _ in range(times):
            manager.refresh()
    except UnexpiredError as error:
        return type(error).__name__
    return "done"


def main(url: str, place: str, mode: Mode, grace: float) -> None:
    """Obey until told no more."""
    grant = grant_for(ServerHandle(url, 0), reuse_grace=grace)
    manager = TokenManager(grant, store=open_store(place) if "://" in place else FileStore(place), key="alice")
    say("ready")
    for line in sys.stdin:
        order, number = json.loads(line)
        if order == "calls":
            say(calls(manager, mode, url, number))
        else:
            say(refresh(manager, number))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Mode(sys.argv[3]), float(sys.argv[4]))
