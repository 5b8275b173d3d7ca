"""Prints the table of faults after a run that played some of them."""

from __future__ import annotations

import pytest

from tests.faults import table


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Store by store: the steps of a flight as rows, the faults as columns."""
    table.tell(terminalreporter)
