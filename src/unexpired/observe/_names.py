"""The metrics: one table of names for all who export them. A change of a name is a new `unexpired.observe.VERSION`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["EXPIRES_IN", "METRICS", "Metric"]

_SECONDS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_CALLERS = (0.0, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0)


@dataclass(frozen=True, slots=True)
class Metric:
    """One metric: *name* has dots, and no suffix for its unit or kind. *labels* are those beside the session's key."""

    name: str
    kind: Literal["counter", "histogram", "gauge"]
    unit: str
    labels: tuple[str, ...]
    text: str
    buckets: tuple[float, ...] = ()

    @property
    def full_name(self) -> str:
        """As OpenTelemetry shows it."""
        return f"unexpired.{self.name}"

    @property
    def flat_name(self) -> str:
        """As Prometheus shows it."""
        suffix = {"counter": "_total", "histogram": "", "gauge": ""}[self.kind]
        return "unexpired_" + self.name.replace(".", "_") + ("_seconds" if self.unit == "s" else "") + suffix


def _counter(name: str, unit: str, text: str, *labels: str) -> Metric:
    return Metric(name, "counter", f"{{{unit}}}", labels, text)


def _seconds(name: str, text: str, *labels: str) -> Metric:
    return Metric(name, "histogram", "s", labels, text, _SECONDS)


EXPIRES_IN = Metric("token.expires_in", "gauge", "s", (), "Until the token of the session expires; negative after that")

METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        _counter("flights", "flight", "Flights that ended, by outcome", "outcome", "reason"),
        _seconds("flight.duration", "A flight, from its start until its callers were woken", "outcome"),
        Metric("flight.callers", "histogram", "{caller}", ("outcome",), "Callers that waited for a flight", _CALLERS),
        _counter("callers.coalesced", "caller", "Callers that waited for a flight which another one had started"),
        _seconds("caller.wait", "A caller's wait for a flight", "served"),
        _seconds("refresh.duration", "The token requests of a flight"),
        _counter("token_requests", "request", "Token requests, each try to connect included"),
        _seconds("lease.wait", "A flight's wait for its lease"),
        _counter("fence.rejections", "write", "Writes of flights that were refused because the record had changed"),
        _counter("adoptions", "token", "Tokens taken over that somebody else had stored", "during"),
        _counter("cooldowns", "pause", "Pauses that began with a failed flight", "reason"),
        _counter("crash.recoveries", "flight", "Flights that took over a request whose sender had vanished"),
        _counter("replays", "request", "Requests that were sent again with a newer token"),
        _seconds("replay.duration", "A replayed request, from its first refusal to its last answer"),
        _counter("fresh_token.refusals", "token", "Fresh tokens that an API refused"),
        _counter("unsaved", "token", "Rotated tokens that could not be stored at once"),
        _counter("sessions.ended", "session", "Logins that this process found over", "reason"),
        _counter("logins", "login", "Logins stored"),
        _counter("logouts", "logout", "Logouts stored", "revoked"),
        EXPIRES_IN,
    )
}
