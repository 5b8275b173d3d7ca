"""Secrets that are marked are hunted through everything the library says: they must be nowhere."""

from __future__ import annotations

import logging
import pickle
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from prometheus_client import CollectorRegistry, generate_latest

from tests.clients.modes import Mode, Via, get, grant_for, send
from unexpired import InCookie, InHeader, InQuery, Scheme, Session, TokenManager
from unexpired.events import Event
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.observe import opentelemetry, prometheus
from unexpired.observe.logging import observe as observe_in_log
from unexpired.stores import MemoryStore
from unexpired.testing import ServerConfig, ServerHandle, running_server

MARK = "M4RK3D"
SECRET = f"client-secret-{MARK}"
BODY = f'{{"error": "{MARK}", "error_description": "{MARK}", "refresh_token": "rt {MARK}\\u0007"}}'
EVERYWHERE = Scheme(
    InHeader("Authorization", "Bearer {access_token}"),
    InHeader("refresh_token", "{refresh_token}"),
    InQuery("access_token"),
    InCookie("access_token"),
    code="code",
    expired=[40009],
)


@pytest.fixture(scope="module")
def server() -> Iterator[ServerHandle]:
    """Give a server whose client secret is marked."""
    config = ServerConfig(clients={"crm": SECRET}, id_token=True, jwt_access_token=True)
    with running_server(config) as server:
        yield server


@pytest.fixture(params=["threads", "asyncio", "trio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each way to run callers."""
    return Mode(request.param)


class Hunt:
    """Collects what was said, and every secret there is."""

    def __init__(self, server: ServerHandle, caplog: pytest.LogCaptureFixture, grant: Any) -> None:
        caplog.set_level(logging.DEBUG)
        self.caplog = caplog
        self.server = server
        server.reset()
        self.secrets = {MARK}
        self.said: list[str] = []
        self.store = MemoryStore()
        self.manager = TokenManager(grant, store=self.store, key="alice", patience=0.0)
        self.manager.on(Event, lambda event: self.said.extend([repr(event), str(event)]))
        self.spans = InMemorySpanExporter()
        self.registry = CollectorRegistry()
        traces = TracerProvider(shutdown_on_exit=False)
        traces.add_span_processor(SimpleSpanProcessor(self.spans))
        opentelemetry.observe(self.manager, tracer_provider=traces, meter_provider=NoOpMeterProvider())
        prometheus.observe(self.manager, registry=self.registry)
        observe_in_log(self.manager)
        login = server.login()
        self.manager.login(login)
        self.note_session()
        server.expire()

    def note_session(self) -> None:
        """Learn the secrets that are stored now."""
        session = self.store.load("alice")
        assert session is not None
        tokens = session.tokens.values()
        found = {session.refresh_token, *(t.access_token for t in tokens), *(t.id_token for t in tokens)}
        self.secrets |= {secret for secret in found if secret}
        self.said.extend([repr(session), str(session), repr(session.tokens), repr(self.store), repr(session.intent)])

    def listen(self, mode: Mode, options: dict[str, Any], url: str = "/api/x", **more: Any) -> Any:
        """Make a call, and take down all that can be seen of it."""
        (outcome,) = mode.run(options, [send("POST", url, **more)])
        self.said.extend([repr(outcome), str(outcome), *(repr(one) for one in options.values()), repr(self.manager)])
        if isinstance(outcome, BaseException):
            self.said.extend(traceback.format_exception(outcome))
            self.said.append(repr(vars(outcome)))
            if not isinstance(outcome, httpx2.HTTPError):
                self.said.append(repr(pickle.dumps(outcome)))
        else:
            for response in (outcome, *outcome.history):
                self.said.append(f"{response.request!r} {response.request.url} {response.request.headers!r}")
        self.note_session()
        return outcome

    def found(self) -> list[str]:
        """Every saying with a secret in it."""
        records = [f"{record.getMessage()} {vars(record)!r}" for record in self.caplog.records]
        assert any(record.name == "unexpired" for record in self.caplog.records)
        told = [generate_latest(self.registry).decode(), *(span.to_json() for span in self.spans.get_finished_spans())]
        said = [*self.said, *records, *told, self.caplog.text]
        return [one for one in said if any(secret in one for secret in self.secrets)]


def faults() -> list[dict[str, Any]]:
    """The bad days whose answers carry marks."""
    statuses = [(code, BODY) for code in (200, 400, 401, 403, 404, 429, 500, 503)]
    return [
        *({"kind": "status", "code": code, "body": body, "headers": {"x-mark": MARK}} for code, body in statuses),
        {"kind": "redirect", "to": f"https://{MARK}@example.test/{MARK}?{MARK}"},
        {"kind": "error_in_200", "error": f"{MARK} {MARK}"},
        {"kind": "truncated_json"},
        {"kind": "no_access_token"},
        {"kind": "other_sub"},
        {"kind": "expired_token"},
        {"kind": "reset_after_commit"},
        {"kind": "invalid_grant"},
    ]


@pytest.mark.parametrize("via", ["auth", "transport"])
def test_success(server: ServerHandle, mode: Mode, via: Via, caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 68, P13: a refresh and a replay leave no secret in logs, events, reprs or history, in any placement."""
    hunt = Hunt(server, caplog, grant_for(server, client_secret=SECRET))
    scheme = None if via == "auth" else EVERYWHERE
    options = mode.options(hunt.manager, via, scheme, base_url=server.url)
    assert hunt.listen(mode, options).status_code == 200
    assert server.stats().token_posts == 1
    assert hunt.found() == []


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_way_to_ask(server: ServerHandle, mode: Mode, method: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 68, P13: a token call with all its secrets in the query is as silent as one with them in the body."""
    more = {"client_id": "crm", "client_secret": SECRET, "client_auth": "client_secret_post", "method": method}
    settings: dict[str, Any] = more
    hunt = Hunt(server, caplog, RefreshTokenGrant(server.token_url, **settings))
    assert hunt.listen(mode, mode.options(hunt.manager, "auth", base_url=server.url)).status_code == 200
    hunt.manager.logout()
    assert hunt.found() == []


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: f"{fault['kind']}-{fault.get('code', '')}")
def test_failed_refresh(
    server: ServerHandle, mode: Mode, fault: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 68, P13: whatever the token endpoint writes, nothing of it, and no secret, is in what is said of it."""
    hunt = Hunt(server, caplog, grant_for(server, client_secret=SECRET))
    server.faults([fault])
    outcome = hunt.listen(mode, mode.options(hunt.manager, "transport", EVERYWHERE, base_url=server.url))
    assert isinstance(outcome, Exception)
    assert hunt.found() == []


def raising(session: Session) -> Any:
    """A refresh function of the application's own that tells secrets when it fails."""
    raise LookupError(f"{MARK} {session.refresh_token}")


def refusing(session: Session) -> Any:
    """One that answers with something of another kind."""
    return [MARK, session.refresh_token]


@pytest.mark.parametrize("function", [raising, refusing])
def test_talkative_function(
    server: ServerHandle, mode: Mode, function: Callable[[Session], Any], caplog: pytest.LogCaptureFixture
) -> None:
    """Scenario 68, P13: what a refresh function says in its exception is not passed on."""
    hunt = Hunt(server, caplog, FunctionGrant(function))
    assert isinstance(hunt.listen(mode, mode.options(hunt.manager, "auth", base_url=server.url)), Exception)
    assert hunt.found() == []


@pytest.mark.parametrize("via", ["auth", "transport"])
def test_replay_refused(server: ServerHandle, mode: Mode, via: Via, caplog: pytest.LogCaptureFixture) -> None:
    """Scenario 68, P13: a refused replay names the request without its query, body or token."""
    hunt = Hunt(server, caplog, grant_for(server, client_secret=SECRET))

    async def body() -> Any:
        yield MARK.encode()

    content: Any = iter([MARK.encode()]) if mode.blocking else body()
    options = mode.options(hunt.manager, via, base_url=server.url)
    outcome = hunt.listen(mode, options, "/api/x", content=content)
    assert type(outcome).__name__ == "ReplayRefused"
    assert hunt.found() == []


@pytest.mark.usefixtures("tells_secrets")
def test_the_hunt_finds(server: ServerHandle, caplog: pytest.LogCaptureFixture) -> None:
    """The hunt would see a secret if there were one: a plain client that logs its URL is caught."""
    hunt = Hunt(server, caplog, grant_for(server, client_secret=SECRET))
    secret = hunt.manager.session()
    assert secret is not None
    mode = Mode("threads")
    mode.one({"base_url": server.url}, get(f"/open/x?access_token={secret.tokens[None].access_token}"))
    assert hunt.found() != []
