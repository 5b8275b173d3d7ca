"""Who decides what happens in a world: dice, a recorded list, or a search through everything.

Every decision is a number from 0, which is the plainest one: go on with the same task, no fault, a small world.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Protocol

__all__ = ["Choices", "Dice", "Recorder", "Script", "Step"]


_BELOW_ONE = 1.0 - 1e-9


class Op(Protocol):
    """What is about to be done: what can go wrong there, and what it reads and writes of the shared world."""

    @property
    def name(self) -> str:
        """One word."""
        ...

    @property
    def faults(self) -> tuple[str, ...]:
        """What can go wrong."""
        ...

    @property
    def reads(self) -> frozenset[str]:
        """What it looks at."""
        ...

    @property
    def writes(self) -> frozenset[str]:
        """What it changes."""
        ...


class Named(Protocol):
    """Something with a name."""

    name: str


class Step(Protocol):
    """Something that can happen next."""

    @property
    def name(self) -> str:
        """Whose step it is."""
        ...

    @property
    def owner(self) -> Named | None:
        """The process whose memory it touches, None for none."""
        ...

    @property
    def op(self) -> Op:
        """What is done."""
        ...


class Choices(Protocol):
    """The decisions of one world."""

    def pick(self, options: int) -> int:
        """One of so many, when the world is set up or a number is drawn: all are equally likely."""
        ...

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """Whose turn it is: 0 goes on with the task that ran last, if it can; below 0 ends the world."""
        ...

    def fault(self, options: int, *, likely: bool = False) -> int:
        """What goes wrong at this step: 0 for nothing. *likely* steps are rare, and much can go wrong there."""
        ...

    def chance(self) -> float:
        """A number in [0, 1) for the product's own dice."""
        ...


class Dice:
    """Decisions of a seed."""

    __slots__ = ("_random", "_rate", "_stay")

    def __init__(self, seed: int, *, rate: float = 0.02, stay: float = 0.4) -> None:
        self._random = random.Random(seed).random
        self._rate = rate
        self._stay = stay

    def pick(self, options: int) -> int:
        """See `Choices`."""
        return int(self._random() * options)

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """See `Choices`."""
        del faults_left
        if len(ready) == 1:
            return 0
        one = self._random()
        return 0 if one < self._stay else int((one - self._stay) / (1.0 - self._stay) * len(ready))

    def fault(self, options: int, *, likely: bool = False) -> int:
        """See `Choices`."""
        one, rate = self._random(), self._rate * (10 if likely else 1)
        return 0 if one >= rate else 1 + int(one / rate * options * _BELOW_ONE)

    def chance(self) -> float:
        """See `Choices`."""
        return int(self._random() * 1000) / 1000


class Script:
    """Decisions that are written down; after the last one comes the plainest, always."""

    __slots__ = ("_left",)

    def __init__(self, decisions: Sequence[int]) -> None:
        self._left = iter(decisions)

    def _next(self, options: int) -> int:
        return min(next(self._left, 0), options - 1)

    def pick(self, options: int) -> int:
        """See `Choices`."""
        return self._next(options)

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """See `Choices`."""
        del faults_left
        return self._next(len(ready)) if len(ready) > 1 else 0

    def fault(self, options: int, *, likely: bool = False) -> int:
        """See `Choices`."""
        del likely
        return self._next(options + 1)

    def chance(self) -> float:
        """See `Choices`."""
        return self._next(1000) / 1000


class Recorder:
    """Writes down what another one decides."""

    __slots__ = ("_choices", "decisions")

    def __init__(self, choices: Choices) -> None:
        self._choices = choices
        self.decisions: list[int] = []

    def _note(self, decision: int) -> int:
        self.decisions.append(decision)
        return decision

    def pick(self, options: int) -> int:
        """See `Choices`."""
        return self._note(self._choices.pick(options))

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """See `Choices`."""
        decision = self._choices.turn(ready, faults_left)
        return self._note(decision) if len(ready) > 1 else decision

    def fault(self, options: int, *, likely: bool = False) -> int:
        """See `Choices`."""
        return self._note(self._choices.fault(options, likely=likely))

    def chance(self) -> float:
        """See `Choices`."""
        return self._note(int(self._choices.chance() * 1000)) / 1000
