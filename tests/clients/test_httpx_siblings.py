"""httpx and httpx2 beside each other: each adapter is for its own library, whatever either calls itself."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

import unexpired.clients.httpx as for_httpx
import unexpired.clients.httpx2 as for_httpx2
from tests.clients.scripted import counting_manager
from tests.test_import import loaded, run
from unexpired import ConfigurationError, TokenManager
from unexpired.clients._exchange import not_installed

URL = "http://api.test/x"
PAIRS = [(for_httpx, httpx, httpx2), (for_httpx2, httpx2, httpx)]
pairs = pytest.mark.parametrize(("ours", "own", "other"), PAIRS, ids=["httpx", "httpx2"])


@pytest.fixture
def manager() -> TokenManager:
    """Give a manager that is logged in."""
    return counting_manager()


def refused(work: Callable[[], Any]) -> str:
    """What the error says, which is no word of a token."""
    with pytest.raises(ConfigurationError) as caught:
        work()
    assert "t1" not in str(caught.value)
    return str(caught.value)


def mock(library: ModuleType) -> Any:
    """A transport of *library* that must not be asked for anything."""

    def never(_: Any) -> Any:
        raise AssertionError("a request went out")

    return library.MockTransport(never)


@pairs
def test_auth_in_the_other_client(manager: TokenManager, ours: Any, own: ModuleType, other: ModuleType) -> None:
    """A TokenAuth in the other library's client sends nothing and names the module that is for it."""
    auth = ours.TokenAuth(manager)

    async def asynchronous() -> None:
        async with other.AsyncClient(auth=auth, transport=mock(other)) as client:
            await client.get(URL)

    def blocking() -> None:
        with other.Client(auth=auth, transport=mock(other)) as client:
            client.get(URL)

    for text in (refused(blocking), refused(lambda: asyncio.run(asynchronous()))):
        assert text == (
            f"TokenAuth of unexpired.clients.{own.__name__} takes requests of {own.__name__}, "
            f"not {other.__name__}.Request: unexpired.clients.{other.__name__} is for it"
        )


@pairs
def test_transport_in_the_other_client(manager: TokenManager, ours: Any, own: ModuleType, other: ModuleType) -> None:
    """A token transport in the other library's client sends nothing and names the module that is for it."""

    async def asynchronous() -> None:
        transport = ours.AsyncTokenTransport(manager, transport=mock(own))
        async with other.AsyncClient(transport=transport) as client:
            await client.get(URL)

    def blocking() -> None:
        with other.Client(transport=ours.TokenTransport(manager, transport=mock(own))) as client:
            client.get(URL)

    for text in (refused(blocking), refused(lambda: asyncio.run(asynchronous()))):
        assert f"takes requests of {own.__name__}, not {other.__name__}.Request" in text
        assert text.endswith(f": unexpired.clients.{other.__name__} is for it")


@pairs
@pytest.mark.parametrize("kind", ["TokenTransport", "AsyncTokenTransport"])
def test_transport_around_the_other_ones(
    manager: TokenManager, ours: Any, own: ModuleType, other: ModuleType, kind: str
) -> None:
    """What sends must be of the same library; a class derived from the other's is recognised too."""

    class Derived(other.MockTransport):  # type: ignore[name-defined, misc]  # a base that the test is given
        """A transport of a program's own."""

    for foreign in (mock(other), Derived(lambda _: None)):
        text = refused(lambda foreign=foreign: getattr(ours, kind)(manager, transport=foreign))  # type: ignore[misc]
        assert text.startswith(f"transport must be an {own.__name__}.")
        assert text.endswith(f": unexpired.clients.{other.__name__} is for it")


@pairs
def test_auth_as_a_function(manager: TokenManager, ours: Any, own: ModuleType, other: ModuleType) -> None:
    """Whoever takes a TokenAuth for a function, as other clients do, is told what it is for, without a guess."""
    assert refused(lambda: ours.TokenAuth(manager)(object())) == (
        f"TokenAuth of unexpired.clients.{own.__name__} takes requests of {own.__name__}, not object"
    )
    assert own is not other


@pairs
def test_factories_serve_both(manager: TokenManager, ours: Any, own: ModuleType, other: ModuleType) -> None:
    """A body factory of either library is a plain iterable for the other's client, and is replayed there too."""
    sent: list[bytes] = []

    def respond(request: Any) -> Any:
        sent.append(request.read())
        return other.Response(401 if len(sent) == 1 else 200)

    theirs = for_httpx2 if ours is for_httpx else for_httpx
    with other.Client(auth=theirs.TokenAuth(manager), transport=other.MockTransport(respond)) as client:
        assert client.post(URL, content=ours.BodyFactory(lambda: [b"one", b"two"])).status_code == 200
    assert sent == [b"onetwo", b"onetwo"]
    assert own is not other


SERVED = """
import httpx2
{before}
httpx2.alias_httpx()
{after}
import httpx
assert httpx is httpx2
from unexpired import TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore
import unexpired.clients.httpx, unexpired.clients.httpx2
answers = {{"access_token": "t2", "refresh_token": "r2"}}
for module in (unexpired.clients.httpx, unexpired.clients.httpx2):
    for place in ("auth", "transport"):
        manager = TokenManager(FunctionGrant(lambda _: answers), store=MemoryStore())
        manager.login({{"access_token": "t1", "refresh_token": "r1"}})
        seen = []
        def respond(request):
            seen.append((request.headers["authorization"], request.read()))
            return httpx.Response(200 if seen[-1][0] == "Bearer t2" else 401)
        inner = httpx.MockTransport(respond)
        chosen = (
            {{"auth": module.TokenAuth(manager), "transport": inner}}
            if place == "auth"
            else {{"transport": module.TokenTransport(manager, transport=inner)}}
        )
        with httpx.Client(**chosen) as client:
            assert client.post("http://api.test/", content=[b"bo", b"dy"]).status_code == 200
        assert seen == [("Bearer t1", b"body"), ("Bearer t2", b"body")], seen
print("served")
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_httpx_is_an_alias(moment: str) -> None:
    """After `httpx2.alias_httpx()` both modules serve the one library, whether httpx2's was imported before or not."""
    lines = {"before": "", "after": ""} | {moment: "import unexpired.clients.httpx2"}
    assert run(SERVED.format(**lines)) == "served\n"


def test_aliasing_comes_first() -> None:
    """Where the adapter for httpx is imported first, httpx2 says itself that it is too late for an alias."""
    code = """
import unexpired.clients.httpx, httpx2
try:
    httpx2.alias_httpx()
except RuntimeError as error:
    print("alias_httpx" in str(error))
"""
    assert run(code) == "True\n"


@pytest.mark.parametrize(("ours", "theirs"), [("httpx", "httpx2"), ("httpx2", "httpx")])
def test_only_its_own_client_is_loaded(ours: str, theirs: str) -> None:
    """Each adapter imports its own library and not the other."""
    modules = loaded(f"import unexpired.clients.{ours}")
    assert ours in modules
    assert theirs not in modules


def test_httpx_is_not_installed() -> None:
    """Without httpx the import fails with one sentence that names the extra."""
    code = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == "httpx":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Absent())
try:
    import unexpired.clients.httpx
except ModuleNotFoundError as error:
    print(error, error.name, error.__suppress_context__)
"""
    assert run(code) == (
        "unexpired.clients.httpx needs httpx, which is not installed: pip install 'unexpired[httpx]' httpx True\n"
    )


def test_what_httpx_needs_is_not_installed() -> None:
    """A damaged installation is told as it is: the extra would not mend it."""
    damage = ModuleNotFoundError("No module named 'h11'", name="h11")
    assert not_installed("httpx", damage) is damage
    assert "httpx" in sys.modules
