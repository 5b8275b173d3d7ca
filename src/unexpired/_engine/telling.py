"""Events, as lines of the `unexpired` logger and for listeners. They hold no secret, so neither do the lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from unexpired import events

__all__ = ["Listener", "Listeners"]

_log = logging.getLogger("unexpired")

_LEVELS: dict[type[events.Event], int] = {
    events.RefreshStarted: logging.DEBUG,
    events.RefreshSucceeded: logging.INFO,
    events.RefreshFailed: logging.WARNING,
    events.FlightEnded: logging.DEBUG,
    events.SessionSeen: logging.DEBUG,
    events.Unsaved: logging.ERROR,
    events.RequestReplayed: logging.DEBUG,
    events.FreshTokenRefused: logging.WARNING,
    events.SessionEnded: logging.WARNING,
    events.LoggedIn: logging.INFO,
    events.LoggedOut: logging.INFO,
}


@dataclass(frozen=True, slots=True, eq=False)
class Listener:
    """One subscription. Two of the same function to the same type of event are two."""

    kind: type[events.Event]
    callback: Callable[[Any], object]
    owner: str


class Listeners:
    """Who hears of one session's events, the log first. Thread-safe."""

    def __init__(self) -> None:
        self._listeners: list[Listener] = []

    def add(self, listener: Listener) -> None:
        """Tell *listener* from now on."""
        self._listeners.append(listener)

    def remove(self, listener: Listener) -> None:
        """Tell it no more; does nothing the second time."""
        with suppress(ValueError):
            self._listeners.remove(listener)

    def drop(self, owner: str) -> None:
        """Tell none of *owner*'s listeners any more."""
        for listener in list(self._listeners):
            if listener.owner == owner:
                self.remove(listener)

    def tell(self, event: events.Event) -> None:
        """Log the event and call the listeners; what they (or the log's handlers) raise changes nothing."""
        _call(_log_event, event)
        self.inform(event)

    def inform(self, event: events.Event) -> None:
        """Call the listeners, without a line in the log."""
        for listener in list(self._listeners):
            if isinstance(event, listener.kind):
                _call(listener.callback, event)


def _call(listener: Callable[[Any], object], event: events.Event) -> None:
    try:
        listener(event)
    except Exception:  # noqa: BLE001 - not ours
        with suppress(Exception):
            _log.exception("a listener for %s failed", type(event).__name__)


def _log_event(event: events.Event) -> None:
    """One line: the event's name and fields."""
    level = _LEVELS.get(type(event), logging.INFO)
    if _log.isEnabledFor(level):
        _log.log(level, "%s", event, extra={"unexpired_event": event})
