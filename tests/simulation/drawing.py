"""Lines of a trace as a Mermaid sequence diagram: who says what to whom, in the words of the glossary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tests.simulation.trace import Line
from unexpired._core import effects
from unexpired._core.session import Session
from unexpired.errors import StoreError

__all__ = ["Drawing"]

STORE, SERVER, API = "store", "server", "API"
_NAMES = {STORE: "", SERVER: " as authorization server", API: ""}
_WORTH_TELLING = 0.5
"""Seconds without anything happening from which on a picture says what time it is."""


class Drawing:
    """The picture of a trace; `str` of it is the text for Mermaid."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.rows: list[str] = []
        self._processes: set[str] = set()
        self._others: set[str] = set()
        self._now = 0.0
        self._same: tuple[str, str, list[str]] | None = None
        self._begun: dict[str, tuple[Line, int]] = {}
        self._spent: set[str] = set()
        for line in lines:
            self._draw(line)
        self._say_same()

    def __str__(self) -> str:
        names = [f"    participant {name} as process {name}" for name in sorted(self._processes)]
        names += [f"    participant {name}{_NAMES[name]}" for name in _NAMES if name in self._others]
        return "\n".join(["sequenceDiagram", *names, *(f"    {row}" for row in self.rows)])

    @property
    def arrows(self) -> int:
        """How many there are."""
        return sum("->>" in row or "-)" in row or "-x" in row for row in self.rows)

    # -- rows -------------------------------------------------------------------------------------------------------

    def _arrow(self, start: str, kind: str, end: str, text: str) -> None:
        self._say_same()
        for name in (start, end):
            (self._others if name in _NAMES else self._processes).add(name)
        self.rows.append(f"{start}{kind}{end}: {text}")

    def _note(self, where: str, text: str) -> None:
        self._say_same()
        (self._others if where in _NAMES else self._processes).add(where)
        self.rows.append(f"Note over {where}: {text}")

    def _callers(self, row: str, text: str, caller: str) -> None:
        """Callers of a process that do the same at the same time are drawn as one. *row*: where, and what kind."""
        if self._same is None or self._same[:2] != (row, text):
            self._say_same()
            self._same = row, text, []
        self._same[2].append(caller)

    def _say_same(self) -> None:
        if self._same is None:
            return
        (row, text, callers), self._same = self._same, None
        who = " and ".join(dict.fromkeys(callers))
        if row.startswith("Note"):
            self.rows.append(f"{row}: {who} {text}")
        else:
            self.rows.append(f"{row}: {who}: {text}")

    # -- lines ------------------------------------------------------------------------------------------------------

    def _draw(self, line: Line) -> None:
        if line.when - self._now > _WORTH_TELLING:
            self._say_same()
            everybody = sorted(self._processes)
            self.rows.append(f"Note over {everybody[0]},{_last(self._others)}: {line.when:.1f} s after the beginning")
        self._now = line.when
        process, _, name = line.who.partition(".")
        if isinstance(line.about, effects.Effect):
            self._effect(process, line)
        elif line.about == "revoke":
            self._revoked(process, name, str(line.said))
        elif line.what.startswith("the server: "):
            self._server(line.what.removeprefix("the server: "))
        elif line.what.startswith("FAULT "):
            fault, _, who = line.what.removeprefix("FAULT ").partition(": ")
            if fault in _FAULTS:
                self._note(who.partition(".")[0], _FAULTS[fault])
        elif line.about == "change":
            assert isinstance(line.said, Session)
            self._arrow(process, "->>", STORE, f"{name.replace('log ', 'log')}: {_stored(line.said)}")
        elif line.what in _EVENTS:
            if _EVENTS[line.what]:
                self._note(SERVER, _EVENTS[line.what])
        else:
            self._caller(process, line)

    def _caller(self, process: str, line: Line) -> None:
        what = line.what.removeprefix(f"{line.who} ")
        short = line.who.partition(".")[2]
        if what.endswith(" is cancelled"):
            self._note(what.partition(".")[0], what.partition(".")[2])
            return
        self._processes.add(process)
        if line.about == "join":
            self._callers(f"Note over {process}", "waiting for a new token", short)
        elif line.about == "refused":
            self._callers(f"{API}--x{process}", f"401 for {what.rpartition(' ')[2]}", short)
        elif what.startswith("calls the API with "):
            self._others.add(API)
            self._callers(f"{process}->>{API}", what.removeprefix("calls the API with "), short)
        elif what == "gets response":
            self._callers(f"{API}-->>{process}", "response", short)
        else:
            self._callers(f"Note over {process}", what.replace(": ", " (") + (")" if ": " in what else ""), short)

    def _revoked(self, process: str, name: str, why: str) -> None:
        if why == "reuse":
            self._note(SERVER, "a spent refresh token: the login is over")
        elif why != "revoked":
            self._note(SERVER, "the login is over")
        elif not name.startswith("flight"):
            self._arrow(process, "->>", SERVER, "revoke the login")

    def _server(self, what: str) -> None:
        asked, _, said = what.partition(" -> ")
        if said == "invalid_grant":
            return
        again = "was spent before, answered all the same" if asked in self._spent else "is spent now"
        self._note(SERVER, f"{_short(asked)} {again}")
        self._spent.add(asked)

    # -- effects ----------------------------------------------------------------------------------------------------

    def _effect(self, process: str, line: Line) -> None:
        effect, said = line.about, line.said
        if isinstance(effect, effects.Redeem):
            self._redeem(process, effect, line)
        elif isinstance(effect, effects.Lease):
            self._lease(process, line)
        elif isinstance(effect, effects.Load):
            self._arrow(STORE, "-->>", process, _known(said))
        elif isinstance(effect, effects.Swap):
            self._swap(process, effect, said)
        elif isinstance(effect, effects.Release):
            self._arrow(process, "->>", STORE, "gives the lease back")
        elif isinstance(effect, effects.Revoke):
            self._arrow(process, "->>", SERVER, f"revoke the login, {_short(effect.session.refresh_token)}")
        elif isinstance(effect, effects.Publish) and not effect.last:
            self._note(process, "who waits is served from memory")
        elif isinstance(effect, effects.Publish) and effect.result.failure is not None:
            self._note(process, effect.result.failure.message)

    def _redeem(self, process: str, effect: effects.Redeem, line: Line) -> None:
        if line.begins:
            self._arrow(process, "->>", SERVER, f"token request with {_short(effect.session.refresh_token)}")
        elif isinstance(line.said, dict):
            token = line.said
            self._arrow(SERVER, "-->>", process, f"{token['access_token']} and {_short(token.get('refresh_token'))}")
        else:
            self._arrow(SERVER, "--x", process, getattr(line.said, "error", None) or "no usable answer")

    def _lease(self, process: str, line: Line) -> None:
        """A lease that is had at once is one arrow; one that is waited for is two."""
        if line.begins:
            self._arrow(process, "->>", STORE, "waits for the lease")
            self._begun[process] = line, len(self.rows)
            return
        begun, row = self._begun.pop(process)
        held = isinstance(line.said, effects.Granted)
        if held and row == len(self.rows) and begun.when == line.when:
            self.rows[-1] = self.rows[-1].replace("waits for", "takes")
        else:
            self._arrow(STORE, "-->>", process, "the lease" if held else f"no lease ({line.said})")

    def _swap(self, process: str, effect: effects.Swap, said: object) -> None:
        what = _stored(effect.new, effect.expected)
        if said is True:
            self._arrow(process, "->>", STORE, what)
        elif isinstance(said, StoreError):
            self._arrow(process, "-x", STORE, f"{what}, not stored ({said})")
        else:
            self._arrow(process, "-x", STORE, f"{what}, not stored (the record has changed)")


_FAULTS = {
    "kill": "killed (kill -9)",
    "pause past the lease": "stopped for 13 s",
    "lease lost": "its lease is lost, unnoticed",
}
_EVENTS = {"log in": "", "log out": "", "login ends": "", "tokens end": "all access tokens end"}


def _last(others: set[str]) -> str:
    return next(name for name in reversed(_NAMES) if name in others)


def _short(refresh_token: Any) -> str:
    """`RT1` for the first login's, and which login's for others."""
    login, _, number = str(refresh_token).rpartition("/")
    return number if login in ("", "login1") else f"{number} of {login}"


def _known(said: object) -> str:
    if not isinstance(said, Session):
        return "nothing"
    whose = _named(said)
    if said.ended is not None:
        return f"read: {whose}, ended ({said.ended.reason})"
    note = f", an intent of {said.intent.owner.partition('#')[0]}" if said.intent is not None else ""
    return f"read: {whose}{note}"


def _stored(new: Session, before: Session | None = None) -> str:
    if new.ended is not None:
        return f"{_named(new)}, ended ({new.ended.reason})"
    if before is not None and before.same_version(new):
        return f"intent on {_named(new)}" if new.intent is not None else f"note on {_named(new)}"
    tokens = " and ".join([*(token.access_token for token in new.tokens.values()), _short(new.refresh_token)])
    return f"{_named(new)} ({tokens})"


def _named(session: Session) -> str:
    login = "" if session.login == "login1" else f"{session.login}, "
    return f"{login}version {session.version}"
