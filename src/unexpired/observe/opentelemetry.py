"""OpenTelemetry: the metrics and spans of ``docs/reference/metrics.md``, through `opentelemetry.metrics` and `.trace`.

Needs the extra ``unexpired[opentelemetry]``, and a software development kit (SDK) that exports what is told.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from unexpired import events
from unexpired.observe import VERSION
from unexpired.observe._measuring import Measuring
from unexpired.observe._names import EXPIRES_IN, METRICS, Metric
from unexpired.observe._subscribing import Keys, Lock, Once, Sinks, Subject, missing, subscribe

try:
    from opentelemetry import context, metrics, trace
    from opentelemetry.metrics import CallbackOptions, Counter, Histogram, Meter, MeterProvider, Observation
    from opentelemetry.trace import Link, SpanContext, Status, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    raise missing("opentelemetry", "opentelemetry", error) from None

__all__ = ["observe"]

_REMEMBERED = 256
_WAITING = 10_000
_BAD = frozenset({"failed", "ended", "unsaved", "broken"})
_FIELDS = ("outcome", "reason", "callers", "version", "requests", "lease_seconds", "request_seconds", "recovered")

_Value = str | bool | int | float
_Attributes = Mapping[str, _Value]


def observe(
    manager: Subject,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    hash_keys: bool | bytes = False,
    per_key: bool | None = None,
) -> Callable[[], None]:
    """Tell OpenTelemetry what *manager*, a `TokenManager` or a `TokenManagers`, does; the returned function ends it.

    The providers are the global ones by default. *per_key*: metrics have the session's key as an attribute, and there
    is a gauge of seconds to expiry; None means so for a `TokenManager` and not for a `TokenManagers`, whose sessions
    may be very many. Spans have the key in any case. *hash_keys*: True shows 16 digits of a hash in place of each key;
    with bytes that you keep secret nobody can find the key by guessing. Raises ConfigurationError.
    """
    keys = Keys(hash_keys)
    meters = meter_provider if meter_provider is not None else metrics.get_meter_provider()
    tracers = tracer_provider if tracer_provider is not None else trace.get_tracer_provider()
    spans = _SPANS.of(tracers)
    end_metrics = _METERS.of(meters).observe(manager, keys, per_key=per_key)
    end_spans = subscribe(manager, lambda event: spans.hear(event, keys))

    def end() -> None:
        end_metrics()
        end_spans()

    return end


@dataclass(frozen=True, slots=True)
class _Wait:
    """A caller's wait, and where it belongs."""

    context: context.Context
    end: int
    seconds: float
    attributes: _Attributes
    served: bool


class _Spans:
    """Makes the spans of one tracer provider, afterwards: an event tells how long a thing took when it is over.

    A flight's span is a child of the span that was current where the flight was started: one of those who share it.
    Each of them has a span for its wait, a child of its own with a link to the flight's. As that one is made last, the
    waits are kept until then.
    """

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("unexpired", VERSION)
        self._once = Once()
        self._lock = Lock()
        self._flights: OrderedDict[int, SpanContext] = OrderedDict()
        self._waits: OrderedDict[int, list[_Wait]] = OrderedDict()
        self._waiting = 0

    def hear(self, event: events.Event, keys: Keys) -> None:
        """Make the spans that *event* completes."""
        if not isinstance(event, events.FlightEnded | events.CallerWaited | events.RequestReplayed):
            return
        if not self._once.first(event):
            return
        key: dict[str, _Value] = {"unexpired.key": keys(event.key)}
        if isinstance(event, events.RequestReplayed):
            attributes = {**key, "unexpired.origin": event.origin, "unexpired.replays": event.replays}
            self._span("replay", time.time_ns(), event.seconds, attributes)
        elif isinstance(event, events.CallerWaited):
            waited = {**key, "unexpired.served": event.served}
            self._wait(event.flight, _Wait(context.get_current(), time.time_ns(), event.seconds, waited, event.served))
        else:
            self._flight(event, key)

    def _flight(self, event: events.FlightEnded, key: _Attributes) -> None:
        attributes = {**key, **{f"unexpired.{name}": getattr(event, name) for name in _FIELDS}}
        if event.resource is not None:
            attributes["unexpired.resource"] = event.resource
        error = (event.reason or event.outcome) if event.outcome in _BAD else ""
        made = self._span("flight", time.time_ns(), event.seconds, attributes, error=error)
        with self._lock:
            self._flights[event.flight] = made
            if len(self._flights) > _REMEMBERED:
                self._flights.popitem(last=False)
            waits = self._waits.pop(event.flight, [])
            self._waiting -= len(waits)
        for wait in waits:
            self._waited(wait, made)

    def _wait(self, flight: int, wait: _Wait) -> None:
        """Keep it until the flight has a span to link to, unless too many are kept already."""
        with self._lock:
            made = self._flights.get(flight)
            keep = made is None and self._waiting < _WAITING
            if keep:
                self._waits.setdefault(flight, []).append(wait)
                self._waiting += 1
            # Of a flight whose manager was closed meanwhile nobody hears the end.
            unheard = self._waits.popitem(last=False)[1] if len(self._waits) > _REMEMBERED else []
            self._waiting -= len(unheard)
        if not keep:
            self._waited(wait, made)
        for earlier in unheard:
            self._waited(earlier, None)

    def _waited(self, wait: _Wait, flight: SpanContext | None) -> None:
        links = [Link(flight)] if flight is not None else []
        error = "" if wait.served else "its bound was over before the flight"
        self._span("wait", wait.end, wait.seconds, wait.attributes, links=links, parent=wait.context, error=error)

    def _span(
        self,
        name: str,
        end: int,
        seconds: float,
        attributes: _Attributes,
        *,
        links: list[Link] | None = None,
        parent: context.Context | None = None,
        error: str = "",
    ) -> SpanContext:
        start = end - int(seconds * 1e9)
        span = self._tracer.start_span(
            f"unexpired.{name}", context=parent, attributes=attributes, links=links, start_time=start
        )
        if error:
            span.set_status(Status(StatusCode.ERROR, error))
        span.end(end)
        return span.get_span_context()


def _measuring(provider: MeterProvider) -> Measuring:
    meter = provider.get_meter("unexpired", VERSION)
    instruments = {metric.name: _instrument(metric, meter) for metric in METRICS.values() if metric.kind != "gauge"}

    def record(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        instrument = instruments[metric.name]
        attributes = {f"unexpired.{name}": label for name, label in labels.items()}
        if isinstance(instrument, Counter):
            instrument.add(value, attributes)
        else:
            instrument.record(value, attributes)

    measuring = Measuring(record)

    def remaining(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(seconds, {"unexpired.key": key}) for key, seconds in measuring.remaining().items()]

    meter.create_observable_gauge(EXPIRES_IN.full_name, [remaining], EXPIRES_IN.unit, EXPIRES_IN.text)
    return measuring


def _instrument(metric: Metric, meter: Meter) -> Counter | Histogram:
    if metric.kind == "counter":
        return meter.create_counter(metric.full_name, metric.unit, metric.text)
    return meter.create_histogram(
        metric.full_name, metric.unit, metric.text, explicit_bucket_boundaries_advisory=metric.buckets
    )


_SPANS = Sinks(_Spans)
_METERS = Sinks(_measuring)
