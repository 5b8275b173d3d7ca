"""The scenes: who calls, how the token expires, and what must come of it."""

from __future__ import annotations

import gc
import statistics
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Literal

from unexpired import Session, Token, TokenManager
from unexpired.cli._demo.dialects import DIALECTS, Dialect, DialectName
from unexpired.cli._demo.processes import ProcessCrew
from unexpired.cli._demo.results import Expected, Refresh, Result, clock, counted
from unexpired.cli._demo.runners import Burst, Crew, TaskCrew, ThreadCrew
from unexpired.errors import GrantError, UnexpiredError
from unexpired.events import SessionEnded
from unexpired.stores import FileStore, MemoryStore, Store
from unexpired.testing import ServerHandle, Stats

__all__ = ["SCENES", "Scene", "Settings", "play"]

_ROUNDS = 3
_RETRY_AFTER = 120


@dataclass(frozen=True, slots=True)
class Scene:
    """One scene. *expiry*: whether the client knows that its token has expired, or only the server does."""

    name: str
    about: str
    callers: Literal["threads", "tasks", "processes"]
    expiry: Literal["known", "server"]
    dialect: DialectName = "bearer"
    expected: Expected = "served"


@dataclass(frozen=True, slots=True)
class Settings:
    """How many callers there are; *refresh_latency* is the server's, in seconds."""

    callers: int
    per_process: int
    processes: int
    refresh_latency: float

    @property
    def bound(self) -> float:
        """Seconds after which a caller counts as hanging."""
        return 20.0 + 2 * self.refresh_latency


_KNOWN = "The client sees that its token has expired: one refreshes, all others wait, then all call."
_SERVER = "Only the server knows: all are refused with the old token, one refreshes, all are sent again."
_A = "Two bare tokens in headers; HTTP 200 with code 40009 means expired; a form body is sent again."
_B = "The token in the query; an envelope with code 401 means expired; the program's own function refreshes."
_SHARED = "Processes that share nothing but one FileStore. "

SCENES: Sequence[Scene] = (
    Scene("bearer-known-threads", _KNOWN, "threads", "known"),
    Scene("bearer-known-tasks", _KNOWN, "tasks", "known"),
    Scene("bearer-server-threads", _SERVER, "threads", "server"),
    Scene("bearer-server-tasks", _SERVER, "tasks", "server"),
    Scene("dialect-a-threads", _A, "threads", "server", "a"),
    Scene("dialect-a-tasks", _A, "tasks", "server", "a"),
    Scene("dialect-b-threads", _B, "threads", "server", "b"),
    Scene("dialect-b-tasks", _B, "tasks", "server", "b"),
    Scene("processes-known", _SHARED + _KNOWN, "processes", "known"),
    Scene("processes-server", _SHARED + _SERVER, "processes", "server"),
    Scene(
        "fail-invalid-grant",
        "The server has ended the login: one refresh is refused, every thread is told to log in, the store is cleared.",
        "threads",
        "server",
        expected="LoginRequired",
    ),
    Scene(
        "fail-transient",
        "The token endpoint answers 503: one request, every task is told when to come back, the login is kept.",
        "tasks",
        "server",
        expected="TemporarilyUnavailable",
    ),
)


def play(
    scene: Scene, server: ServerHandle, settings: Settings, stage: Callable[[str], None] = lambda _: None
) -> Result:
    """Play *scene* once, telling *stage* what is going on. Resets the server first."""
    server.reset()
    dialect = DIALECTS[scene.dialect]
    count = settings.processes * settings.per_process if scene.callers == "processes" else settings.callers
    numbers = range(1, count + 1)
    with _crew(scene, dialect, server, settings) as (manager, store, crew):
        ended: list[SessionEnded] = []
        manager.on(SessionEnded, ended.append)
        answer = dialect.login(server)
        manager.login(answer)
        constant = dialect.login(server)
        dress = dialect.dress(constant)
        stage("warming up")
        crew.burst(numbers, settings.bound)
        crew.burst(numbers, settings.bound, dress)
        stage("measuring the floor")
        burst = statistics.median(crew.burst(numbers, settings.bound, dress).seconds for _ in range(_ROUNDS))
        _expire(scene, server, manager, answer)
        refresh = _one_refresh(dialect, server, Session.begin("floor", "floor", Token.from_response(constant)))
        before = server.stats()
        gc.collect()  # not while callers are being measured
        stage(f"{counted(count, 'call')} at once")
        found = crew.burst(numbers, settings.bound)
        # a caller is woken before the listeners are told
        _settle(lambda: scene.expected != "LoginRequired" or bool(ended))
        if scene.expected != "served":
            # who comes later is told from memory: one more token request would show in the counts
            with suppress(UnexpiredError):
                manager.refresh()
        session = store.load(scene.name)
        bursts = 1 if scene.expiry == "known" or scene.expected != "served" else 2
        return _result(
            scene,
            found,
            (before, server.stats()),
            logins_ended=len(ended),
            cleared=session is None or not (session.tokens or session.refresh_token),
            floor=refresh + bursts * burst,
        )


@contextmanager
def _crew(
    scene: Scene, dialect: Dialect, server: ServerHandle, settings: Settings
) -> Generator[tuple[TokenManager, Store, Crew], None, None]:
    grant = dialect.grant(server.url)
    with tempfile.TemporaryDirectory(prefix="unexpired-demo-") as directory:
        shared = scene.callers == "processes"
        store: Store = FileStore(directory) if shared else MemoryStore()
        with TokenManager(grant, store=store, key=scene.name) as manager:
            crew: Crew
            if shared:
                crew = ProcessCrew(settings.processes, dialect.name, directory, scene.name, server.url)
            else:
                crew = (ThreadCrew if scene.callers == "threads" else TaskCrew)(dialect, manager, server.url)
            try:
                yield manager, store, crew
            finally:
                crew.close()


def _expire(scene: Scene, server: ServerHandle, manager: TokenManager, answer: dict[str, object]) -> None:
    if scene.expiry == "known":
        manager.login({**answer, "expires_in": -1})
    else:
        server.expire()
    if scene.expected == "LoginRequired":
        server.revoke_family()
    elif scene.expected == "TemporarilyUnavailable":
        server.faults([{"kind": "503", "retry_after": _RETRY_AFTER, "times": 100_000}])


def _one_refresh(dialect: Dialect, server: ServerHandle, session: Session) -> float:
    """The time that one token request takes alone, whatever comes of it (seconds)."""
    began = time.perf_counter()
    with suppress(GrantError):
        dialect.grant(server.url).redeem(session, resource=None, timeout=10.0)
    return time.perf_counter() - began


def _settle(reached: Callable[[], bool], seconds: float = 2.0) -> None:
    until = time.monotonic() + seconds
    while not reached() and time.monotonic() < until:
        time.sleep(0.005)


def _result(
    scene: Scene, burst: Burst, seen: tuple[Stats, Stats], *, logins_ended: int, cleared: bool, floor: float
) -> Result:
    before, after = seen
    now = clock()
    rows = after.redemptions[len(before.redemptions) :]
    return Result(
        scene=scene.name,
        about=scene.about,
        expected=scene.expected,
        calls=burst.calls,
        refreshes=[Refresh(row.received, row.answered or now, row.outcome) for row in rows],
        reuse_detected=after.reuse_detected - before.reuse_detected,
        revoked=after.families_revoked - before.families_revoked,
        logins_ended=logins_ended,
        cleared=cleared,
        released=burst.released,
        wall_s=burst.seconds,
        floor_s=floor,
    )
