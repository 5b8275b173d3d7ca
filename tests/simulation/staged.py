"""Worlds that are told what to do: the decisions of the pictures, by name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tests.simulation.choices import Step
from tests.simulation.ops import SEND

__all__ = ["Cue", "Staged"]


@dataclass(frozen=True, slots=True)
class Cue:
    """Before *who* does *op* for the *nth* time, *fault* strikes; without a fault, *who* waits there for all others."""

    who: str
    op: str
    fault: str = ""
    nth: int = 1


class Staged:
    """`Choices` that follow cues; everything else is as plain as it can be. *people*: in which process they act."""

    def __init__(self, cues: Sequence[Cue] = (), people: int = 0) -> None:
        self.left = list(cues)
        self._people = people
        self._seen: Counter[tuple[str, str]] = Counter()
        self._step: Step | None = None

    def pick(self, options: int) -> int:
        """See `Choices`."""
        return min(self._people, options - 1)

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """See `Choices`."""
        del faults_left
        taken = next((number for number, step in enumerate(ready) if not self._waits(step)), None)
        if taken is None:
            taken = 0
            self.left = [cue for cue in self.left if cue.fault or not self._is_at(cue, ready[0])]
        self._step = ready[taken]
        self._seen[self._step.name, self._step.op.name] += 1
        return taken

    def _is_at(self, cue: Cue, step: Step) -> bool:
        key = step.name, step.op.name
        return key == (cue.who, cue.op) and self._seen[key] == cue.nth - 1

    def _waits(self, step: Step) -> bool:
        return any(not cue.fault and self._is_at(cue, step) for cue in self.left)

    def fault(self, options: int, *, likely: bool = False) -> int:
        """See `Choices`."""
        del options
        assert self._step is not None
        who, op = self._step.name, SEND if likely else self._step.op
        for cue in self.left:
            nth = self._seen[who, op.name] + likely
            if cue.fault and (cue.who, cue.op, cue.nth) == (who, op.name, nth):
                self.left.remove(cue)
                return op.faults.index(cue.fault) + 1
        return 0

    def chance(self) -> float:
        """See `Choices`."""
        return 0.5
