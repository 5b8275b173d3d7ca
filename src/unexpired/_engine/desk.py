"""What one manager knows without waiting: which token is current, and what to ask a flight for."""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable
from dataclasses import dataclass

from unexpired._core.effects import Need
from unexpired._core.policy import Policy, ahead
from unexpired._core.session import Session
from unexpired._core.suspicion import accepts, refuses
from unexpired._core.token import Token
from unexpired._engine.cell import Cell, Held, View, keep_suspicious
from unexpired._engine.clock import boot, draw, instant
from unexpired._engine.flying import Flying
from unexpired.errors import StoreError
from unexpired.events import FreshTokenRefused

__all__ = ["Desk", "Warm"]

_log = logging.getLogger("unexpired")
_BACKGROUND_FLIGHTS = 16
_PLACES = 1024
_UNSEEN = View(None, None, {})
"""In place of what a store has not answered yet."""


@dataclass(frozen=True, slots=True, eq=False)
class Warm:
    """A token that needs no second look while *view* stands, until boot time *until*."""

    token: Token
    until: float
    view: View


class Desk:
    """The decisions of one manager that need no waiting. Thread-safe without a lock: every field is replaced whole."""

    def __init__(self, cell: Cell, policy: Policy, refresh_ahead: Callable[[Need], None]) -> None:
        self.warm: Warm | None = None
        self._cell = cell
        self._policy = policy
        self._refresh_ahead = refresh_ahead
        self._chance = zlib.crc32(cell.key.encode("utf-8", "surrogatepass")) / 2**32

    def current(self, resource: str | None) -> Token | Need | Session | None:
        """The token as it is now, or what a flight must bring. A session that is over, or None, when there is none."""
        view = self._look()
        if view is _UNSEEN:
            return Need(resource)
        if view.session is None or view.session.ended is not None:
            return view.session
        held = view.held.get(resource)
        if held is None:
            return Need(resource)
        return self._fresh(held, view) or Need(resource, held.token)

    def after(self, rejected: Token | str | None, resource: str | None) -> Token | Need | None:
        """The current token if it is not *rejected*, else what a flight must bring. None: the store takes its time."""
        view = self._look()
        return None if view is _UNSEEN else self._newer(view, rejected, resource)

    def after_all(self, rejected: Token | str | None, resource: str | None) -> Token | Need:
        """`after`, for as long as the store takes. Raises StoreError."""
        return self._newer(self._cell.look(), rejected, resource)

    def _newer(self, view: View, rejected: Token | str | None, resource: str | None) -> Token | Need:
        if isinstance(rejected, Token):
            resource = rejected.resource if resource is None else resource
            rejected = rejected.access_token
        held = view.held.get(resource)
        if held is None:
            return Need(resource)
        if rejected is None or rejected == held.token.access_token:
            return Need(resource, held.token, rejected=True)
        return self._fresh(held, view) or Need(resource, held.token)

    def replacement(self, carried: Token, origin: str, endpoint: str) -> Token | Need | None:
        """`after`, for a token that an API refused. None: it refuses what is fresh, so leave it alone."""
        found = self.after(carried, carried.resource) or Need(carried.resource, carried, rejected=True)
        if not (isinstance(found, Need) and found.rejected and found.than is not None):
            return found
        held = self._look().held.get(carried.resource)
        age = boot() - held.since if held is not None else 0.0
        chance = draw()
        suspicions = self._cell.suspicions
        said = {
            name: refuses(suspicions.get(name), found.than, age, chance) for name in _names(carried, origin, endpoint)
        }
        allowed = all(may for may, _ in said.values())
        known = [suspicions[name] for name in said if name in suspicions]
        pauses = [suspicion.pause for _, suspicion in said.values() if suspicion.told]
        for name, (may, suspicion) in said.items():
            if allowed or not may:
                suspicions[name] = suspicion
        if pauses and not any(suspicion.told for suspicion in known):
            self._cell.listeners.tell(FreshTokenRefused(self._cell.key, origin, max(pauses)))
        keep_suspicious(self._cell)
        for oldest in list(suspicions)[:-_PLACES]:
            suspicions.pop(oldest, None)
        return found if allowed else None

    def newer(self, carried: Token) -> Token | None:
        """A fresh token newer than *carried*, if there already is one."""
        held = self._look().held.get(carried.resource)
        if held is None or not held.token.newer_than(carried) or boot() >= held.expires:
            return None
        return held.token

    def accepted(self, token: Token, origin: str, endpoint: str) -> None:
        """An API took *token*: where it was under suspicion for refusing older ones, it no longer is."""
        suspicions = self._cell.suspicions
        for name in _names(token, origin, endpoint) if suspicions else ():
            suspicion = suspicions.get(name)
            if suspicion is not None and accepts(suspicion, token):
                suspicions.pop(name, None)

    def _look(self) -> View:
        """The store as it is now; while it cannot be read, what is held in memory serves until it expires."""
        try:
            view = self._cell.glance()
        except StoreError as error:
            seen = self._cell.view
            if seen is None or not any(boot() < held.expires for held in seen.held.values()):
                raise
            if str(error) != self._cell.complaint:
                self._cell.complaint = str(error)
                _log.warning("%s; the token in memory is served meanwhile", error)
            return seen
        if view is None:
            # It takes its time. A login that was over may have been made anew meanwhile: a flight can wait to see.
            seen = self._cell.view
            return seen if seen is not None and seen.session is not None and seen.session.ended is None else _UNSEEN
        self._cell.complaint = ""
        return view

    def _fresh(self, held: Held, view: View) -> Token | None:
        """The token unless it is (nearly) expired; inside the refresh-ahead window a flight is started for it."""
        token, now = held.token, boot()
        if now >= held.expires - token.margin(self._policy.leeway):
            return None
        soft = held.expires - max(token.margin(self._policy.leeway), ahead(self._policy, token, self._chance))
        if now < soft:
            if token.resource is None:
                self.warm = Warm(token, soft, view)
        else:
            self._ahead(token, view)
        return token

    def _ahead(self, token: Token, view: View) -> None:
        failure = view.session.failure if view.session is not None else None
        failed = failure is not None and failure.concerns(token.resource) and failure.holds(instant().wall)
        busy = self._cell.flying is not None or len(Flying.in_air) >= _BACKGROUND_FLIGHTS
        quiet = boot() < self._cell.quiet_until
        if not busy and not quiet and not failed:
            self._refresh_ahead(Need(token.resource, token))


def _names(token: Token, origin: str, endpoint: str) -> list[tuple[str | None, str]]:
    """Under which names a refusal or an acceptance is remembered: of the whole origin, and of the endpoint in it."""
    return [(token.resource, name) for name in ((origin, f"{origin} {endpoint}") if endpoint else (origin,))]
