"""Plays all faults on real stores, and puts what came of them on the page.

python -m tests.faults            # prints the table, as a run of these tests does
python -m tests.faults --write    # writes the tables of docs/reference/faults.md
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.faults import table


class Collector:
    """Keeps the reports of a run."""

    def __init__(self) -> None:
        self.reports: list[pytest.TestReport] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """One of them."""
        self.reports.append(report)


def main(words: list[str]) -> int:
    """Returns what is to be the exit code."""
    table.writing, collector = "--write" in words, Collector()
    here = Path(__file__).parent
    code = int(pytest.main(["-q", str(here), "--ignore", str(here / "test_page.py")], plugins=[collector]))
    if table.writing and not code:
        found = table.words(table.results({"all": collector.reports}))
        table.PAGE.write_text(table.written(table.PAGE.read_text(), found))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
