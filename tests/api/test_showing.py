"""What a person at a terminal sees of calls under way, with rich and without."""

from __future__ import annotations

import sys
import threading
from contextlib import AbstractContextManager, redirect_stderr
from typing import Any, TextIO, cast

import httpx2
import pytest

from tests.api.fronts import Api, Front
from unexpired.api import progress_bar
from unexpired.api._showing import Spinner


class Terminal:
    """A standard error that is a terminal and keeps what is written."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.text = ""
        self.seen = threading.Event()

    def write(self, text: str) -> int:
        """Keep it."""
        self.text += text
        if "Fetching" in text:
            self.seen.set()
        return len(text)

    def slow(self, _: httpx2.Request) -> httpx2.Response:
        """An API whose answer comes when the spinner has been seen, or never is."""
        self.seen.wait(0.5)
        return httpx2.Response(200)

    def flush(self) -> None:
        """Nothing is held back."""

    def isatty(self) -> bool:
        """It is one."""
        return True


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Give a terminal, to be put in place of standard error."""
    monkeypatch.setenv("TERM", "xterm")
    for name in ("NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "TTY_INTERACTIVE"):
        monkeypatch.delenv(name, raising=False)
    return Terminal()


def on(terminal: Terminal) -> AbstractContextManager[object]:
    """Put it there; pytest would take it away again between a fixture and its test."""
    return redirect_stderr(cast("TextIO", terminal))


@pytest.fixture
def no_rich(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take rich away."""
    for name in ("rich", "rich.console", "rich.progress"):
        monkeypatch.setitem(sys.modules, name, None)


def calling(shown: list[bool], terminal: Terminal) -> Any:
    """A job that notes whether the spinner is to be seen before, during and after calls."""

    async def job(api: Api) -> None:
        with api.client.loading("Fetching"):
            shown.append("Fetching" in terminal.text)
            await api.get("/")
            shown.append("Fetching" in terminal.text)
        terminal.text = ""
        terminal.seen.clear()
        await api.get("/")
        shown.append("Fetching" in terminal.text)

    return job


def test_spinner(front: Front, terminal: Terminal) -> None:
    """Inside `loading()` a spinner with its text turns while calls are under way, and at no other time."""
    shown: list[bool] = []
    settings = front.answering(terminal.slow)
    with on(terminal):
        front.one(settings, calling(shown, terminal))
    assert shown == [False, True, False]


def test_spinner_beside_a_hook(front: Front, terminal: Terminal) -> None:
    """The spinner and `on_loading` both hear of calls."""
    counts: list[int] = []
    with on(terminal):
        front.one(front.answering(lambda _: httpx2.Response(200), on_loading=counts.append), calling([], terminal))
    assert counts == [1, 0, 1, 0]


def test_spinner_of_calls_that_are_under_way_already(front: Front, terminal: Terminal) -> None:
    """A block that begins in the middle of a call shows it at once, and hides it at its end."""

    async def job(api: Api) -> Any:
        async with api.stream("GET", "/"):
            with api.client.loading("Fetching"):
                during = terminal.seen.wait(10)
            terminal.text = ""
        return [during, terminal.text]

    with on(terminal):
        outcome = front.one(front.answering(lambda _: httpx2.Response(200)), job)
    assert outcome == [True, ""]


def test_a_closed_spinner_stays_so(terminal: Terminal) -> None:
    """Another thread that tells of calls after the block's end does not start it again."""
    with on(terminal):
        spinner = Spinner("Fetching")
        spinner.close()
        spinner(3)
    assert terminal.text == ""


def test_a_block_that_ends_before_its_calls(terminal: Terminal) -> None:
    """A spinner that still turns at the end of its block is stopped, and gives the cursor back."""
    with on(terminal):
        spinner = Spinner("Fetching")
        spinner(1)
        assert "\x1b[?25h" not in terminal.text
        spinner.close()
    assert "\x1b[?25h" in terminal.text


@pytest.mark.usefixtures("no_rich")
def test_without_rich(front: Front, terminal: Terminal) -> None:
    """Without rich both helpers work and show nothing."""
    with on(terminal):
        front.one(front.answering(lambda _: httpx2.Response(200)), calling([], terminal))
    with on(terminal), progress_bar("report.pdf") as progress:
        progress(1, None)
    assert terminal.text == ""


def test_progress_bar(terminal: Terminal) -> None:
    """With rich a bar with its text shows how much of how much is done."""
    with on(terminal), progress_bar("report.pdf") as progress:
        progress(500, None)
        progress(1000, 2000)
    assert "report.pdf" in terminal.text
    assert "1.0/2.0 kB" in terminal.text
