"""What adapters share, where the contract does not look: bodies made anew, cookies, odd headers, a judge that fails."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Self

import anyio
import httpx2
import pytest
import requests
from requests.adapters import HTTPAdapter

import unexpired.clients.httpx
import unexpired.clients.httpx2
import unexpired.clients.requests
import unexpired.clients.urllib3
from tests.clients.contract.listener import OK, REFUSED, Listener
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InQuery, Scheme
from unexpired._core.scheme import Answer as Judged
from unexpired.clients._dressing import with_cookies, without_parameters
from unexpired.clients.httpx2 import AsyncBodyFactory, TokenAuth, TokenTransport
from unexpired.clients.requests import TokenAdapter


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", "t=new"),
        ("a=1; b=2", "a=1; b=2; t=new"),
        ("a=1;t=old", "a=1; t=new"),
        ("t=old;a=1;  b=2", "a=1;  b=2; t=new"),
        ("t=old; t=older", "t=new"),
    ],
)
def test_cookies_however_they_are_written(header: str, expected: str) -> None:
    """Scenario 44: an old token is replaced, with or without a blank after the semicolon, and the new one is masked."""
    found = with_cookies(header, [("t", "new")])
    assert found == expected
    assert "new" not in repr({"Cookie": found})


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("/x?a=1&t=s%2B1", "/x?a=1"),
        ("https://a/x?t=s+1#part", "https://a/x?t=s+1#part"),
        ("/x?t=s%2b1#part", "/x#part"),
        ("/x?t=other&a=%20", "/x?t=other&a=%20"),
        ("/x", "/x"),
    ],
)
def test_an_address_without_the_token(url: str, expected: str) -> None:
    """What a server repeats of our query is taken out of its redirect, however it is quoted; all else stays."""
    assert without_parameters(url, [("t", "s+1")]) == expected


@pytest.mark.parametrize(
    "factory",
    [
        unexpired.clients.httpx.BodyFactory,
        unexpired.clients.httpx.AsyncBodyFactory,
        unexpired.clients.httpx2.AsyncBodyFactory,
        unexpired.clients.requests.BodyFactory,
        unexpired.clients.urllib3.BodyFactory,
    ],
)
def test_a_body_in_place_of_its_factory(factory: Callable[[Any], object], tmp_path: Path) -> None:
    """A file, or a generator, where its maker is wanted is refused at once, with an example."""
    path = tmp_path / "body"
    path.touch()
    with path.open("rb") as file, pytest.raises(ConfigurationError, match="function that makes the body anew"):
        factory(file)


class _Slow:
    """A file on a slow disk."""

    def __init__(self) -> None:
        self.readers: set[int] = set()
        self._left = [b"one", b"two"]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.readers.add(-1)

    def read(self, _: int) -> bytes:
        self.readers.add(threading.get_ident())
        return self._left.pop(0) if self._left else b""


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_files_of_tasks_are_read_in_threads(backend: str) -> None:
    """P14: the file that a factory opens is not read on the event loop, and is closed."""
    file = _Slow()

    async def read() -> bytes:
        body: AsyncIterator[bytes] = aiter(AsyncBodyFactory(lambda: file))  # type: ignore[arg-type, return-value]
        return b"".join([chunk async for chunk in body])

    assert anyio.run(read, backend=backend) == b"onetwo"
    assert -1 in file.readers
    assert threading.get_ident() not in file.readers
    assert len(file.readers) >= 2


def _stops(_: Judged) -> None:
    next(iter(()))


@pytest.mark.parametrize("kind", ["httpx2 auth", "httpx2 transport", "requests adapter"])
def test_a_judge_that_stops(kind: str, listener: Listener) -> None:
    """A `StopIteration` that a user's judge lets out is an error like any other, and never the end of the replay."""
    manager, scheme = counting_manager(), Scheme.bearer(judge=_stops)
    if kind == "requests adapter":
        with requests.Session() as session:
            session.mount("http://", TokenAdapter(manager, scheme))
            with pytest.raises(StopIteration):
                session.get(f"{listener.url}/x", timeout=20)
    else:
        options: dict[str, Any] = (
            {"auth": TokenAuth(manager, scheme)}
            if kind == "httpx2 auth"
            else {"transport": TokenTransport(manager, scheme)}
        )
        with httpx2.Client(**options) as client, pytest.raises(RuntimeError, match="StopIteration"):
            client.get(f"{listener.url}/x")


@pytest.mark.parametrize("digits", [19, 5000])
def test_a_length_beyond_all_numbers(digits: int, listener: Listener) -> None:
    """An absurd Content-Length is no error of ours: such a body is left to its reader."""
    listener.respond = lambda _heard, _before: (200, {"content-length": "9" * digits, "connection": "close"}, b"{}")
    scheme = Scheme.bearer(code="code", expired=[40009])
    with requests.Session() as session:
        session.mount("http://", TokenAdapter(counting_manager(), scheme))
        with session.get(f"{listener.url}/x", stream=True, timeout=20) as response:
            assert response.status_code == 200


@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_bytes_of_other_kinds_are_sent_again(kind: Callable[[bytes], Any], listener: Listener) -> None:
    """Scenario 40: what is bytes by another name is replayed like bytes."""
    listener.respond = lambda _, before: OK if before else REFUSED
    with requests.Session() as session:
        session.mount("http://", TokenAdapter(counting_manager()))
        assert session.post(f"{listener.url}/x", data=kind(b"body"), timeout=20).status_code == 200
    assert [heard.length for heard in listener.heard] == [4, 4]


def test_an_adapter_around_another() -> None:
    """Two TokenAdapters around each other would send two tokens in turn."""
    with pytest.raises(ConfigurationError, match="that sends"):
        TokenAdapter(counting_manager(), adapter=TokenAdapter(counting_manager()))


@pytest.mark.parametrize(
    ("client", "missing"),
    [
        ("aiohttp", "aiohttp"),
        ("grpc", "grpc"),
        ("httpx", "httpx"),
        ("pyreqwest", "pyreqwest"),
        ("requests", "requests"),
        ("requests", "urllib3"),
        ("urllib3", "urllib3"),
        ("websockets", "websockets"),
    ],
)
def test_a_client_that_is_not_installed(client: str, missing: str) -> None:
    """One sentence names the extra, also for what the client itself needs."""
    program = (
        "import sys\n"
        "class Missing:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.partition('.')[0] == {missing!r}:\n"
        f"            raise ModuleNotFoundError('no', name={missing!r})\n"
        "sys.meta_path.insert(0, Missing())\n"
        f"try: import unexpired.clients.{client}\n"
        f"except ModuleNotFoundError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout == (
        f"unexpired.clients.{client} needs {missing}, which is not installed: pip install 'unexpired[{client}]'\n"
    )


def _sent_on_from_elsewhere(kind: str, public: Listener, scheme: Scheme) -> None:
    """Ask *public*, which is mounted without tokens, and follow where it leads."""
    if kind == "requests":
        with requests.Session() as session:
            session.mount("http://", TokenAdapter(counting_manager(), scheme))
            session.mount(f"{public.url}/", HTTPAdapter())
            session.get(f"{public.url}/x", timeout=20)
    else:
        mounts = {public.url: httpx2.HTTPTransport()}
        transport = TokenTransport(counting_manager(), scheme)
        with httpx2.Client(transport=transport, mounts=mounts, follow_redirects=True) as client:
            client.get(f"{public.url}/x")


@pytest.mark.parametrize("kind", ["requests", "httpx2"])
def test_named_origins_hold_where_a_redirect_began_elsewhere(kind: str, listener: Listener) -> None:
    """Scenario 45: a redirect that began at an adapter without tokens is nobody's who names the origins."""
    with Listener() as evil:
        listener.respond = lambda _heard, _before: (302, {"location": f"{evil.url}/steal"}, b"")
        scheme = Scheme(InQuery("access_token"), origins=["https://api.example.com"])
        _sent_on_from_elsewhere(kind, listener, scheme)
    (heard,) = evil.heard
    assert "t1" not in f"{heard.target} {heard.headers}"


@pytest.fixture
def listener() -> Any:
    """Give a server that refuses nothing."""
    with Listener() as listening:
        yield listening
