"""What worlds are made of: drawn at random, or as small as a search through everything can be."""

from __future__ import annotations

from tests.simulation.choices import Choices
from tests.simulation.servers import MODELS
from tests.simulation.world import Plan

__all__ = ["drawn"]

_EVENTS = ("tokens end", "log out", "log in", "login ends")
_SPANS = (0.0, 0.5, 5.0, 40.0)


def drawn(choices: Choices, processes: int, callers: int) -> Plan:
    """A world of so many processes with so many callers each; what there is of everything else is drawn."""
    pick = choices.pick
    # All is drawn, whether it is used or not: so one decision can be made plainer and the others keep their meaning.
    events = [(_SPANS[pick(4)] * (1 + pick(4)) / 4, _EVENTS[pick(4)]) for _ in range(2)]
    cancelled = [(_SPANS[pick(4)] * (1 + pick(4)) / 4, pick(processes * callers)) for _ in range(2)]
    skews = tuple((0.0, 0.0, 2.0, -2.0, 600.0)[pick(5)] for _ in range(processes))
    odd, long = pick(8), pick(2)
    model, timed = MODELS[pick(len(MODELS))], bool(pick(2))
    hasty = timed and model.grace == 10.0
    latency = ((0.0,), (0.1, 0.02, 3.0), (0.1, 7.5), (8.0,))[pick(4)]
    return Plan(
        model=model,
        processes=processes,
        callers=callers,
        rounds=(1, 1, 2, 3)[pick(4)],
        faults=(0, 1, 1, 2, 3, 5)[pick(6)],
        timed=timed,
        as_bytes=pick(8) == 1,
        # As the settings page has it: short enough for a successor to come within the grace period.
        deadline=5.0 if hasty else 10.0,
        start=("expired", "refused", "fresh")[pick(3)],
        lifetime=(3600.0, 3600.0, 15.0)[pick(3)],
        resources=((None,), (None,), (None,), (None, "b"))[pick(4)],
        skews=skews if odd == 1 else (),
        events=tuple(events[: (0, 0, 1, 1, 2)[pick(5)]]),
        cancelled=tuple(cancelled[: pick(3)]),
        refusing=(60.0, 5.0)[long] if odd == 2 else 0.0,
        lag=(0.5, 5.0)[long] if odd == 3 else 0.0,
        late_code=odd == 4,
        latency=(0.1, 3.0) if hasty and latency[-1] > 3.0 else latency,
        spread=(0.0, 0.5, 30.0)[pick(3)],
    )
