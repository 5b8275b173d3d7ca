"""The pictures of races in the documentation are what the library does."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.simulation import ops
from tests.simulation.drawing import Drawing
from tests.simulation.mutants import MUTANTS
from tests.simulation.pictures import PAGE, drawn, page, played
from tests.simulation.races import RACES, Race
from tests.simulation.scheduler import Op
from tests.simulation.servers import MODELS
from tests.simulation.staged import Cue

EXPLANATION = PAGE.parent
ARROWS = 25
ROW = re.compile(r"    (participant \w+( as [\w ]+)?|Note over \w+(,\w+)?: [^;#]+|\w+(->>|-->>|-x|--x)\w+: [^;#]+)")


def test_the_page_is_what_is_drawn_now() -> None:
    """The page has the pictures that the simulator draws today; `python -m tests.simulation.pictures --write`."""
    assert PAGE.read_text() == page()


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.title)
def test_a_race_comes_to_what_its_text_says(race: Race) -> None:
    """No promise breaks, and requests answered, redemptions and lost logins are those that the picture is there for."""
    outcome, trace = played(race)
    assert outcome.broken is None
    assert (outcome.answers, outcome.redemptions, outcome.lost) == (race.answers, race.redemptions, race.lost)
    drawing = Drawing(trace.lines)
    assert race.shows in drawing.rows
    assert 5 < drawing.arrows <= ARROWS


@pytest.mark.parametrize("race", RACES, ids=lambda race: race.title)
def test_a_picture_is_of_rows_that_mermaid_reads(race: Race) -> None:
    """Each row is a participant, a note or an arrow, without the signs that end a row in Mermaid."""
    first, *rows = drawn(race).split("\n")
    assert first == "sequenceDiagram"
    assert [row for row in rows if not ROW.fullmatch(row)] == []


def test_a_race_that_has_gone_is_noticed() -> None:
    """When what is to go wrong finds no place any more, there is no picture of something else in its stead."""
    odd = replace(RACES[2], cues=(Cue("p0.flight1", "swap", "kill", nth=9),))
    with pytest.raises(LookupError, match="nth=9"):
        played(odd)


def test_the_failure_model_names_all_that_can_go_wrong() -> None:
    """Each fault of the simulator is in the page's first table and each kind of server in its second, and no others."""
    faults, servers = (
        re.findall(r"`([^`]+)`", "\n".join(table))
        for table in _tables((EXPLANATION / "failure-model.md").read_text().partition("## What can go wrong")[2], 2)
    )
    assert {fault for op in vars(ops).values() if isinstance(op, Op) for fault in op.faults} == set(faults) - {
        "kill -9"
    }
    assert {model.name for model in MODELS} == set(servers)


def test_the_defects_put_in_on_purpose_are_counted_right() -> None:
    """The page says how many there are."""
    counted = re.search(r"`tests/simulation/mutants.py` \| (\d+) of them", (EXPLANATION / "promises.md").read_text())
    assert counted is not None
    assert int(counted[1]) == len(MUTANTS)


def _tables(text: str, count: int) -> list[list[str]]:
    """The rows of the first *count* tables, heads left out."""
    tables = [found.group().splitlines()[2:] for found in re.finditer(r"(^\|.*\n)+", text, re.MULTILINE)]
    return tables[:count]
