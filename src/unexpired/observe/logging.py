"""Logging: one line for each flight, with all its figures as fields of the log record."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields

from unexpired.events import Event, FlightEnded
from unexpired.observe._subscribing import Keys, Once, Sinks, Subject, subscribe

__all__ = ["observe"]

_LEVELS = {
    "refreshed": logging.INFO,
    "adopted": logging.INFO,
    "unsaved": logging.ERROR,
    "broken": logging.ERROR,
}
_LINE = "flight %d of %s: %s in %.3f s, callers: %d"
_FIELDS = [field.name for field in fields(FlightEnded) if field.name != "key"]


def observe(
    manager: Subject, *, logger: logging.Logger | None = None, hash_keys: bool | bytes = False
) -> Callable[[], None]:
    """Write a line for each flight of *manager*, a `TokenManager` or a `TokenManagers`; the returned function ends it.

    *logger* is ``unexpired.flights`` by default. The level is INFO when a token came of it, ERROR when a new token
    could not be stored or the flight broke down, WARNING otherwise. The log record's attributes are the fields of
    `FlightEnded`, each with ``unexpired_`` before its name. *hash_keys*: True shows 16 digits of a hash in place of
    each key; with bytes that you keep secret nobody can find the key by guessing. Raises ConfigurationError.
    """
    keys = Keys(hash_keys)
    log = logger if logger is not None else logging.getLogger("unexpired.flights")
    once = _SINKS.of(log)

    def hear(event: Event) -> None:
        if isinstance(event, FlightEnded) and once.first(event):
            _write(log, event, keys(event.key))

    return subscribe(manager, hear)


def _write(log: logging.Logger, event: FlightEnded, key: str) -> None:
    level = _LEVELS.get(event.outcome, logging.WARNING)
    if not log.isEnabledFor(level):
        return
    outcome = f"{event.outcome} ({event.reason})" if event.reason else event.outcome
    figures = (event.flight, key, outcome, event.seconds, event.callers)
    extra = {"unexpired_key": key, **{f"unexpired_{name}": getattr(event, name) for name in _FIELDS}}
    record = log.makeRecord(log.name, level, __file__, 0, _LINE, figures, None, extra=extra)
    # The thread of a flight is named after its session.
    record.threadName = (record.threadName or "").replace(event.key, key)
    log.handle(record)


_SINKS = Sinks[logging.Logger, Once](lambda _: Once())
