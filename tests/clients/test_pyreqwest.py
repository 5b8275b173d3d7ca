"""pyreqwest: what its adapter takes, what it shows, and what answers mean. The contract suite has the rest."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import aiohttp
import httpx2
import pytest
import requests
from pyreqwest.client import ClientBuilder, SyncClientBuilder
from pyreqwest.exceptions import ConnectError, StatusError

import unexpired.clients.pyreqwest as adapter
from tests.clients.contract.listener import OK, REFUSED, Listener
from tests.clients.pyreqwest_clients import Kind, done, each_kind, sent
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InCookie, InHeader, InQuery, Scheme

JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])
SECRET = "a-very-marked-token"


@pytest.fixture(name="listener")
def _listener() -> Any:
    with Listener() as listening:
        yield listening


@pytest.mark.parametrize("kind", [adapter.TokenMiddleware, adapter.SyncTokenMiddleware])
@pytest.mark.parametrize(
    "scheme",
    [
        Scheme(InHeader("access_token")),
        Scheme(InQuery("access_token")),
        Scheme(InCookie("access_token")),
        Scheme(InHeader("Authorization", "Bearer {access_token}"), InHeader("X-Also")),
        Scheme(InHeader("Authorization", "Bearer {access_token}"), InQuery("also")),
    ],
    ids=["header", "query", "cookie", "second header", "query too"],
)
def test_scheme_that_would_leak(kind: Any, scheme: Scheme) -> None:
    """P12: a middleware refuses a token that pyreqwest would take along redirects, and names what carries it."""
    with pytest.raises(ConfigurationError, match=f"^{kind.__name__} carries .* Build the client with token_client"):
        kind(counting_manager(), scheme)


@pytest.mark.parametrize("kind", [adapter.TokenMiddleware, adapter.SyncTokenMiddleware])
def test_arguments_of_another_kind(kind: Any) -> None:
    """What is no manager and no scheme is refused with a sentence that says what is wanted."""
    with pytest.raises(ConfigurationError, match="manager must be a TokenManager, not str"):
        kind("a token")
    with pytest.raises(ConfigurationError, match="scheme must be a Scheme"):
        kind(counting_manager(), "bearer")


@pytest.mark.parametrize("kind", [adapter.TokenMiddleware, adapter.SyncTokenMiddleware])
@pytest.mark.parametrize("client", ["aiohttp", "httpx2", "requests"])
def test_in_another_client(kind: Any, client: str) -> None:
    """In a client that is not pyreqwest's a middleware sends nothing, and says where it belongs."""
    tokens, url = kind(counting_manager()), "http://127.0.0.1:9/"

    async def by_aiohttp() -> None:
        async with aiohttp.ClientSession(middlewares=[tokens]) as session, session.get(url):
            raise AssertionError("sent")

    calls: dict[str, Callable[[], object]] = {
        "aiohttp": lambda: asyncio.run(by_aiohttp()),
        "httpx2": lambda: httpx2.get(url, auth=tokens),
        "requests": lambda: requests.get(url, auth=tokens, timeout=10),
    }
    words = rf"^{kind.__name__} of unexpired\.clients\.pyreqwest takes requests of pyreqwest, not {client}\.\w+: give"
    with pytest.raises(ConfigurationError, match=words):
        calls[client]()


def test_arguments_of_token_client() -> None:
    """`token_client` says what it wants in place of a built client, a manager without origins, and no pair."""
    with SyncClientBuilder().build() as built:
        wrong: Any = built
        with pytest.raises(
            ConfigurationError, match=r"builder must be a .*SyncClientBuilder, not pyreqwest\.SyncClient$"
        ):
            adapter.token_client(wrong, counting_manager())
    others: Any
    for others in ([counting_manager()], [(counting_manager(), Scheme.bearer())], [(counting_manager(), None)]):
        with pytest.raises(ConfigurationError, match=r"pairs of a manager and a scheme .* Scheme\.bearer\(origins="):
            adapter.token_client(SyncClientBuilder(), counting_manager(), others=others)
    with pytest.raises(ConfigurationError, match="manager must be a TokenManager, not None"):
        adapter.token_client(ClientBuilder(), None)  # type: ignore[call-overload]


def test_each_kind_of_client_has_its_middleware() -> None:
    """Pyreqwest itself refuses the middleware that is for the other kind of client."""
    manager = counting_manager()
    with pytest.raises(ValueError, match="must be a sync function"):
        SyncClientBuilder().with_middleware(adapter.TokenMiddleware(manager))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="must be an async function"):
        ClientBuilder().with_middleware(adapter.SyncTokenMiddleware(manager))


def test_not_installed() -> None:
    """Without pyreqwest the module says in one sentence which extra brings it."""
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.partition('.')[0] == 'pyreqwest':\n"
        "            raise ModuleNotFoundError('No module named pyreqwest', name='pyreqwest')\n"
        "sys.meta_path.insert(0, Missing())\n"
        "try:\n"
        "    import unexpired.clients.pyreqwest\n"
        "except ModuleNotFoundError as error:\n"
        "    print(error)\n"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    sentence = "unexpired.clients.pyreqwest needs pyreqwest, which is not installed: pip install 'unexpired[pyreqwest]'"
    assert run.stdout == sentence + "\n"


@each_kind
def test_who_sees_the_token(listener: Listener, kind: str) -> None:
    """P13: the request of the caller and of middlewares before ours never holds it; those after ours see it masked."""
    each, seen, requests = Kind(kind), [], []
    manager = counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})

    def before(request: Any, answer: Any) -> Any:
        requests.append((request, dict(request.headers)))
        return answer

    def after(request: Any, answer: Any) -> Any:
        if answer is None:
            seen.append((request.headers["authorization"], repr(request.headers), repr(request), request.repr_full()))
        return answer

    async def job() -> None:
        builder = each.builder().with_middleware(each.middleware(before))
        builder.with_middleware(each.tokens(manager)).with_middleware(each.middleware(after))
        async with each.opened(builder.build()) as client:
            assert (await sent(client.get(f"{listener.url}/x").header("x-own", "1")))[0] == 200

    each.run(job)
    assert [headers for _, headers in requests] == [{"x-own": "1"}] * 2
    ((value, *shown),) = seen
    assert value == f"Bearer {SECRET}"
    assert SECRET not in "".join(shown)


@each_kind
@pytest.mark.parametrize(
    ("extension", "why"),
    [({"unexpired.anonymous": True}, "no request extension"), ({"unexpired.authenticated": 0}, "True or False")],
)
def test_an_extension_that_says_nothing(kind: str, listener: Listener, extension: dict[str, Any], why: str) -> None:
    """Who means to take the token off and misspells it is told, and nothing is sent."""
    each, manager = Kind(kind), counting_manager()

    async def job() -> None:
        async with each.opened(adapter.token_client(each.builder(), manager)) as client:
            with pytest.raises(ConfigurationError, match=why):
                await sent(client.get(listener.url).extensions(extension))

    each.run(job)
    assert listener.heard == []


@each_kind
def test_errors_show_no_token(kind: str) -> None:
    """P13, scenario 53: pyreqwest names the address in its errors; the token in its query is not in them."""
    each, manager = Kind(kind), counting_manager()
    manager.login({"access_token": SECRET, "refresh_token": "r"})

    async def job(url: str) -> ConnectError:
        async with each.opened(adapter.token_client(each.builder(), manager, Scheme(InQuery("t")))) as client:
            with pytest.raises(ConnectError):
                await sent(client.get(url).extensions({"unexpired.authenticated": False}))
            with pytest.raises(ConnectError) as caught:
                await sent(client.get(url).query({"own": "1"}))
        return caught.value

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}/x"
        error = each.run(lambda: job(url))
    assert f"{url}?own=1)" in str(error.details)
    assert SECRET not in f"{error!r} {error.details} {error.args} {error.__cause__} {error.__context__}"


@each_kind
def test_errors_for_a_status(listener: Listener, kind: str) -> None:
    """With ``error_for_status`` the refusal that is replayed is no error, and the last answer is one as ever."""
    each = Kind(kind)
    listener.respond = lambda _, before: OK if before == 1 else REFUSED

    async def job() -> None:
        builder = each.builder().error_for_status(True).with_middleware(each.tokens(counting_manager()))
        async with each.opened(builder.build()) as client:
            assert (await sent(client.get(f"{listener.url}/x")))[0] == 200
            with pytest.raises(StatusError) as caught:
                await sent(client.get(f"{listener.url}/x"))
            assert caught.value.details["status"] == 401

    each.run(job)
    assert listener.tokens == ["t1", "t2", "t2", "t3"]


@each_kind
def test_an_answer_that_was_looked_into(listener: Listener, kind: str) -> None:
    """A body that was judged by its code is still read as its caller likes, with the client's own JSON reader."""
    each = Kind(kind)
    bodies = [b'{"code": 40009}', b'{"code": 0, "data": "\xc3\xbc"}']
    listener.respond = lambda _, before: (200, JSON, bodies[before])

    def loads(_: object) -> str:
        return "own"

    async def aloads(_: object) -> str:
        return "own"

    async def job() -> None:
        builder = each.builder().json_handler(loads=loads if each.blocking else aloads)
        builder.with_middleware(each.tokens(counting_manager(), CODES))
        async with each.opened(builder.build()) as client:
            response = await done(client.get(f"{listener.url}/x").build().send())
            assert await done(response.json()) == "own"
            assert await done(response.text()) == '{"code": 0, "data": "ü"}'
            assert (await done(response.bytes())).to_bytes() == bodies[1]

    each.run(job)
    assert listener.tokens == ["t1", "t2"]


@each_kind
def test_codes_beyond_the_limit(listener: Listener, kind: str) -> None:
    """A body longer than what is looked at is judged by its beginning, and comes on whole."""
    each = Kind(kind)
    body = b'{"data": "' + b"x" * 70_000 + b'", "code": 40009}'
    listener.respond = lambda _heard, _before: (200, JSON | {"transfer-encoding": "chunked"}, iter([body]))

    async def job() -> tuple[int, bytes]:
        builder = each.builder().with_middleware(each.tokens(counting_manager(), CODES))
        async with each.opened(builder.build()) as client:
            return await sent(client.get(f"{listener.url}/x"))

    assert each.run(job) == (200, body)
    assert listener.tokens == ["t1"]


@each_kind
@pytest.mark.parametrize(
    ("status", "challenge", "tokens"),
    [
        (403, ['Basic realm="x"', 'Bearer error="invalid_token"'], ["t1", "t2"]),
        (403, ['Basic realm="x"', 'Digest realm="x"'], ["t1"]),
        (401, ["Bearer \xff\xfe"], ["t1", "t2"]),
    ],
    ids=["bearer", "none", "no text"],
)
def test_challenges(listener: Listener, kind: str, status: int, challenge: list[str], tokens: list[str]) -> None:
    """A challenge (RFC 6750) counts in whichever line it stands; one that is no text leaves it to the status."""
    each = Kind(kind)
    headers = dict(zip(("www-authenticate", "WWW-Authenticate"), challenge, strict=False))
    listener.respond = lambda _, before: OK if before else (status, headers, b"")

    async def job() -> None:
        async with each.opened(each.builder().with_middleware(each.tokens(counting_manager())).build()) as client:
            await sent(client.get(f"{listener.url}/x"))

    each.run(job)
    assert listener.tokens == tokens


@each_kind
def test_own_request_of_a_call_without_token(listener: Listener, kind: str) -> None:
    """What carries no token is handed on as it is, the very same request."""
    each = Kind(kind)
    before: list[Any] = []
    after: list[Any] = []

    def note(into: list[Any]) -> Any:
        def look(request: Any, answer: Any) -> Any:
            into.append(request)
            return answer

        return each.middleware(look)

    async def job() -> None:
        scheme = Scheme.bearer(origins=["https://api.example.com"])
        builder = each.builder().with_middleware(note(before)).with_middleware(each.tokens(counting_manager(), scheme))
        async with each.opened(builder.with_middleware(note(after)).build()) as client:
            await sent(client.get(f"{listener.url}/elsewhere"))
            await sent(client.get(f"{listener.url}/out").extensions({"unexpired.authenticated": False}))

    each.run(job)
    assert listener.tokens == [None, None]
    assert [id(request) for request in before] == [id(request) for request in after]
    assert len(after) == 4
