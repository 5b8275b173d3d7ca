"""Draws races as sequence pictures (Mermaid), each from the trace of a simulated world with fixed decisions.

python -m tests.simulation.pictures            # prints the page
python -m tests.simulation.pictures --write    # writes docs/explanation/races.md
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path

from tests.simulation.drawing import Drawing
from tests.simulation.engine import simulated
from tests.simulation.races import RACES, Race
from tests.simulation.staged import Staged
from tests.simulation.trace import Trace
from tests.simulation.world import Outcome, World

__all__ = ["PAGE", "drawn", "page", "played"]

PAGE = Path(__file__).parents[2] / "docs/explanation/races.md"

HEAD = """# The races, one picture each

<!-- Written by `python -m tests.simulation.pictures --write`: change that program, not this page. -->

Each picture is drawn from what was recorded in the [simulator](promises.md): the library's own code in two processes
(`p0`, `p1`) with one or two callers each (`c0`, `c1`), on one store and one server. What goes wrong, and when, is
fixed; `tests/docs/test_pictures.py` holds that the library still does exactly this.

`RT1` is the refresh token of the login, `AT1` the access token that has expired or is refused; a refresh gives the
next ones. Every request takes 0.2 s. An *intent* is the note "this version is being redeemed"; more words
are in the [glossary](../glossary.md).
"""


def played(race: Race) -> tuple[Outcome, Trace]:
    """The world of a race, and what was recorded. Raises LookupError when something of it never came about."""
    trace, staged = Trace(), Staged(race.cues, race.people)
    world = World(race.plan, staged, trace)
    with simulated(), trace.effects(world):
        outcome = world.play()
    if staged.left:
        raise LookupError(f"{race.title}: never came to {staged.left}")
    return outcome, trace


def drawn(race: Race) -> str:
    """The picture of a race, as Mermaid has it."""
    return str(Drawing(played(race)[1].lines))


def page() -> str:
    """The whole page."""
    parts = [HEAD]
    for number, race in enumerate(RACES, 1):
        text = textwrap.fill(race.text, 120, break_long_words=False, break_on_hyphens=False)
        parts.append(f"## {number}. {race.title}\n\n{text}\n\n```mermaid\n{drawn(race)}\n```\n")
    return "\n".join(parts)


if __name__ == "__main__":
    if "--write" in sys.argv[1:]:
        PAGE.write_text(page())
    else:
        print(page())
