"""Prometheus: the metrics of ``docs/reference/metrics.md`` in a registry of `prometheus_client`.

Needs the extra ``unexpired[prometheus]``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from unexpired.observe import VERSION
from unexpired.observe._measuring import Measuring
from unexpired.observe._names import EXPIRES_IN, METRICS, Metric
from unexpired.observe._subscribing import Keys, Sinks, Subject, missing

try:
    from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, Info
    from prometheus_client.core import GaugeMetricFamily
    from prometheus_client.registry import Collector
except ModuleNotFoundError as error:
    raise missing("prometheus_client", "prometheus", error) from None

__all__ = ["observe"]


def observe(
    manager: Subject,
    *,
    registry: CollectorRegistry = REGISTRY,
    hash_keys: bool | bytes = False,
    per_key: bool | None = None,
) -> Callable[[], None]:
    """Export what *manager*, a `TokenManager` or a `TokenManagers`, does to *registry*; the returned function ends it.

    *per_key*: each series has the session's key as its label ``key``, which is empty otherwise, and there is a gauge
    of seconds to expiry; None means so for a `TokenManager` and not for a `TokenManagers`, whose sessions may be very
    many. *hash_keys*: True shows 16 digits of a hash in place of each key; with bytes that you keep secret nobody can
    find the key by guessing. Raises ConfigurationError.
    """
    keys = Keys(hash_keys)
    return _SINKS.of(registry).observe(manager, keys, per_key=per_key)


class _Remaining(Collector):
    """The gauge, read when it is asked for."""

    def __init__(self, remaining: Callable[[], Mapping[str, float]]) -> None:
        self._remaining = remaining

    def describe(self) -> Iterable[GaugeMetricFamily]:
        """Its name alone, so that registering it reads nothing."""
        return [GaugeMetricFamily(EXPIRES_IN.flat_name, EXPIRES_IN.text, labels=["key"])]

    def collect(self) -> Iterable[GaugeMetricFamily]:
        """A sample for each session."""
        (family,) = self.describe()
        for key, seconds in self._remaining().items():
            family.add_metric([key], seconds)
        return [family]


def _sink(registry: CollectorRegistry) -> Measuring:
    instruments = {metric.name: _instrument(metric, registry) for metric in METRICS.values() if metric.kind != "gauge"}

    def record(metric: Metric, value: float, labels: Mapping[str, str]) -> None:
        instrument = instruments[metric.name].labels(**{"key": "", **labels})
        if isinstance(instrument, Counter):
            instrument.inc(value)
        else:
            instrument.observe(value)

    measuring = Measuring(record)
    registry.register(_Remaining(measuring.remaining))
    Info("unexpired_metrics", "The version of these names", registry=registry).info({"version": VERSION})
    return measuring


def _instrument(metric: Metric, registry: CollectorRegistry) -> Counter | Histogram:
    labels = (*metric.labels, "key")
    if metric.kind == "counter":
        return Counter(metric.flat_name, metric.text, labels, registry=registry)
    return Histogram(metric.flat_name, metric.text, labels, registry=registry, buckets=metric.buckets)


_SINKS = Sinks(_sink)
