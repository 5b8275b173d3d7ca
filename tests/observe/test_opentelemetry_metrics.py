from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from tests.engine.staging import FRESH, Server
from tests.observe.stage import KEY, Stage, busy
from unexpired import ConfigurationError, TokenManager
from unexpired.managers import TokenManagers
from unexpired.observe import VERSION
from unexpired.observe._names import METRICS
from unexpired.observe.opentelemetry import observe
from unexpired.stores import MemoryStore


class Meters:
    """A meter provider of its own, and what it would export."""

    def __init__(self) -> None:
        self._reader = InMemoryMetricReader()
        self.provider = MeterProvider([self._reader], shutdown_on_exit=False)

    def metrics(self) -> dict[str, Any]:
        """Everything under its name."""
        data = self._reader.get_metrics_data()
        scopes = [scope for resource in data.resource_metrics for scope in resource.scope_metrics] if data else []
        assert all((scope.scope.name, scope.scope.version) == ("unexpired", VERSION) for scope in scopes)
        return {metric.name: metric for scope in scopes for metric in scope.metrics}

    def points(self, name: str) -> dict[tuple[tuple[str, Any], ...], Any]:
        """The points of one metric, by their attributes without the prefix."""
        metric = self.metrics().get(f"unexpired.{name}")
        points = metric.data.data_points if metric is not None else []
        return {
            tuple(sorted((key.removeprefix("unexpired."), value) for key, value in point.attributes.items())): point
            for point in points
        }

    def point(self, name: str, key: str | None = KEY, **attributes: str) -> Any:
        """One point."""
        named = {**attributes, **({"key": key} if key is not None else {})}
        return self.points(name)[tuple(sorted(named.items()))]

    def value(self, name: str, key: str | None = KEY, **attributes: str) -> float:
        """The value of one counter or gauge."""
        return float(self.point(name, key, **attributes).value)


@pytest.fixture
def meters() -> Meters:
    """Give a meter provider of its own."""
    return Meters()


def test_a_fleet_s_flights_are_counted(meters: Meters) -> None:
    """Outcomes, coalesced callers, latencies, lease waits, fences, adoptions, recoveries: by the names of the table."""
    stage = Stage()
    observe(stage.manager, meter_provider=meters.provider)
    stage.log_in()
    stage.others_vanish()
    ended = stage.fly(callers=4)
    assert meters.value("flights", outcome="refreshed", reason="") == 1
    assert meters.value("callers.coalesced") == 3
    assert meters.point("flight.callers", outcome="refreshed").sum == 4
    assert meters.point("refresh.duration").sum == pytest.approx(ended.request_seconds)
    assert meters.point("lease.wait").sum == pytest.approx(ended.lease_seconds)
    assert meters.point("flight.duration", outcome="refreshed").sum == pytest.approx(ended.seconds)
    assert meters.point("caller.wait", served="true").count == 4
    assert meters.value("crash.recoveries") == 1
    stage.overtake()
    stage.adopt_in_flight()
    stage.adopt_by_look()
    assert meters.value("fence.rejections") == 1
    assert meters.value("adoptions", during="flight") == 1
    assert meters.value("adoptions", during="look") == 1
    assert 0 < meters.value("token.expires_in") <= 600


def test_every_metric_of_the_table_is_made_as_it_says(meters: Meters) -> None:
    """Names, units, kinds and descriptions; and the buckets of histograms fit what they count."""
    stage, failing = Stage(), Stage(busy)
    for each in (stage, failing):
        observe(each.manager, meter_provider=meters.provider)
        each.log_in()
    stage.others_vanish()
    stage.fly(callers=2)
    stage.overtake()
    stage.adopt_in_flight()
    stage.replay()
    stage.alarm()
    failing.try_to()
    failing.manager.exchange.end(failing.session().tokens[None])
    failing.manager.login(FRESH)
    failing.manager.logout()
    made = meters.metrics()
    assert set(made) == {metric.full_name for metric in METRICS.values()}
    for metric in METRICS.values():
        found = made[metric.full_name]
        assert (found.unit, found.description) == (metric.unit, metric.text)
        kind = {"counter": "Sum", "histogram": "Histogram", "gauge": "Gauge"}[metric.kind]
        assert type(found.data).__name__ == kind
        for point in found.data.data_points:
            assert set(point.attributes) == {f"unexpired.{label}" for label in (*metric.labels, "key")}
            if metric.buckets:
                assert tuple(point.explicit_bounds) == metric.buckets


def test_two_managers_share_the_instruments(meters: Meters, caplog: pytest.LogCaptureFixture) -> None:
    """Each session has its points, the gauge too; one session with two managers counts once; ends are single."""
    alice, bob = Stage(), Stage(key="bob")
    again = TokenManager(Server(), store=alice.store, key=KEY)
    ends = [observe(manager, meter_provider=meters.provider) for manager in (alice.manager, again, bob.manager)]
    for stage in (alice, bob):
        stage.log_in(expires_in=60)
    assert meters.value("logins") == meters.value("logins", "bob") == 1
    assert {dict(attributes)["key"] for attributes in meters.points("token.expires_in")} == {KEY, "bob"}
    ends[0]()
    alice.fly()
    assert meters.value("flights", outcome="refreshed", reason="") == 1
    ends[1]()
    alice.fly()
    assert meters.value("flights", outcome="refreshed", reason="") == 1
    assert {dict(attributes)["key"] for attributes in meters.points("token.expires_in")} == {"bob"}
    assert [record for record in caplog.records if record.name.startswith("opentelemetry")] == []


def test_keys_are_left_out_or_hashed(meters: Meters) -> None:
    """Managers of many sessions have no key in their points, unless asked for; a hash hides it."""
    with TokenManagers(Server(), store=MemoryStore()) as managers:
        observe(managers, meter_provider=meters.provider)
        for key in ("ada", "bob"):
            managers.manager(key).login(FRESH)
        assert meters.value("logins", key=None) == 2
        assert meters.points("token.expires_in") == {}
    hidden = Stage()
    observe(hidden.manager, meter_provider=meters.provider, hash_keys=b"pepper")
    hidden.log_in(expires_in=60)
    assert "alice" not in str(meters.points("logins")) + str(meters.points("token.expires_in"))
    assert len(meters.points("logins")) == 2


def test_the_default_is_the_program_s_own_provider(meters: Meters, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is observed without more goes where the program's own metrics go; what is no manager is refused."""
    monkeypatch.setattr("opentelemetry.metrics._internal._METER_PROVIDER", meters.provider)
    stage = Stage()
    observe(stage.manager)
    stage.log_in()
    assert meters.value("logins") == 1
    with pytest.raises(ConfigurationError, match="only a TokenManager"):
        observe(None)  # type: ignore[arg-type]
