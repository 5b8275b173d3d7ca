from __future__ import annotations

import gc
import time
from collections.abc import Iterator

import pytest
from prometheus_client import REGISTRY, CollectorRegistry, generate_latest

from tests.engine.staging import FRESH, Server, manager_for
from tests.observe.stage import KEY, Stage, busy, refusing
from unexpired import ConfigurationError, TokenManager
from unexpired.events import FlightEnded
from unexpired.managers import TokenManagers
from unexpired.observe import VERSION
from unexpired.observe._names import METRICS
from unexpired.observe.prometheus import observe
from unexpired.stores import MemoryStore


class Scrape:
    """A registry of its own, and what stands in it."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

    def value(self, name: str, key: str = KEY, **labels: str) -> float | None:
        """One sample, by its name without the prefix; None when there is none."""
        return self.registry.get_sample_value(f"unexpired_{name}", {**labels, "key": key})

    def text(self) -> str:
        """All of it, as it is exported."""
        return generate_latest(self.registry).decode()


@pytest.fixture
def scrape() -> Scrape:
    """Give a registry of its own."""
    return Scrape()


def test_a_flight_is_counted_with_its_callers_and_times(scrape: Scrape) -> None:
    """Seven callers, one refresh: six were coalesced; the refresh, the flight and its lease took some time."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    ended = stage.fly(callers=7)
    assert scrape.value("logins_total") == 1
    assert scrape.value("flights_total", outcome="refreshed", reason="") == 1
    assert scrape.value("flight_callers_sum", outcome="refreshed") == 7
    assert scrape.value("flight_callers_bucket", outcome="refreshed", le="5.0") == 0
    assert scrape.value("flight_callers_bucket", outcome="refreshed", le="10.0") == 1
    assert scrape.value("callers_coalesced_total") == 6
    assert scrape.value("caller_wait_seconds_count", served="true") == 7
    assert scrape.value("token_requests_total") == 1
    assert scrape.value("refresh_duration_seconds_sum") == pytest.approx(ended.request_seconds)
    assert scrape.value("flight_duration_seconds_sum", outcome="refreshed") == pytest.approx(ended.seconds)
    assert scrape.value("lease_wait_seconds_sum") == pytest.approx(ended.lease_seconds)
    for quiet in ("fence_rejections_total", "crash_recoveries_total"):
        assert scrape.value(quiet) is None


def test_one_caller_is_coalesced_with_nobody(scrape: Scrape) -> None:
    """The caller for whom a flight is made anyway is not counted as one who was spared it."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    stage.fly(callers=1)
    assert scrape.value("callers_coalesced_total") is None
    stage.fly(callers=2)
    assert scrape.value("callers_coalesced_total") == 1


def test_adoptions_fences_and_recoveries_are_counted(scrape: Scrape) -> None:
    """What only a fleet does: taking over another's token in a flight or at a look, coming late, and after a crash."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    stage.others_vanish()
    stage.fly()
    assert scrape.value("crash_recoveries_total") == 1
    stage.overtake()
    assert scrape.value("flights_total", outcome="overtaken", reason="") == 1
    assert scrape.value("fence_rejections_total") == 1
    stage.adopt_in_flight()
    assert scrape.value("adoptions_total", during="flight") == 1
    assert scrape.value("flights_total", outcome="adopted", reason="") == 1
    stage.adopt_by_look()
    assert scrape.value("adoptions_total", during="look") == 1
    assert scrape.value("adoptions_total", during="flight") == 1


def test_failures_and_pauses_are_counted(scrape: Scrape) -> None:
    """A failed flight begins a pause; one within the pause asks nobody; an ended login says why."""
    stage = Stage(busy)
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    stage.try_to()
    stage.try_to()
    assert scrape.value("flights_total", outcome="failed", reason="unreachable") == 1
    assert scrape.value("flights_total", outcome="cooling_down", reason="unreachable") == 1
    assert scrape.value("cooldowns_total", reason="unreachable") == 1
    over = Stage(refusing, key="bob")
    observe(over.manager, registry=scrape.registry)
    over.log_in()
    over.try_to()
    assert scrape.value("flights_total", "bob", outcome="ended", reason="refused") == 1
    assert scrape.value("sessions_ended_total", "bob", reason="refused") == 1


def test_replays_and_alarms_are_counted(scrape: Scrape) -> None:
    """Replays with the time they took, refused fresh tokens, unsaved tokens, logouts."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    stage.replay()
    stage.alarm()
    stage.manager.logout()
    assert scrape.value("replays_total") == 1
    assert scrape.value("replay_duration_seconds_sum") == 0.25
    assert scrape.value("fresh_token_refusals_total") == 1
    assert scrape.value("unsaved_total") == 1
    assert scrape.value("logouts_total", revoked="false") == 1


def test_seconds_to_expiry_count_down(scrape: Scrape) -> None:
    """Since the login, the refresh or the look that brought the token; gone with the login."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    assert scrape.value("token_expires_in_seconds") is None
    stage.log_in(expires_in=60)
    at_login = scrape.value("token_expires_in_seconds")
    assert at_login is not None
    assert 0 < at_login <= 60
    later = scrape.value("token_expires_in_seconds")
    assert later is not None
    assert later < at_login
    stage.fly()
    assert scrape.value("token_expires_in_seconds") == pytest.approx(3600, abs=60)
    stage.adopt_by_look()
    assert scrape.value("token_expires_in_seconds") == pytest.approx(600, abs=60)
    stage.say(FlightEnded(KEY, 1, "broken", 1.0, 1))
    assert scrape.value("token_expires_in_seconds") == pytest.approx(600, abs=60)
    stage.manager.logout()
    assert scrape.value("token_expires_in_seconds") is None


def test_an_end_elsewhere_takes_the_gauge_away(scrape: Scrape) -> None:
    """The login that another process ended has no seconds left here, once that is seen; a dead refresh token too."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in(expires_in=60)
    before = stage.session()
    assert stage.store.swap(KEY, before, before.over("logout", time.time()))
    assert scrape.value("token_expires_in_seconds") is not None
    assert stage.manager.session() is not None
    assert scrape.value("token_expires_in_seconds") is None
    assert scrape.value("adoptions_total", during="look") is None


def test_any_number_of_managers_share_a_registry(scrape: Scrape) -> None:
    """Each session has its series; two managers of one session count what happens to it once."""
    alice, bob = Stage(), Stage(key="bob")
    again = TokenManager(Server(), store=alice.store, key=KEY)
    for manager in (alice.manager, again, bob.manager):
        observe(manager, registry=scrape.registry)
    alice.log_in()
    bob.log_in()
    alice.fly(callers=3)
    bob.fly()
    assert scrape.value("logins_total") == 1
    assert scrape.value("flights_total", outcome="refreshed", reason="") == 1
    assert scrape.value("caller_wait_seconds_count", served="true") == 3
    assert scrape.value("flights_total", "bob", outcome="refreshed", reason="") == 1


def test_an_observation_ends_alone(scrape: Scrape) -> None:
    """The returned function ends that one; what was counted stays; the gauge goes. A second call does nothing."""
    alice, bob = Stage(), Stage(key="bob")
    end = observe(alice.manager, registry=scrape.registry)
    observe(bob.manager, registry=scrape.registry)
    for stage in (alice, bob):
        stage.log_in(expires_in=60)
    end()
    end()
    alice.fly()
    bob.fly()
    assert scrape.value("logins_total") == 1
    assert scrape.value("flights_total", outcome="refreshed", reason="") is None
    assert scrape.value("flights_total", "bob", outcome="refreshed", reason="") == 1
    assert scrape.value("token_expires_in_seconds") is None
    assert scrape.value("token_expires_in_seconds", "bob") is not None


def test_a_manager_that_is_closed_leaves_nothing_behind(scrape: Scrape) -> None:
    """Programs that make a manager for each request need not end each observation."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in(expires_in=60)
    assert scrape.value("token_expires_in_seconds") is not None
    stage.manager.close()
    gc.collect()
    assert scrape.value("token_expires_in_seconds") is None


def test_keys_are_hashed_on_request(scrape: Scrape) -> None:
    """Nobody reads a name in what is exported; the same key is the same series, with a secret another one."""
    series = []
    for hash_keys in (True, b"pepper"):
        one = Scrape()
        for _ in range(2):
            stage = Stage()
            observe(stage.manager, registry=one.registry, hash_keys=hash_keys)
            stage.log_in(expires_in=60)
            stage.fly()
            stage.replay()
        assert KEY not in one.text()
        assert "alice" not in one.text()
        (shown,) = {
            sample.labels["key"]
            for family in one.registry.collect()
            for sample in family.samples
            if "key" in sample.labels
        }
        assert len(shown) == 16
        assert one.value("logins_total", shown) == 2
        series.append(shown)
    assert series[0] != series[1]
    assert scrape.text().count("unexpired") == 0


@pytest.mark.parametrize("wrong", [b"", None, "pepper"])
def test_what_is_no_secret_is_refused(wrong: object, scrape: Scrape) -> None:
    """An empty secret, or a text, would hide nothing as expected; neither is it put into the message."""
    with pytest.raises(ConfigurationError, match="hash_keys must be") as error:
        observe(Stage().manager, registry=scrape.registry, hash_keys=wrong)  # type: ignore[arg-type]
    assert "pepper" not in str(error.value)


def test_only_managers_can_be_observed(scrape: Scrape) -> None:
    """A mistake is told at once, with what is wanted."""
    with pytest.raises(ConfigurationError, match=r"only a TokenManager or a TokenManagers can be observed, not .* str"):
        observe("alice", registry=scrape.registry)  # type: ignore[arg-type]


def test_managers_of_many_sessions_have_no_series_for_each(scrape: Scrape) -> None:
    """A series for each of 100 000 people is too many: their figures are added up, unless asked for otherwise."""
    with TokenManagers(Server(), store=MemoryStore()) as managers:
        observe(managers, registry=scrape.registry)
        for key in ("alice", "bob"):
            managers.manager(key).login(FRESH)
        assert scrape.value("logins_total", key="") == 2
        assert "alice" not in scrape.text()
        assert "expires_in_seconds{" not in scrape.text()
    with TokenManagers(Server(), store=MemoryStore()) as managers:
        observe(managers, registry=scrape.registry, per_key=True)
        managers.manager("cyd").login(FRESH)
        assert scrape.value("logins_total", key="cyd") == 1
        assert scrape.value("token_expires_in_seconds", key="cyd") is not None


@pytest.fixture
def _clean_registry() -> Iterator[None]:
    before = set(REGISTRY._collector_to_names)
    yield
    for collector in set(REGISTRY._collector_to_names) - before:
        REGISTRY.unregister(collector)


@pytest.mark.usefixtures("_clean_registry")
def test_the_default_registry_is_prometheus_s_own() -> None:
    """What is observed without more is where every exporter looks."""
    manager = manager_for(Server(), None, key="somebody")
    observe(manager)
    manager.login(FRESH)
    assert REGISTRY.get_sample_value("unexpired_logins_total", {"key": "somebody"}) == 1


def test_the_names_have_a_version(scrape: Scrape) -> None:
    """Dashboards can tell which names they meet, and every name of the table is there from the start."""
    observe(Stage().manager, registry=scrape.registry)
    assert scrape.registry.get_sample_value("unexpired_metrics_info", {"version": VERSION}) == 1
    text = scrape.text()
    assert all(f"# TYPE {metric.flat_name} {metric.kind}" in text for metric in METRICS.values())


def test_no_token_is_ever_exported(scrape: Scrape) -> None:
    """P13: neither access tokens nor refresh tokens are in what a scraper reads."""
    stage = Stage()
    observe(stage.manager, registry=scrape.registry)
    stage.log_in()
    stage.fly(callers=2)
    stage.adopt_by_look()
    assert scrape.value("flights_total", outcome="refreshed", reason="") == 1
    found = [word for word in ("access 0", "access 1", "access 9", "refresh 0", "refresh 1") if word in scrape.text()]
    assert found == []
