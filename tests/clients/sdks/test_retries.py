"""tenacity and stamina around calls: their attempts are for what we hand on, and do not multiply with our replay."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx2
import pytest
import stamina
import tenacity

from tests.clients.modes import BOUND, grant_for
from unexpired import LoginRequired, TemporarilyUnavailable, TokenManager
from unexpired.clients.httpx2 import TokenAuth
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

CROWD = 20
ATTEMPTS = 3
TRANSIENT = (TemporarilyUnavailable, httpx2.HTTPError)
Around = Callable[[Any], Any]


def until_free(state: tenacity.RetryCallState) -> float:
    """How long the token endpoint asked to be left alone."""
    error = state.outcome and state.outcome.exception()
    return error.retry_after if isinstance(error, TemporarilyUnavailable) and error.retry_after else 0.0


def worth_it(error: Exception) -> bool | float:
    """Whether another attempt makes sense, or when."""
    if isinstance(error, TemporarilyUnavailable):
        return error.retry_after or 0.0
    return isinstance(error, TRANSIENT)


AROUND: dict[str, Around] = {
    "tenacity": tenacity.retry(
        stop=tenacity.stop_after_attempt(ATTEMPTS),
        wait=until_free,
        retry=tenacity.retry_if_exception_type(TRANSIENT),
        reraise=True,
    ),
    "stamina": stamina.retry(
        on=worth_it, attempts=ATTEMPTS, wait_initial=0.01, wait_max=0.05, wait_jitter=0.01, timeout=BOUND
    ),
}
around_all = pytest.mark.parametrize("around", AROUND.values(), ids=AROUND)


@pytest.fixture(autouse=True)
def _stamina_at_work() -> None:
    """Other tests must not have switched stamina off."""
    stamina.set_active(True)


def impatient(server: ServerHandle) -> TokenManager:
    """A manager that leaves every second try to its caller."""
    manager = TokenManager(grant_for(server), store=MemoryStore(), key="alice", patience=0.0)
    manager.login(server.login())
    return manager


def fetch(client: httpx2.Client, url: str, calls: list[int]) -> int:
    """One call as programs write it: what is no success is an error."""
    calls.append(1)
    return client.get(url).raise_for_status().status_code


@around_all
def test_expiry_costs_no_attempt(server: ServerHandle, manager: TokenManager, around: Around) -> None:
    """20 refused calls are replayed within their first attempt: one refresh, and the decorators have no work."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    calls: list[int] = []
    with httpx2.Client(base_url=server.url, auth=TokenAuth(manager)) as client, ThreadPoolExecutor(CROWD) as pool:
        batch = [pool.submit(around(fetch), client, "/api/x", calls) for _ in range(CROWD)]
        server.wait("api_call_held", CROWD)
        server.release("all")
        assert [each.result(BOUND) for each in batch] == [200] * CROWD
    assert (len(calls), server.stats().token_posts, server.stats().refused) == (CROWD, 1, CROWD)


@around_all
@pytest.mark.usefixtures("no_pause_passes")
def test_refused_whatever_happens(server: ServerHandle, manager: TokenManager, around: Around) -> None:
    """An API that refuses fresh tokens is asked twice by the first attempt, once by each other: one refresh."""
    server.api_faults([{"kind": "refuse"}])
    calls: list[int] = []
    with httpx2.Client(base_url=server.url, auth=TokenAuth(manager)) as client, pytest.raises(httpx2.HTTPStatusError):
        around(fetch)(client, "/api/x", calls)
    stats = server.stats()
    assert len(calls) == ATTEMPTS
    assert stats.token_posts == 1
    assert stats.api_calls == ATTEMPTS + 1


@around_all
def test_busy_token_endpoint(server: ServerHandle, around: Around) -> None:
    """TemporarilyUnavailable is worth another attempt: all 20 callers are served, for two requests to the endpoint."""
    manager = impatient(server)
    server.expire()
    server.faults([{"kind": "429", "retry_after": 0}])
    calls: list[int] = []
    with httpx2.Client(base_url=server.url, auth=TokenAuth(manager)) as client, ThreadPoolExecutor(CROWD) as pool:
        found = list(pool.map(lambda _: around(fetch)(client, "/api/x", calls), range(CROWD)))
    assert found == [200] * CROWD
    assert len(calls) > CROWD
    assert server.stats().token_posts == 2


@around_all
def test_login_is_over(server: ServerHandle, manager: TokenManager, around: Around) -> None:
    """LoginRequired is not worth another attempt: each caller gets it at once, and the endpoint is asked once."""
    server.revoke_family()
    calls: list[int] = []

    def over(_: int) -> str:
        with pytest.raises(LoginRequired):
            around(fetch)(client, "/api/x", calls)
        return "over"

    with httpx2.Client(base_url=server.url, auth=TokenAuth(manager)) as client, ThreadPoolExecutor(CROWD) as pool:
        assert list(pool.map(over, range(CROWD))) == ["over"] * CROWD
    assert (len(calls), server.stats().token_posts) == (CROWD, 1)


@around_all
def test_tasks(server: ServerHandle, manager: TokenManager, around: Around) -> None:
    """The same around coroutines: 20 refused calls, one refresh, one attempt each."""
    server.expire()
    calls: list[int] = []
    found: list[int] = []

    async def main() -> None:
        async with httpx2.AsyncClient(base_url=server.url, auth=TokenAuth(manager)) as client:

            async def afetch() -> int:
                calls.append(1)
                return (await client.get("/api/x")).raise_for_status().status_code

            async def one() -> None:
                found.append(await around(afetch)())

            async with anyio.create_task_group() as group:
                for _ in range(CROWD):
                    group.start_soon(one)

    anyio.run(main)
    assert found == [200] * CROWD
    assert (len(calls), server.stats().token_posts) == (CROWD, 1)
