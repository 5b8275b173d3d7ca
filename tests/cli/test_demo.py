"""`unexpired demo` as people run it: a process of its own, real sockets, real processes."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

SCENES = [
    "bearer-known-threads",
    "bearer-known-tasks",
    "bearer-server-threads",
    "bearer-server-tasks",
    "dialect-a-threads",
    "dialect-a-tasks",
    "dialect-b-threads",
    "dialect-b-tasks",
    "processes-known",
    "processes-server",
    "fail-invalid-grant",
    "fail-transient",
]
pytestmark = pytest.mark.timeout(180)
KEYS = {"scene", "ok", "callers", "served", "refreshes", "reuse_detected", "logged_out", "hung", "wall_s", "floor_s"}
CALLERS, PROCESSES = 5, 2
SVG = "{http://www.w3.org/2000/svg}"
XHTML = "{http://www.w3.org/1999/xhtml}"


def run(arguments: Sequence[str], **environment: str) -> subprocess.CompletedProcess[str]:
    """`python -m unexpired` with *arguments*."""
    command = [sys.executable, "-m", "unexpired", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=150, env=os.environ | environment, check=False
    )


@pytest.fixture(scope="module")
def played(tmp_path_factory: pytest.TempPathFactory) -> tuple[subprocess.CompletedProcess[str], Path]:
    """One run of all scenes with few callers: what it printed, and where the picture is."""
    html = tmp_path_factory.mktemp("demo") / "demo.html"
    few = ["--callers", str(CALLERS), "--processes", str(PROCESSES), "--refresh-latency", "0.5"]
    return run(["demo", "--json", "--html", str(html), *few]), html


@pytest.fixture(scope="module")
def objects(played: tuple[subprocess.CompletedProcess[str], Path]) -> dict[str, dict[str, Any]]:
    """The JSON objects of that run by scene."""
    return {each["scene"]: each for each in json.loads(played[0].stdout)}


def test_it_succeeds_in_silence_and_plays_every_scene(
    played: tuple[subprocess.CompletedProcess[str], Path], objects: dict[str, dict[str, Any]]
) -> None:
    """When every promise is held the status is 0, nothing is on standard error, and no scene is missing."""
    assert (played[0].returncode, played[0].stderr) == (0, "")
    assert list(objects) == SCENES


@pytest.mark.parametrize("scene", [name for name in SCENES if not name.startswith("fail")])
def test_a_scene_serves_every_caller_with_one_refresh(scene: str, objects: dict[str, dict[str, Any]]) -> None:
    """Scenarios 1 and 2: at expiry all callers get their own response for one refresh; nobody is logged out."""
    found = objects[scene]
    callers = CALLERS * PROCESSES if scene.startswith("processes") else CALLERS
    assert set(found) == KEYS
    assert found["ok"] is True
    assert (found["callers"], found["served"], found["refreshes"]) == (callers, callers, 1)
    assert (found["reuse_detected"], found["logged_out"], found["hung"]) == (0, 0, 0)
    # a refresh takes 0.5 s, and so does nothing that contains one
    assert found["wall_s"] >= 0.5
    assert found["floor_s"] >= 0.5


@pytest.mark.parametrize(("scene", "logged_out"), [("fail-invalid-grant", 1), ("fail-transient", 0)])
def test_a_failing_refresh_is_told_to_every_caller(
    scene: str, logged_out: int, objects: dict[str, dict[str, Any]]
) -> None:
    """A failing refresh is tried once, every caller is told, and the login ends only if the server says so."""
    found = objects[scene]
    assert set(found) == KEYS | {"told"}
    assert found["ok"] is True
    assert (found["served"], found["told"], found["refreshes"]) == (0, CALLERS, 1)
    assert (found["reuse_detected"], found["logged_out"], found["hung"]) == (0, logged_out, 0)


def test_the_picture_has_a_row_for_every_call_and_the_one_refresh(
    played: tuple[subprocess.CompletedProcess[str], Path], objects: dict[str, dict[str, Any]]
) -> None:
    """The page is well-formed and shows, for each scene, every call with its phases and one refresh."""
    page = ET.fromstring(played[1].read_text("utf-8"))
    sections = {section.get("id"): section for section in page.iter(f"{XHTML}section")}
    assert list(sections) == SCENES
    for scene, section in sections.items():
        (picture,) = section.iter(f"{SVG}svg")
        assert len(picture.findall(f"{SVG}g")) == objects[str(scene)]["callers"]
        kinds = [bar.get("class") for bar in picture.iter(f"{SVG}rect")]
        assert kinds.count("refresh") == 1
        last = "told" if str(scene).startswith("fail") else "sent" if "known" in str(scene) else "replayed"
        assert kinds.count(last) == objects[str(scene)]["callers"]
        # each bar of a call says in words what it is
        assert all(
            bar.find(f"{SVG}title") is not None for row in picture.iter(f"{SVG}g") for bar in row.iter(f"{SVG}rect")
        )


def test_nothing_shown_holds_a_secret_or_loads_anything(
    played: tuple[subprocess.CompletedProcess[str], Path],
) -> None:
    """Page and JSON hold no token and no client secret; the page needs no script and no other file."""
    html = played[1].read_text("utf-8")
    assert re.findall(r"crm-secret|impawning|wonderland|[\w-]{30,}", html + played[0].stdout) == []
    assert re.findall(r"<script|<link|<img|\bsrc=|\burl\(|@import|javascript:", html) == []
    assert set(re.findall(r"https?://[^\"<\s]+", html)) == {
        "http://www.w3.org/1999/xhtml",
        "http://www.w3.org/2000/svg",
    }


def test_through_a_pipe_there_is_a_plain_line_per_scene(tmp_path: Path) -> None:
    """Without a terminal each scene is one line without colour, and the page goes to the temporary files."""
    chosen = ["--scene", "bearer-known-tasks", "--scene", "fail-transient"]
    done = run(["demo", "--callers", "3", *chosen], TMPDIR=str(tmp_path), PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "\x1b" not in done.stdout
    _, first, second, floor, praise, picture = done.stdout.splitlines()
    assert re.fullmatch(r"ok +bearer-known-tasks +3 callers +3 served +1 refresh +0 reuse .* ratio \d+\.\d\d", first)
    assert re.fullmatch(
        r"ok +fail-transient +3 callers +3 told +1 refresh +0 reuse +[\d.]+ m?s +floor +[\d.]+ m?s", second
    )
    assert floor == "floor: the same calls with a good token, plus one refresh, one after the other"
    assert praise.startswith("Every promise held: 6 callers in 2 scenes, 2 refreshes.")
    (written,) = tmp_path.glob("*.html")
    assert picture.endswith(str(written))


@pytest.mark.parametrize(("columns", "shown"), [("100", "ratio"), ("60", "1 caller ")])
def test_json_goes_to_the_pipe_and_progress_to_the_terminal(columns: str, shown: str) -> None:
    """With `--json`, standard output holds only JSON; standard error, if a terminal, shows the table or its lines."""
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "unexpired", "demo", "--json", "--scene", "fail-transient", "--callers", "1"]
    environment = os.environ | {"COLUMNS": columns, "LINES": "40", "TERM": "xterm"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr, env=environment) as process:
        os.close(stderr)
        seen = b"".join(iter(lambda: _read(terminal), b"")).decode()
        printed = b"" if process.stdout is None else process.stdout.read()
    os.close(terminal)
    assert (process.returncode, [each["ok"] for each in json.loads(printed)]) == (0, [True])
    assert "fail-transient" in seen
    assert shown in seen


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 65536)
    except OSError:  # Linux says so when nobody writes to it any more
        return b""


def test_list_names_every_scene() -> None:
    """`--list` names the scenes with a sentence each and plays none."""
    done = run(["demo", "--list"])
    assert (done.returncode, done.stderr) == (0, "")
    assert [line.split()[0] for line in done.stdout.splitlines()] == SCENES


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["demo", "--scene", "bearer"], "no scene is called 'bearer'; --list names them"),
        (["demo", "--callers", "0"], "0 is not in the range"),
        (["demo", "--html", "nowhere/at/all.html"], "there is no directory 'nowhere/at'"),
        (["dance"], "No such command 'dance'"),
    ],
)
def test_a_wrong_call_is_status_2_and_says_why(arguments: list[str], sentence: str) -> None:
    """A wrong option ends with status 2 before anything is played, and a sentence on standard error."""
    done = run(arguments)
    assert (done.returncode, done.stdout.count("\n") <= 1) == (2, True)
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def test_the_version_is_the_package_s() -> None:
    """`--version` prints the name and the installed version."""
    from importlib.metadata import version

    assert run(["--version"]).stdout == f"unexpired {version('unexpired')}\n"


@pytest.mark.parametrize(
    ("package", "arguments"),
    [
        *((package, ["demo", "--scene", "fail-transient"]) for package in ("click", "rich", "uvicorn")),
        ("click", ["-h"]),
    ],
)
def test_a_missing_package_is_one_sentence(package: str, arguments: list[str]) -> None:
    """Without the extra the command, its help too, says in one sentence how to install it, and ends with status 2."""
    code = f"import sys; from unexpired.cli import main; sys.modules[{package!r}] = None; sys.exit(main({arguments!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    sentence = f"This command needs {package}, which is not installed: pip install 'unexpired[demo]'\n"
    assert (done.returncode, done.stdout, done.stderr) == (2, "", sentence)
