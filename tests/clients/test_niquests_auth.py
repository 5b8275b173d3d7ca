"""niquests: what `TokenAuth` does that the contract does not see, in both kinds of sessions."""

from __future__ import annotations

import asyncio
import copy
import pickle
import threading
from collections.abc import Iterator
from typing import Any

import niquests
import pytest
import requests

from tests.clients.contract.listener import OK, REFUSED, Listener
from tests.clients.contract.listener2 import Listener2
from tests.clients.niquests_sessions import Api, Mode, run
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InQuery, LoginRequired, Scheme, Session, TokenManager
from unexpired.clients.niquests import BodyFactory, TokenAuth, TokenOptions
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

BOUND = 20.0


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


@pytest.fixture(params=["threads", "asyncio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each kind of session."""
    found: Mode = request.param
    return found


def expired_manager(gate: threading.Event) -> TokenManager:
    """A manager whose token is past its time, and whose refresh waits until *gate* is open."""

    def refresh(_: Session) -> dict[str, Any]:
        assert gate.wait(BOUND), "the event loop was blocked"
        return {"access_token": "t2", "refresh_token": "r2"}

    manager = TokenManager(FunctionGrant(refresh), store=MemoryStore(), key="alice")
    manager.login({"access_token": "t1", "refresh_token": "r1", "expires_in": -1})
    return manager


def test_an_event_loop_is_never_blocked(listener: Listener) -> None:
    """While an AsyncSession waits for a refresh its event loop goes on: the refresh may even depend on it."""
    gate = threading.Event()

    async def job(api: Api) -> list[int]:
        api.carry("auth", expired_manager(gate))
        calls = [asyncio.create_task(api.get(f"{listener.url}/{number}")) for number in range(3)]
        await asyncio.sleep(0)
        gate.set()
        return [(await call).status_code for call in calls]

    assert run("asyncio", job) == [200] * 3
    assert listener.tokens == ["t2"] * 3


def test_a_blocking_session_within_an_event_loop(listener: Listener) -> None:
    """A Session that is used inside of a running event loop has its token too, a first and a second time."""
    gate = threading.Event()
    gate.set()

    async def main() -> list[int]:
        with niquests.Session(auth=TokenAuth(expired_manager(gate))) as session:
            responses = [session.get(f"{listener.url}/x") for _ in range(2)]
            assert pickle.loads(pickle.dumps(responses[0])).status_code == 200
        return [response.status_code for response in responses]

    assert asyncio.run(main()) == [200] * 2
    assert listener.tokens == ["t2"] * 2


def test_login_is_over_before_the_call(listener: Listener, mode: Mode) -> None:
    """Without a login nothing is sent, also when an AsyncSession finds that out while it waits."""
    manager = counting_manager()
    manager.logout()

    async def job(api: Api) -> Any:
        api.carry("auth", manager)
        return await api.raises(LoginRequired, f"{listener.url}/x")

    assert run(mode, job).reason == "logout"
    assert listener.heard == []


def test_prepared_request_is_sent_twice(listener: Listener, mode: Mode) -> None:
    """A prepared request that is sent again, when its token is old, costs no refresh if there is a newer one."""
    manager = counting_manager()
    listener.respond = lambda heard, _: REFUSED if heard.token == "t1" else OK

    async def job(api: Api) -> list[int]:
        api.carry("auth", manager)
        prepared = api.session.prepare_request(niquests.Request("GET", f"{listener.url}/x"))
        assert manager.refresh().access_token == "t2"
        found = [await api.wait(api.session.send(prepared)) for _ in range(2)]
        found.append(await api.wait(api.session.send(prepared.copy())))
        return [response.status_code for response in found]

    assert manager.token().access_token == "t1"
    assert run(mode, job) == [200] * 3
    assert listener.tokens == ["t1", "t2", "t2", "t2"]


def test_history_is_that_of_niquests(listener: Listener, mode: Mode) -> None:
    """The refused answer is in the history, as with digest authentication, with the request that it answers."""
    listener.respond = lambda _, before: (200, {"x-n": "2"}, b"yes") if before else REFUSED

    async def job(api: Api) -> Any:
        api.carry("auth", counting_manager())
        response = await api.get(f"{listener.url}/x")
        (refused,) = response.history
        assert (refused.status_code, await _content(refused)) == (401, b"no")
        return response, refused

    response, refused = run(mode, job)
    assert (response.status_code, response.content, response.headers["x-n"]) == (200, b"yes", "2")
    assert [one.request.headers["Authorization"] for one in (refused, response)] == ["Bearer t1", "Bearer t2"]
    assert response.elapsed.total_seconds() > 0
    assert "HTTP/1.1 [401]" in repr(refused)
    assert "HTTP/1.1 [200]" in repr(response)


async def _content(response: Any) -> Any:
    content = response.content
    return content if isinstance(content, bytes) else await content


def test_answers_can_be_pickled_and_copied(listener: Listener, mode: Mode) -> None:
    """A response is pickled and copied as ever; a request that comes with it can be sent, by itself."""

    async def job(api: Api) -> Any:
        api.carry("auth", counting_manager())
        response = await api.get(f"{listener.url}/x")
        for each in (pickle.loads(pickle.dumps(response)), copy.deepcopy(response.request)):
            request = getattr(each, "request", each)
            listener.respond = lambda _heard, _before: REFUSED
            assert (await api.wait(api.session.send(request))).status_code == 401
        return response

    assert run(mode, job).content == b'{"code": 0}'
    assert listener.tokens == ["t1"] * 3


def test_hook_that_fails_sends_nothing_twice(listener: Listener, mode: Mode) -> None:
    """Niquests calls a hook again that raised TypeError: the request is not replayed again for it."""
    made: list[int] = []

    def make() -> list[bytes]:
        made.append(len(made))
        if len(made) == 2:
            raise TypeError("the user's own")
        return [b"body"]

    listener.respond = lambda heard, _: REFUSED if heard.token == "t1" else OK

    async def job(api: Api) -> Any:
        api.carry("auth", counting_manager())
        error = await api.raises(TypeError, f"{listener.url}/x", data=BodyFactory(make))
        assert (await api.get(f"{listener.url}/y")).status_code == 200
        return error

    assert str(run(mode, job)) == "the user's own"
    assert made == [0, 1]
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.parametrize("stream", [False, True])
def test_multiplexed(mode: Mode, stream: bool) -> None:
    """What a session that multiplexes promised becomes the replay's answer, when it is gathered."""

    async def job(api: Api) -> list[tuple[int, list[int], Any]]:
        api.carry("auth", manager)
        without = await api.get(f"{there.url}/x", auth=TokenOptions(authenticated=False))
        promised = [await api.get(f"{there.url}/x", stream=stream) for _ in range(4)]
        assert all(response.lazy for response in (without, *promised))
        await api.wait(api.session.gather())
        assert without.status_code == 200
        return [
            (response.status_code, [one.status_code for one in response.history], await _content(response))
            for response in promised
        ]

    manager = counting_manager()
    with Listener2(lambda token: 401 if token == "t1" else 200) as there:
        found = run(mode, job, multiplexed=True, disable_http1=True, disable_http3=True)
    assert found == [(200, [401], b"{}")] * 4
    assert there.tokens.count("t2") == 4
    assert set(there.tokens) == {"", "t1", "t2"}


def test_multiplexed_over_http1(listener: Listener, mode: Mode) -> None:
    """A session that may multiplex over a connection that cannot is served as ever."""
    listener.respond = lambda _, before: OK if before else REFUSED

    async def job(api: Api) -> Any:
        api.carry("auth", counting_manager())
        return await api.get(f"{listener.url}/x")

    response = run(mode, job, multiplexed=True)
    assert (response.status_code, [one.status_code for one in response.history]) == (200, [401])


def test_requests_of_another_library_are_refused(listener: Listener) -> None:
    """Each library has its own module: a request of requests is turned away with a sentence that says so."""
    manager: Any = counting_manager()
    with requests.Session() as session:
        session.auth = TokenAuth(manager)  # type: ignore[assignment]  # the mistake
        with pytest.raises(ConfigurationError, match=r"^this TokenAuth is for niquests .* a request of requests"):
            session.get(f"{listener.url}/x")
    assert listener.heard == []


def test_named_origins_are_looked_at_first(listener: Listener, mode: Mode) -> None:
    """P12: a request to an origin that is not named is none of ours."""

    async def job(api: Api) -> Any:
        api.carry("auth", counting_manager(), Scheme.bearer(origins=["http://elsewhere.example.com:81"]))
        listener.respond = lambda _heard, _before: REFUSED
        return (await api.get(f"{listener.url}/x")).status_code

    assert run(mode, job) == 401
    assert listener.tokens == [None]


@pytest.mark.parametrize(
    ("scheme", "message"),
    [
        (Scheme(InQuery("token")), "in the Authorization header only.*Use TokenAdapter"),
        (Scheme.bearer(origins=["http://a.example.com"]), "Use TokenAdapter, or an https origin"),
    ],
)
def test_schemes_that_would_leak_are_refused(scheme: Scheme, message: str) -> None:
    """P12: what a session would carry along redirects is not given to it."""
    with pytest.raises(ConfigurationError, match=message):
        TokenAuth(counting_manager(), scheme)
