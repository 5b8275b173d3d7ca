"""What every test gets: Hypothesis without timing verdicts, a watch over threads left behind, a hunt for secrets."""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
import warnings
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import settings

from tests import hunting
from tests.clients.contract import matrix
from tests.faults import table as faults
from tests.fleet import summary as fleets
from unexpired._engine import clock, desk, looking

# How long a thread may take to end by itself once its test is over (seconds).
_PATIENCE = 5.0

settings.register_profile("here", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.load_profile("ci" if os.environ.get("CI") else "here")

hunting.install()

# Whoever starts the tests in the background has Ctrl-C ignored, by all that they start, too.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _no_threads_left() -> Iterator[None]:
    """Fail a test that leaves a non-daemon thread behind: it would keep the interpreter from exiting."""
    before = set(threading.enumerate())
    yield
    until = time.monotonic() + _PATIENCE
    left = [thread for thread in threading.enumerate() if thread not in before and not thread.daemon]
    for thread in left:
        thread.join(max(0.0, until - time.monotonic()))
    names = sorted(thread.name for thread in left if thread.is_alive())
    if names:
        pytest.fail(f"threads left behind: {', '.join(names)}")


@pytest.fixture(autouse=True)
def _nothing_waited(monkeypatch: pytest.MonkeyPatch) -> None:
    """Threads that run tests wait seldom for stores that are late: what one test waited must not shorten the next."""
    monkeypatch.setattr(looking, "_credit", looking._Credit())


@pytest.fixture
def no_pause_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test in which fresh tokens are refused: each is as young as it was made, however slow the machine is."""
    now = clock.boot()
    monkeypatch.setattr(desk, "boot", lambda: now)


@pytest.fixture
def tells_secrets() -> None:
    """For a test in which something other than the library tells a secret on purpose."""
    hunting.WATCH.told_on_purpose = True


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: collecting garbage must not go through it again and again."""
    gc.collect()
    gc.freeze()


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Hypothesis makes texts of the constants it finds in the source: whatever it shows is no leak."""
    if getattr(getattr(item, "obj", None), "is_hypothesis_test", False):
        hunting.WATCH.told_on_purpose = True


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """P13: fail a test in which a secret was told: by a record, an error, an event, a repr, or in what it printed."""
    report = yield
    if report.failed:
        hunting.WATCH.told_on_purpose = True  # what a failed test shows is its own
    if call.when == "teardown":
        for name, text in report.sections:
            hunting.WATCH.look(name, text)
        leaks = hunting.WATCH.settle()
        if leaks and report.passed:
            report.outcome = "failed"
            report.longrepr = "\n".join([f"{item.nodeid} told secrets:", *leaks[:20]])
    return report


def pytest_warning_recorded(warning_message: warnings.WarningMessage) -> None:
    """A warning is said aloud, too."""
    hunting.WATCH.look("warning", str(warning_message.message))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the tables of what was tried; the last line of a run stays the last.

    Which adapter was held to which point of the contract, what the fleets did, and what the faults came to. It is here
    because the process that prints, where workers run the tests, knows this file only.
    """
    lines = matrix.summary(terminalreporter.stats)
    if lines:
        terminalreporter.section("client contract")
        for line in lines:
            terminalreporter.write_line(line)
    fleets.show(terminalreporter)
    faults.tell(terminalreporter)
