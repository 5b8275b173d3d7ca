"""What happened in a world, as lines: when, who, which effect, with what answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unexpired._core import effects
from unexpired._core.session import Session
from unexpired._engine import flying
from unexpired._engine.flying import Flying
from unexpired.errors import UnexpiredError

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Line", "Trace"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened."""

    when: float
    who: str
    what: str


class Trace:
    """The lines of one world."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._world: World | None = None

    def note(self, world: World, what: str) -> None:
        """Add a line."""
        self._world = world
        self.lines.append(Line(world.now, world.task.name, what))

    def __str__(self) -> str:
        return "\n".join(f"{line.when:9.3f}  {line.who:<14} {line.what}" for line in self.lines)

    @contextmanager
    def effects(self, world: World) -> Generator[None]:
        """Note what flights do, while this lasts."""
        before = dict(flying._PERFORM)
        for kind, perform in before.items():
            if kind not in _QUIET:
                flying._PERFORM[kind] = self._watched(world, perform)
        try:
            yield
        finally:
            flying._PERFORM.update(before)

    def _watched(self, world: World, perform: Callable[[Flying, Any], object]) -> Callable[[Flying, Any], object]:
        def watched(flight: Flying, effect: Any) -> object:
            try:
                said = perform(flight, effect)
            except UnexpiredError as error:
                self.note(world, f"{_asked(effect)} -> {type(error).__name__}: {error}")
                raise
            self.note(world, f"{_asked(effect)} -> {_said(said)}")
            return said

        return watched


_QUIET = (effects.Now, effects.Draw, effects.Needs, effects.Emit)


def _asked(effect: Any) -> str:
    name = type(effect).__name__
    if isinstance(effect, effects.Swap):
        return f"Swap {_session(effect.expected)} => {_session(effect.new)}"
    if isinstance(effect, effects.Redeem):
        return f"Redeem {effect.session.refresh_token} of version {effect.session.version}"
    if isinstance(effect, effects.Sleep):
        return f"Sleep {effect.seconds:.1f} s"
    if isinstance(effect, effects.Publish):
        result = effect.result
        return f"Publish {_session(result.session)}{f', {result.failure.kind}' if result.failure else ''}"
    return name


def _said(said: object) -> str:
    if isinstance(said, Session):
        return _session(said)
    if isinstance(said, effects.Granted):
        return "granted"
    if isinstance(said, dict):
        return str(said.get("access_token"))
    if isinstance(said, UnexpiredError):
        return f"{type(said).__name__}: {said}"
    return str(said)


def _session(session: Session | None) -> str:
    if session is None:
        return "nothing"
    marks = [f"attempt {session.intent.attempt} of {session.intent.owner or 'nobody'}"] if session.intent else []
    marks += [f"failed ({session.failure.kind})"] if session.failure else []
    marks += [f"ended ({session.ended.reason})"] if session.ended else []
    return f"{session.login} v{session.version}{' [' + ', '.join(marks) + ']' if marks else ''}"
