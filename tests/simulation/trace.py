"""What happened in a world, as lines: when, who, which effect, with what answer."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

from tests.simulation import callers
from tests.simulation.shelf import Facade
from unexpired._core import effects
from unexpired._core.replay import Accepted
from unexpired._core.session import Session
from unexpired._engine import flying
from unexpired._engine.flying import Flying
from unexpired.clients import _exchange
from unexpired.errors import UnexpiredError

if TYPE_CHECKING:
    from tests.simulation.world import World

__all__ = ["Line", "Trace"]


@dataclass(frozen=True, slots=True)
class Line:
    """One thing that happened. *about* is the effect, or a word for what else there is; *said* what came of it."""

    when: float
    who: str
    what: str
    about: object = None
    said: object = None
    begins: bool = False


class Trace:
    """The lines of one world."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self._world: World | None = None

    def note(self, world: World, what: str, about: object = None, said: object = None, *, begins: bool = False) -> None:
        """Add a line."""
        self._world = world
        self.lines.append(Line(world.now, world.task.name, what, about, said, begins))

    def __str__(self) -> str:
        return "\n".join(f"{line.when:9.3f}  {line.who:<14} {line.what}" for line in self.lines)

    @contextmanager
    def effects(self, world: World) -> Generator[None]:
        """Note what flights do, and what callers, people and the server have to do with them, while this lasts."""
        watched = {kind: self._watched(world, do) for kind, do in flying._PERFORM.items() if kind not in _QUIET}
        with ExitStack() as stack:
            stack.enter_context(patch.dict(flying._PERFORM, watched))
            for place, name, watch in self._around(world):
                stack.enter_context(patch.object(place, name, watch))
            yield

    def _around(self, world: World) -> list[tuple[object, str, object]]:
        """What happens beside the effects of flights: where it is done, and the same with a line for the trace."""
        board, swap, revoke = Flying.board, Facade.swap, world.server.revoke
        answer, aanswer = _exchange.answer, _exchange.aanswer

        def boards(flight: Flying, need: effects.Need, *, waits: bool) -> None:
            self.note(world, "joins the flight" if waits else "asks for a refresh ahead", "join", waits)
            board(flight, need, waits=waits)

        def swaps(facade: Facade, key: str, expected: Session | None, new: Session) -> bool:
            stored = swap(facade, key, expected, new)
            if not world.task.flies:
                self.note(world, f"Swap {_session(expected)} => {_session(new)} -> {stored}", "change", new)
            return stored

        def revokes(family: Any, why: str) -> None:
            if not family.revoked:
                self.note(world, f"the server: {family.name} is over ({why})", "revoke", why)
            revoke(family, why)

        def refused(effect: Any) -> None:
            if not isinstance(effect, Accepted):
                self.note(world, f"is refused with {effect.carried.access_token}", "refused", effect.carried)

        def answers(exchange: Any, effect: Any, status: int) -> object:
            refused(effect)
            return answer(exchange, effect, status)

        async def aanswers(exchange: Any, effect: Any, status: int) -> object:
            refused(effect)
            return await aanswer(exchange, effect, status)

        return [
            (Flying, "board", boards),
            (Facade, "swap", swaps),
            (world.server, "revoke", revokes),
            (callers, "answer", answers),
            (callers, "aanswer", aanswers),
        ]

    def _watched(self, world: World, perform: Callable[[Flying, Any], object]) -> Callable[[Flying, Any], object]:
        def watched(flight: Flying, effect: Any) -> object:
            if isinstance(effect, _LASTING):
                self.note(world, _asked(effect), effect, begins=True)
            try:
                said = perform(flight, effect)
            except UnexpiredError as error:
                self.note(world, f"{_asked(effect)} -> {type(error).__name__}: {error}", effect, error)
                raise
            self.note(world, f"{_asked(effect)} -> {_said(said)}", effect, said)
            return said

        return watched


_QUIET = (effects.Now, effects.Draw, effects.Needs, effects.Emit)
_LASTING = (effects.Lease, effects.Redeem)
"""What takes its time: others do things between the question and the answer."""


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
