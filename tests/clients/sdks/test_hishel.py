"""hishel's cache in front of our transport and behind it: in front, it sees no token, and needs none for a hit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hishel import AsyncSqliteStorage, CacheOptions, SqliteStorage
from hishel.httpx2 import AsyncCacheTransport, CacheTransport

from tests.clients.contract.listener import Answer, Heard, Listener
from tests.clients.modes import BOUND, HTTPX2, Api, Job, Mode, get, manager_for
from tests.clients.sdks.gate import Gate, document
from unexpired import InQuery, LoginRequired, Scheme, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenTransport
from unexpired.testing import ServerHandle

RFC = CacheOptions(shared=False)
REFUSED_IN_A_BODY = 40009
rules = pytest.mark.parametrize("rfc", [False, RFC], ids=["plain", "rfc"])


@pytest.fixture(params=["threads", "asyncio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each kind of client that hishel has a cache for."""
    return Mode(request.param, HTTPX2)


@pytest.fixture
def service(server: ServerHandle) -> Iterator[Listener]:
    """Give an API whose answers may be kept for an hour, behind a gate; under ``/coded`` it refuses with a 200."""
    gate = Gate(server)

    def respond(heard: Heard, before: int) -> Answer:
        values = heard.all("authorization")
        query = heard.target.partition("access_token=")[2]
        good = gate.admits(values[0] if values else f"Bearer {query}")
        if not good and not heard.target.startswith("/coded"):
            return 401, {}, b"no"
        status, headers, body = document({"code": 0 if good else REFUSED_IN_A_BODY, "served": before})
        return status, headers | {"cache-control": "max-age=3600, private"}, body

    with Listener(respond=respond) as listener:
        yield listener


def storage(mode: Mode, path: Path) -> Any:
    """Where a cache keeps its answers."""
    return (SqliteStorage if mode.blocking else AsyncSqliteStorage)(database_path=path)


def in_front(mode: Mode, manager: TokenManager, path: Path, rfc: Any, scheme: Scheme | None = None) -> dict[str, Any]:
    """The cache outside, the token inside."""
    if mode.blocking:
        return {"transport": CacheTransport(TokenTransport(manager, scheme), storage(mode, path), rfc)}
    return {"transport": AsyncCacheTransport(AsyncTokenTransport(manager, scheme), storage(mode, path), rfc)}


def behind(mode: Mode, manager: TokenManager, path: Path, rfc: Any, scheme: Scheme | None = None) -> dict[str, Any]:
    """The token outside, the cache inside."""
    inner = mode.transport()
    if mode.blocking:
        return {"transport": TokenTransport(manager, scheme, CacheTransport(inner, storage(mode, path), rfc))}
    return {"transport": AsyncTokenTransport(manager, scheme, AsyncCacheTransport(inner, storage(mode, path), rfc))}


def bodies(answers: list[Any]) -> list[Any]:
    """What the answers say."""
    return [json.loads(answer.content) for answer in answers]


def kept(path: Path) -> bytes:
    """Everything that a cache has written."""
    return b"".join(each.read_bytes() for each in path.parent.iterdir() if each.name.startswith(path.name))


def twice(url: str) -> Job:
    """The job of asking for the same thing two times."""

    async def job(api: Api) -> list[Any]:
        return [await api.get(url), await api.get(url)]

    return job


@rules
def test_cache_in_front_needs_no_token_for_a_hit(
    manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path, rfc: Any
) -> None:
    """What is in the cache is served after a logout too; what is not needs a login, and the cache holds no token."""
    path = tmp_path / "cache.db"
    spent = manager.token()

    async def job(api: Api) -> list[Any]:
        first = await api.get(f"{service.url}/x")
        await api.blocking(manager.logout)
        return [first, await api.get(f"{service.url}/x")]

    first, second = mode.one(in_front(mode, manager, path, rfc), job)
    assert bodies([first, second]) == [{"code": 0, "served": 0}] * 2
    assert [answer.extensions["caching"]["from_cache"] for answer in (first, second)] == [False, True]
    (outcome,) = mode.run(in_front(mode, manager, path, rfc), [get(f"{service.url}/y")])
    assert isinstance(outcome, LoginRequired)
    assert kept(path)
    assert spent.access_token.encode() not in kept(path)
    assert len(service.heard) == 1


@rules
def test_cache_in_front_keeps_no_refusal(
    server: ServerHandle, manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path, *, rfc: Any
) -> None:
    """A refusal in a 200 is replayed before the cache sees it: what is kept is the answer to the new token."""
    scheme = Scheme.bearer(code="code", expired=[REFUSED_IN_A_BODY], ok=[0])
    server.expire()
    found = mode.one(in_front(mode, manager, tmp_path / "c.db", rfc, scheme), twice(f"{service.url}/coded"))
    assert bodies(found) == [{"code": 0, "served": 1}] * 2
    assert (server.stats().token_posts, len(service.heard)) == (1, 2)


@rules
def test_cache_in_front_has_one_entry_for_all_tokens(
    server: ServerHandle, manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path, *, rfc: Any
) -> None:
    """With the token in the query, an answer is still found after a refresh, and its address shows no token."""
    scheme = Scheme(InQuery("access_token"))
    path = tmp_path / "cache.db"

    async def job(api: Api) -> list[Any]:
        first = await api.get(f"{service.url}/x")
        server.expire()
        await api.blocking(manager.refresh)
        return [first, await api.get(f"{service.url}/x")]

    assert bodies(mode.one(in_front(mode, manager, path, rfc, scheme), job)) == [{"code": 0, "served": 0}] * 2
    assert b"access_token" not in kept(path)
    assert len(service.heard) == 1


def test_crowd_before_the_cache(
    server: ServerHandle, manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path
) -> None:
    """20 misses that are refused together cost one refresh, and each gets its own answer, now and from the cache."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    options = in_front(mode, manager, tmp_path / "cache.db", RFC)
    batch = mode.start(options, [twice(f"{service.url}/{number}") for number in range(20)])
    server.wait("api_call_held", 20)
    server.release("all")
    for first, second in batch.result(BOUND):
        assert first.content == second.content
        assert second.extensions["caching"]["from_cache"]
    assert (server.stats().token_posts, len(service.heard)) == (1, 40)


@pytest.mark.usefixtures("tells_secrets")
@rules
def test_cache_behind_writes_the_token_down(
    manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path, rfc: Any
) -> None:
    """Why the cache belongs in front: behind, hishel stores each request with its headers, the token among them."""
    path = tmp_path / "cache.db"
    found = mode.one(behind(mode, manager, path, rfc), twice(f"{service.url}/x"))
    assert bodies(found) == [{"code": 0, "served": 0}] * 2
    assert manager.token().access_token.encode() in kept(path)
    manager.logout()
    (outcome,) = mode.run(behind(mode, manager, path, rfc), [get(f"{service.url}/x")])
    assert isinstance(outcome, LoginRequired)


@pytest.mark.usefixtures("tells_secrets")
@rules
def test_cache_behind_keeps_a_refusal(
    server: ServerHandle, manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path, *, rfc: Any
) -> None:
    """Why the cache belongs in front: behind, a refusal in a 200 is kept, and its replay is answered with it."""
    scheme = Scheme.bearer(code="code", expired=[REFUSED_IN_A_BODY], ok=[0])
    server.expire()
    found = mode.one(behind(mode, manager, tmp_path / "c.db", rfc, scheme), get(f"{service.url}/coded"))
    assert bodies([found]) == [{"code": REFUSED_IN_A_BODY, "served": 0}]
    assert (server.stats().token_posts, len(service.heard)) == (1, 1)


def test_two_logins_need_two_storages(
    server: ServerHandle, manager: TokenManager, service: Listener, mode: Mode, tmp_path: Path
) -> None:
    """In front of the token all logins look alike: each gets its own storage, and then its own answer."""
    other = manager_for(server, key="bob")
    answers = [
        mode.one(in_front(mode, one, tmp_path / f"{place}.db", RFC), get(f"{service.url}/x"))
        for place, one in enumerate((manager, other))
    ]
    assert bodies(answers) == [{"code": 0, "served": 0}, {"code": 0, "served": 1}]
