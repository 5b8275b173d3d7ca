"""One process of a fleet: `python -m tests.fleet.worker <threads, asyncio or trio>`.

Hears one JSON line per order and says one per outcome.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from tests.clients.modes import grant_for
from tests.fleet.callers import KINDS, Callers, word
from tests.fleet.patience import LONG, wait_until
from unexpired import TokenManager
from unexpired.errors import StoreError, UnexpiredError
from unexpired.stores import Store, open_store
from unexpired.stores.sealed import Sealed
from unexpired.testing import ServerHandle

SEAL = b"the key of a fleet that is sealed"[:32]


def store_at(url: str) -> Store:
    """The store of that URL; after ``sealed+`` it is a sealed one."""
    inner = url.removeprefix("sealed+")
    return open_store(inner) if inner == url else Sealed(open_store(inner), SEAL)


def say(order: Mapping[str, Any], what: object) -> None:
    """One line to who started us: which order it answers, and what came of it."""
    print(json.dumps([order.get("number", 0), what]), flush=True)  # noqa: T201 - how it speaks


class Work:
    """A manager on the store in use, and callers with it."""

    def __init__(self, mode: str, order: Mapping[str, Any]) -> None:
        self.url: str = order["issuer"]
        self.store = store_at(order["store"])
        grant = grant_for(ServerHandle(self.url, 0))
        self.manager = TokenManager(grant, store=self.store, key=order["key"], **order["settings"])
        self.deaf = threading.Event()
        logging.getLogger("unexpired").addFilter(self._hear)
        self.callers: Callers = KINDS[mode](self.manager, order["tasks"])

    def close(self) -> None:
        """Leave nothing open."""
        logging.getLogger("unexpired").removeFilter(self._hear)
        self.callers.close()
        self.manager.close()
        self.store.close()

    def _hear(self, record: logging.LogRecord) -> bool:
        """That changes are not heard is told by the log only."""
        if re.search("not heard|cannot listen", record.getMessage()):
            self.deaf.set()
        return True

    def call(self, order: Mapping[str, Any]) -> list[Any]:
        """Make calls at once, each with a number of its own: the number in each answer, or what went wrong."""
        began = time.monotonic()
        outcomes = self.callers.get([f"{self.url}/api/x?n={number}" for number in order["numbers"]])
        return [outcomes, time.monotonic() - began]

    def see(self, order: Mapping[str, Any]) -> bool:
        """Wait until this process knows of that login, at that version or a later one."""

        def seen() -> bool:
            try:
                session = self.manager.session()
            except StoreError:
                return False
            return session is not None and session.login == order["login"] and session.version >= order["version"]

        wait_until(seen, "the login is seen")
        return True

    def refresh(self, _: Mapping[str, Any]) -> str:
        """Ask for a newer token."""
        try:
            self.manager.refresh()
        except UnexpiredError as error:
            return word(error)
        return "done"

    def logout(self, _: Mapping[str, Any]) -> float:
        """End the login: when that was asked for, on a clock that all processes of this machine share."""
        began = time.monotonic()
        self.manager.logout()
        return began

    def notice(self, _: Mapping[str, Any]) -> bool:
        """Wait until this process knows that it does not hear of changes."""
        wait_until(self.deaf.is_set, "it is known that the store is away")
        return True

    def watch(self, order: Mapping[str, Any]) -> float:
        """Say so, and then when the login was seen to be over."""
        say(order, "watching")
        end = time.monotonic() + LONG
        while self.manager.logged_in and time.monotonic() < end:
            time.sleep(0.001)
        return time.monotonic()


def main(mode: str) -> None:
    """Obey until told no more."""
    orders: dict[str, Callable[[Work, Mapping[str, Any]], object]] = {
        "call": Work.call,
        "logout": Work.logout,
        "notice": Work.notice,
        "refresh": Work.refresh,
        "see": Work.see,
        "watch": Work.watch,
    }
    work: Work | None = None
    say({}, "ready")
    for line in sys.stdin:
        order = json.loads(line)
        if order["do"] == "open":
            if work is not None:
                work.close()
            work = Work(mode, order)
            say(order, "open")
        else:
            assert work is not None
            try:
                said = orders[order["do"]](work, order)
            except AssertionError as error:
                said = str(error)
            say(order, said)
    if work is not None:
        work.close()


if __name__ == "__main__":
    main(sys.argv[1])
