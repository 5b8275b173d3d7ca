from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import httpx2
import pytest
import trio
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from tests.engine.staging import KINDS, Kind, aboard, manager_for, nearly_expired
from tests.observe.stage import KEY, Stage, busy, refusing
from tests.observe.test_shared import PAGE
from tests.waiting import until
from unexpired import Session, TokenManager, UnexpiredError
from unexpired.clients.httpx2 import TokenAuth
from unexpired.events import CallerWaited
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.observe import VERSION
from unexpired.observe import opentelemetry as ours
from unexpired.observe._subscribing import Keys
from unexpired.stores import MemoryStore
from unexpired.testing import ServerConfig, ServerHandle, running_server


class Traces:
    """A tracer provider of its own, and the spans that were exported."""

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.provider = TracerProvider(shutdown_on_exit=False)
        self.provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracer = self.provider.get_tracer("the program")

    def observe(self, manager: TokenManager, **named: Any) -> Callable[[], None]:
        """Observe *manager* here."""
        return ours.observe(manager, tracer_provider=self.provider, **named)

    def spans(self, name: str) -> list[ReadableSpan]:
        """The exported spans of that name."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def only(self, name: str) -> ReadableSpan:
        """The one of that name, which is there or soon is."""
        until(lambda: self.spans(name))
        (span,) = self.spans(name)
        return span

    def call(self, manager: TokenManager, name: str = "request") -> None:
        """Ask for a token within a span of the program."""
        with self.tracer.start_as_current_span(name), suppress(UnexpiredError):
            manager.token()


def trace(span: ReadableSpan) -> int:
    """The number of its trace."""
    assert span.context is not None
    return int(span.context.trace_id)


def identity(span: ReadableSpan) -> int:
    """The number of a span."""
    assert span.context is not None
    return int(span.context.span_id)


def parent(span: ReadableSpan) -> int | None:
    """The number of its parent."""
    return span.parent.span_id if span.parent is not None else None


def linked(span: ReadableSpan) -> list[int]:
    """The numbers of the spans it links to."""
    return [link.context.span_id for link in span.links]


def seconds(span: ReadableSpan) -> float:
    """How long it took."""
    assert span.start_time is not None
    assert span.end_time is not None
    return (span.end_time - span.start_time) / 1e9


@pytest.fixture
def traces() -> Traces:
    """Give a tracer provider of its own."""
    return Traces()


def test_a_flight_is_a_child_of_the_span_that_caused_it(traces: Traces) -> None:
    """With its key, its outcome and its figures; and so is the wait for it, which links to it."""
    stage = Stage()
    traces.observe(stage.manager)
    stage.log_in()
    stage.server.gate.set()
    traces.call(stage.manager)
    flight, wait, request = (traces.only(name) for name in ("unexpired.flight", "unexpired.wait", "request"))
    assert parent(flight) == parent(wait) == identity(request)
    assert linked(wait) == [identity(flight)]
    assert trace(flight) == trace(request)
    assert flight.attributes is not None
    told = {name: flight.attributes[f"unexpired.{name}"] for name in ("key", "outcome", "callers", "version")}
    assert told == {"key": KEY, "outcome": "refreshed", "callers": 1, "version": 2}
    assert flight.status.status_code is StatusCode.UNSET
    assert seconds(flight) == pytest.approx(stage.end(0).seconds, abs=0.001)
    assert seconds(wait) <= seconds(request)
    assert wait.attributes == {"unexpired.key": KEY, "unexpired.served": True}
    scope = flight.instrumentation_scope
    assert scope is not None
    assert (scope.name, scope.version) == ("unexpired", VERSION)


@pytest.mark.parametrize("kind", KINDS)
def test_callers_that_share_a_flight_link_to_it(kind: Kind, traces: Traces) -> None:
    """It is the child of one of them; each has its own wait below its own span, in its own trace, linked to it."""
    stage = Stage()
    traces.observe(stage.manager)
    stage.log_in()

    async def acall(name: str) -> None:
        with traces.tracer.start_as_current_span(name):
            await stage.manager.atoken()

    async def in_asyncio() -> None:
        await asyncio.gather(*(acall(name) for name in names))

    async def in_trio() -> None:
        async with trio.open_nursery() as nursery:
            for name in names:
                nursery.start_soon(acall, name)

    names = ["ada", "bob", "cyd"]
    if kind == "threads":
        threads = [threading.Thread(target=traces.call, args=(stage.manager, name)) for name in names]
    else:
        run: Callable[[], Any] = (lambda: asyncio.run(in_asyncio())) if kind == "asyncio" else lambda: trio.run(in_trio)
        threads = [threading.Thread(target=run)]
    for thread in threads:
        thread.start()
    until(lambda: aboard(stage.manager) == 3)
    stage.server.gate.set()
    for thread in threads:
        thread.join(20)
    flight = traces.only("unexpired.flight")
    until(lambda: len(traces.spans("unexpired.wait")) == 3)
    callers = {identity(traces.only(name)): traces.only(name) for name in names}
    waits = traces.spans("unexpired.wait")
    assert {parent(wait) for wait in waits} == set(callers)
    assert parent(flight) in callers
    assert [linked(wait) for wait in waits] == [[identity(flight)]] * 3
    assert len({trace(wait) for wait in waits}) == 3


def test_a_flight_without_a_caller_s_span_is_a_root(traces: Traces) -> None:
    """Where the program traces nothing, a flight is a trace of its own; nobody waits for one in the background."""
    manager = manager_for(lambda _: {"access_token": "new", "expires_in": 60}, nearly_expired())
    traces.observe(manager)
    manager.token()
    flight = traces.only("unexpired.flight")
    assert parent(flight) is None
    assert flight.attributes is not None
    assert flight.attributes["unexpired.callers"] == 0
    assert traces.spans("unexpired.wait") == []


def test_a_wait_that_ends_before_its_flight_is_linked_when_that_ends(traces: Traces) -> None:
    """The caller's patience was over first: an error, at its own time and place, and the link is there all the same."""
    stage = Stage()
    traces.observe(stage.manager)
    stage.log_in()
    starter = threading.Thread(target=traces.call, args=(stage.manager, "starter"))
    starter.start()
    until(lambda: aboard(stage.manager) == 1)
    with traces.tracer.start_as_current_span("request"), pytest.raises(UnexpiredError):
        stage.manager.token(wait=0.05)
    assert traces.spans("unexpired.wait") == []
    stage.server.gate.set()
    starter.join(20)
    flight, request = traces.only("unexpired.flight"), traces.only("request")
    assert parent(flight) == identity(traces.only("starter"))
    until(lambda: len(traces.spans("unexpired.wait")) == 2)
    (wait,) = [wait for wait in traces.spans("unexpired.wait") if parent(wait) == identity(request)]
    assert linked(wait) == [identity(flight)]
    assert wait.status.status_code is StatusCode.ERROR
    assert wait.end_time is not None
    assert flight.end_time is not None
    assert wait.end_time < flight.end_time
    assert seconds(wait) < 10


@pytest.mark.parametrize(
    ("grant", "outcomes"),
    [
        (busy, [("failed", "unreachable"), ("cooling_down", None)]),
        (refusing, [("ended", "refused")]),
    ],
)
def test_a_flight_that_failed_is_an_error(grant: Any, outcomes: list[tuple[str, str | None]], traces: Traces) -> None:
    """With the sort of failure as its description; one within the pause is none: it did what it should."""
    stage = Stage(grant)
    traces.observe(stage.manager)
    stage.log_in()
    for _ in outcomes:
        stage.try_to()
    flights = traces.spans("unexpired.flight")
    assert [(flight.attributes or {})["unexpired.outcome"] for flight in flights] == [
        outcome for outcome, _ in outcomes
    ]
    assert [flight.status.description for flight in flights] == [reason for _, reason in outcomes]
    bad = [flight.status.status_code is StatusCode.ERROR for flight in flights]
    assert bad == [reason is not None for _, reason in outcomes]


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    """Give a server."""
    with running_server(ServerConfig(refresh_latency=0.05)) as handle:
        yield handle


@pytest.mark.parametrize("kind", KINDS)
def test_a_replay_is_a_child_of_its_caller_s_span(kind: Kind, server: ServerHandle, traces: Traces) -> None:
    """From the first refusal to the last answer: it spans the wait and the flight, in the trace of the request."""
    manager = TokenManager(RefreshTokenGrant(server.token_url, client_id="public"), store=MemoryStore())
    manager.login(server.login())
    traces.observe(manager)
    auth = TokenAuth(manager)

    async def get() -> None:
        async with httpx2.AsyncClient(base_url=server.url, auth=auth) as client:
            with traces.tracer.start_as_current_span("request"):
                assert (await client.get("/api/x")).status_code == 200

    server.expire()
    if kind == "threads":
        with httpx2.Client(base_url=server.url, auth=auth) as client, traces.tracer.start_as_current_span("request"):
            assert client.get("/api/x").status_code == 200
    elif kind == "asyncio":
        asyncio.run(get())
    else:
        trio.run(get)
    names = ("unexpired.replay", "unexpired.wait", "unexpired.flight", "request")
    replay, wait, flight, request = (traces.only(name) for name in names)
    assert parent(replay) == parent(wait) == parent(flight) == identity(request)
    assert replay.attributes == {"unexpired.key": "default", "unexpired.origin": server.url, "unexpired.replays": 1}
    assert 0 < seconds(wait) <= seconds(replay) <= seconds(request)
    assert seconds(replay) >= 0.05


def test_keys_are_hashed_in_spans_too(traces: Traces) -> None:
    """No span has the key in its name, its attributes or its status."""
    stage = Stage(busy)
    traces.observe(stage.manager, hash_keys=True)
    stage.log_in()
    traces.call(stage.manager)
    stage.replay()
    names = ("unexpired.flight", "unexpired.wait", "unexpired.replay")
    texts = [traces.only(name).to_json() for name in names]
    assert all("unexpired.key" in text for text in texts)
    assert [text for text in texts if "alice" in text or "access 0" in text] == []


def test_two_managers_of_one_session_make_one_span(traces: Traces) -> None:
    """A flight, a wait and a replay are each one thing, however many managers are observed; after the end, none."""
    stage = Stage()
    again = TokenManager(stage.server, store=stage.store, key=KEY)
    ends = [traces.observe(stage.manager), traces.observe(again)]
    stage.log_in()
    stage.fly()
    stage.replay()
    for name in ("unexpired.flight", "unexpired.wait", "unexpired.replay"):
        traces.only(name)
    for end in ends:
        end()
    stage.fly()
    traces.only("unexpired.flight")


@pytest.mark.parametrize("name", ["flight", "wait", "replay"])
def test_the_page_has_the_attributes_of_spans(name: str, traces: Traces) -> None:
    """Each kind of span stands in the reference with everything that it says."""

    def grant(_: Session, *, resource: str | None = None) -> dict[str, Any]:
        return {"access_token": f"for {resource}", "expires_in": 60}

    stage = Stage(FunctionGrant(grant))
    traces.observe(stage.manager)
    stage.log_in(expires_in=60)
    stage.manager.token("https://a.test")
    stage.replay()
    span = traces.only(f"unexpired.{name}")
    (row,) = re.findall(rf"^\| `unexpired\.{name}` \|[^|]*\|([^|]*)\|$", PAGE.read_text(), re.MULTILINE)
    assert set(span.attributes or {}) == {f"unexpired.{word}" for word in re.findall(r"`(\w+)`", row)}


def test_what_is_kept_is_bounded(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """Waits beyond the bound are told without a link, at once; old flights are forgotten."""
    monkeypatch.setattr(ours, "_WAITING", 2)
    monkeypatch.setattr(ours, "_REMEMBERED", 1)
    stage = Stage()
    traces.observe(stage.manager)
    stage.log_in()
    for _ in range(3):
        with pytest.raises(UnexpiredError):
            stage.manager.token(wait=0.01)
    assert linked(traces.only("unexpired.wait")) == []
    stage.server.gate.set()
    until(lambda: len(traces.spans("unexpired.wait")) == 3)
    stage.end(0)
    assert [len(linked(wait)) for wait in traces.spans("unexpired.wait")] == [0, 1, 1]
    spans = ours._SPANS.of(traces.provider)
    for _ in range(2):
        stage.fly()
    until(lambda: len(traces.spans("unexpired.flight")) == 3)
    assert (len(spans._flights), spans._waiting, len(spans._waits)) == (1, 0, 0)


def test_waits_for_flights_whose_end_nobody_tells_are_told_without_a_link(
    traces: Traces, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Managers that are closed before their flights end leave waits behind: the oldest are told after a while."""
    monkeypatch.setattr(ours, "_REMEMBERED", 2)
    spans, keys = ours._SPANS.of(traces.provider), Keys(False)
    for flight in range(1, 6):
        for _ in range(2):
            spans.hear(CallerWaited(KEY, flight, 0.1, served=True), keys)
    assert (len(spans._waits), spans._waiting) == (2, 4)
    assert [linked(wait) for wait in traces.spans("unexpired.wait")] == [[]] * 6


def test_the_default_is_the_program_s_own_provider(traces: Traces, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is observed without more goes where the program's own spans go."""
    monkeypatch.setattr("opentelemetry.trace._TRACER_PROVIDER", traces.provider)
    stage = Stage()
    ours.observe(stage.manager)
    stage.log_in()
    stage.fly()
    assert parent(traces.only("unexpired.flight")) is None
