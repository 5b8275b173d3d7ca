"""Who waits for whom: a grant must not wait, directly or in a circle, for the flight that it is part of."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from typing import TYPE_CHECKING

from unexpired.errors import ConfigurationError

if TYPE_CHECKING:
    from unexpired._engine.flying import Flying

__all__ = ["CURRENT", "Waiting", "renew_lock"]

CURRENT: ContextVar[Flying | None] = ContextVar("unexpired_flight", default=None)
"""The flight whose grant is running in this context."""

_lock = threading.RLock()


class Waiting:
    """While a caller waits for *flying*. Raises ConfigurationError for a grant whose wait could never end."""

    def __init__(self, flying: Flying) -> None:
        self._flying = flying
        self._within = CURRENT.get()

    def __enter__(self) -> None:
        if self._within is None:
            return
        with _lock:
            if _reaches(self._flying, self._within):
                key = self._flying.plan.key
                raise ConfigurationError(
                    f"the grant of {key!r} asked for a token of {key!r} itself, directly or in a circle: "
                    "give the grant a client without this manager",
                    key=key,
                )
            self._within.waiting_on.append(self._flying)

    def __exit__(self, *_: object) -> None:
        if self._within is not None:
            with _lock:
                self._within.waiting_on.remove(self._flying)


def _reaches(flying: Flying, other: Flying) -> bool:
    """Whether *flying* is *other* or waits for it, directly or through further flights."""
    return flying is other or any(_reaches(further, other) for further in flying.waiting_on)


def renew_lock() -> None:
    """In a forked child: no thread is there that could give the lock back."""
    global _lock  # noqa: PLW0603 - the child needs a lock that no thread of the parent holds
    _lock = threading.RLock()
