"""`TokenAuth` of requests: a hook on the session's own requests, and what the session makes of them."""

from __future__ import annotations

import copy
import gc
import io
import pickle
import threading
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import httpx
import pytest
import requests
from requests.adapters import BaseAdapter

from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InHeader, InQuery, Scheme, TokenManager
from unexpired.clients.requests import TokenAdapter, TokenAuth, TokenOptions

BOUND = 25.0


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


@pytest.fixture
def manager() -> TokenManager:
    """Give a manager whose tokens are t1, t2 and so on."""
    return counting_manager()


@pytest.fixture
def session(manager: TokenManager) -> Iterator[requests.Session]:
    """Give a session that is authenticated."""
    with requests.Session() as opened:
        opened.trust_env = False
        opened.auth = TokenAuth(manager)
        yield opened


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def test_history_and_time_of_a_replay(listener: Listener, session: requests.Session) -> None:
    """The refused answer, still readable, is the history of the replay's, each with the request that it answers."""
    in_turn(listener, REFUSED, OK)
    response = session.get(f"{listener.url}/x")
    (refused,) = response.history
    assert (refused.status_code, refused.content) == (401, b"no")
    assert response.elapsed.total_seconds() > 0
    carried = [one.request.headers["Authorization"] for one in (refused, response)]
    assert carried == ["Bearer t1", "Bearer t2"]


def test_cookies_of_a_refused_answer(listener: Listener, session: requests.Session) -> None:
    """Cookies of a refused answer go along with its replay and are kept by the session."""
    in_turn(listener, (401, {"Set-Cookie": "route=a; Path=/"}, b""), (200, {"Set-Cookie": "last=b; Path=/"}, b""), OK)
    session.get(f"{listener.url}/x", cookies={"own": "1"})
    assert dict(session.cookies) == {"route": "a", "last": "b"}
    session.get(f"{listener.url}/x")
    sent = [sorted("; ".join(heard.all("cookie")).split("; ")) for heard in listener.heard]
    assert sent == [["own=1"], ["own=1", "route=a"], ["last=b", "route=a"]]


def test_redirect_after_a_replay(listener: Listener, session: requests.Session) -> None:
    """What a redirect leads to after a replay is asked for with the newer token, at once."""
    in_turn(listener, REFUSED, (302, {"location": "/y"}, b""), (302, {"location": "/z"}, b""), OK)
    assert session.get(f"{listener.url}/x").url == f"{listener.url}/z"
    assert listener.tokens == ["t1", "t2", "t2", "t2"]


def test_prepared_request_is_sent_again(listener: Listener, session: requests.Session, manager: TokenManager) -> None:
    """A prepared request keeps its token until that is refused, and from then on the newer one; a copy does, too."""
    prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    manager.refresh()
    twin = prepared.copy()
    listener.respond = lambda heard, _: REFUSED if heard.token == "t1" else OK
    assert [session.send(one).status_code for one in (prepared, prepared, twin, prepared)] == [200] * 4
    assert listener.tokens == ["t1", "t2", "t2", "t1", "t2", "t2"]
    assert manager.token().access_token == "t2"


def test_late_refusal_of_a_request_that_is_sent_twice(
    listener: Listener, session: requests.Session, manager: TokenManager
) -> None:
    """P2: of one prepared request under way twice, the refusal that comes late is one of the older token."""
    gate, heard_both = threading.Event(), threading.Barrier(2)

    def respond(heard: Heard, before: int) -> Answer:
        if before < 2:
            heard_both.wait(BOUND)
        if before == 1:
            gate.wait(BOUND)
        return REFUSED if heard.token == "t1" else OK

    listener.respond = respond
    prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(session.send, prepared) for _ in range(2)]
        wait(both, BOUND, FIRST_COMPLETED)
        gate.set()
        assert [future.result(BOUND).status_code for future in both] == [200, 200]
    assert sorted(str(token) for token in listener.tokens) == ["t1", "t1", "t2", "t2"]
    assert manager.token().access_token == "t2"


def test_refusal_of_another_login(listener: Listener, session: requests.Session) -> None:
    """A 401 for a request whose header the caller has changed since is the caller's: it is no refusal of the token."""
    in_turn(listener, REFUSED)
    prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    prepared.headers["Authorization"] = "Basic own"
    assert session.send(prepared).status_code == 401
    assert len(listener.heard) == 1


class Upgrading(BaseAdapter):
    """An API that sends its callers from http to https, and takes no token there."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str | None] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """A redirect, or a refusal."""
        self.asked.append(request.url)
        response = requests.Response()
        response.status_code = 302 if str(request.url).startswith("http:") else 401
        response.headers["Location"] = "https://api.test/x"
        response.raw, response.request, response.url = io.BytesIO(), request, str(request.url)
        return response

    def close(self) -> None:
        """Nothing is open."""


def test_refusal_after_an_upgrade(session: requests.Session, manager: TokenManager) -> None:
    """P12: requests takes the token along from http to https on one host; a refusal there is none of that token."""
    api = Upgrading()
    for prefix in ("http://", "https://"):
        session.mount(prefix, api)
    assert session.get("http://api.test/x").status_code == 401
    assert api.asked == ["http://api.test/x", "https://api.test/x"]
    assert manager.token().access_token == "t1"


def test_netrc_is_not_asked(
    listener: Listener, manager: TokenManager, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A password in the user's netrc file does not take the place of the token."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login user password secret\n")
    monkeypatch.setenv("NETRC", str(netrc))
    with requests.Session() as session:
        session.auth = TokenAuth(manager)
        session.get(f"{listener.url}/x")
        session.auth = None
        session.get_adapter(listener.url).close()
        session.mount("http://", TokenAdapter(manager))
        session.get(f"{listener.url}/x")
    assert listener.tokens == ["t1", "t1"]


def test_auth_of_a_single_call(listener: Listener, manager: TokenManager) -> None:
    """`auth=` of one call, without any session of the caller's, is enough."""
    in_turn(listener, REFUSED, OK)
    assert requests.get(f"{listener.url}/x", auth=TokenAuth(manager), timeout=BOUND).status_code == 200
    assert listener.tokens == ["t1", "t2"]


@pytest.mark.parametrize("ours", ["auth", "adapter"])
def test_proxy_with_a_password(listener: Listener, manager: TokenManager, ours: str) -> None:
    """The proxy gets its own credentials beside our token, at the refused sending and at the replay."""
    in_turn(listener, REFUSED, OK)
    with requests.Session() as session:
        session.proxies = {"http": listener.url.replace("//", "//user:password@")}
        if ours == "adapter":
            session.mount("http://", TokenAdapter(manager))
        else:
            session.auth = TokenAuth(manager)
        assert session.get("http://api.test/x").status_code == 200
    assert listener.tokens == ["t1", "t2"]
    assert [heard.all("proxy-authorization") for heard in listener.heard] == [["Basic dXNlcjpwYXNzd29yZA=="]] * 2


def test_named_origin(listener: Listener, manager: TokenManager) -> None:
    """With a list of origins a request elsewhere is prepared without a token and without a hook."""
    with requests.Session() as session:
        session.auth = TokenAuth(manager, Scheme.bearer(origins=["https://api.test"]))
        prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    assert "Authorization" not in prepared.headers
    assert prepared.hooks["response"] == []


def test_streamed_answer_after_a_refusal(listener: Listener, session: requests.Session) -> None:
    """With ``stream=True`` lines and raw bytes come as they are, after a replay as without one."""
    body = b"one\ntwo\nthree"
    in_turn(listener, REFUSED, (200, {}, body), (200, {}, iter([b"one\ntw", b"o\nthree"])))
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert list(response.iter_lines()) == [b"one", b"two", b"three"]
    with session.get(f"{listener.url}/x", stream=True) as response:
        assert response.raw.read() == body


def test_nothing_is_left_for_the_garbage_collector(listener: Listener, session: requests.Session) -> None:
    """A request is gone, with its body, as soon as its answer is, replayed or not."""
    in_turn(listener, REFUSED, OK, OK)
    gc.disable()
    try:
        for _ in range(2):
            gone = weakref.ref(session.post(f"{listener.url}/x", data=b"body").request)
            assert gone() is None
    finally:
        gc.enable()


def test_head_and_no_content(listener: Listener, manager: TokenManager) -> None:
    """Answers without a body are judged by their head, refused or not."""
    scheme = Scheme.bearer(code="code", expired=[7])
    plain = {"content-type": "application/json"}
    in_turn(listener, (401, plain, b""), (200, plain | {"content-length": "0"}, b""), (204, {}, b""))
    with requests.Session() as session:
        session.auth = TokenAuth(manager, scheme)
        assert session.head(f"{listener.url}/x").status_code == 200
        assert session.delete(f"{listener.url}/x").status_code == 204
    assert listener.tokens == ["t1", "t2", "t2"]


def test_answers_can_be_pickled(listener: Listener, session: requests.Session) -> None:
    """An answer is pickled like any other, and what comes of it asks for nothing."""
    in_turn(listener, REFUSED, OK)
    response = session.get(f"{listener.url}/x")
    again = pickle.loads(pickle.dumps(response))
    hook: Any = again.request.hooks["response"][0]
    assert hook(again, stream=False) is again
    assert again.json() == response.json()
    assert len(listener.heard) == 2


def test_copies_are_requests_like_others(listener: Listener, session: requests.Session) -> None:
    """A prepared request that was copied in any way is replayed when it is refused."""
    listener.respond = lambda heard, _: REFUSED if heard.token == "t1" else OK
    prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    copies = [copy.deepcopy(prepared), copy.copy(prepared), prepared.copy()]
    del prepared
    assert [session.send(one).status_code for one in copies] == [200] * 3
    assert set(listener.tokens) == {"t1", "t2"}


def test_prepared_request_after_a_replayed_hop(listener: Listener, session: requests.Session) -> None:
    """A prepared request that led to a refused hop carries the newer token when it is sent again."""
    moved: Answer = (302, {"location": "/y"}, b"")
    in_turn(listener, moved, REFUSED, OK, moved, OK)
    prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
    assert [session.send(prepared).status_code for _ in range(2)] == [200, 200]
    assert listener.tokens == ["t1", "t1", "t2", "t2", "t2"]


def test_sessions_stay_in_their_process(session: requests.Session) -> None:
    """A session that is authenticated by us cannot be pickled, and says what to do instead."""
    with pytest.raises(ConfigurationError, match="a TokenAuth cannot be pickled or copied: make the session anew"):
        pickle.dumps(session)


@pytest.mark.parametrize("scheme", [Scheme(InQuery("t")), Scheme(InHeader("X-Token"))])
def test_scheme_that_would_leak(manager: TokenManager, scheme: Scheme) -> None:
    """A scheme that requests would carry along redirects or show in its history is refused, with a way out."""
    with pytest.raises(ConfigurationError, match="Use TokenAdapter for this scheme"):
        TokenAuth(manager, scheme)


@pytest.mark.parametrize("ours", ["auth", "options"])
def test_another_librarys_client(manager: TokenManager, ours: str) -> None:
    """A client of another library that calls what it is given is told whose it is."""
    auth: Any = TokenAuth(manager) if ours == "auth" else TokenOptions(authenticated=False)
    with httpx.Client() as client, pytest.raises(ConfigurationError, match=r"requests of requests, not httpx\.Request"):
        client.get("http://api.test/x", auth=auth)
