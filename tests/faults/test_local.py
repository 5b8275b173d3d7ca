from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.stage import Cell
from tests.faults.table import FAULTS, held

ROOT = Path(__file__).parents[2]


@pytest.fixture
def directory() -> Iterator[Path]:
    """A directory with a short name, which no other test looks into."""
    place = Path(tempfile.mkdtemp(prefix="unexpired-faults-"))
    yield place
    shutil.rmtree(place)


@pytest.mark.timeout(180)
@pytest.mark.parametrize("store", ["FileStore", "SQLiteStore", "Sealed"])
def test_a_fault_at_each_step(store: str, directory: Path, record_property: Callable[[str, object], None]) -> None:
    """Scenarios 19, 25 and 26: whatever happens to the disk at whichever step of a flight, nobody suffers.

    Calls with a valid token go on, the flight ends in a token or a typed error, nothing is redeemed twice, and the next
    call afterwards is served. The disk is full, read-only or damaged; another program keeps the locks, or had them when
    it was killed.
    """
    mounts_of_its_own = ["unshare", *([] if os.geteuid() == 0 else ["-r"]), "-m"]
    program = [*mounts_of_its_own, sys.executable, "-m", "tests.faults.local", store, str(directory)]
    run = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, timeout=150, check=False)
    assert run.returncode == 0, run.stderr
    found: dict[str, dict[str, Cell]] = {
        fault: {row: Cell(**cell) for row, cell in cells.items()} for fault, cells in json.loads(run.stdout).items()
    }
    assert list(found) == list(FAULTS[store])
    for fault, cells in found.items():
        held(record_property, store, fault, cells)
