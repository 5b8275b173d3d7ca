"""What the demonstration is made of: the judge, the views, the picture, the callers that stand ready."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest
from rich.console import Console

from unexpired import TokenManager
from unexpired.cli import main
from unexpired.cli._demo import live, processes, scenes
from unexpired.cli._demo.dialects import DIALECTS
from unexpired.cli._demo.report import page
from unexpired.cli._demo.results import SERVED, WRONG, Attempt, Call, Refresh, Result, broken, counted, figures
from unexpired.cli._demo.runners import Crew, TaskCrew, ThreadCrew
from unexpired.cli._demo.waterfall import waterfall
from unexpired.stores import FileStore, MemoryStore
from unexpired.testing import ServerHandle, running_server

SVG = "{http://www.w3.org/2000/svg}"
BEARER = DIALECTS["bearer"]


def call(number: int, outcome: str = SERVED, **changes: Any) -> Call:
    """A call that was refused once and ended after 150 ms."""
    attempts = [Attempt(100.01, 100.02), Attempt(100.13, 100.14)]
    return dataclasses.replace(Call(number, 0, 100.0, 100.15, outcome, attempts), **changes)


def result(**changes: Any) -> Result:
    """A scene in which every promise was held, with *changes*."""
    good: dict[str, Any] = {
        "scene": "bearer-server-threads",
        "about": "Two <callers> & one refresh.",
        "expected": "served",
        "calls": [call(1), call(2)],
        "refreshes": [Refresh(100.02, 100.12, "rotated")],
        "reuse_detected": 0,
        "revoked": 0,
        "logins_ended": 0,
        "cleared": False,
        "released": 100.0,
        "wall_s": 0.15,
        "floor_s": 0.14,
    }
    return Result(**good | changes)


ENDED = {"expected": "LoginRequired", "calls": [call(1, "LoginRequired")], "logins_ended": 1, "cleared": True}


@pytest.mark.parametrize("changes", [{}, ENDED], ids=["served", "ended"])
def test_a_scene_that_went_well_breaks_no_promise(changes: dict[str, Any]) -> None:
    """Serving all with one refresh, or ending a login that the server ended and telling it once, is as promised."""
    assert broken(result(**changes)) == []


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"calls": []}, "nobody called"),
        ({"calls": [call(1), call(2, ended=None)]}, "1 of 2 callers hung"),
        ({"calls": [call(1), call(2, WRONG)]}, "1 of 2 callers got somebody else's response"),
        (
            {"calls": [call(1), call(2, "ReadTimeout")]},
            "only 1 of 2 callers served, the others got ReadTimeout",
        ),
        (
            {**ENDED, "calls": [call(1, "LoginRequired"), call(2)]},
            "only 1 of 2 callers told LoginRequired, the others got served",
        ),
        ({"refreshes": []}, "0 refreshes instead of 1"),
        ({"refreshes": [Refresh(100, 101, "rotated")] * 2}, "2 refreshes instead of 1"),
        ({"reuse_detected": 3}, "the server detected reuse 3 times"),
        ({"revoked": 1}, "the server revoked 1 login"),
        ({"cleared": True}, "the login was lost"),
        ({"logins_ended": 1}, "the end of the login was reported 1 time, not 0"),
        ({**ENDED, "logins_ended": 2}, "the end of the login was reported 2 times, not 1"),
        ({**ENDED, "cleared": False}, "the store still holds tokens"),
    ],
)
def test_a_broken_promise_is_named(changes: dict[str, Any], sentence: str) -> None:
    """Whatever goes against a promise is found and said in a sentence."""
    assert sentence in broken(result(**changes))


def test_a_broken_promise_makes_the_command_fail(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """One broken promise makes the exit status 1; standard error says which, the JSON and the page are still made."""
    monkeypatch.setattr(scenes, "play", lambda *_: result(refreshes=[Refresh(100.02, 100.12, "reuse")] * 2))
    html = tmp_path / "demo.html"
    assert main(["demo", "--json", "--scene", "bearer-server-threads", "--html", str(html)]) == 1
    said = capsys.readouterr()
    assert said.err == "Promise broken in bearer-server-threads: 2 refreshes instead of 1\n"
    (found,) = json.loads(said.out)
    assert (found["ok"], found["refreshes"]) == (False, 2)
    assert "Promises were broken in 1 of 1 scene." in html.read_text("utf-8")


def test_ctrl_c_is_status_130(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C in the middle of a scene ends the command with status 130 and one word."""

    def interrupted(*_: object) -> Result:
        raise KeyboardInterrupt

    monkeypatch.setattr(scenes, "play", interrupted)
    assert main(["demo", "--json"]) == 130
    assert capsys.readouterr().err.strip() == "Stopped."


@pytest.mark.timeout(300)
@pytest.mark.parametrize(("encoding", "signs"), [("utf-8", "✓✗"), ("ascii", "+!")])
def test_the_table_of_a_terminal_fits_80_columns(encoding: str, signs: str) -> None:
    """A terminal shows all scenes from the beginning, what goes on, then good and bad ones, within 80 columns."""
    raw = io.BytesIO()
    screen = io.TextIOWrapper(raw, encoding=encoding, write_through=True)
    names = [scene.name for scene in scenes.SCENES]
    console = Console(file=screen, force_terminal=True, width=80, highlight=False)
    with live._Table(console, names) as view:
        for index, name in enumerate(names):
            view.begin(name)
            view.stage("measuring the floor")
            fails = name.startswith("fail")
            crowd = [call(1, "LoginRequired")] * 2000 if fails else [call(1)] * 128_000
            changes = ENDED if fails else {}
            played = result(**changes | {"scene": name, "calls": crowd, "wall_s": 12.345, "floor_s": 11.345})
            view.end(played, ["a promise"] if index == 1 else [])
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", raw.getvalue().decode(encoding))
    assert "measuring the floor" in text
    assert max(len(line) for line in text.splitlines()) <= 80
    head, *last = [line.split() for line in text.splitlines() if line.strip()][-len(names) - 1 :]
    assert head == ["scene", *figures(result())]
    assert last[0][2:] == ["128000", "128000", "1", "0", "12.3", "s", "11.3", "s", "1.09"]
    assert last[-1][2:] == ["2000", "2000", "1", "0", "12.3", "s", "11.3", "s"]
    assert [row[:2] for row in last] == [[signs[index == 1], name] for index, name in enumerate(names)]


@pytest.mark.parametrize(
    ("columns", "term", "table"), [("80", "xterm", True), ("79", "xterm", False), ("80", "dumb", False)]
)
@pytest.mark.parametrize("quiet", [False, True])
def test_a_narrow_terminal_gets_lines(
    columns: str, term: str, table: bool, quiet: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A terminal that would cut columns off, or cannot draw, gets a whole line per scene instead of the table."""
    for name, value in {"COLUMNS": columns, "LINES": "40", "TERM": term, "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    screen = io.StringIO()
    with live.view_for(screen, ["one"], quiet=quiet) as view:
        view.begin("one")
        view.end(result(scene="one"), [])
    assert ("ratio 1.07" not in screen.getvalue()) == table
    assert ("refreshes" in screen.getvalue()) == table


@pytest.mark.parametrize(("number", "words"), [(0, "0 callers"), (1, "1 caller"), (2, "2 callers")])
def test_one_is_not_many(number: int, words: str) -> None:
    """What is counted is singular for one."""
    assert counted(number, "caller") == words
    assert counted(number, "refresh", "refreshes").endswith("h") == (number == 1)


def test_a_scene_that_fails_compares_with_nothing() -> None:
    """Callers of a failing scene are told, not served, and there is no ratio."""
    cells = figures(result(**ENDED))
    assert (cells["served"], cells["told"], cells["ratio"]) == ("", "1", "")
    document = page([result(**ENDED)])
    assert "1 call in 1 scene, 1 refresh, no reuse detected, no calls left hanging." in document
    assert "1 told" in document
    assert "of the floor" not in document


def test_only_a_terminal_gets_the_table() -> None:
    """A stream that is no terminal gets plain lines, and none when quiet."""
    pipe = io.StringIO()
    for quiet in (False, True):
        with live.view_for(pipe, ["one"], quiet=quiet) as view:
            view.begin("one")
            view.end(result(scene="one"), ["a promise"])
    assert re.fullmatch(r"BROKEN +one +2 callers +2 served +1 refresh .*\n", pipe.getvalue())


@pytest.mark.parametrize("callers", [0, 1, 50, 200, 2000])
def test_the_picture_stays_readable_for_any_number_of_calls(callers: int) -> None:
    """Rows get thinner as calls get more, never taller than a screen or two; names are escaped."""
    calls = [call(number, ended=None) if number == 7 else call(number) for number in range(callers)]
    crowd = result(calls=calls)
    picture = ET.fromstring(waterfall(crowd))
    assert len(picture.findall(f"{SVG}g")) == callers
    assert float(str(picture.get("viewBox")).split()[3]) <= 2100
    assert ET.fromstring(page([crowd])) is not None


@pytest.fixture
def server() -> Iterator[ServerHandle]:
    """A server on a thread of this process."""
    with running_server() as handle:
        yield handle


CrewKind = Callable[[Any, TokenManager, str], Crew]


@pytest.mark.parametrize("kind", [ThreadCrew, TaskCrew])
def test_a_caller_that_hangs_is_seen(kind: CrewKind, server: ServerHandle) -> None:
    """A call without an answer within its bound counts as hanging, and the others as served."""
    with TokenManager(BEARER.grant(server.url), store=MemoryStore()) as manager:
        manager.login(BEARER.login(server))
        crew = kind(BEARER, manager, server.url)
        try:
            assert [each.outcome for each in crew.burst([1, 2], 10.0).calls] == [SERVED, SERVED]
            server.api_faults([{"kind": "hold", "name": "gate"}])
            burst = crew.burst([3, 4], 0.2)
            assert [each.ended for each in burst.calls] == [None, None]
            assert 0.2 <= burst.seconds < 10
        finally:
            server.release("gate")
            crew.close()


def test_the_calls_of_a_process_that_dies_count_as_hanging(server: ServerHandle, tmp_path: Path) -> None:
    """When one of the processes is killed the others' calls are served and its own are named."""
    with TokenManager(BEARER.grant(server.url), store=FileStore(tmp_path), key="crew") as manager:
        manager.login(BEARER.login(server))
    crew = processes.ProcessCrew(2, "bearer", str(tmp_path), "crew", server.url)
    try:
        assert [each.outcome for each in crew.burst([1, 2, 3, 4], 10.0).calls] == [SERVED] * 4
        crew._workers[1].kill()
        crew._workers[1].wait()
        found = {each.number: each for each in crew.burst([1, 2, 3, 4], 10.0).calls}
    finally:
        crew.close()
    assert [found[number].outcome for number in (1, 3)] == [SERVED] * 2
    assert [(found[number].ended, found[number].outcome) for number in (2, 4)] == [(None, "the end of its process")] * 2


def test_a_process_without_orders_ends() -> None:
    """A worker whose parent is gone before it said anything ends by itself, silently."""
    command = [sys.executable, "-m", "unexpired.cli._demo.processes"]
    began = time.monotonic()
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert time.monotonic() - began < 30
