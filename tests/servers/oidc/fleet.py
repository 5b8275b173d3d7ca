"""Processes that share one session: `python fleet.py <issuer> <redirect uri> <client> <directory>`.

Each line on standard input is an order, ``call <tasks>`` or ``rotate <tasks> <version>``; the answer is one line of
JSON: how often each `outcome` came. A process ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx2

from tests.servers.oidc.provider import CONFIDENTIAL, PUBLIC, Client, Provider
from unexpired import LoginRequired, TokenManager
from unexpired.clients.httpx2 import TokenAuth

ROOT = Path(__file__).resolve().parents[3]
_PATIENCE = 20.0


def outcome(answer: httpx2.Response | LoginRequired) -> str:
    """Whose data came, else the status of the refusal, or why there was no token to ask with."""
    if isinstance(answer, LoginRequired):
        return f"LoginRequired: {answer.reason}"
    return str(answer.json()["sub"]) if answer.status_code == 200 else str(answer.status_code)


async def call(client: httpx2.AsyncClient, tasks: int) -> Counter[str]:
    """The outcomes of that many calls at once."""

    async def one() -> str:
        try:
            return outcome(await client.get("/me"))
        except LoginRequired as error:
            return outcome(error)

    return Counter(await asyncio.gather(*(one() for _ in range(tasks))))


async def rotate(client: httpx2.AsyncClient, manager: TokenManager, tasks: int, goal: int) -> Counter[str]:
    """Tasks that call and ask for a newer token, again and again, until version *goal* is there."""
    outcomes: Counter[str] = Counter()

    async def one() -> None:
        token = await manager.atoken()
        while token.minted < goal:
            outcomes[outcome(await client.get("/me"))] += 1
            token = await manager.arefresh(token)

    await asyncio.gather(*(one() for _ in range(tasks)))
    return outcomes


class Fleet:
    """Processes that are ready for orders."""

    def __init__(self, processes: list[subprocess.Popen[str]]) -> None:
        self._processes = processes

    def order(self, *words: object) -> Counter[str]:
        """Give all of them this order at once: their outcomes together."""
        for process in self._processes:
            assert process.stdin is not None
            process.stdin.write(f"{' '.join(map(str, words))}\n")
            process.stdin.flush()
        return sum((self._hear(process) for process in self._processes), Counter[str]())

    @staticmethod
    def _hear(process: subprocess.Popen[str]) -> Counter[str]:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, "a process of the fleet died; what it said is on standard error"
        return Counter(json.loads(line))


@contextmanager
def running_fleet(provider: Provider, client: Client, directory: Path, size: int) -> Generator[Fleet]:
    """*size* processes with a manager of their own each, all on the session in *directory*."""
    told = [provider.issuer, provider.redirect_uri, client.client_id, str(directory)]
    command = [sys.executable, "-m", "tests.servers.oidc.fleet", *told]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    pipe = subprocess.PIPE
    processes: list[subprocess.Popen[str]] = []
    try:
        for _ in range(size):
            process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, cwd=ROOT, env=environment)
            processes.append(process)
        fleet = Fleet(processes)
        fleet.order("call", 0)
        yield fleet
    finally:
        for process in processes:
            try:
                process.communicate(timeout=_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.communicate()
    assert [process.returncode for process in processes] == [0] * size


def _serve(issuer: str, redirect_uri: str, client_id: str, directory: str) -> None:
    registered = {client.client_id: client for client in (PUBLIC, CONFIDENTIAL)}
    with httpx2.Client() as http:
        provider = Provider(issuer, redirect_uri, os.getpid(), http)
        manager = provider.manager(registered[client_id], Path(directory))
    with asyncio.Runner() as runner:
        client = httpx2.AsyncClient(base_url=issuer, auth=TokenAuth(manager), timeout=_PATIENCE)
        for line in sys.stdin:
            verb, *numbers = line.split()
            if verb == "call":
                outcomes = runner.run(call(client, *map(int, numbers)))
            else:
                outcomes = runner.run(rotate(client, manager, *map(int, numbers)))
            print(json.dumps(outcomes), flush=True)  # noqa: T201 - the answer to the order
        runner.run(client.aclose())


if __name__ == "__main__":
    _serve(*sys.argv[1:])
