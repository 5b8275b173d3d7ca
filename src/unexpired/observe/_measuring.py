"""Events as figures: which metrics each one moves, and until when each session's token lives."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from weakref import WeakSet

from unexpired import events
from unexpired.observe._names import METRICS, Metric
from unexpired.observe._subscribing import Keys, Lock, Once, Subject, subscribe

__all__ = ["Measuring"]

Record = Callable[[Metric, float, Mapping[str, str]], object]
Figure = tuple[str, float, dict[str, str]]


class Measuring:
    """What is recorded in one place, for any number of managers. Thread-safe.

    *record* takes a metric, a value, and its labels with ``key`` among them where that is wanted.
    """

    def __init__(self, record: Record) -> None:
        self._record = record
        self._once = Once()
        self._lock = Lock()
        # Weakly: a manager that is closed takes its subscription, and the watch with it, along.
        self._watches: WeakSet[_Watch] = WeakSet()

    def observe(self, manager: Subject, keys: Keys, *, per_key: bool | None) -> Callable[[], None]:
        """Record what *manager* tells. *per_key*: with its session's key; None: if it is the manager of one session."""
        by_key = isinstance(getattr(manager, "key", None), str) if per_key is None else per_key
        watch = _Watch(keys, by_key=by_key)

        def hear(event: events.Event) -> None:
            watch.follow(event)
            if self._once.first(event):
                key = watch.labels(event)
                for name, value, labels in figures(event):
                    self._record(METRICS[name], value, {**labels, **key})

        unsubscribe = subscribe(manager, hear)
        with self._lock:
            self._watches.add(watch)

        def end() -> None:
            unsubscribe()
            with self._lock:
                self._watches.discard(watch)

        return end

    def remaining(self) -> dict[str, float]:
        """Seconds until the token of each session expires, by its key as it is shown."""
        now = time.time()
        with self._lock:
            watches = list(self._watches)
        return {key: expiry - now for watch in watches for key, expiry in list(watch.expiries.items())}


class _Watch:
    """One observed manager: until when (UNIX time) the tokens of its sessions live."""

    def __init__(self, keys: Keys, *, by_key: bool) -> None:
        self.expiries: dict[str, float] = {}
        self._keys = keys
        self._by_key = by_key

    def labels(self, event: events.Event) -> dict[str, str]:
        """The event's key, if it is to be shown."""
        return {"key": self._keys(event.key)} if self._by_key else {}

    def follow(self, event: events.Event) -> None:
        """Note until when the session's token lives now. Of unlisted sessions, which may be many, nothing is kept."""
        if not self._by_key:
            return
        if isinstance(event, events.LoggedIn | events.SessionSeen | events.FlightEnded):
            if isinstance(event, events.FlightEnded) and event.outcome == "broken":
                return
            if event.expires_at is not None:
                self.expiries[self._keys(event.key)] = event.expires_at
                return
        elif not isinstance(event, events.LoggedOut | events.SessionEnded):
            return
        self.expiries.pop(self._keys(event.key), None)


def figures(event: events.Event) -> Iterator[Figure]:
    """What *event* adds to which metric."""
    if isinstance(event, events.FlightEnded):
        yield from _flight(event)
    elif isinstance(event, events.CallerWaited):
        yield "caller.wait", event.seconds, {"served": _word(event.served)}
    elif isinstance(event, events.RequestReplayed):
        yield "replays", event.replays, {}
        yield "replay.duration", event.seconds, {}
    elif isinstance(event, events.SessionSeen):
        if event.adopted:
            yield "adoptions", 1, {"during": "look"}
    elif isinstance(event, events.FreshTokenRefused):
        yield "fresh_token.refusals", 1, {}
    elif isinstance(event, events.Unsaved):
        yield "unsaved", 1, {}
    elif isinstance(event, events.SessionEnded):
        yield "sessions.ended", 1, {"reason": event.reason}
    elif isinstance(event, events.LoggedIn):
        yield "logins", 1, {}
    elif isinstance(event, events.LoggedOut):
        yield "logouts", 1, {"revoked": _word(event.revoked)}


def _flight(event: events.FlightEnded) -> Iterator[Figure]:
    outcome = {"outcome": event.outcome}
    yield "flights", 1, {**outcome, "reason": event.reason}
    yield "flight.duration", event.seconds, outcome
    yield "flight.callers", event.callers, outcome
    yield "lease.wait", event.lease_seconds, {}
    if event.coalesced:
        yield "callers.coalesced", event.coalesced, {}
    if event.requests:
        yield "token_requests", event.requests, {}
        yield "refresh.duration", event.request_seconds, {}
    if event.fenced:
        yield "fence.rejections", event.fenced, {}
    if event.outcome == "adopted":
        yield "adoptions", 1, {"during": "flight"}
    if event.retry_after:
        yield "cooldowns", 1, {"reason": event.reason}
    if event.recovered:
        yield "crash.recoveries", 1, {}


def _word(value: bool) -> str:
    return "true" if value else "false"
