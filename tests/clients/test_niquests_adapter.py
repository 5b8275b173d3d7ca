"""niquests: what the adapters do that the contract does not see, in both kinds of sessions."""

from __future__ import annotations

import io
import socket
from collections.abc import Iterator
from typing import Any

import niquests
import pytest
from niquests.adapters import AsyncHTTPAdapter, HTTPAdapter
from niquests.packages.urllib3 import Retry

from tests.clients.contract.listener import OK, REFUSED, Answer, Listener
from tests.clients.niquests_sessions import Api, Mode, Via, run
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InCookie, InHeader, InQuery, ReplayRefused, Scheme
from unexpired.clients.niquests import AsyncBodyFactory, AsyncTokenAdapter, BodyFactory, TokenAdapter, TokenOptions

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])
BOUND = 20.0
QUERY = Scheme(InQuery("access_token"))


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


@pytest.fixture(params=["auth", "adapter"])
def via(request: pytest.FixtureRequest) -> Via:
    """Give each way to carry a token."""
    found: Via = request.param
    return found


def in_turn(listener: Listener, *answers: Answer) -> None:
    """Let the server give these answers, one after the other."""
    listener.respond = lambda _, before: answers[before]


def test_cookies_of_all_answers_stay(listener: Listener, mode: Mode, via: Via) -> None:
    """Cookies of a refused answer go along with the replay and are kept by the session; later ones win."""
    in_turn(
        listener,
        (401, {"Set-Cookie": "route=a; Path=/"}, b""),
        (200, {"Set-Cookie": "last=b; Path=/"}, b""),
        (401, {"Set-Cookie": "far=1; Path=/elsewhere"}, b""),
        OK,
    )

    async def job(api: Api) -> dict[str, str]:
        api.carry(via, counting_manager())
        api.session.cookies.set("own", "1")
        assert (await api.get(f"{listener.url}/x")).headers["set-cookie"] == "last=b; Path=/"
        await api.get(f"{listener.url}/x")
        return {cookie.name: cookie.value for cookie in api.session.cookies}

    assert run(mode, job) == {"own": "1", "route": "a", "last": "b", "far": "1"}
    assert [sorted("; ".join(heard.all("cookie")).split("; ")) for heard in listener.heard] == [
        ["own=1"],
        ["own=1", "route=a"],
        ["last=b", "own=1", "route=a"],
        ["last=b", "own=1", "route=a"],
    ]


def test_response_is_the_callers(listener: Listener, mode: Mode) -> None:
    """The answer is that of the caller's own request: its address, its request, its adapter; no hook sees more."""
    in_turn(listener, REFUSED, (200, {"location": "/x?access_token=t2"}, b"{}"))
    noted: list[Any] = []

    async def job(api: Api) -> Any:
        api.carry("adapter", counting_manager(), Scheme(InQuery("access_token"), InCookie("c"), InHeader("h")))
        for event in ("pre_request", "pre_send", "on_upload", "response"):
            api.session.hooks[event].append(lambda subject, **_: noted.append(subject))
        response = await api.send("POST", f"{listener.url}/x?a=1", data=b"body", headers={"Cookie": b"own=1"})
        assert response.connection is api.session.get_adapter(listener.url)
        return response

    response = run(mode, job)
    assert (response.url, response.history, response.headers["location"]) == (f"{listener.url}/x?a=1", [], "/x")
    assert len({type(each).__name__ for each in noted}) == 2
    requests = [getattr(each, "request", each) for each in noted]
    assert all(each is response.request for each in requests)
    assert "t1" not in str([(each.url, each.headers) for each in requests])
    assert [heard.target for heard in listener.heard] == ["/x?a=1&access_token=t1", "/x?a=1&access_token=t2"]
    assert [heard.all("cookie") for heard in listener.heard] == [["own=1; c=t1"], ["own=1; c=t2"]]


@pytest.mark.parametrize("place", [InQuery("a"), InCookie("a"), InHeader("a")], ids=["query", "cookie", "header"])
def test_errors_show_no_token(mode: Mode, place: Any, caplog: pytest.LogCaptureFixture) -> None:
    """P13: errors come through with the caller's own request and address, at any depth, and so do log records."""
    caplog.set_level("DEBUG")
    manager = counting_manager()
    manager.login({"access_token": "very-marked"})

    async def job(api: Api) -> Any:
        api.carry("adapter", manager, Scheme(place), (HTTPAdapter if api.blocking else AsyncHTTPAdapter)(max_retries=1))
        return await api.raises(niquests.ConnectionError, f"http://127.0.0.1:{taken.getsockname()[1]}/x?n=1")

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        error = run(mode, job)
    assert "Max retries exceeded with url: /x?n=1 " in str(error)
    assert error.request.url.endswith("/x?n=1")
    words, each = caplog.text, error
    while each is not None:
        words += f"{each!r} {each} {[str(value) for value in vars(each).values()]} {error.request.headers}"
        each = each.__cause__ or each.__context__
    assert "very-marked" not in words


def test_redirect_that_repeats_the_query(listener: Listener, mode: Mode) -> None:
    """P12: a server that repeats our query in a redirect to another origin does not pass the token on with it."""
    with Listener() as there:
        in_turn(listener, (302, {"location": f"{there.url}/y?access_token=t1&b=2"}, b""))

        async def job(api: Api) -> Any:
            api.carry("adapter", counting_manager(), QUERY)
            return await api.get(f"{listener.url}/x?a=1")

        response = run(mode, job)
        assert [heard.target for heard in there.heard] == ["/y?b=2"]
    assert "t1" not in str([(one.url, one.headers, one.request.url) for one in (response, *response.history)])


class AsyncFile(io.BytesIO):
    """A file of the asynchronous kind."""

    async def tell(self) -> int:  # type: ignore[override]
        """Where it is."""
        return super().tell()

    async def seek(self, where: int, whence: int = 0) -> int:  # type: ignore[override]
        """Go there."""
        return super().seek(where, whence)

    async def read(self, size: int | None = -1) -> bytes:  # type: ignore[override]
        """Read on."""
        return super().read(size)

    def __aiter__(self) -> AsyncFile:
        return self


def test_asynchronous_bodies(listener: Listener, via: Via) -> None:
    """An asynchronous file goes back to where it was; a factory makes its body anew; an async generator is refused."""
    listener.respond = lambda _, before: REFUSED if before % 2 == 0 else OK

    async def once() -> Any:
        yield b"once"

    async def anew() -> Any:
        yield b"an"
        yield b"ew"

    async def job(api: Api) -> list[int]:
        api.carry(via, counting_manager())
        file = AsyncFile(b"before and after")
        await file.seek(7)
        bodies = [
            file,
            AsyncBodyFactory(anew),
            AsyncBodyFactory(lambda: [b"an", b"ew"]),
            BodyFactory(lambda: [b"anew"]),
        ]
        found = [(await api.send("POST", f"{listener.url}/x", data=body)).status_code for body in bodies]
        await _refused(api, listener, once())
        return found

    assert run("asyncio", job) == [200] * 4
    assert [heard.length for heard in listener.heard] == [9] * 2 + [4] * 7


async def _refused(api: Api, listener: Listener, body: Any) -> None:
    with pytest.raises(ReplayRefused, match="send the request again"):
        await api.send("POST", f"{listener.url}/x", data=body)


def test_blocking_bodies(listener: Listener, via: Via) -> None:
    """Whatever bytes there are can be sent again, and what a factory makes; a file that cannot seek is refused."""
    listener.respond = lambda _, before: REFUSED if before % 2 == 0 else OK

    class Pipe(io.BytesIO):
        def tell(self) -> int:
            raise OSError("not seekable")

    async def job(api: Api) -> list[int]:
        api.carry(via, counting_manager())
        bodies = ["text", b"four", bytearray(b"four"), BodyFactory(lambda: [b"fo", b"ur"])]
        found = [(await api.send("POST", f"{listener.url}/x", data=body)).status_code for body in bodies]
        await _refused(api, listener, Pipe(b"four"))
        return found

    assert run("threads", job) == [200] * 4
    assert [heard.length for heard in listener.heard] == [4] * 9


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TokenAdapter("t"), "manager must be a TokenManager, not str"),  # type: ignore[arg-type]
        (lambda: TokenAdapter(counting_manager(), "t"), "scheme must be a Scheme"),  # type: ignore[arg-type]
        (
            lambda: TokenAdapter(counting_manager(), None, AsyncHTTPAdapter()),  # type: ignore[arg-type]
            r"adapter must be a niquests.adapters.BaseAdapter, not niquests.AsyncHTTPAdapter \(AsyncTokenAdapter takes",
        ),
        (
            lambda: AsyncTokenAdapter(counting_manager(), None, HTTPAdapter()),  # type: ignore[arg-type]
            r"adapter must be a niquests.adapters.AsyncBaseAdapter, not niquests.HTTPAdapter \(TokenAdapter takes",
        ),
        (
            lambda: TokenAdapter(counting_manager(), None, HTTPAdapter),  # type: ignore[arg-type]
            "adapter must be a niquests.adapters.BaseAdapter, not the class HTTPAdapter$",
        ),
        (
            lambda: TokenAdapter(counting_manager(), None, HTTPAdapter(max_retries=Retry(status_forcelist=[401]))),
            "take 401 out of status_forcelist",
        ),
    ],
)
def test_misuse_is_named(make: Any, message: str) -> None:
    """What an adapter cannot be made of is said in a sentence that names it."""
    with pytest.raises(ConfigurationError, match=message):
        make()


def test_adapter_on_the_other_kind_of_session(listener: Listener, mode: Mode) -> None:
    """An adapter on a session of the other kind says which one it needs, and sends nothing."""
    other = AsyncTokenAdapter if mode == "threads" else TokenAdapter

    async def job(api: Api) -> Any:
        api.session.mount("http://", other(counting_manager()))
        error = await api.raises(ConfigurationError, f"{listener.url}/x")
        api.session.mount("http://", api.adapter(counting_manager()))
        return error

    wanted = "a Session needs a TokenAdapter" if mode == "threads" else "an AsyncSession needs an AsyncTokenAdapter"
    assert wanted in str(run(mode, job))
    assert listener.heard == []


def test_sent_by_hand(listener: Listener, mode: Mode) -> None:
    """An adapter that is called without a session, its settings by position, sends with a token; no other's request."""

    async def job(api: Api) -> list[Any]:
        adapter = api.adapter(counting_manager())
        request = niquests.Request("GET", f"{listener.url}/x").prepare()
        found = [await api.wait(adapter.send(request, False, 5)), await api.wait(adapter.send(request))]
        with pytest.raises(ConfigurationError, match="takes requests of niquests, not str"):
            await api.wait(adapter.send("GET"))
        for response in found:
            assert await api.wait(response.content) == b'{"code": 0}'
        await api.wait(adapter.close())
        return [response.status_code for response in found]

    assert run(mode, job) == [200, 200]
    assert listener.tokens == ["t1", "t1"]
    assert run(mode, lambda api: api.get(f"{listener.url}/x", auth=TokenOptions(resource="r"))).status_code == 200
