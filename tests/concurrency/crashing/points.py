"""Where a process of the sweep can be killed, and how it kills itself there. The product knows nothing of it."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from unittest import mock

from unexpired._core import effects
from unexpired._engine import flying
from unexpired._engine.flying import Flying
from unexpired.grants import _http
from unexpired.testing import ServerHandle

__all__ = ["DECIDED", "IN_THE_WINDOW", "POINTS", "UNDECIDED", "Arm", "Death", "Trap"]

BEFORE_LEASE = "before the lease"
LEASE_HELD = "lease held"
INTENT_WRITTEN = "intent written"
UNDECIDED = "request sent, server has not decided"
DECIDED = "request sent, server has rotated"
RECEIVED = "answer received"
BEFORE_SWAP = "before the swap"
AFTER_SWAP = "after the swap"
BEFORE_WAKING = "before waking"

POINTS = (
    BEFORE_LEASE,
    LEASE_HELD,
    INTENT_WRITTEN,
    UNDECIDED,
    DECIDED,
    RECEIVED,
    BEFORE_SWAP,
    AFTER_SWAP,
    BEFORE_WAKING,
)
"""In the order in which a refresh comes by."""

IN_THE_WINDOW = frozenset({DECIDED, RECEIVED, BEFORE_SWAP})
"""The server has rotated, and nothing here tells of it yet."""


@dataclass(frozen=True)
class Arm:
    """An order to die at *point*, for the process that redeems *version*.

    Where a fault of the server holds the request, that is the server's hold number *held*.
    """

    point: str
    version: int
    held: int = 0

    def lay(self, directory: Path) -> None:
        """Let whoever comes by first find it, and nobody find half of it."""
        draft = directory / "draft"
        draft.write_text(json.dumps(asdict(self)))
        draft.rename(_place(directory, self.point))


@dataclass(frozen=True)
class Death:
    """Who died where, and when (UNIX time)."""

    point: str
    pid: int
    at: float

    @staticmethod
    def record(directory: Path) -> list[Death]:
        """All deaths so far, in order."""
        with suppress(FileNotFoundError):
            return [Death(**json.loads(line)) for line in (directory / "deaths").read_text().splitlines()]
        return []


def _place(directory: Path, point: str) -> Path:
    return directory / f"armed {point}"


class Trap:
    """Kills this process where it is told to. *directory* is where orders are laid; *server* is asked for its holds."""

    def __init__(self, directory: Path, server: ServerHandle) -> None:
        self._directory = directory
        self._server = server
        self._redeeming = 0
        self._stored: Flying | None = None

    def set(self) -> None:
        """Put it around the effects of every flight, and into the token request, for the life of this process."""
        around: dict[type[effects.Effect[Any]], Callable[..., Any]] = {
            effects.Lease: self._lease,
            effects.Swap: self._swap,
            effects.Redeem: self._redeem,
            effects.Publish: self._publish,
        }
        for kind, wrapper in around.items():
            flying._PERFORM[kind] = _wrapped(wrapper, flying._PERFORM[kind])
        trace = _http._Exchange._trace

        def traced(exchange: _http._Exchange, event: str, info: Any) -> None:
            trace(exchange, event, info)
            if event.endswith(".send_request_body.complete"):
                self._pass(UNDECIDED, self._redeeming)
                self._pass(DECIDED, self._redeeming)

        mock.patch.object(_http._Exchange, "_trace", traced).start()

    def _pass(self, point: str, version: int | Callable[[], int]) -> None:
        """Go on, unless the order to die here is for who redeems this *version*, and nobody else has followed it."""
        place = _place(self._directory, point)
        try:
            arm = Arm(**json.loads(place.read_text()))
            if arm.version != (version() if callable(version) else version):
                return
            place.unlink()
        except FileNotFoundError:
            return
        if arm.held:
            self._server.wait("token_request_held", arm.held)
        with (self._directory / "deaths").open("a") as deaths:
            deaths.write(json.dumps(asdict(Death(point, os.getpid(), time.time()))) + "\n")
        os.kill(os.getpid(), signal.SIGKILL)

    def _lease(self, perform: Callable[..., Any], flight: Flying, effect: effects.Lease) -> object:
        def stored() -> int:
            session = flight._cell.store.load(flight.plan.key)
            return session.version if session is not None else 0

        self._pass(BEFORE_LEASE, stored)
        answer = perform(flight, effect)
        if isinstance(answer, effects.Granted):
            self._pass(LEASE_HELD, stored)
        return answer

    def _swap(self, perform: Callable[..., Any], flight: Flying, effect: effects.Swap) -> object:
        before = effect.expected.version if effect.expected is not None else 0
        mints = effect.new.version > before and effect.new.ended is None
        if mints:
            self._pass(BEFORE_SWAP, before)
        done = perform(flight, effect)
        if done and mints:
            self._stored = flight
            self._pass(AFTER_SWAP, before)
        elif done and effect.new.intent is not None and effect.new.failure is None:
            self._pass(INTENT_WRITTEN, before)
        return done

    def _redeem(self, perform: Callable[..., Any], flight: Flying, effect: effects.Redeem) -> object:
        self._redeeming = effect.session.version
        answer = perform(flight, effect)
        if not isinstance(answer, Exception):
            self._pass(RECEIVED, effect.session.version)
        return answer

    def _publish(self, perform: Callable[..., Any], flight: Flying, effect: effects.Publish) -> object:
        if self._stored is flight and effect.result.session is not None:
            self._pass(BEFORE_WAKING, effect.result.session.version - 1)
        return perform(flight, effect)


def _wrapped(wrapper: Callable[..., Any], perform: Callable[..., Any]) -> Callable[..., Any]:
    return lambda flight, effect: wrapper(perform, flight, effect)
