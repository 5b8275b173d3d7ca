"""`TokenPool` is a pool manager like the one it wraps: its redirects, retries, errors and connections are urllib3's."""

from __future__ import annotations

import copy
import importlib
import io
import logging
import pickle
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
from urllib3.exceptions import MaxRetryError, ReadTimeoutError
from urllib3.util import Retry

from tests.clients.contract.listener import OK, REFUSED, Answer, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InCookie, InQuery, ReplayRefused, Scheme
from unexpired.clients.urllib3 import BodyFactory, TokenPool

QUERY = Scheme(InQuery("access_token"))
MOVED: Answer = (302, {"location": "/next"}, b"")


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


def pool_for(scheme: Scheme | None = None, pool: urllib3.PoolManager | None = None) -> TokenPool:
    """A pool whose requests carry t1, t2 and so on."""
    return TokenPool(counting_manager(), scheme, pool)


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def test_drops_in(listener: Listener) -> None:
    """It is a pool manager with the other's headers, settings and connections, which are closed with either."""
    inner = urllib3.PoolManager(3, {"X-Own": "1"}, maxsize=4)
    with pool_for(pool=inner) as pool:
        assert isinstance(pool, urllib3.PoolManager)
        assert (pool.headers, pool.connection_pool_kw, pool.pools) == (inner.headers, {"maxsize": 4}, inner.pools)
        assert pool.request("GET", f"{listener.url}/x", fields={"a": "1"}).json() == {"code": 0}
        assert pool.urlopen("GET", f"{listener.url}/y").status == 200
        assert pool.connection_from_url(listener.url) is inner.connection_from_url(listener.url)
        assert len(inner.pools) == 1
    assert len(inner.pools) == 0
    assert [heard.target for heard in listener.heard] == ["/x?a=1", "/y"]
    assert [heard.all("x-own") for heard in listener.heard] == [["1"], ["1"]]
    assert listener.tokens == ["t1", "t1"]
    assert inner.headers == {"X-Own": "1"}


def test_connections_taken_out_carry_no_token(listener: Listener) -> None:
    """Whoever takes a single host's connections out of it sends for himself."""
    with pool_for() as pool:
        pool.connection_from_host("127.0.0.1", listener.port).request("GET", "/x")
    assert listener.tokens == [None]


@pytest.mark.parametrize("scheme", [None, QUERY], ids=["header", "query"])
def test_too_many_redirects(listener: Listener, scheme: Scheme | None) -> None:
    """Redirects count against urllib3's own retries, and the error is as without us, of a pool of connections."""
    listener.respond = lambda _heard, _before: MOVED
    with pool_for(scheme) as pool, pytest.raises(MaxRetryError, match="too many redirects") as caught:
        pool.request("GET", f"{listener.url}/x", retries=Retry(5, redirect=2))
    assert len(listener.heard) == 3
    assert isinstance(caught.value.pool, urllib3.HTTPConnectionPool)
    assert "t1" not in f"{caught.value}{caught.value.url}"


def test_redirects_that_are_not_followed(listener: Listener) -> None:
    """``redirect=False`` and ``retries=False`` hand out the redirect itself."""
    listener.respond = lambda _heard, _before: MOVED
    with pool_for(pool=urllib3.PoolManager(retries=Retry(3, status_forcelist=[302]))) as pool:
        options: list[dict[str, Any]] = [{"redirect": False, "retries": 0}, {"retries": False}]
        assert [pool.request("GET", f"{listener.url}/x", **one).status for one in options] == [302, 302]
    assert len(listener.heard) == 2


def test_history_of_redirects(listener: Listener) -> None:
    """The answer's retries tell of each redirect, with addresses as the caller and the server gave them."""
    in_turn(listener, REFUSED, MOVED, OK)
    with pool_for(QUERY) as pool:
        answer = pool.request("GET", f"{listener.url}/x?a=1")
    assert answer.retries is not None
    history = [(one.url, one.status, one.redirect_location) for one in answer.retries.history]
    assert history == [(f"{listener.url}/x?a=1", 302, "/next")]
    assert (answer.url, listener.heard[2].target) == ("/next", "/next?access_token=t2")


def test_credentials_of_the_callers_own_along_redirects(listener: Listener) -> None:
    """On the way to another origin urllib3 takes off the caller's own credentials, as ever, and we add none."""
    with Listener() as there:
        in_turn(listener, (302, {"location": f"{there.url}/y"}, b""))
        with pool_for(Scheme(InQuery("t"))) as pool:
            pool.request("GET", f"{listener.url}/x", headers={"Authorization": "own", "X-Own": "1", "Cookie": "a=b"})
        (heard,) = there.heard
    assert (heard.target, heard.all("authorization"), heard.all("cookie"), heard.all("x-own")) == ("/y", [], [], ["1"])


def test_file_along_a_redirect(listener: Listener, tmp_path: Path) -> None:
    """A file is sent from where it stood, at each hop and each replay."""
    in_turn(listener, (307, {"location": "/next"}, b""), REFUSED, OK)
    (tmp_path / "body").write_bytes(b"0123456789")
    with pool_for() as pool, (tmp_path / "body").open("rb") as file:
        file.seek(4)
        assert pool.request("PUT", f"{listener.url}/x", body=file).status == 200
    assert [heard.length for heard in listener.heard] == [6, 6, 6]


def test_redirect_that_repeats_the_query(listener: Listener) -> None:
    """A server that repeats our query in a redirect does not pass the token on with it."""
    with Listener() as there:
        in_turn(listener, (302, {"location": f"{there.url}/y?access_token=t1&a=1"}, b""))
        with pool_for(QUERY) as pool:
            pool.request("GET", f"{listener.url}/x")
        assert [heard.target for heard in there.heard] == ["/y?a=1"]


@pytest.mark.parametrize("where", ["pool", "request"])
def test_retries_leave_refusals_to_us(listener: Listener, where: str) -> None:
    """A status list with 401 in it tries the others again, and leaves refused tokens to us."""
    busy: Answer = (503, {}, b"")
    in_turn(listener, busy, REFUSED, busy, OK)
    retries = Retry(3, status_forcelist=[401, 503])
    inner = urllib3.PoolManager(retries=retries if where == "pool" else None)
    with pool_for(pool=inner) as pool:
        options: dict[str, Any] = {"retries": retries} if where == "request" else {}
        assert pool.request("GET", f"{listener.url}/x", **options).status == 200
    assert listener.tokens == ["t1", "t1", "t2", "t2"]
    assert retries.status_forcelist == [401, 503]


def test_retries_that_have_nothing_to_do_with_us(listener: Listener) -> None:
    """When a request's retries run out, that is urllib3's error; ``retries=False`` beats those of the pool."""
    listener.respond = lambda _heard, _before: (503, {}, b"")
    with pool_for(pool=urllib3.PoolManager(retries=Retry(2, status_forcelist=[503]))) as pool:
        with pytest.raises(MaxRetryError, match="too many 503"):
            pool.request("GET", f"{listener.url}/x")
        assert len(listener.heard) == 3
        assert pool.request("GET", f"{listener.url}/x", retries=False).status == 503
    assert len(listener.heard) == 4


def told(error: BaseException | None) -> str:
    """All that an error shows, with what it came of."""
    words = ""
    while error is not None:
        words += f"{error!r} {error} {[str(value) for value in vars(error).values()]}"
        error = error.__cause__ or error.__context__
    return words


def test_errors_and_logs_show_no_token(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    """P13: urllib3's errors come through as they are, and show the address that the caller gave; so does its log."""
    caplog.set_level(logging.DEBUG)
    manager = counting_manager()
    manager.login({"access_token": "very/marked"})
    with socket.socket() as taken, TokenPool(manager, QUERY) as pool:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(MaxRetryError, match=r"url: /x\?n=1 ") as refused:
            pool.request("GET", f"http://127.0.0.1:{taken.getsockname()[1]}/x?n=1", retries=1)
        taken.listen()
        with pytest.raises(ReadTimeoutError) as timed_out:
            pool.request("GET", f"http://127.0.0.1:{taken.getsockname()[1]}/x", retries=False, timeout=0.2)
        pool.request("GET", f"{listener.url}/served")
    assert refused.value.url == "/x?n=1"
    assert timed_out.value.url == "/x"
    assert "Retrying" in caplog.text
    assert "/served" in caplog.text
    assert "marked" not in told(refused.value) + told(timed_out.value) + caplog.text
    assert listener.heard[0].target == "/served?access_token=very%2Fmarked"


def test_headers_of_the_callers_own(listener: Listener) -> None:
    """Repeated headers stay repeated, an old token in any spelling gives way, the caller's mapping is not touched."""
    many = urllib3.HTTPHeaderDict({"authorization": "stale"})
    many.add("X-Own", "1")
    many.add("X-Own", "2")
    one = {"AUTHORIZATION": "stale", "X-Own": "3", "COOKIE": "a=b; access_token=old"}
    both = Scheme(*Scheme.bearer().places[0], InCookie("access_token"))
    with pool_for(both) as pool:
        for headers in (many, one, None):
            pool.urlopen("GET", f"{listener.url}/x", headers=headers)
    assert listener.tokens == ["t1"] * 3
    assert [heard.all("x-own") for heard in listener.heard] == [["1", "2"], ["3"], []]
    assert [heard.all("cookie")[0] for heard in listener.heard] == [
        "access_token=t1",
        "a=b; access_token=t1",
        "access_token=t1",
    ]
    assert (many["authorization"], one["AUTHORIZATION"]) == ("stale", "stale")


@pytest.mark.parametrize(
    "body",
    [b"12", "12", bytearray(b"12"), [b"1", b"2"], io.BytesIO(b"12"), BodyFactory(lambda: [b"1", b"2"]), None],
    ids=lambda body: type(body).__name__,
)
def test_bodies_that_are_had_again(listener: Listener, body: Any) -> None:
    """What can be sent again is sent again, whole."""
    in_turn(listener, REFUSED, OK)
    with pool_for() as pool:
        assert pool.request("POST", f"{listener.url}/x", body=body).status == 200
    assert [heard.length for heard in listener.heard] == [0 if body is None else 2] * 2


class Pipe(io.BytesIO):
    """A file that cannot go back."""

    def seek(self, *_: Any) -> int:
        """Not here."""
        raise io.UnsupportedOperation


class Reader:
    """A body that can be read, and says nothing of where it stands."""

    def __init__(self, body: bytes) -> None:
        self.read = io.BytesIO(body).read


class Marked(io.BytesIO):
    """A file whose places are no numbers."""

    def tell(self) -> Any:
        """Anything."""
        return "here"

    def seek(self, *_: Any) -> int:
        """Anywhere."""
        return 0


@pytest.mark.parametrize("kind", [Pipe, Reader, Marked])
def test_bodies_that_are_read_once(listener: Listener, kind: Any) -> None:
    """What cannot be sent again is refused, and sent only once."""
    in_turn(listener, REFUSED)
    with pool_for() as pool, pytest.raises(ReplayRefused, match="send the request again"):
        pool.request("POST", f"{listener.url}/x", body=kind(b"12"))
    assert [heard.length for heard in listener.heard] == [2]


def test_proxy_with_a_password(listener: Listener) -> None:
    """A proxy manager sends its own credentials beside our token, at each sending, and the proxy's stay its own."""
    in_turn(listener, REFUSED, (302, {"location": "/y"}, b""), OK)
    proxy = urllib3.ProxyManager(listener.url, proxy_headers=urllib3.make_headers(proxy_basic_auth="user:password"))
    with pool_for(QUERY, proxy) as pool:
        assert pool.proxy is proxy.proxy
        assert pool.request("GET", "http://api.test/x").status == 200
    assert [heard.target for heard in listener.heard] == [
        "http://api.test/x?access_token=t1",
        "http://api.test/x?access_token=t2",
        "http://api.test/y?access_token=t2",
    ]
    assert {heard.all("proxy-authorization")[0][:6] for heard in listener.heard} == {"Basic "}


def test_unread_refusals_let_go(listener: Listener) -> None:
    """A long refused answer that its caller did not want read is let go, with its connection, before the replay."""
    in_turn(listener, (401, {}, b"no" * 100_000), OK)
    with pool_for(pool=urllib3.PoolManager(maxsize=1, block=True)) as pool:
        answer = pool.request("GET", f"{listener.url}/x", preload_content=False, pool_timeout=5)
        assert answer.read() == OK[2]
    assert listener.connections == 2


def test_one_pool_for_two_logins(listener: Listener) -> None:
    """Two logins share one pool manager and its connections; a pool around a pool is refused."""
    inner = urllib3.PoolManager()
    first, second = pool_for(pool=inner), pool_for(pool=inner)
    second._calls.manager.refresh()
    for pool in (first, second):
        pool.request("GET", f"{listener.url}/x")
    assert (listener.tokens, listener.connections) == (["t1", "t2"], 1)
    inner.clear()
    with pytest.raises(ConfigurationError, match="make one for each login"):
        pool_for(pool=first)


def test_stays_in_its_process() -> None:
    """It cannot be pickled or copied, and says what to do instead."""
    for attempt in (pickle.dumps, copy.copy):
        with pytest.raises(ConfigurationError, match="make it anew in each process"):
            attempt(pool_for())


@pytest.mark.parametrize("client", ["requests", "urllib3"])
def test_not_installed(client: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client, importing its module says in one sentence which extra brings it."""
    module = f"unexpired.clients.{client}"
    monkeypatch.setitem(sys.modules, client, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(ModuleNotFoundError, match=rf"^{module} needs {client}, which is not installed: pip install "):
        importlib.import_module(module)


@pytest.mark.parametrize("wrong", [urllib3.PoolManager, urllib3.HTTPConnectionPool("api.test"), "pool"])
def test_wrong_pool(wrong: Any) -> None:
    """What is no pool manager is refused, by name of its kind."""
    with pytest.raises(ConfigurationError, match=r"pool must be a urllib3\.PoolManager, not "):
        pool_for(pool=wrong)
    with pytest.raises(ConfigurationError, match="manager must be a TokenManager"):
        TokenPool(wrong)
