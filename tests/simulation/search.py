"""Every order in which a small world can happen, up to steps that commute.

A schedule is a list of transitions: whose step comes next, and what goes wrong there. The search runs the world again
for each schedule. *Sleep sets* (Godefroid) leave out orders that differ only in steps which touch nothing in common.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.simulation.choices import Op, Step
from tests.simulation.ops import SEND

__all__ = ["Search"]

_OF_THE_PROCESS = frozenset({"kill", "pause past the lease", "pause for a moment", "lease lost", "clock jumps", "slow"})


@dataclass(frozen=True, slots=True)
class Transition:
    """One step, or one fault in its place. Equal when it is the same step of the same task."""

    name: str
    op: str
    fault: str | None
    owner: str | None = field(compare=False)
    reads: frozenset[str] = field(compare=False)
    writes: frozenset[str] = field(compare=False)
    index: int = field(compare=False, default=0)

    def commutes_with(self, other: Transition) -> bool:
        """Whether the order of these two makes no difference."""
        if self.name == other.name:
            return False
        if self.owner is not None and self.owner == other.owner and _OF_THE_PROCESS & {self.fault, other.fault}:
            return False
        return not (self.writes & (other.reads | other.writes) or other.writes & self.reads)


@dataclass(slots=True)
class Node:
    """A point where something had to be decided: what there was, and what has been tried already."""

    left: list[Transition | int]
    sleep: list[Transition]
    taken: Transition | int = 0
    preemptions: int = 0


class Search:
    """`Choices` that go through everything: use one `Search` for one world after another, until `more` says no.

    *faults* are those that may happen; *preemptions* bounds how often a task that could go on is interrupted, None
    for as often as possible.
    """

    def __init__(self, faults: frozenset[str], *, preemptions: int | None = None) -> None:
        self.schedules = 0
        self.left_out = 0
        self.pruned = False
        self._faults = faults
        self._bound = preemptions
        self._sends = [number for number, fault in enumerate((None, *SEND.faults)) if fault is None or fault in faults]
        self._path: list[Node] = []
        self._depth = 0
        self._sleep: list[Transition] = []
        self._preemptions = 0
        self._fault = 0
        self._last = ""
        self.decisions: list[int] = []

    # -- one world after another ------------------------------------------------------------------------------------

    def begin(self) -> None:
        """The next world begins."""
        self._depth = 0
        self._sleep = []
        self._preemptions = 0
        self._last = ""
        self.pruned = False
        self.decisions = []

    def more(self) -> bool:
        """Note how the last world went; whether there is another one to be tried."""
        if self.pruned:
            self.left_out += 1
        else:
            self.schedules += 1
        while self._path:
            node = self._path[-1]
            if isinstance(node.taken, Transition):
                node.sleep.append(node.taken)
            if node.left:
                node.taken = node.left.pop()
                return True
            self._path.pop()
        return False

    # -- decisions --------------------------------------------------------------------------------------------------

    def turn(self, ready: Sequence[Step], faults_left: int) -> int:
        """See `Choices`."""
        node = self._path[self._depth] if self._depth < len(self._path) else self._arrive(ready, faults_left)
        self._depth += 1
        taken = node.taken
        if not isinstance(taken, Transition):
            self.pruned = True
            return -1
        self._sleep = [one for one in node.sleep if one.commutes_with(taken)]
        if taken.index and ready[0].name == self._last:
            self._preemptions += 1
        self._last = taken.name
        faults = ready[taken.index].op.faults
        self._fault = faults.index(taken.fault) + 1 if taken.fault is not None else 0
        if len(ready) > 1:
            self.decisions.append(taken.index)
        if faults_left and faults:
            self.decisions.append(self._fault)
        return taken.index

    def _arrive(self, ready: Sequence[Step], faults_left: int) -> Node:
        """A point that no schedule has reached before."""
        spent = self._bound is not None and self._preemptions >= self._bound and ready[0].name == self._last
        options: list[Transition | int] = []
        alone = next((n for n, step in enumerate(ready) if not step.op.reads and not step.op.writes), None)
        if alone is not None:
            # It touches nothing, so it may as well happen now; what can befall it can befall what comes next as well.
            node = Node([], self._sleep, _transition(ready[alone], None, alone))
            self._path.append(node)
            return node
        for index, step in enumerate(ready[:1] if spent else ready):
            faults = [fault for fault in step.op.faults if fault in self._faults] if faults_left else []
            for fault in (None, *faults):
                transition = _transition(step, fault, index)
                if transition not in self._sleep:
                    options.append(transition)
        options.reverse()
        node = Node(options, self._sleep)
        if options:
            node.taken = node.left.pop()
        self._path.append(node)
        return node

    def fault(self, options: int, *, likely: bool = False) -> int:
        """See `Choices`."""
        del options
        if not likely:
            return self._fault
        return self._plain(self._sends)

    def pick(self, options: int) -> int:
        """See `Choices`: the world is given, and nothing else is drawn."""
        del options
        self.decisions.append(0)
        return 0

    def chance(self) -> float:
        """See `Choices`."""
        self.decisions.append(500)
        return 0.5

    def _plain(self, options: list[int]) -> int:
        """A decision that is no transition: all are tried."""
        if self._depth == len(self._path):
            others: list[Transition | int] = [*options[:0:-1]]
            self._path.append(Node(others, [], options[0]))
        taken = self._path[self._depth].taken
        self._depth += 1
        assert isinstance(taken, int)
        self.decisions.append(taken)
        return taken


def _transition(step: Step, fault: str | None, index: int) -> Transition:
    owner = step.owner.name if step.owner is not None else None
    key = (step.op, owner)
    known = _touched.get(key)
    if known is None:
        known = _touched[key] = (_named(step.op.reads, owner), _named(step.op.writes, owner))
    reads, writes = known
    if fault in _OF_THE_PROCESS:
        writes = writes | {"lease", "clock"}
    return Transition(step.name, step.op.name, fault, owner, reads, writes, index)


_touched: dict[tuple[Op, str | None], tuple[frozenset[str], frozenset[str]]] = {}


def _named(things: frozenset[str], owner: str | None) -> frozenset[str]:
    """What belongs to a process is another thing in each."""
    return frozenset(f"{owner}{thing}" if thing.startswith("~") else thing for thing in things)
