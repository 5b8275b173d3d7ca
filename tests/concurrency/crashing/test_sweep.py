"""The sweep in small, with one kill at each point, and (`make crash`) in large."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.concurrency.crashing import sweep
from tests.concurrency.crashing.points import IN_THE_WINDOW, POINTS

SMALL = {"rotations": 40, "each": 1}
LARGE = {"rotations": 300, "each": 5}
SIZES = [
    pytest.param(SMALL, id="40 rotations", marks=pytest.mark.timeout(300)),
    pytest.param(LARGE, id="300 rotations", marks=[pytest.mark.crash, pytest.mark.timeout(1800)]),
]


def _run(size: dict[str, int], grace: float, directory: Path, capsys: pytest.CaptureFixture[str]) -> sweep.Sweep:
    """A sweep that kept what is promised with every server: nobody hangs, nothing is redeemed without need."""
    found = sweep.run(grace=grace, directory=directory, **size)
    if size is LARGE:
        with capsys.disabled():
            print(f"\n\n{sweep.table(found)}\n")  # noqa: T201 - this is what it is run for
    assert (found.hung, found.surprises) == (0, [])
    assert {point: tally.kills for point, tally in found.points.items()} == dict.fromkeys(POINTS, size["each"])
    assert found.rotations == size["rotations"]
    assert found.seen == found.expected
    assert found.early == 0
    assert found.kept
    return found


@pytest.mark.parametrize("size", SIZES)
def test_no_login_is_lost_where_the_server_gives_a_grace_period(
    size: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenarios 21 and 23: killed wherever, with 10 s of grace nobody is logged out and every caller is served."""
    found = _run(size, sweep.GRACE, tmp_path, capsys)
    assert found.lost == 0
    everybody = sweep.PROCESSES * sweep.CALLERS * size["each"]
    assert {tally.served for tally in found.points.values()} == {everybody}


@pytest.mark.parametrize("size", SIZES)
def test_a_login_is_lost_between_rotation_and_swap_only(
    size: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Scenarios 23 and 24: on a strict server only a kill in that window ends the login, and all are told why."""
    found = _run(size, 0.0, tmp_path, capsys)
    everybody = sweep.PROCESSES * sweep.CALLERS * size["each"]
    for point, tally in found.points.items():
        lost = point in IN_THE_WINDOW
        assert tally.lost == (size["each"] if lost else 0), point
        assert (tally.served, tally.told) == ((0, everybody) if lost else (everybody, 0)), point
