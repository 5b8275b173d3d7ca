from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest

from unexpired import ConfigurationError, InQuery, Scheme, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import MemoryStore

SECRET = "rt-9f8e7d6c"
URL = "http://127.0.0.1:9/x"

Made = Callable[..., Any]


@pytest.fixture(params=[TokenAuth, TokenTransport, AsyncTokenTransport], ids=lambda kind: kind.__name__)
def adapter(request: pytest.FixtureRequest) -> Made:
    """Give each class that takes a manager and a scheme."""
    made: Made = request.param
    return made


@pytest.fixture
def anybody() -> TokenManager:
    """Give a manager that has nothing to give."""
    return TokenManager(lambda _: {}, store=MemoryStore())


def refused(make: Callable[[], object]) -> str:
    """What the error says, which is no word of a secret."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_a_grant_is_not_a_manager(adapter: Made) -> None:
    """A grant in the manager's place, object or function, is told to be wrapped."""
    grant = RefreshTokenGrant("https://id.example.com/token", client_id="crm", client_secret=SECRET)
    assert refused(lambda: adapter(grant)) == (
        "manager must be a TokenManager, not unexpired.RefreshTokenGrant: TokenManager(grant) makes one of a grant"
    )
    assert "not function: TokenManager(grant)" in refused(lambda: adapter(lambda _: {}))


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (SECRET, "str: make TokenManager(grant), and give it the first token by seed(answer) or login(answer)"),
        (None, "None"),
        ({"access_token": SECRET}, "dict"),
        (MemoryStore(), "unexpired.MemoryStore"),
        (TokenManager, "the class TokenManager: TokenManager(grant) makes one of a grant"),
    ],
    ids=["token", "none", "answer", "store", "class"],
)
def test_what_is_no_manager(adapter: Made, wrong: object, shown: str) -> None:
    """Anything else is named by its type when the adapter is made, not at the first request."""
    assert refused(lambda: adapter(wrong)) == f"manager must be a TokenManager, not {shown}"


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        (f"Bearer {SECRET}", "str"),
        (Scheme, "the class Scheme"),
        (Scheme.bearer, "method"),
        (InQuery("token"), "unexpired.InQuery"),
        (False, "bool"),
    ],
    ids=["text", "class", "method", "place", "bool"],
)
def test_what_is_no_scheme(adapter: Made, anybody: TokenManager, wrong: object, shown: str) -> None:
    """A scheme is a Scheme or None; anything else is named by its type."""
    text = refused(lambda: adapter(anybody, wrong))
    assert text.startswith("scheme must be a Scheme, such as Scheme.bearer()")
    assert text.endswith(f"or None, not {shown}")


def test_no_scheme_is_the_bearer_scheme(adapter: Made, anybody: TokenManager) -> None:
    """None, said aloud, is the same as nothing."""
    assert adapter(anybody, None)._flow._scheme.places == Scheme.bearer().places


def test_a_transport_of_the_other_kind(anybody: TokenManager) -> None:
    """What sends must be of the transport's own kind; the class for the other kind is named."""
    wrong: Any = httpx2.AsyncHTTPTransport(verify=False)
    assert refused(lambda: TokenTransport(anybody, transport=wrong)) == (
        "transport must be an httpx2.BaseTransport, not httpx2.AsyncHTTPTransport: use AsyncTokenTransport for it"
    )
    other: Any = httpx2.HTTPTransport(verify=False)
    assert refused(lambda: AsyncTokenTransport(anybody, transport=other)) == (
        "transport must be an httpx2.AsyncBaseTransport, not httpx2.HTTPTransport: use TokenTransport for it"
    )


@pytest.mark.parametrize("kind", [TokenTransport, AsyncTokenTransport])
@pytest.mark.parametrize("wrong", [SECRET, httpx2.HTTPTransport, object()], ids=["text", "class", "object"])
def test_what_is_no_transport(anybody: TokenManager, kind: Made, wrong: object) -> None:
    """Neither a proxy's address nor a class nor just anything can send."""
    assert refused(lambda: kind(anybody, transport=wrong)).startswith("transport must be an httpx2.")


def test_a_transport_of_both_kinds_suits_both(anybody: TokenManager) -> None:
    """A transport that blocks and awaits, as httpx2's own for tests, is good for either."""
    both = httpx2.MockTransport(lambda _: httpx2.Response(204))
    request = httpx2.Request("GET", URL, extensions={"unexpired.authenticated": False})
    assert TokenTransport(anybody, transport=both).handle_request(request).status_code == 204
    response = asyncio.run(AsyncTokenTransport(anybody, transport=both).handle_async_request(request))
    assert response.status_code == 204


@pytest.mark.parametrize("idiom", ["auth", "transport"])
@pytest.mark.parametrize(
    ("extension", "why"),
    [
        ({"unexpired.authenticate": False}, "there is no request extension 'unexpired.authenticate': there are "),
        ({"unexpired.authenticated": "false"}, "'unexpired.authenticated' is True or False, not str"),
        ({"unexpired.authenticated": None}, "'unexpired.authenticated' is True or False, not None"),
    ],
)
def test_an_extension_that_says_nothing(anybody: TokenManager, idiom: str, extension: dict[str, Any], why: str) -> None:
    """Who means to take the token off and misspells it is told, and nothing is sent; other extensions are not ours."""
    anybody.login({"access_token": "t1"})
    sent: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(204)

    wire = httpx2.MockTransport(answer)
    made: dict[str, Any] = {
        "auth": {"auth": TokenAuth(anybody), "transport": wire},
        "transport": {"transport": TokenTransport(anybody, transport=wire)},
    }
    with httpx2.Client(**made[idiom]) as client:
        assert why in refused(lambda: client.get(URL, extensions=extension))
        assert sent == []
        for own in ({"trace.id": 1}, {"unexpired.authenticated": True}):
            assert client.get(URL, extensions=own).status_code == 204
    assert [request.headers["authorization"] for request in sent] == ["Bearer t1"] * 2


class Sender(httpx2.BaseTransport):
    """It counts how often it was closed."""

    closed = 0

    def close(self) -> None:
        """Closed, whoever does it."""
        self.closed += 1


def test_an_async_client_needs_the_async_transport(anybody: TokenManager) -> None:
    """A TokenTransport in an AsyncClient says at once which class to take, and can be closed."""
    sender = Sender()
    wrong: Any = TokenTransport(anybody, transport=sender)

    async def entered() -> None:
        async with httpx2.AsyncClient(transport=wrong):
            raise AssertionError

    async def sent(**place: Any) -> None:
        client = httpx2.AsyncClient(**place)
        try:
            await client.get(URL)
        finally:
            await client.aclose()

    text = "an httpx2.AsyncClient needs AsyncTokenTransport(manager, scheme) as its transport"
    assert refused(lambda: asyncio.run(entered())) == text
    assert sender.closed == 0
    assert refused(lambda: asyncio.run(sent(transport=wrong))) == text
    assert sender.closed == 1
    assert refused(lambda: asyncio.run(sent(mounts={"all://": wrong}, verify=False))) == text


def test_a_blocking_client_needs_the_blocking_transport(anybody: TokenManager) -> None:
    """An AsyncTokenTransport in a Client says at once which class to take, and closing that client does no harm."""
    wrong: Any = AsyncTokenTransport(anybody, transport=httpx2.AsyncHTTPTransport(verify=False))

    def entered() -> None:
        with httpx2.Client(transport=wrong):
            raise AssertionError

    def sent() -> None:
        client = httpx2.Client(transport=wrong)
        try:
            client.get(URL)
        finally:
            client.close()

    text = "an httpx2.Client needs TokenTransport(manager, scheme) as its transport"
    assert refused(entered) == text
    assert refused(sent) == text
