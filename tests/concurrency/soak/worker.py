"""One process of a soak: `python -m tests.concurrency.soak.worker <url> <directory> <name> <seed>`.

Calls the API through every adapter on threads, asyncio and trio until its standard input ends. Says what it sees as
lines of JSON: each redemption and each ending as it happens, all counts once a second, and who hung at the end.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import random
import sys
import threading
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx2
import trio  # noqa: F401 - before any thread: two first imports of it at the same time fail

from tests.api import fronts
from tests.clients import modes
from tests.concurrency.soak.figures import BOUND, Durations
from tests.concurrency.soak.trouble import DEADLINE
from unexpired import ApiClient, AsyncApiClient, Session, Token, TokenManager
from unexpired.errors import ApiError, LoginRequired
from unexpired.events import Event, RefreshFailed, SessionEnded
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import FileStore

KEY = "alice"
GRACE = 600.0
MODES = ("threads", "asyncio", "trio")
CALLERS_EACH = 2
_SEND = 15.0
_WAIT = 10.0
_THINK = 0.6
_SETTLE = 20.0
_PAGE = os.sysconf("SC_PAGE_SIZE")
_speaking = threading.Lock()


def say(**what: Any) -> None:
    """One line to who started us."""
    line = json.dumps(what) + "\n"
    with _speaking:
        sys.stdout.write(line)
        sys.stdout.flush()


class Watched(RefreshTokenGrant):
    """The grant of the server's public client; tells of every redemption."""

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token:
        """One token request. Another person's token is no answer: nobody may take it."""
        began, answered = time.monotonic(), False
        try:
            token = super().redeem(session, resource=resource, timeout=timeout)
            answered = token.claims().get("sub") == KEY
            return token
        finally:
            seen = {"login": session.login, "version": session.version, "answered": answered}
            say(say="redeemed", began=began, ended=time.monotonic(), **seen)


def manager_for(url: str, directory: str) -> TokenManager:
    """A manager of the fleet's login."""
    grant = Watched(f"{url}/oauth/token", client_id="public", reuse_grace=GRACE)
    return TokenManager(
        grant, store=FileStore(directory), key=KEY, deadline=DEADLINE, lease_wait=8.0, wait=_WAIT, patience=_WAIT
    )


class NotServedError(Exception):
    """A response that is no success."""


class ForeignAnswerError(Exception):
    """Somebody else's answer."""


def name_of(error: Exception) -> str:
    """What a table calls it."""
    match error:
        case NotServedError():
            return str(error)
        case ApiError():
            return f"ApiError {error.code}"
        case LoginRequired():
            return f"LoginRequired {error.reason}"
        case _:
            return type(error).__name__


@dataclass
class Adapter:
    """One adapter in one kind of concurrency, and what its callers met."""

    name: str
    durations: Durations = field(default_factory=Durations)
    served: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    since: dict[str, float] = field(default_factory=dict)
    lock: threading.Lock = field(default_factory=threading.Lock)

    async def call(self, work: Callable[[str], Awaitable[str]], caller: str, number: str) -> None:
        """One call with its own *number*, which must come back."""
        began = self.since[caller] = time.monotonic()
        error = ""
        try:
            if await work(number) != number:
                raise ForeignAnswerError
        except Exception as raised:  # noqa: BLE001 - whatever it is, it is counted
            error = name_of(raised)
        took = time.monotonic() - began
        self.since.pop(caller, None)
        with self.lock:
            self.durations.note(took)
            if error:
                self.errors[error] += 1
            else:
                self.served += 1

    def state(self) -> dict[str, Any]:
        """All counts so far."""
        with self.lock:
            return {"counts": list(self.durations.counts), "served": self.served, "errors": dict(self.errors)}


async def by_client(api: modes.Api, dice: random.Random, number: str) -> str:
    """A GET, a POST whose body is checked by the server's hash, or a body streamed both ways."""
    kind = dice.randrange(3)
    body = f"{number} " * dice.randint(1, 400)
    if kind == 0:
        response = await api.get("/api/x", params={"n": number})
        return str(_served(response).json()["n"])
    if kind == 1:
        response = await api.send("POST", "/api/x", params={"n": number}, content=body)
        told = _served(response).json()
        return str(told["n"]) if told["body_sha256"] == hashlib.sha256(body.encode()).hexdigest() else "another body"
    async with api.stream("POST", "/api/echo", content=body) as response:
        echo = b"".join([chunk async for chunk in api.chunks(_served(response))])
    return number if echo.decode() == body else "another body"


async def by_front(api: fronts.Api, dice: random.Random, number: str) -> str:
    """The same through `ApiClient`, which gives bodies back."""
    kind = dice.randrange(3)
    if kind == 0:
        return str((await api.get("/api/x", params={"n": number}))["n"])
    body = {"n": number, "much": "x" * dice.randint(1, 4000)}
    if kind == 1:
        echo = await api.post("/api/echo", body)
    else:
        async with api.stream("POST", "/api/echo", content=json.dumps(body)) as response:
            echo = json.loads(b"".join([chunk async for chunk in api.chunks(response)]))
    return number if echo == body else "another body"


def _served(response: httpx2.Response) -> httpx2.Response:
    if response.status_code != 200:
        raise NotServedError(f"status {response.status_code}")
    return response


class Callers:
    """All callers of one kind of concurrency, each adapter with a client and a manager of its own."""

    def __init__(self, kind: str, url: str, directory: str, name: str, seed: int) -> None:
        self.mode = modes.Mode(kind)
        self.url, self.directory, self.name, self.seed = url, directory, name, seed
        self.broken = ""
        blocking = self.mode.blocking
        names = ["TokenAuth", "TokenTransport" if blocking else "AsyncTokenTransport"]
        names.append("ApiClient" if blocking else "AsyncApiClient")
        self.adapters = [Adapter(f"{adapter}, {kind}") for adapter in names]

    @asynccontextmanager
    async def _works(self) -> AsyncGenerator[list[Callable[[random.Random, str], Awaitable[str]]], None]:
        """How each adapter makes one call, in the order of the adapters."""
        first, second, third = (manager_for(self.url, self.directory) for _ in range(3))
        settings: dict[str, Any] = {"base_url": self.url, "timeout": _SEND}
        auth = self.mode.options(first, "auth", **settings)
        transport = self.mode.options(second, "transport", **settings)
        front = {"manager": third, "transport": self.mode.transport(), **settings}
        if self.mode.blocking:
            with httpx2.Client(**auth) as one, httpx2.Client(**transport) as two, ApiClient(**front) as api:
                yield _all(one, two, api)
        else:
            async with (
                httpx2.AsyncClient(**auth) as aone,
                httpx2.AsyncClient(**transport) as atwo,
                AsyncApiClient(**front) as aapi,
            ):
                yield _all(aone, atwo, aapi)

    def run(self, stop: threading.Event) -> None:
        """Call until *stop*."""
        try:
            if self.mode.blocking:
                _drive(self._run_threads(stop))
            else:
                anyio.run(self._run_tasks, stop, backend=self.mode.name)
        except BaseException as error:
            self.broken = f"{self.mode.name} broke off ({type(error).__name__})"
            raise

    def _loops(
        self, works: list[Callable[[random.Random, str], Awaitable[str]]], stop: threading.Event
    ) -> list[Coroutine[Any, Any, None]]:
        return [
            self._loop(adapter, work, f"{self.name}.{adapter.name}.{caller}", stop)
            for adapter, work in zip(self.adapters, works, strict=True)
            for caller in range(CALLERS_EACH)
        ]

    async def _loop(
        self,
        adapter: Adapter,
        work: Callable[[random.Random, str], Awaitable[str]],
        caller: str,
        stop: threading.Event,
    ) -> None:
        dice, number = random.Random(f"{self.seed} {caller}"), 0
        while not stop.is_set():
            seconds = dice.uniform(0, _THINK)
            if self.mode.blocking:
                stop.wait(seconds)
            else:
                await anyio.sleep(seconds)
            number += 1
            await adapter.call(lambda own: work(dice, own), caller, f"{caller}.{number}")

    async def _run_threads(self, stop: threading.Event) -> None:
        async with self._works() as works:
            threads = [threading.Thread(target=_drive, args=(loop,), daemon=True) for loop in self._loops(works, stop)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()

    async def _run_tasks(self, stop: threading.Event) -> None:
        async with self._works() as works, anyio.create_task_group() as group:
            for loop in self._loops(works, stop):
                group.start_soon(_run, loop)


async def _run(loop: Coroutine[Any, Any, None]) -> None:
    await loop


def _all(
    one: httpx2.Client | httpx2.AsyncClient,
    two: httpx2.Client | httpx2.AsyncClient,
    front: ApiClient | AsyncApiClient,
) -> list[Callable[[random.Random, str], Awaitable[str]]]:
    blocks = isinstance(one, httpx2.Client)
    first, second, third = modes.Api(one, blocks=blocks), modes.Api(two, blocks=blocks), fronts.Api(front)
    return [
        lambda dice, number: by_client(first, dice, number),
        lambda dice, number: by_client(second, dice, number),
        lambda dice, number: by_front(third, dice, number),
    ]


def _drive(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run what never waits by awaiting: the callers of blocking clients."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    raise AssertionError("a blocking client made its caller await something")


class Reporter:
    """Tells all counts of this process."""

    def __init__(self, crowd: list[Callers], manager: TokenManager) -> None:
        self.crowd = crowd
        self.adapters = [adapter for callers in crowd for adapter in callers.adapters]
        self.events: Counter[str] = Counter()
        self.failures: Counter[str] = Counter()
        self.longest = 0.0
        manager.on(Event, self._heard)

    def _heard(self, event: Event) -> None:
        self.events[type(event).__name__] += 1
        if isinstance(event, RefreshFailed):
            self.failures[event.kind] += 1
        if isinstance(event, SessionEnded):
            say(say="ended", version=event.version, reason=event.reason)

    def hanging(self, bound: float) -> list[str]:
        """Who has been waiting for longer than *bound* seconds."""
        now = time.monotonic()
        waits = {who: now - since for adapter in self.adapters for who, since in list(adapter.since.items())}
        self.longest = max([self.longest, *waits.values()])
        return sorted(who for who, waited in waits.items() if waited > bound)

    def tell(self) -> None:
        """One line with everything."""
        self.hanging(BOUND)
        say(
            say="state",
            held=held(),
            adapters={adapter.name: adapter.state() for adapter in self.adapters},
            events=dict(self.events),
            failures=dict(self.failures),
            longest=self.longest,
        )


def held() -> dict[str, float]:
    """What this process holds now."""
    with open("/proc/self/statm") as file:
        pages = int(file.read().split()[1])
    threads, descriptors = threading.active_count(), len(os.listdir("/proc/self/fd"))
    return {"mib": pages * _PAGE / 2**20, "descriptors": descriptors, "threads": threads}


def main(url: str, directory: str, name: str, seed: int) -> None:
    """Work until standard input ends, and a little longer: every call is carried to its end."""
    logging.getLogger("unexpired").addHandler(logging.NullHandler())
    stop = threading.Event()
    crowd = [Callers(kind, url, directory, name, seed) for kind in MODES]
    manager = manager_for(url, directory)
    reporter = Reporter(crowd, manager)
    threads = [threading.Thread(target=callers.run, args=(stop,), daemon=True) for callers in crowd]

    def watch() -> None:
        os.read(0, 1)
        stop.set()

    threading.Thread(target=watch, daemon=True).start()
    for thread in threads:
        thread.start()
    while not stop.wait(1.0):
        reporter.tell()
    until = time.monotonic() + BOUND
    for thread in threads:
        thread.join(max(0.0, until - time.monotonic()))
    hung = [*reporter.hanging(0.0), *(callers.broken for callers in crowd if callers.broken)]
    # A refresh ahead of its time, which nobody waits for, may still be under way.
    until = time.monotonic() + _SETTLE
    while not hung and threading.active_count() > 1 and time.monotonic() < until:
        time.sleep(0.01)
    reporter.tell()
    say(say="over", hung=hung, held=held())
    if hung:
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]))
