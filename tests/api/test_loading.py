"""The count of calls under way comes back to 0 however they end, and is told in order."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import anyio
import httpx2
import pytest

from tests.api.fronts import Api, Front, get, post
from tests.dialects.dialects import A, B, manager_a
from unexpired import ApiClient, ApiError, AsyncApiClient, LoginRequired
from unexpired.api._loading import Loading
from unexpired.testing import ServerHandle

ROUND = [1, 0]


def test_success_and_errors(server: ServerHandle, front: Front) -> None:
    """Calls that succeed, that the API refuses by a code or a status, and that find no server, all end."""
    manager = B.manager(server)
    counts: list[int] = []
    settings = front.settings(server, manager, B, on_loading=counts.append)

    async def job(api: Api) -> Any:
        await api.get("/orders")
        for path in ("/fail", "/broken", "http://127.0.0.1:9/"):
            with pytest.raises(ApiError):
                await api.get(path)
        return await api.call("response", "GET", "/broken")

    server.api_faults([{"kind": "status", "prefix": "/b/api/broken", "code": 502}])
    front.one(settings, job)
    assert counts == ROUND * 5


def test_refusal_replay_and_the_end(server: ServerHandle, front: Front) -> None:
    """Scenarios 37 and 48: a call counts once though it is sent twice, and ends when the login does."""
    manager = manager_a(server)
    counts: list[int] = []
    settings = front.settings(server, manager, A, on_loading=counts.append)

    async def job(api: Api) -> Any:
        server.expire()
        await api.get("/orders")
        server.revoke_family()
        with pytest.raises(LoginRequired):
            await api.get("/orders")

    front.one(settings, job)
    assert (counts, server.stats().api_calls) == (ROUND * 2, 3)


def test_what_cannot_be_sent(server: ServerHandle, front: Front) -> None:
    """Scenario 40: a call that raises before or while it is sent does not stay counted."""
    counts: list[int] = []
    settings = front.settings(server, manager_a(server), A, on_loading=counts.append, encoding="json")

    async def job(api: Api) -> Any:
        for body in (object(), {1, 2}):
            with pytest.raises(TypeError):
                await api.post("/orders", body)

    front.one(settings, job)
    assert counts in ([], ROUND * 2)
    assert front.one(settings | {"transport": front.transport()}, get("/orders"))["code"] == 0
    assert counts[-1] == 0


def test_stream_that_is_not_finished(server: ServerHandle, front: Front) -> None:
    """Scenario 14: a stream that its reader leaves unread, silently or by an error, is a call that has ended."""
    counts: list[int] = []
    settings = {"manager": manager_a(server), "base_url": server.url, "on_loading": counts.append}

    async def job(api: Api) -> Any:
        async with api.stream("GET", "/api/stream?chunks=1000") as response:
            assert (response.status_code, counts) == (200, [1])
        with pytest.raises(LookupError):
            async with api.stream("GET", "/api/stream"):
                raise LookupError
        server.api_faults([{"kind": "forbid"}])
        with pytest.raises(ApiError):
            async with api.stream("GET", "/api/stream"):
                raise AssertionError("a failure has no body to stream")

    front.one(settings | {"transport": front.transport()}, job)
    assert counts == ROUND * 3


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_cancelled_calls(server: ServerHandle, backend: str) -> None:
    """Scenarios 57 and 58: a page that is left, its 8 calls cancelled, has none under way."""
    counts: list[int] = []
    server.api_faults([{"kind": "hold", "name": "held"}])

    async def main() -> None:
        settings = Front(backend).settings(server, manager_a(server), A, on_loading=counts.append)
        async with AsyncApiClient(**settings) as api, anyio.create_task_group() as page:
            for number in range(8):
                page.start_soon(api.get, f"/panel/{number}")
            await anyio.to_thread.run_sync(server.wait, "api_call_held", 8)
            page.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    server.release("held")
    assert (max(counts), counts[-1], len(counts)) == (8, 0, 16)


def test_a_hook_that_fails(front: Front, caplog: pytest.LogCaptureFixture) -> None:
    """A hook that raises harms no call; that it did is logged, without what it said."""

    def fail(_: int) -> None:
        raise LookupError("M4RK3D")

    settings = front.answering(lambda _: httpx2.Response(200, json={"a": 1}), on_loading=fail)
    assert front.one(settings, get("/")) == {"a": 1}
    assert "on_loading raised LookupError at test_loading.py" in caplog.text
    assert "M4RK3D" not in caplog.text


def test_told_in_order_from_many_threads() -> None:
    """Threads that end together tell the hook one after the other, in the order of the count, and last of all 0."""
    counts: list[int] = []
    inside = threading.Lock()
    first = threading.Event()
    go_on = threading.Event()

    def watch(active: int) -> None:
        assert inside.acquire(blocking=False), "two at once"
        if not counts:
            first.set()
            go_on.wait(10)
        counts.append(active)
        inside.release()

    loading = Loading(watch)

    def call() -> None:
        with loading:
            pass

    slow = threading.Thread(target=call)
    slow.start()
    first.wait(10)
    with ThreadPoolExecutor(8) as pool:
        for _ in range(50):
            pool.submit(call)
    go_on.set()
    slow.join()
    assert (counts[0], counts[-1], len(counts)) == (1, 0, 102)
    assert {abs(one - other) for one, other in pairwise(counts)} == {1}


def test_a_hook_that_makes_calls() -> None:
    """A hook may use the client itself: its own call is counted and told after what is being told."""
    counts: list[int] = []
    nested: list[Any] = []

    def watch(active: int) -> None:
        counts.append(active)
        if len(counts) == 1:
            nested.append(inner.get("/"))

    with ApiClient(**Front("threads").answering(lambda _: httpx2.Response(200, text="a"), on_loading=watch)) as inner:
        assert inner.get("/") == "a"
    assert (counts, nested) == ([1, 2, 1, 0], ["a"])


def test_interrupted_hook() -> None:
    """Ctrl-C inside the hook, as a call starts, leaves no call behind."""
    counts: list[int] = []

    def watch(active: int) -> None:
        counts.append(active)
        if len(counts) == 1:
            raise KeyboardInterrupt

    with ApiClient(**Front("threads").answering(lambda _: httpx2.Response(200), on_loading=watch)) as api:
        with pytest.raises(KeyboardInterrupt):
            api.get("/")
        assert api.get("/") is None
    assert counts == ROUND * 2


def test_eight_at_once(server: ServerHandle, front: Front) -> None:
    """All 8 calls of a page are under way together, and the hook hears of each."""
    counts: list[int] = []
    settings = front.settings(server, manager_a(server), A, on_loading=counts.append)
    server.api_faults([{"kind": "hold", "name": "page"}])
    batch = front.start(settings, [post("/panel", {"n": n}) for n in range(8)])
    server.wait("api_call_held", 8)
    assert counts == [1, 2, 3, 4, 5, 6, 7, 8]
    server.release("page")
    batch.result(25)
    assert counts[8:] == [7, 6, 5, 4, 3, 2, 1, 0]
