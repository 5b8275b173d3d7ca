"""What these tests share: a token server with a gate, callers of every kind, and waiting for a real state."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Literal

import trio

from unexpired import Session, Token, TokenManager
from unexpired.errors import Refused
from unexpired.stores import MemoryStore

Kind = Literal["threads", "asyncio", "trio"]
KINDS: tuple[Kind, ...] = ("threads", "asyncio", "trio")

EXPIRED: Mapping[str, Any] = {"access_token": "access 0", "refresh_token": "refresh 0", "expires_in": -1}
FRESH: Mapping[str, Any] = {"access_token": "access 0", "refresh_token": "refresh 0", "expires_in": 3600}

PATIENCE = 20.0


class Server:
    """A token server for one login, as a grant function: it rotates, notices reuse, and answers while *gate* is set."""

    def __init__(self, *, gated: bool = False, expires_in: float = 3600.0) -> None:
        self.calls = 0
        self.reused = 0
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self.expires_in = expires_in
        self._lock = threading.Lock()
        if not gated:
            self.gate.set()

    def __call__(self, session: Session) -> Mapping[str, Any]:
        """Redeem the session's refresh token."""
        with self._lock:
            if session.refresh_token != f"refresh {self.calls}":
                self.reused += 1
                raise Refused("that refresh token has been used", error="invalid_grant")
            self.calls += 1
            number = self.calls
        self.arrived.set()
        assert self.gate.wait(PATIENCE)
        return {
            "access_token": f"access {number}",
            "refresh_token": f"refresh {number}",
            "expires_in": self.expires_in,
        }


def nearly_expired() -> Token:
    """A token for which every key's refresh-ahead window has begun, and whose leeway has not."""
    return Token("access 0", refresh_token="refresh 0", lifetime=1200.0, expires_at=time.time() + 140.0)


def manager_for(grant: Any, login: Token | Mapping[str, Any] | None = EXPIRED, **settings: Any) -> TokenManager:
    """A manager with a memory of its own, logged in with *login*, that never sits out a failure."""
    manager = TokenManager(grant, **{"store": MemoryStore(), "patience": 0.0, **settings})
    if login is not None:
        manager.login(login)
    return manager


def aboard(manager: TokenManager) -> int:
    """How many callers have joined the manager's flight."""
    flying = manager._cell.flying
    return 0 if flying is None else flying._callers


async def all_aboard(manager: TokenManager, count: int) -> None:
    """Wait, as an asyncio task, until *count* callers have joined the flight."""
    while aboard(manager) < count:  # noqa: ASYNC110 - no event tells of a state that only tests look at
        await asyncio.sleep(0)


class Faulty(MemoryStore):
    """A memory whose methods raise what they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.load_error: Exception | None = None
        self.save_error: Exception | None = None

    def load(self, key: str) -> Session | None:
        """Fail while there is a *load_error*."""
        if self.load_error is not None:
            raise self.load_error
        return super().load(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Fail to store a new version while there is a *save_error*; an intent can be stored."""
        if self.save_error is not None and (expected is None or new.version > expected.version):
            raise self.save_error
        return super().swap(key, expected, new)


class Crowd:
    """*count* callers of one manager, all at the same time: threads, or tasks of one event loop."""

    def __init__(self, kind: Kind, count: int, manager: TokenManager, method: str = "token", **named: Any) -> None:
        self._outcomes: list[Token | BaseException] = []
        self._threads: list[threading.Thread] = []
        if kind == "threads":
            barrier = threading.Barrier(count)

            def call() -> None:
                barrier.wait(PATIENCE)
                self._note(lambda: getattr(manager, method)(**named))

            self._threads = [threading.Thread(target=call) for _ in range(count)]
        else:
            run = _run_asyncio if kind == "asyncio" else _run_trio

            async def acall() -> None:
                try:
                    self._outcomes.append(await getattr(manager, f"a{method}")(**named))
                except Exception as error:  # noqa: BLE001 - it is looked at later
                    self._outcomes.append(error)

            self._threads = [threading.Thread(target=run, args=(acall, count))]
        for thread in self._threads:
            thread.start()

    def _note(self, call: Callable[[], Token]) -> None:
        try:
            self._outcomes.append(call())
        except Exception as error:  # noqa: BLE001 - it is looked at later
            self._outcomes.append(error)

    def outcomes(self) -> list[Token | BaseException]:
        """What each caller got, a token or an error. Fails if one of them hangs."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive(), "a caller hangs"
        return self._outcomes

    def tokens(self) -> list[str]:
        """The access token that each caller got. Raises the first error that one of them got."""
        for outcome in self.outcomes():
            if isinstance(outcome, BaseException):
                raise outcome
        return [outcome.access_token for outcome in self._outcomes if isinstance(outcome, Token)]


def _run_asyncio(call: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    async def main() -> None:
        await asyncio.gather(*(call() for _ in range(count)))

    asyncio.run(main())


def _run_trio(call: Callable[[], Coroutine[Any, Any, None]], count: int) -> None:
    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for _ in range(count):
                nursery.start_soon(call)

    trio.run(main)


class Attempt:
    """One call in a thread of its own."""

    def __init__(self, call: Callable[[], Any]) -> None:
        self._call = call
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._value = self._call()
        except BaseException as error:  # noqa: BLE001 - it is raised again later
            self._error = error

    def result(self) -> Any:
        """What the call returned; raises what it raised. Fails if it hangs."""
        self._thread.join(PATIENCE)
        assert not self._thread.is_alive(), "the call hangs"
        if self._error is not None:
            raise self._error
        return self._value
