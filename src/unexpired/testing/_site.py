"""Everything one embedded server is made of, so that a reset is a new one."""

from __future__ import annotations

import asyncio
import random
import time
from email.utils import formatdate

from unexpired.testing._api_faults import ApiFaults
from unexpired.testing._config import ServerConfig
from unexpired.testing._ledger import Ledger, Stats
from unexpired.testing.faults import FaultScript
from unexpired.testing.server import AuthorizationServer

__all__ = ["Site", "clock"]

# Taken at import: a test that bends this process's clock must not bend the server's
_monotonic = time.monotonic
_EPOCH = time.time() - time.monotonic()


def clock() -> float:
    """Tell the server's time: UNIX time in seconds, without jumps, untouched by patches of `time`."""
    return _EPOCH + _monotonic()


class Site:
    """The server's state between two resets. For its event loop only; not thread-safe."""

    def __init__(self, config: ServerConfig) -> None:
        self.server = AuthorizationServer(config, now=clock)
        self.ledger = Ledger()
        self.faults = FaultScript()
        self.api_faults = ApiFaults()
        self.random = random.Random(0)  # noqa: S311 - delays of a test, the same in each run
        self.revocations = 0
        self._gates: dict[str, asyncio.Event] = {}
        self._date: tuple[int, bytes] = (0, b"")

    @property
    def config(self) -> ServerConfig:
        """The settings in force."""
        return self.server.config

    def configure(self, config: ServerConfig) -> None:
        """Put *config* in force for everything that is decided from now on."""
        self.server.config = config

    def gate(self, name: str) -> asyncio.Event:
        """Give the gate *name*: set once it was released, also before anybody came."""
        return self._gates.setdefault(name, asyncio.Event())

    def open_gates(self) -> None:
        """Release everybody who is held."""
        for gate in self._gates.values():
            gate.set()

    def date(self) -> bytes | None:
        """Give the `Date` of an answer sent now, by the server's own clock; `None` when it sends none."""
        config = self.server.config
        if not config.date_header:
            return None
        second = int(clock() + config.clock_offset)
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def stats(self) -> Stats:
        """Add up the counts."""
        counts = self.ledger.counts
        return Stats(
            logins=counts["login"],
            token_posts=counts["token_request_received"],
            refreshes=self.server.refreshes,
            reuse_detected=self.server.reuse_detected,
            families_revoked=self.server.families_revoked,
            revocations=self.revocations,
            api_calls=counts["api_call_received"],
            refused=counts["api_call_refused"],
            max_in_air=self.ledger.max_in_air,
            credentials=dict(self.ledger.credentials),
            redemptions=tuple(self.ledger.redemptions),
        )
