"""One fault, met by a flight at each of its steps at once: six logins in one process, and a second process beside it.

A store stands between the library and the real store and stops each flight at its own step, so no moment is guessed.
The authorization server rotates and takes a spent refresh token for theft. `play` holds what has to be true in every
cell of the table, and brings what is to be written there.
"""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from unexpired import TokenManager
from unexpired._core.ports import HeldLease
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import Refused, StoreError, TemporarilyUnavailable, UnexpiredError
from unexpired.events import Event, RefreshFailed, Unsaved
from unexpired.grants import FunctionGrant
from unexpired.stores import Store

__all__ = ["EXPIRED", "FROM_MEMORY", "SERVED", "STEPS", "Cell", "Issuer", "Place", "Staged", "managed", "play", "told"]

STEPS = (
    "before the lease",
    "after the lease",
    "before the intent",
    "during the redemption",
    "before the result",
    "before the release",
)
"""Where a flight stands when the fault strikes."""
EXPIRED = "token expired"
"""Nothing was under way: a call that needs a token comes while the fault lasts."""
SERVED, FROM_MEMORY = "served", "served from memory"

_ANSWERED = STEPS[3:5]
_BOUND = 60.0
_AGAIN = 45.0
_QUICK = 15.0
"""Seconds for a call without a valid token to end in. A caller would wait for 30 s."""


@dataclass
class Place:
    """A real store, as two processes have it, and what is done to it.

    *strike* and *mend* return when the fault is there, or gone. *deadline* is that of flights that send nothing while
    it lasts, *answered* that of those with an answer: the fault has to be over before their leases are, because a
    store that is away for longer may cost the login. A call with a valid token takes *warm* seconds at the most.
    """

    near: Store
    far: Store
    strike: Callable[[], object]
    mend: Callable[[], object]
    deadline: float = 2.0
    answered: float = 30.0
    warm: float = 5.0


@dataclass(frozen=True)
class Cell:
    """What came of it, after how many seconds, and how long a call with a valid token took meanwhile at the most."""

    word: str
    seconds: float
    warm: float


class Issuer:
    """Rotates at each redemption, and ends the login of a refresh token that comes again. Any thread may ask it.

    *answered* is called before an answer is given out.
    """

    def __init__(self) -> None:
        self.current: dict[str, str] = {}
        self.redeemed: dict[str, list[int]] = {}
        self.thefts: list[str] = []
        self.answered: Callable[[], object] = bool
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()

    def login(self, key: str, lifetime: int = 3600) -> dict[str, Any]:
        """The first answer of a login."""
        with self._lock:
            return self._answer(key, lifetime)

    def redeem(self, session: Session) -> dict[str, Any]:
        """The answer to a refresh token."""
        with self._lock:
            self.redeemed.setdefault(session.key, []).append(session.version)
            if session.refresh_token != self.current[session.key]:
                self.thefts.append(session.key)
                self.current[session.key] = ""
                raise Refused("a spent refresh token came again")
            answer = self._answer(session.key, 3600)
        self.answered()
        return answer

    def _answer(self, key: str, lifetime: int) -> dict[str, Any]:
        number = next(self._numbers)
        self.current[key] = f"refresh {number}"
        return {"access_token": f"access {number}", "refresh_token": f"refresh {number}", "expires_in": lifetime}


class Gate:
    """One flight stands here until it is let through; those after it go by."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.reached = threading.Event()
        self.opened = threading.Event()

    def meet(self, step: str) -> None:
        """Stand still, if it is here."""
        if step == self.step:
            self.reached.set()
            assert self.opened.wait(2 * _BOUND), f"nobody let a flight go on that was stopped {step}"


class Staged:
    """A real store, whose flights meet the gate of their key. Nobody but a flight does."""

    def __init__(self, real: Store, process: str) -> None:
        self.gates: dict[str, Gate] = {}
        self.remote = bool(getattr(real, "remote", False))
        self._real = real
        self._process = process

    def meet(self, key: str, step: str) -> None:
        """The flight of *key* has come to *step*."""
        gate = self.gates.get(key)
        if gate is not None and threading.current_thread().name == f"unexpired:{key}":
            gate.meet(step)

    @property
    def identity(self) -> Hashable:
        """What two processes have is known to each by itself."""
        return (self._process, self._real.identity)

    def load(self, key: str) -> Session | None:
        """As the real one."""
        return self._real.load(key)

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """As the real one, after the gate before the intent or the result."""
        self.meet(key, "before the intent" if new.same_version(expected) else "before the result")
        return self._real.swap(key, expected, new)

    def stamp(self, key: str) -> Callable[[], object]:
        """As the real one."""
        return self._real.stamp(key)

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> HeldLease | None:
        """As the real one, between two gates."""
        self.meet(key, "before the lease")
        held = self._real.lease(key, owner=owner, seconds=seconds, wait=wait, stop=stop)
        self.meet(key, "after the lease")
        return None if held is None else _StagedLease(held, self, key)

    def set_aside(self, key: str) -> None:
        """As the real one."""
        self._real.set_aside(key)

    def close(self) -> None:
        """As the real one."""
        self._real.close()


class _StagedLease:
    """A real lease, with a gate before its release."""

    def __init__(self, real: HeldLease, store: Staged, key: str) -> None:
        self.timed, self.granted_at = real.timed, real.granted_at
        self.age, self.renew = real.age, real.renew
        self._real, self._store, self._key = real, store, key

    def release(self) -> None:
        """As the real one."""
        self._store.meet(self._key, "before the release")
        self._real.release()


def managed(store: Staged, issuer: Issuer, key: str, deadline: float) -> TokenManager:
    """A manager that asks *issuer*, and a lease that lasts little longer than the deadline."""

    def refresh(session: Session) -> dict[str, Any]:
        answer = issuer.redeem(session)
        store.meet(key, "during the redemption")
        return answer

    manager = TokenManager(FunctionGrant(refresh), store=store, key=key, refresh_ahead=0, deadline=deadline)
    manager._policy = replace(manager._policy, lease_margin=0.5)
    return manager


def told(call: Callable[[], Token]) -> tuple[str, float]:
    """What a call came to, and after how many seconds. Another error than the library's own is raised."""
    began = time.monotonic()
    try:
        word = SERVED if call().access_token else "no token"
    except UnexpiredError as error:
        word = type(error).__name__
    return word, time.monotonic() - began


@dataclass
class _Login:
    """One login, of which a flight is stopped at *step*; both processes have its managers."""

    step: str
    key: str
    near: TokenManager
    far: TokenManager
    gate: Gate
    warm: float
    first: str = ""
    heard: list[Event] = field(default_factory=list)
    slowest: float = 0.0

    def call(self) -> None:
        """One call with a valid token in each process: it is served, soon."""
        for manager in (self.near, self.far):
            word, seconds = told(manager.token)
            self.slowest = max(self.slowest, seconds)
            assert (word, seconds < self.warm) == (SERVED, True), f"{self.step}: a valid token: {word}, {seconds:.1f} s"


@contextmanager
def _opened(logins: list[_Login]) -> Iterator[ThreadPoolExecutor]:
    """Threads for callers; whatever happens, no flight is left standing at its gate."""
    with ThreadPoolExecutor(4 * len(logins)) as pool:
        try:
            yield pool
        finally:
            for login in logins:
                login.gate.opened.set()


def play(place: Place) -> dict[str, Cell]:
    """Let the fault strike, live through it, mend it, and say what came of each step.

    What is asserted: (a) calls with a valid token are served all the time; (b) everybody is answered, by a token or an
    error of the library, while the fault lasts; (c) no version is redeemed again, by whichever process; (d) the next
    call after the fault is served in both processes, with the same token; (e) without a valid token a call ends
    quickly.
    """
    issuer, near, far = Issuer(), Staged(place.near, "near"), Staged(place.far, "far")
    logins: list[_Login] = []
    for step in STEPS:
        key, deadline = step.replace(" ", "-"), place.answered if step in _ANSWERED else place.deadline
        managers = (managed(near, issuer, key, deadline), managed(far, issuer, key, deadline))
        login = _Login(step, key, *managers, Gate(step), place.warm)
        near.gates[key] = login.gate
        login.near.on(Event, login.heard.append)
        login.first = login.near.login(issuer.login(key)).tokens[None].access_token
        login.call()
        logins.append(login)
    without = managed(near, issuer, EXPIRED, place.deadline), managed(far, issuer, EXPIRED, place.deadline)
    without[0].login(issuer.login(EXPIRED, -1))
    with _opened(logins) as pool, ExitStack() as fault:
        flights = [pool.submit(told, _refreshing(login, login.near)) for login in logins]
        for login in logins:
            assert login.gate.reached.wait(_BOUND), f"no flight came to stand {login.step}"
        fault.callback(place.mend)
        place.strike()
        for login in logins:
            login.gate.opened.set()
        late = pool.submit(told, without[0].token)
        others = [pool.submit(told, _refreshing(login, login.far)) for login in logins]
        _call_until_done(pool, logins, [*flights, late])
        fault.close()
        _recover(pool, logins, *without)
        for other in others:
            other.result(_BOUND)
    keys = [*(login.key for login in logins), EXPIRED]
    assert issuer.thefts == [], issuer.redeemed
    assert issuer.redeemed == {key: [1] for key in keys}
    assert {key: _stored(place.far, key) for key in keys} == issuer.current
    word, seconds = late.result()
    assert word == SERVED or seconds < _QUICK, f"without a valid token: {word} after {seconds:.1f} s"
    return {EXPIRED: Cell(word, seconds, 0.0)} | {
        login.step: _cell(login, *flight.result()) for login, flight in zip(logins, flights, strict=True)
    }


def _cell(login: _Login, word: str, seconds: float) -> Cell:
    """What came of one step; an event told of it, too."""
    unsaved = any(isinstance(event, Unsaved) for event in login.heard)
    failed = [event.kind for event in login.heard if isinstance(event, RefreshFailed)]
    assert failed[:1] == (["store"] if word == "StoreError" else []), f"{login.step}: {word}, and {failed} was told"
    return Cell(FROM_MEMORY if unsaved and word == SERVED else word, seconds, login.slowest)


def _refreshing(login: _Login, manager: TokenManager) -> Callable[[], Token]:
    """A call whose token an API refused."""
    return lambda: manager.refresh(login.first)


def _call_until_done(pool: ThreadPoolExecutor, logins: list[_Login], waiting: list[Future[tuple[str, float]]]) -> None:
    """Call, with a valid token, until all those who wait have their answer."""
    until = time.monotonic() + _BOUND
    done = False
    while not done:
        done = all(one.done() for one in waiting)
        assert time.monotonic() < until, f"somebody still waits for an answer after {_BOUND:g} s"
        list(pool.map(_Login.call, logins))
        time.sleep(0.005)


def _recover(
    pool: ThreadPoolExecutor, logins: list[_Login], near_without: TokenManager, far_without: TokenManager
) -> None:
    """Everything is well again: each process's next call brings the same newer token."""
    calls: list[tuple[str, Callable[[], Token], Callable[[], Token]]] = [
        (login.step, _refreshing(login, login.near), _refreshing(login, login.far)) for login in logins
    ]
    calls.append((EXPIRED, near_without.token, far_without.token))
    asked = [(step, pool.submit(_soon, here), pool.submit(_soon, there)) for step, here, there in calls]
    for step, one, other in asked:
        assert one.result(_BOUND) == other.result(_BOUND), f"{step}: two processes have two tokens"


def _soon(call: Callable[[], Token]) -> str:
    """The token that a call brings. For a moment a store may still be taken for away: then the call is made again."""
    until = time.monotonic() + _AGAIN
    while True:
        try:
            return call().access_token
        except (StoreError, TemporarilyUnavailable):
            if time.monotonic() >= until:
                raise
        time.sleep(0.01)


def _stored(store: Store, key: str) -> str | None:
    session = store.load(key)
    return None if session is None else session.refresh_token
