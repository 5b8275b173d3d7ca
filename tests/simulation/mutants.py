"""Deliberate defects: small patches of the product's code, in memory, each of which has to be found.

A patch changes the code object of one function, so that it is everywhere where the function is, and can be taken back.
"""

from __future__ import annotations

import inspect
import textwrap
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FunctionType
from typing import Any, cast

from tests.simulation.shelf import Lease as SharedLease
from unexpired._core import changes, effects, flight, landing, obtain, outcome, replay, suspicion
from unexpired._core.effects import Need
from unexpired._core.session import Session
from unexpired._engine.cell import Cell
from unexpired._engine.desk import Desk
from unexpired._engine.flying import Flying

__all__ = ["MUTANTS", "Mutant", "mutated"]


@dataclass(frozen=True, slots=True)
class Mutant:
    """A defect: in *function*, *right* becomes *wrong*; *also* is a second one, where one alone does no harm."""

    name: str
    function: Any
    right: str
    wrong: str
    also: Mutant | None = None

    def __str__(self) -> str:
        return self.name


@contextmanager
def mutated(mutant: Mutant) -> Generator[None]:
    """Let the product have this defect for a while. Raises LookupError when its code is not what it was."""
    if mutant.also is not None:
        with mutated(replace(mutant, also=None)), mutated(mutant.also):
            yield
        return
    function = cast("FunctionType", mutant.function)
    source = textwrap.dedent(inspect.getsource(function))
    if source.count(mutant.right) != 1:
        raise LookupError(f"{mutant.name}: {mutant.right!r} is not once in {function.__qualname__}")
    text = "from __future__ import annotations\n" + source.replace(mutant.right, mutant.wrong)
    names: dict[str, Any] = {}
    exec(compile(text, f"<{mutant.name}>", "exec"), function.__globals__, names)
    before, after = function.__code__, cast("FunctionType", names[function.__name__]).__code__
    added = {name: value for name, value in _ALSO.items() if name not in function.__globals__}
    function.__globals__.update(added)
    function.__code__ = after
    try:
        yield
    finally:
        function.__code__ = before
        for name in added:
            del function.__globals__[name]


# What a defect may need that the module around it does not have.
_ALSO: dict[str, Any] = {
    "effects": effects,
    "Granted": effects.Granted,
    "Publish": effects.Publish,
    "Release": effects.Release,
}

MUTANTS = (
    Mutant(
        "the record is not read again once the lease is held",
        flight._lead,
        "        granted = yield from Lease(max(0.0, limit - instant.boot))\n        session = yield from Load()\n",
        "        session = yield from Load()\n        granted = yield from Lease(max(0.0, limit - instant.boot))\n",
        # The fence alone makes up for it: what was read too early cannot be written on.
        also=Mutant("", Session.replaces, "if not expected.same_version(stored):", "if False:"),
    ),
    Mutant(
        "a swap does not compare the login",
        Session.same_version,
        "(self.login, self.version) == (other.login, other.version)",
        "self.version == other.version",
    ),
    Mutant(
        "a swap does not compare the version",
        Session.same_version,
        "(self.login, self.version) == (other.login, other.version)",
        "self.login == other.login",
    ),
    Mutant(
        "a swap of a note does not compare the notes",
        Session.replaces,
        "return stored.notes == expected.notes or not self.same_version(stored)",
        "return True",
    ),
    Mutant(
        "the deadline is not checked before sending",
        flight._send,
        "while not instant.exiting and instant.boot < deadline:",
        "while not instant.exiting:",
    ),
    Mutant(
        "a timed lease is shorter than the deadline",
        Flying._take_lease,
        "seconds=policy.deadline + policy.lease_margin",
        "seconds=policy.deadline / 10",
    ),
    Mutant(
        "the lease is released before the swap",
        flight._redeem,
        "outcome = yield from landing.land(trip, answer)",
        "yield from Release()\n        outcome = yield from landing.land(trip, answer)",
    ),
    Mutant(
        "no intent is written",
        flight._redeem,
        "if not (yield from Swap(session, marked)):",
        "marked = session\n        if False:",
    ),
    Mutant(
        "the intent is cleared before the answer is there",
        flight._redeem,
        "        answer = yield from _send(trip, deadline)\n",
        "        yield from Swap(marked, trip.unsent)\n        answer = yield from _send(trip, deadline)\n",
    ),
    Mutant(
        "a vanished owner's intent is not waited for",
        flight._hold_off,
        "if not (granted.timed or contested) or",
        "if True or",
    ),
    Mutant(
        "an intent does not count as an attempt",
        flight._redeem,
        "attempt = session.intent.attempt + 1 if session.intent is not None else 1",
        "attempt = 1",
    ),
    Mutant(
        "a token is newer when the session's version is",
        Need.met_by,
        "return token.newer_than(self.than) if self.rejected else token.later_than(self.than)",
        "return session.login != self.than.login or session.version > self.than.minted",
    ),
    Mutant(
        "several resources share one token",
        Need.met_by,
        "token = session.tokens.get(self.resource)",
        "token = max(session.tokens.values(), key=lambda one: one.minted, default=None)",
    ),
    Mutant(
        "a failure is remembered by this process alone",
        landing._remember,
        "stored = yield from Swap(trip.marked, noted)",
        "stored = True",
    ),
    Mutant(
        "a failure asks for no pause",
        outcome.fail,
        "pause = asked_pause(retry_after, cool_down(count, chance, trip.policy.longest_pause))",
        "pause = 0.0",
    ),
    Mutant(
        "somebody else's lease is released",
        SharedLease.release,
        "if self._facade.shelf.holder is self:",
        "if True:",
    ),
    Mutant(
        "everybody is woken before the token is stored",
        landing._save,
        "saved = yield from _store(trip, Result(stored), stored)",
        "yield from Publish(Result(stored), last=False)\n    saved = yield from _store(trip, Result(stored), stored)",
    ),
    Mutant(
        "invalid_grant ends whatever is stored",
        landing._end,
        "    if current is None or not trip.marked.same_version(current) or current.notes != trip.marked.notes:\n"
        "        return Outcome(Result(current))\n",
        "    trip = replace(trip, marked=current)\n",
    ),
    Mutant(
        "any record will do",
        landing.settle,
        "if not unmet:",
        "if len(unmet) < len(needs) or session.version > 1:",
    ),
    Mutant(
        "a cancelled caller ends the flight for everybody",
        Flying.wait,
        "            self._threads.wait(until)\n",
        "            try:\n                self._threads.wait(until)\n            except BaseException:\n"
        "                self._publish(effects.Publish(effects.Result(None)))\n                raise\n",
    ),
    Mutant(
        "a lost answer is asked for again at once, without a grace period",
        flight._redeem,
        "repeats = 2 if plan.policy.reuse_grace > 0 else 0",
        "repeats = 2",
    ),
    Mutant(
        "a result that came too late is revoked",
        landing._lost_swap,
        "        and current.login == stored.login\n        and current.ended is not None\n"
        '        and current.ended.reason == "logout"\n',
        "",
    ),
    Mutant(
        "a late word of the API ends the winner",
        changes.end,
        "if token is None or token.minted != carried.minted:",
        "if token is None:",
    ),
    Mutant(
        "logging out makes no new version",
        Session.over,
        "self.login, self.version + 1, ended",
        "self.login, self.version, ended",
    ),
    Mutant(
        "waiting too long for the lease refreshes without it",
        flight._lead,
        '        if granted == "timeout":\n',
        '        granted = Granted(instant.boot, 0.0) if granted == "timeout" else granted\n        if False:\n',
    ),
    Mutant(
        "a refused request is not sent again",
        replay.replay,
        "token = yield from Replace(carried, origin, endpoint)",
        "token = None",
    ),
    Mutant("nobody sits out a failure", obtain.obtain, "patience = min(policy.patience, wait)", "patience = 0.0"),
    Mutant("the pause that a server asks for is forgotten", landing.land, ", answer.retry_after)", ")"),
    Mutant(
        "a new token drops those of other resources",
        Session.minted,
        "{**others, resource: stored}",
        "{resource: stored}",
    ),
    Mutant(
        "every refused login is told as a lost answer",
        landing._refused,
        '"answer_lost" if trip.attempt > 1 else "refused"',
        '"answer_lost"',
    ),
    Mutant("a request is replayed for ever", replay.replay, "replays += 1", "replays += 0"),
    Mutant(
        "an API that refuses everything is believed every time",
        suspicion.refuses,
        "if age < known.pause:",
        "if False:",
    ),
    Mutant(
        "a process does not look whether the record has changed",
        Cell.look,
        "if view is not None and view.stamp == stamp:",
        "if view is not None:",
    ),
    Mutant(
        "a readable refresh token in a broken answer is thrown away",
        landing._lost,
        "if not answer.refresh_token:",
        "if True:",
    ),
    Mutant(
        "a store that refuses once is not asked again",
        landing._store,
        "            tries += 1\n",
        "            tries += 1\n            return None\n",
    ),
    Mutant(
        "a wrong client registration ends the login",
        landing._refused,
        "    if answer.error is not None:\n        return (yield from _remember",
        "    if answer.error is not None:\n        return (yield from _end(trip, 'refused', spent=True))\n"
        "        return (yield from _remember",
    ),
    Mutant("a flight that has ended is joined", Flying._publish, "self._cell.detach()", "pass"),
    Mutant(
        "a late refusal refreshes the current token",
        Desk._newer,
        "if rejected is None or rejected == held.token.access_token:",
        "if True:",
    ),
    Mutant(
        "a caller's bound is forgotten",
        obtain.obtain,
        "late = result is None or instant.boot >= until",
        "late = False",
    ),
    Mutant(
        "a flight does not care who has the lease",
        Flying._take_lease,
        'return "changed" if changed() else "timeout"',
        "return effects.Granted(boot(), 0.0)",
    ),
)
