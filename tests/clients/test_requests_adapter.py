"""What a session keeps of a request that a `TokenAdapter` sent: its own, and never the token."""

from __future__ import annotations

import copy
import logging
import pickle
import socket
from collections.abc import Iterator
from typing import Any, cast

import pytest
import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import HTTPDigestAuth
from urllib3.util import Retry

from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InCookie, InHeader, InQuery, LoginRequired, ReplayRefused, Scheme
from unexpired.clients.requests import BodyFactory, TokenAdapter, TokenAuth, TokenOptions

QUERY = Scheme(InQuery("access_token"))
JSON = {"content-type": "application/json"}


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


def session_for(scheme: Scheme | None = None, adapter: BaseAdapter | None = None) -> requests.Session:
    """A session all of whose requests carry t1, t2 and so on."""
    session = requests.Session()
    session.trust_env = False
    session.mount("http://", TokenAdapter(counting_manager(), scheme, adapter))
    return session


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def told(error: BaseException | None) -> str:
    """All that an error shows, with what it came of."""
    words = ""
    while error is not None:
        words += f"{error!r} {error} {[str(value) for value in vars(error).values()]}"
        error = error.__cause__ or error.__context__
    return words


def test_cookies_of_all_answers_stay(listener: Listener) -> None:
    """Cookies of a refused answer go along with the replay and are kept by the session; later ones win."""
    in_turn(
        listener,
        (401, {"Set-Cookie": "route=a; Path=/"}, b""),
        (200, {"Set-Cookie": "last=b; Path=/"}, b""),
        (401, {"Set-Cookie": "last=c; Path=/"}, b""),
        (200, {"Set-Cookie": "last=d; Path=/"}, b""),
    )
    with session_for() as session:
        session.cookies.set("own", "1")
        first = session.get(f"{listener.url}/x")
        assert first.headers["set-cookie"] == "last=b; Path=/"
        assert first.history == []
        assert dict(session.cookies) == {"own": "1", "route": "a", "last": "b"}
        session.get(f"{listener.url}/x")
        assert dict(session.cookies) == {"own": "1", "route": "a", "last": "d"}
    assert [sorted(heard.all("cookie")[0].split("; ")) for heard in listener.heard] == [
        ["own=1"],
        ["own=1", "route=a"],
        ["last=b", "own=1", "route=a"],
        ["last=c", "own=1", "route=a"],
    ]


def test_cookie_for_another_path_does_not_go_along(listener: Listener) -> None:
    """A cookie that a refused answer sets for other addresses is kept, and not sent to this one."""
    in_turn(listener, (401, {"Set-Cookie": "far=1; Path=/elsewhere"}, b""), OK)
    with session_for() as session:
        session.get(f"{listener.url}/x")
        assert session.cookies.get("far") == "1"
    assert listener.heard[1].all("cookie") == []


def test_cookie_header_as_bytes(listener: Listener) -> None:
    """A token in a cookie joins what the caller wrote, as text or bytes."""
    with session_for(Scheme(InCookie("access_token"))) as session:
        session.get(f"{listener.url}/x", headers={"Cookie": b"own=1; access_token=stale"})
    assert listener.heard[0].all("cookie") == ["own=1; access_token=t1"]


def test_response_is_the_callers(listener: Listener) -> None:
    """The answer is that of the caller's own request: its address, its request, its adapter; and the time it took."""
    in_turn(listener, REFUSED, OK)
    with session_for(QUERY) as session:
        prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x?a=1"))
        response = session.send(prepared)
        assert response.request is prepared
        assert response.connection is cast("Any", session.get_adapter(listener.url))
    assert (response.url, response.raw.url) == (f"{listener.url}/x?a=1", "/x?a=1")
    assert response.elapsed.total_seconds() > 0
    assert [heard.target for heard in listener.heard] == ["/x?a=1&access_token=t1", "/x?a=1&access_token=t2"]


def test_prepared_request_is_sent_again(listener: Listener) -> None:
    """A prepared request gets the token of the moment each time that it, or a copy, is sent."""
    manager = counting_manager()
    with requests.Session() as session:
        session.mount("http://", TokenAdapter(manager))
        prepared = session.prepare_request(requests.Request("GET", f"{listener.url}/x"))
        session.send(prepared)
        manager.refresh()
        session.send(prepared)
        session.send(prepared.copy())
        prepared.headers = cast("Any", {"X-Own": "1"})
        session.send(prepared)
    assert listener.tokens == ["t1", "t2", "t2", "t2"]
    assert listener.heard[3].all("x-own") == ["1"]
    assert "Authorization" not in prepared.headers


def test_redirect_that_repeats_the_query(listener: Listener) -> None:
    """A server that repeats our query in a redirect, as for a missing slash, does not pass the token on with it."""
    with Listener() as there:
        in_turn(
            listener,
            (301, {"location": "/x/?a=1&access_token=t1#top"}, b""),
            (302, {"location": f"{there.url}/y?access_token=t1"}, b""),
        )
        with session_for(QUERY) as session:
            response = session.get(f"{listener.url}/x?a=1")
        assert [heard.target for heard in there.heard] == ["/y"]
    assert [heard.target for heard in listener.heard] == ["/x?a=1&access_token=t1", "/x/?a=1&access_token=t1"]
    assert [one.headers["location"] for one in response.history] == ["/x/?a=1#top", f"{there.url}/y"]


@pytest.mark.parametrize("place", [InQuery("a"), InCookie("a"), InHeader("a")], ids=["query", "cookie", "header"])
def test_errors_show_no_token(place: Any) -> None:
    """P13: the errors of requests and urllib3 come through with the caller's own request and address, at any depth."""
    manager = counting_manager()
    manager.login({"access_token": "very-marked"})
    with socket.socket() as taken, requests.Session() as session:
        taken.bind(("127.0.0.1", 0))
        session.mount("http://", TokenAdapter(manager, Scheme(place)))
        with pytest.raises(requests.ConnectionError, match=r"Max retries exceeded with url: /x\?n=1 ") as caught:
            session.get(f"http://127.0.0.1:{taken.getsockname()[1]}/x?n=1")
    error = caught.value
    assert error.request is not None
    assert str(error.request.url).endswith("/x?n=1")
    assert "very-marked" not in told(error) + str(vars(error.request))


def test_history_of_retries_shows_no_token(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """P13: what urllib3 tried again stays in its history and its log, with the caller's address."""
    in_turn(listener, (503, {}, b""), OK)
    caplog.set_level(logging.DEBUG)
    adapter = HTTPAdapter(max_retries=Retry(2, status_forcelist=[503]))
    with session_for(QUERY, adapter) as session:
        response = session.get(f"{listener.url}/x?n=1")
    assert [one.url for one in response.raw.retries.history] == ["/x?n=1"]
    assert "Retry: /x?n=1" in caplog.text
    assert "t1" not in caplog.text
    assert listener.heard[1].target == "/x?n=1&access_token=t1"


def test_other_logs_are_left_alone(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """What urllib3 logs of requests that are not ours stays as it is, also where they look like ours."""
    caplog.set_level(logging.DEBUG)
    with session_for(QUERY), requests.Session() as other:
        other.get(f"{listener.url}/x?access_token=own")
    assert "/x?access_token=own" in caplog.text


def test_adapter_that_would_retry_refusals() -> None:
    """Retries that would send a refused token again are refused when the adapter is made; others are not."""
    manager = counting_manager()
    with pytest.raises(ConfigurationError, match="take 401 out of status_forcelist"):
        TokenAdapter(manager, None, HTTPAdapter(max_retries=Retry(3, status_forcelist=[503, 401])))
    scheme = Scheme.bearer(expired_status=[403])
    with pytest.raises(ConfigurationError, match="take 403 out of status_forcelist"):
        TokenAdapter(manager, scheme, HTTPAdapter(max_retries=Retry(3, status_forcelist=[403])))
    TokenAdapter(manager, None, HTTPAdapter(max_retries=Retry(3, status_forcelist=[403, 503]))).close()


def test_retries_of_the_adapter_go_on(listener: Listener) -> None:
    """What the adapter itself tries again, and its pause before, are as ever, before and after a refusal."""
    busy: Answer = (503, {"retry-after": "0"}, b"")
    in_turn(listener, busy, REFUSED, busy, OK)
    with session_for(adapter=HTTPAdapter(max_retries=Retry(2, status_forcelist=[503]))) as session:
        assert session.get(f"{listener.url}/x").status_code == 200
    assert listener.tokens == ["t1", "t1", "t2", "t2"]


def test_another_authentication_goes_through_us(listener: Listener) -> None:
    """A hook that sends the request on from its answer, such as requests' digest authentication, keeps our token."""
    challenge = 'Digest realm="r", nonce="n", qop="auth"'
    in_turn(listener, (407, {"www-authenticate": challenge}, b""), OK)
    scheme = Scheme(InHeader("X-Token"))

    class Digest(HTTPDigestAuth):
        def handle_401(self, r: requests.Response, **kwargs: Any) -> requests.Response:
            r.status_code = 401 if r.status_code == 407 else r.status_code
            return super().handle_401(r, **kwargs)

    with session_for(scheme) as session:
        session.get(f"{listener.url}/x", auth=Digest("user", "password"))
    assert [heard.all("x-token") for heard in listener.heard] == [["t1"], ["t1"]]
    assert listener.heard[1].all("authorization")[0].startswith("Digest ")


def test_hooks_see_the_last_answer_alone(listener: Listener) -> None:
    """The caller's hooks run once, on the answer that the caller gets."""
    in_turn(listener, REFUSED, OK)
    seen: list[int] = []
    with session_for() as session:
        session.get(f"{listener.url}/x", hooks={"response": lambda response, **_: seen.append(response.status_code)})
    assert seen == [200]


class Plain:
    """A body that is a file and no more."""

    def __init__(self, body: bytes) -> None:
        self.body = body

    def read(self, amt: int | None = None) -> bytes:
        """All of it, once."""
        body, self.body = self.body, b""
        return body if amt is None else body[:amt]

    def close(self) -> None:
        """Nothing to close."""


class Canned(BaseAdapter):
    """An adapter without urllib3 behind it."""

    def __init__(self, *answers: tuple[int, bytes]) -> None:
        super().__init__()
        self.answers = list(answers)
        self.tokens: list[str | None] = []

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        """The next answer."""
        self.tokens.append(cast("str | None", request.headers.get("Authorization")))
        response = requests.Response()
        response.status_code, body = self.answers.pop(0)
        response.raw, response.headers["Content-Type"] = Plain(body), "application/json"
        return response

    def close(self) -> None:
        """Nothing to close."""


def test_adapter_without_urllib3() -> None:
    """An adapter of another make is judged by status and headers; what it answers is handed on as it is."""
    adapter = Canned((401, b"no"), (200, b'{"code": 0}'))
    places = (InHeader("Authorization", "Bearer {access_token}"), InQuery("token"))
    with session_for(Scheme(*places, code="code", expired=[7]), adapter) as session:
        assert session.get("http://api.test/x").json() == {"code": 0}
    assert adapter.tokens == ["Bearer t1", "Bearer t2"]


def test_body_factory(listener: Listener) -> None:
    """A body that is made anew for each sending is replayed; one that is made of no bytes is refused."""
    in_turn(listener, REFUSED, OK)
    with session_for() as session:
        assert session.post(f"{listener.url}/x", data=BodyFactory(lambda: [b"one", b"two"])).status_code == 200
        with pytest.raises(ConfigurationError, match="iterable of bytes"):
            session.post(f"{listener.url}/x", data=BodyFactory(cast("Any", lambda: None)))
    assert [heard.length for heard in listener.heard[:2]] == [6, 6]


def test_file_from_its_middle(listener: Listener, tmp_path: Any) -> None:
    """A file that was read to its middle is sent from there, both times; one that cannot seek is refused."""
    in_turn(listener, REFUSED, OK, REFUSED)
    (tmp_path / "body").write_bytes(b"0123456789")
    with session_for() as session, (tmp_path / "body").open("rb") as file:
        file.seek(4)
        assert session.put(f"{listener.url}/x", data=file).status_code == 200
        file.seek(4)
        monkey = Unseekable(file)
        with pytest.raises(ReplayRefused):
            session.put(f"{listener.url}/x", data=monkey)
    assert [heard.length for heard in listener.heard] == [6, 6, 6]


class Unseekable:
    """A file that says where it is and cannot go back there."""

    def __init__(self, file: Any) -> None:
        self.file = file

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.file)

    def tell(self) -> int:
        """Where it is."""
        raise OSError("a pipe")

    def read(self, amt: int = -1) -> bytes:
        """What comes next."""
        data: bytes = self.file.read(amt)
        return data


def test_login_that_is_over_says_so(listener: Listener) -> None:
    """The end of the login is an error of ours, with nothing of the request in it."""
    manager = counting_manager()
    scheme = Scheme(InQuery("access_token"), code="code", login_required=[9])
    in_turn(listener, (200, JSON, b'{"code": 9}'))
    with requests.Session() as session:
        session.mount("http://", TokenAdapter(manager, scheme))
        with pytest.raises(LoginRequired) as caught:
            session.get(f"{listener.url}/x")
    assert "t1" not in told(caught.value)


def test_answers_can_be_pickled(listener: Listener) -> None:
    """An answer is pickled with its request, and holds no token then either."""
    in_turn(listener, REFUSED, OK)
    with session_for(QUERY) as session:
        response = session.get(f"{listener.url}/x", auth=TokenOptions())
    packed = pickle.dumps(response)
    assert pickle.loads(packed).json() == {"code": 0}
    assert b"t1" not in packed
    assert b"t2" not in packed


def test_sessions_stay_in_their_process() -> None:
    """A session that holds our adapter cannot be pickled or copied, and says what to do instead."""
    session = session_for()
    for attempt in (lambda: pickle.dumps(session), lambda: copy.deepcopy(session)):
        with pytest.raises(ConfigurationError, match=r"make the session anew in each process"):
            attempt()


@pytest.mark.parametrize("wrong", [HTTPAdapter, "adapter", 3, TokenAuth])
def test_wrong_adapter(wrong: Any) -> None:
    """What is no adapter is refused at once, by name of its kind."""
    with pytest.raises(ConfigurationError, match=r"requests\.adapters\.BaseAdapter that sends, not "):
        TokenAdapter(counting_manager(), None, wrong)


@pytest.mark.parametrize("what", [TokenAdapter, TokenAuth])
def test_wrong_manager(what: Any) -> None:
    """What is no manager, or no scheme, is refused at once."""
    with pytest.raises(ConfigurationError, match="manager must be a TokenManager"):
        what("token")
    with pytest.raises(ConfigurationError, match="scheme must be a Scheme"):
        what(counting_manager(), "Bearer")


def test_refused_login_keeps_cookies_apart(listener: Listener) -> None:
    """Two answers on one connection, each with its own cookies: nothing of one caller reaches another."""

    def respond(heard: Heard, before: int) -> Answer:
        name = heard.target.removeprefix("/")
        return (200 if before % 2 else 401), {"Set-Cookie": f"{name}{before}=1; Path=/{name}"}, b""

    listener.respond = respond
    adapter = TokenAdapter(counting_manager())
    jars = []
    for name in ("a", "b"):
        session = requests.Session()
        session.mount("http://", adapter)
        session.get(f"{listener.url}/{name}")
        jars.append(sorted(session.cookies.keys()))
    adapter.close()
    assert jars == [["a0", "a1"], ["b2", "b3"]]
