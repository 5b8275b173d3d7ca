"""What a thousand sessions cost: bytes in memory, and series in metrics."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client import CollectorRegistry, generate_latest

from tests.engine.staging import PATIENCE
from unexpired import LoginRequired, Session, TokenManagers
from unexpired.errors import Refused
from unexpired.events import FlightEnded
from unexpired.observe import opentelemetry, prometheus
from unexpired.stores import MemoryStore

ANSWER = {"access_token": "a", "refresh_token": "r", "expires_in": 3600}


def answer(session: Session) -> dict[str, Any]:
    """A token, or for every second version a refusal."""
    if session.version % 2 == 0:
        raise Refused("over", error="invalid_grant")
    return {**ANSWER, "access_token": f"a {session.version}"}


def live(managers: TokenManagers, keys: list[str]) -> None:
    """The life of each session: a login, a refresh, a logout or a refused refresh."""
    ended = threading.Semaphore(0)
    stop = managers.on(FlightEnded, lambda _: ended.release())
    for number, key in enumerate(keys):
        manager = managers.manager(key)
        manager.login(ANSWER)
        manager.refresh()
        if number % 2:
            manager.logout()
        else:
            with pytest.raises(LoginRequired):
                manager.refresh()
    # Flights tell of their end once their callers are awake, and this listener after those who observe.
    for _ in range(sum(1 if number % 2 else 2 for number in range(len(keys)))):
        assert ended.acquire(timeout=PATIENCE)
    stop()


def in_prometheus(managers: TokenManagers, **settings: Any) -> Callable[[], list[str]]:
    """Observes them; gives the series so far."""
    registry = CollectorRegistry()
    prometheus.observe(managers, registry=registry, **settings)
    return lambda: [
        line.rpartition(" ")[0] for line in generate_latest(registry).decode().splitlines() if line[0] != "#"
    ]


def in_opentelemetry(managers: TokenManagers, **settings: Any) -> Callable[[], list[str]]:
    """The same for OpenTelemetry."""
    reader = InMemoryMetricReader()
    opentelemetry.observe(managers, meter_provider=MeterProvider([reader]), **settings)

    def series() -> list[str]:
        data = reader.get_metrics_data()
        return [
            f"{metric.name} {sorted((point.attributes or {}).items())}"
            for resource in (data.resource_metrics if data is not None else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            for point in metric.data.data_points
        ]

    return series


@pytest.mark.parametrize("observed", [in_prometheus, in_opentelemetry])
def test_a_thousand_sessions_make_no_series_of_their_own(observed: Callable[..., Callable[[], list[str]]]) -> None:
    """Metrics of `TokenManagers` have no label for the session, whatever happens to a thousand of them."""
    managers = TokenManagers(answer, store=MemoryStore(), patience=0.0)
    series = observed(managers)
    live(managers, ["first", "second"])
    few = series()
    live(managers, [f"person {number}" for number in range(1000)])
    assert few
    assert sorted(series()) == sorted(few)
    assert not [one for one in series() if "person" in one or "first" in one]


@pytest.mark.parametrize("observed", [in_prometheus, in_opentelemetry])
def test_series_for_each_session_are_to_be_asked_for(observed: Callable[..., Callable[[], list[str]]]) -> None:
    """With ``per_key`` each session has series of its own; with ``hash_keys`` they do not tell whose."""
    managers = TokenManagers(answer, store=MemoryStore())
    series = observed(managers, per_key=True, hash_keys=b"pepper")
    for number in range(50):
        managers.manager(f"person {number}").login(ANSWER)
    assert len([one for one in series() if "expires_in" in one]) == 50
    assert "person" not in str(series())


PROGRAM = """
import gc, sys, tracemalloc
from unexpired import TokenManager, TokenManagers
from unexpired._core.record import decode, encode
from unexpired.stores import MemoryStore

class Elsewhere(MemoryStore):
    records = {}

    def load(self, key):
        return decode(self.records[key], key, "elsewhere") if key in self.records else None

    def swap(self, key, expected, new):
        self.records[key] = encode(new)
        return True

    def stamp(self, key):
        return int

COUNT, LENGTH = 4000, int(sys.argv[1])
store, managers = Elsewhere(), None
keys = [f"user {number}" for number in range(COUNT)]
for key in keys:
    TokenManager(lambda _: {}, store=store, key=key).login({"access_token": "a" * LENGTH, "expires_in": 3600})
managers = TokenManagers(lambda _: {}, store=store)
gc.collect()
tracemalloc.start()
for key in keys:
    managers.manager(key).token()
gc.collect()
print(tracemalloc.get_traced_memory()[0] / COUNT)
"""


@pytest.mark.timeout(180)
def test_bytes_of_a_remembered_session() -> None:
    """A remembered session takes some 4 KiB and the length of its tokens, as the class says."""
    short, long = (
        float(subprocess.run([sys.executable, "-c", PROGRAM, length], stdout=subprocess.PIPE, check=True).stdout)
        for length in ("20", "4020")
    )
    assert "takes some 4 KiB, and the length of its tokens" in " ".join(str(TokenManagers.__doc__).split())
    assert 2048 < short < 1.2 * 4096
    assert 0.9 * 4000 < long - short < 1.2 * 4000
