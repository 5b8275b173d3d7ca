"""A world of values for the flows of the core: a store, a lease, two clocks, a server and a trace of what was done.

A `World` answers each effect of a flow from its own state. What goes wrong is said before: at the n-th `Load`, `Swap`
or any other effect, a fault is raised or something happens just before the effect is carried out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar, cast

from unexpired._core import changes, effects
from unexpired._core.effects import Flow, Granted, Instant, Need, Result
from unexpired._core.flight import Plan, flight
from unexpired._core.obtain import obtain
from unexpired._core.policy import Policy
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.events import Event

R = TypeVar("R")

KEY = "alice"
LOGIN = "login-1"
EPOCH = 1_000_000.0
REFUSING = "the store refuses"


def token(name: str = "AT-1", **more: Any) -> Token:
    """A token that has just expired, unless *more* says otherwise."""
    settings: dict[str, Any] = {"expires_at": EPOCH - 1.0, "lifetime": 300.0, "refresh_token": "RT-1"}
    return Token(name, **{**settings, **more})


def session(*tokens: Token, login: str = LOGIN, **more: Any) -> Session:
    """A stored session at version 1 with *tokens*, by default the one expired token."""
    begun = Session.begin(KEY, login, "RT-1")
    held = {one.resource: replace(one, login=login, minted=1) for one in tokens or (token(),)}
    return replace(begun, tokens=held, **more)


def intent(*, attempt: int = 1, owner: str = "gone", since: float = EPOCH, version: int = 1) -> Intent:
    """A journal entry left behind by *owner*."""
    return Intent(LOGIN, version, owner, attempt, since)


def answer(number: int = 2, **more: Any) -> dict[str, Any]:
    """A token answer of the server (RFC 6749 §5.1) that rotates the refresh token."""
    return {"access_token": f"AT-{number}", "refresh_token": f"RT-{number}", "expires_in": 300, **more}


@dataclass
class World:
    """Everything that the flows of one process can see, and what they did to it.

    *server* are the answers to token requests, in order; the last one is repeated. *faults* maps the name of an effect
    and its number (from 1) to an exception or to a function that is called just before the effect is carried out.
    """

    record: Session | None = None
    server: list[Any] = field(default_factory=lambda: [answer()])
    needs: set[Need] = field(default_factory=lambda: {Need()})
    policy: Policy = field(default_factory=Policy)
    faults: dict[tuple[str, int], Callable[[], object] | Exception] = field(default_factory=dict)
    leases: list[Any] = field(default_factory=list)
    owner: str = "me"
    timed: bool = False
    exiting: bool = False
    latency: float = 0.1
    chance: float = 0.5
    store_skew: float = 0.0
    clock_skew: float = 0.0
    revokes: bool = True
    boot: float = 500.0
    held: bool = False
    trace: list[effects.Effect[Any]] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    events: list[Event] = field(default_factory=list)
    slept: list[float] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)

    @property
    def wall(self) -> float:
        """UNIX time by this process's clock, which starts at `EPOCH`."""
        return EPOCH + self.boot - 500.0 + self.clock_skew

    @property
    def names(self) -> list[str]:
        """The kinds of the effects carried out, in order, without the clock and the dice."""
        quiet = (effects.Now, effects.Draw, effects.Needs)
        return [type(effect).__name__ for effect in self.trace if not isinstance(effect, quiet)]

    @property
    def result(self) -> Result:
        """What everybody got in the end."""
        return self.results[-1]

    @property
    def failure(self) -> Failure:
        """The failure that everybody got in the end."""
        assert self.result.failure is not None
        return self.result.failure

    @property
    def stored(self) -> Session:
        """What the store holds."""
        assert self.record is not None
        return self.record

    @property
    def redeemed(self) -> list[effects.Redeem]:
        """The token requests, in order."""
        return [effect for effect in self.trace if isinstance(effect, effects.Redeem)]

    def heard(self, kind: type[Event]) -> list[Any]:
        """The events of one kind."""
        return [event for event in self.events if isinstance(event, kind)]

    def refuse(self, effect: str, *numbers: int) -> None:
        """Let the n-th *effect* fail because the store refuses."""
        for number in numbers:
            self.faults[effect, number] = StoreError(REFUSING)

    def before(self, effect: str, number: int, happens: Callable[[], object]) -> None:
        """Let something happen just before the n-th *effect*."""
        self.faults[effect, number] = happens

    # -- what others do meanwhile -----------------------------------------------------------------------------------

    def others_log_in(self, login: str = "login-2") -> None:
        """Somebody logs in anew."""
        new = Token("AT-new", refresh_token="RT-new", expires_at=self.wall + 300, lifetime=300.0)
        self.record = Session.begin(KEY, login, new)

    def others_log_out(self) -> None:
        """Somebody logs out."""
        self.record = self.stored.over("logout", self.wall)

    def others_refresh(self) -> None:
        """Another process stores a newer version."""
        new = Token("AT-other", refresh_token="RT-other", expires_at=self.wall + 300, lifetime=300.0)
        self.record = self.stored.minted(new)

    def passes(self, seconds: float) -> Callable[[], None]:
        """Time goes by."""

        def pass_by() -> None:
            self.boot += seconds

        return pass_by

    def exits(self) -> None:
        """The process begins to end."""
        self.exiting = True

    # -- driving ----------------------------------------------------------------------------------------------------

    def fly(self) -> Result:
        """Run one flight for everybody's needs."""
        assert self.drive(flight(Plan(KEY, self.policy, self.owner))) is None
        return self.result

    def obtain(self, need: Need | None = None, wait: float = 30.0) -> Token:
        """Get a token as a caller does; flights are run as they are joined."""
        return self.drive(obtain(KEY, need or Need(), self.policy, wait))

    def login(self, first: Token | str, login_id: str = "login-2") -> Session:
        """Store a new login."""
        return self.drive(changes.login(KEY, login_id, first))

    def drive(self, flow: Flow[R]) -> R:
        """Carry out the effects of *flow*, one after the other."""
        try:
            effect = next(flow)
            for _ in range(5000):
                try:
                    said = self._perform(effect)
                except StoreError as error:
                    effect = flow.throw(error)
                else:
                    effect = flow.send(said)
        except StopIteration as stop:
            return cast("R", stop.value)
        raise AssertionError(f"the flow does not end: {self.names[-20:]}")

    def _perform(self, effect: effects.Effect[Any]) -> object:
        name = type(effect).__name__
        self.trace.append(effect)
        self.counts[name] += 1
        fault = self.faults.get((name, self.counts[name]))
        if isinstance(fault, Exception):
            raise fault
        if fault is not None:
            fault()
        perform: Callable[[Any], object] = getattr(self, f"_{name.lower()}")
        return perform(effect)

    def _now(self, _: effects.Now) -> Instant:
        return Instant(self.wall, self.boot, self.exiting)

    def _draw(self, _: effects.Draw) -> float:
        return self.chance

    def _sleep(self, effect: effects.Sleep) -> bool:
        self.slept.append(effect.seconds)
        if effect.patient or not self.exiting:
            self.boot += effect.seconds
        return not self.exiting

    def _needs(self, _: effects.Needs) -> frozenset[Need]:
        return frozenset(self.needs)

    def _lease(self, effect: effects.Lease) -> object:
        said = self.leases.pop(0) if self.leases else None
        if said == "timeout":
            self.boot += effect.wait
        if said is not None:
            return said
        self.held = True
        return Granted(self.boot, self.wall - self.clock_skew + self.store_skew, self.timed)

    def _release(self, _: effects.Release) -> None:
        self.held = False

    def _renew(self, _: effects.Renew) -> None:
        assert self.held, "a lease that is not held is renewed"

    def _load(self, _: effects.Load) -> Session | None:
        return self.record

    def _swap(self, effect: effects.Swap) -> bool:
        same = effect.new.replaces(self.record, effect.expected)
        if same:
            self.record = effect.new
        return same

    def _setaside(self, _: effects.SetAside) -> None:
        self.record = None

    def _redeem(self, effect: effects.Redeem) -> object:
        assert self.held, "a token request without the lease"
        said = self.server.pop(0) if len(self.server) > 1 else self.server[0]
        self.boot += min(self.latency, effect.timeout)
        return said

    def _revoke(self, _: effects.Revoke) -> bool:
        return self.revokes

    def _publish(self, effect: effects.Publish) -> int:
        self.results.append(effect.result)
        return len(self.needs)

    def _emit(self, effect: effects.Emit) -> None:
        self.events.append(effect.event)

    def _join(self, effect: effects.Join) -> Result | None:
        if self.boot >= effect.until:
            return None
        self.needs = {effect.need}
        return self.fly()


def every_path(explore: Callable[[Callable[[list[Any]], Any]], None], limit: int = 200_000) -> int:
    """Call *explore* once for each combination of choices that it makes with the function it is given.

    Depth first: each run repeats a prefix of choices and takes the first option of every new one. How many runs.
    """
    prefix: list[int] = []
    for runs in range(1, limit + 1):
        taken: list[tuple[int, int]] = []
        path = iter(prefix)

        def choose(options: list[Any], path: Iterator[int] = path, taken: list[tuple[int, int]] = taken) -> Any:
            index = next(path, 0)
            taken.append((index, len(options)))
            return options[index]

        explore(choose)
        while taken and taken[-1][0] + 1 >= taken[-1][1]:
            taken.pop()
        if not taken:
            return runs
        prefix = [index for index, _ in taken[:-1]] + [taken[-1][0] + 1]
    raise AssertionError(f"more than {limit} paths")
