from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import anyio
import httpx2
import pytest

from tests.clients.modes import BOUND, Mode, get, manager_for
from unexpired import TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth
from unexpired.testing import ServerHandle

ROOT = Path(__file__).resolve().parents[2]
LOOPS = ("asyncio", "trio", "asyncio", "trio")
TASKS = 8


@pytest.fixture(autouse=True, params=[1e-6, 0.005], ids=["forced", "usual"])
def _interval(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run each test with threads that lose their turn as often as can be, and as they usually do."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(request.param)
    yield
    sys.setswitchinterval(before)


@pytest.fixture
def manager(server: ServerHandle) -> TokenManager:
    """Give a manager in memory that is logged in."""
    return manager_for(server)


def client_of(manager: TokenManager, server: ServerHandle, number: int) -> httpx2.AsyncClient:
    """A client for one loop; the adapters take turns."""
    inner = httpx2.AsyncHTTPTransport(verify=False)
    if number % 2:
        return httpx2.AsyncClient(
            transport=AsyncTokenTransport(manager, None, inner), base_url=server.url, timeout=BOUND
        )
    return httpx2.AsyncClient(auth=TokenAuth(manager), transport=inner, base_url=server.url, timeout=BOUND)


def test_loops_that_stay_share_each_refresh(server: ServerHandle, manager: TokenManager) -> None:
    """Scenario 3: two asyncio loops, two trio runs, eight threads on one manager: 6 expiries cost 6 refreshes."""
    rounds = 6
    barrier = threading.Barrier(len(LOOPS) + TASKS, action=server.expire, timeout=BOUND)
    client = httpx2.Client(auth=TokenAuth(manager), base_url=server.url, verify=False, timeout=BOUND)

    async def one(client: httpx2.AsyncClient, number: str, answers: dict[str, object]) -> None:
        answers[number] = (await client.get("/api/x", params={"n": number})).json().get("n")

    async def main(mine: int) -> dict[str, object]:
        answers: dict[str, object] = {}
        async with client_of(manager, server, mine) as own:
            for number in range(rounds):
                barrier.wait()
                async with anyio.create_task_group() as group:
                    for task in range(TASKS):
                        group.start_soon(one, own, f"{mine}.{number}.{task}", answers)
        return answers

    def loop(mine: int) -> dict[str, object]:
        return anyio.run(main, mine, backend=LOOPS[mine])

    def thread(mine: int) -> dict[str, object]:
        answers: dict[str, object] = {}
        for number in range(rounds):
            barrier.wait()
            asked = f"thread {mine}.{number}"
            answers[asked] = client.get("/api/x", params={"n": asked}).json().get("n")
        return answers

    with client, ThreadPoolExecutor(len(LOOPS) + TASKS) as pool:
        loops = [pool.submit(loop, mine) for mine in range(len(LOOPS))]
        threads = [pool.submit(thread, mine) for mine in range(TASKS)]
        answers = {asked: told for each in [*loops, *threads] for asked, told in each.result(BOUND).items()}
    assert list(answers) == list(answers.values())
    assert len(answers) == rounds * TASKS * (len(LOOPS) + 1)
    stats = server.stats()
    assert (stats.refreshes, stats.token_posts, stats.reuse_detected, stats.max_in_air) == (rounds, rounds, 0, 1)


def test_loops_that_come_and_go_share_each_refresh(server: ServerHandle, manager: TokenManager) -> None:
    """Scenario 3: with new event loops and new clients for every expiry, each expiry still costs one refresh."""
    modes = [Mode(kind) for kind in ("threads", *LOOPS)]
    jobs = [get(f"/api/x?n={number}") for number in range(TASKS)]
    for refreshes in range(1, 5):
        server.expire()
        crowds = [mode.start(mode.options(manager, "auth", base_url=server.url), jobs) for mode in modes]
        for crowd in crowds:
            assert [each.json().get("n") for each in crowd.result(BOUND)] == [str(number) for number in range(TASKS)]
        stats = server.stats()
        assert (stats.refreshes, stats.token_posts, stats.reuse_detected) == (refreshes, refreshes, 0)


def test_an_event_loop_in_debug_mode_has_nothing_to_say(
    server: ServerHandle, manager: TokenManager, caplog: pytest.LogCaptureFixture
) -> None:
    """A loop that watches for slow steps and wrong threads sees none while a refresh takes 4 s, tasks get cancelled."""
    server.faults([{"kind": "hold", "name": "answer"}])

    async def main() -> list[object]:
        # Far more than a step of ours may take, and half of what waiting for the refresh would.
        asyncio.get_running_loop().slow_callback_duration = 2.0
        async with client_of(manager, server, 0) as one, client_of(manager, server, 1) as two:
            await asyncio.gather(one.get("/api/warm"), two.get("/api/warm"))
            await asyncio.to_thread(server.expire)
            tasks = [
                asyncio.create_task(client.get("/api/x", params={"n": number}))
                for number in range(TASKS)
                for client in (one, two)
            ]
            await asyncio.to_thread(server.wait, "token_request_received")
            for task in tasks[:4]:
                task.cancel()
            await asyncio.sleep(4.0)
            await asyncio.to_thread(server.release, "answer")
            told = await asyncio.gather(*tasks, return_exceptions=True)
        return [each.json()["n"] if isinstance(each, httpx2.Response) else type(each) for each in told]

    with caplog.at_level(logging.WARNING), warnings.catch_warnings():
        warnings.simplefilter("error")
        answers = asyncio.run(main(), debug=True)
    assert answers == [asyncio.CancelledError] * 4 + [str(number) for number in range(2, TASKS) for _ in range(2)]
    assert [record.getMessage() for record in caplog.records if record.name == "asyncio"] == []
    assert server.stats().refreshes == 1


PROGRAM = """
import asyncio, sys, threading, httpx2, trio
from unexpired import ApiClient, AsyncApiClient, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport
from unexpired.errors import TemporarilyUnavailable
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

server = ServerHandle(sys.argv[1], 0)
manager = TokenManager(RefreshTokenGrant(server.token_url, client_id="public"), store=FileStore(sys.argv[2]))
manager.login(server.login())
served = []

def plain():
    with (
        httpx2.Client(auth=TokenAuth(manager), base_url=server.url) as one,
        ApiClient(server.url, manager=manager) as two,
        httpx2.Client(transport=TokenTransport(manager), base_url=server.url) as three,
    ):
        served.append(one.get("/api/x").status_code)
        server.expire()
        served.append(two.get("/api/x")["ok"] and 200)
        server.expire()
        served.append(three.get("/api/x").status_code)

def sends():
    return httpx2.AsyncHTTPTransport(verify=False)  # reading the certificates of the world is a slow step, not ours

async def tasks():
    async with (
        httpx2.AsyncClient(auth=TokenAuth(manager), transport=sends(), base_url=server.url) as one,
        AsyncApiClient(server.url, manager=manager, transport=sends()) as two,
        httpx2.AsyncClient(transport=AsyncTokenTransport(manager, None, sends()), base_url=server.url) as three,
    ):
        served.append((await one.get("/api/x")).status_code)
        server.expire()
        served.append((await two.get("/api/x"))["ok"] and 200)
        server.expire()
        async with three.stream("GET", "/api/stream") as response:
            served.append(response.status_code)
    try:
        await manager.arefresh(wait=0.0)
    except TemporarilyUnavailable:
        pass
    await manager.arefresh()

async def watched():
    asyncio.get_running_loop().slow_callback_duration = 2.0
    await tasks()

for run in (plain, lambda: asyncio.run(watched()), lambda: trio.run(tasks)):
    server.expire()
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
print(served)
"""


def test_a_program_in_development_mode_has_nothing_to_say(server: ServerHandle, tmp_path: Path) -> None:
    """With Python's development mode, asyncio's debug mode and warnings as errors, every adapter works in silence."""
    command: list[Any] = [sys.executable, "-X", "dev", "-W", "error", "-c", PROGRAM, server.url, str(tmp_path / "home")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=BOUND * 2, cwd=ROOT, check=False)
    assert done.stderr == ""
    assert done.stdout == f"{[200] * 9}\n"
    assert done.returncode == 0
    assert server.stats().reuse_detected == 0
