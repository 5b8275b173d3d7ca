from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.concurrency.soak.figures import (
    BOUND,
    Durations,
    Figures,
    Process,
    Redemption,
    Sample,
    judge,
    memory_growth,
    spent_twice,
)
from tests.concurrency.soak.table import table
from tests.concurrency.soak.trouble import API_RULES, TOKEN_STEPS, Trouble
from unexpired.testing import API_FAULT_KINDS, FAULT_KINDS, running_server

ROOT = Path(__file__).resolve().parents[2]
SOAK = [sys.executable, "-m", "tests.concurrency.soak", "--processes", "2", "--seed", "7"]
ADAPTERS = {
    *(f"{name}, threads" for name in ("TokenAuth", "TokenTransport", "ApiClient")),
    *(
        f"{name}, {kind}"
        for name in ("TokenAuth", "AsyncTokenTransport", "AsyncApiClient")
        for kind in ("asyncio", "trio")
    ),
}


def good() -> Figures:
    """Figures of a run in which all was well."""
    process = Process("process 1", [Sample(40.0, 20, 11)] * 80, left=Sample(40.0, 4, 1), over=True)
    durations = Durations()
    durations.note(0.01)
    return Figures(
        processes=[process],
        adapters={"TokenAuth, trio": durations},
        served=Counter({"TokenAuth, trio": 1}),
        redemptions=[Redemption("a", 1, 0.0, 1.0, answered=False), Redemption("a", 1, 1.0, 2.0, answered=True)],
    )


def _hang(figures: Figures) -> None:
    figures.processes[0].hung = ["process 1.3"]


def _wait_long(figures: Figures) -> None:
    figures.processes[0].longest = BOUND + 1


def _die(figures: Figures) -> None:
    figures.processes[0].over = False


def _leave_threads(figures: Figures) -> None:
    figures.processes[0].left = Sample(40.0, 4, 5)


def _end(figures: Figures) -> None:
    figures.endings, figures.announced = 2, 1


def _reuse(figures: Figures) -> None:
    figures.server["reuse_detected"] = 1


def _redeem_late(figures: Figures) -> None:
    figures.redemptions.append(Redemption("a", 1, 3.0, 4.0, answered=False))


def _redeem_at_once(figures: Figures) -> None:
    figures.redemptions.append(Redemption("a", 1, 0.5, 0.6, answered=False))


def _other_error(figures: Figures) -> None:
    figures.errors["KeyError"] = 1


def _foreign(figures: Figures) -> None:
    figures.errors["ForeignAnswerError"] = 1


def _unannounced(figures: Figures) -> None:
    figures.errors["LoginRequired refused"] = 1


def _unsaved(figures: Figures) -> None:
    figures.events["Unsaved"] = 1


def _serve_nobody(figures: Figures) -> None:
    figures.adapters["ApiClient, threads"] = Durations()


def _no_calls(figures: Figures) -> None:
    figures.adapters.clear()


def _fail_at_last(figures: Figures) -> None:
    figures.last_call = "TemporarilyUnavailable"


def _leak_memory(figures: Figures) -> None:
    figures.processes[0].samples = [Sample(40.0 + number / 8, 20, 11) for number in range(80)]


def _leak_descriptors(figures: Figures) -> None:
    figures.processes[0].samples = [Sample(40.0, 20 + number // 5, 11) for number in range(80)]


def _leak_flights(figures: Figures) -> None:
    figures.processes[0].samples = [Sample(40.0, 20, 11 + number // 5) for number in range(80)]


FINDINGS: dict[Callable[[Figures], None], str] = {
    _hang: "a caller hung in process 1: process 1.3",
    _wait_long: "a caller hung in process 1: 61 s",
    _die: "process 1 did not come to its end",
    _leave_threads: "process 1 had 5 threads after its last call",
    _end: "a login was lost: 2 ended, the server had ended 1",
    _reuse: "a spent refresh token came again: the server noticed 1",
    _redeem_late: "a version was redeemed 1 times after an answered one",
    _redeem_at_once: "a version was redeemed 1 times while it was being redeemed",
    _other_error: "unexpected: KeyError (1)",
    _foreign: "unexpected: ForeignAnswerError (1)",
    _unannounced: "unexpected: LoginRequired refused (1)",
    _unsaved: "a rotated token could not be stored",
    _serve_nobody: "ApiClient, threads served nobody",
    _no_calls: "nobody called",
    _fail_at_last: "after the faults a call was not served: TemporarilyUnavailable",
    _leak_memory: "the memory of process 1 keeps growing: 43.7, 46.2, 48.7 MiB",
    _leak_descriptors: "process 1 opens more and more descriptors",
    _leak_flights: "process 1 has more and more threads",
}


def test_a_few_seconds_of_soak_find_nothing() -> None:
    """Two processes, all adapters on threads, asyncio and trio, random faults: each call its own answer or an error."""
    done = subprocess.run(
        [*SOAK, "--minutes", "0.06"], capture_output=True, text=True, cwd=ROOT, check=False, timeout=55
    )
    assert "NOT WELL" not in done.stdout
    assert (done.returncode, done.stderr) == (0, "")
    calls = dict(re.findall(r"^(\w+, \w+) +([\d,]+) +[\d.]+%", done.stdout, re.MULTILINE))
    assert set(calls) == ADAPTERS
    assert all(int(count.replace(",", "")) > 0 for count in calls.values())
    found = re.search(r"token requests (\d+): (\d+) refreshes", done.stdout)
    assert found is not None
    assert int(found[1]) >= int(found[2]) >= 1


def test_ctrl_c_ends_a_soak_with_its_figures() -> None:
    """After Ctrl-C the processes come to their end, and what was seen until then is printed and judged."""
    with subprocess.Popen([*SOAK, "--minutes", "60"], stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        first = process.stdout.readline()
        assert process.stdout.readline() == "started\n"
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=50)
    assert "seed 7" in first
    assert "ended by Ctrl-C" in rest
    assert "token requests" in rest
    assert "all is well after" in rest
    assert process.returncode == 0


def test_good_figures_are_good() -> None:
    """A run without a finding is found to be well, also one that is too short to say anything about memory."""
    assert judge(good()) == []
    short = good()
    short.processes[0].samples = [Sample(40.0 + number, 20, 11) for number in range(20)]
    assert judge(short) == []


@pytest.mark.parametrize("spoil", FINDINGS, ids=lambda spoil: spoil.__name__.strip("_"))
def test_what_must_not_be_is_found(spoil: Callable[[Figures], None]) -> None:
    """Each thing that a soak must not see makes it fail, with a sentence of its own and no other."""
    figures = good()
    spoil(figures)
    assert judge(figures) == [FINDINGS[spoil]]
    assert table(figures).startswith("adapter")


def test_memory_that_settles_is_no_leak() -> None:
    """Memory that grows in the first half and then stays, or goes up and down, does not keep growing."""
    settles = [40.0 + min(number, 40) for number in range(80)]
    swings = [40.0 + 20 * (number % 7) for number in range(80)]
    for memory in (settles, swings):
        figures = good()
        figures.processes[0].samples = [Sample(mib, 20, 11) for mib in memory]
        assert judge(figures) == []
    assert memory_growth([]) == 0.0


def test_redemptions_of_other_logins_and_versions_are_their_own() -> None:
    """Only the same version of the same login counts as spent twice."""
    others = [("a", 1), ("a", 2), ("b", 1)]
    assert spent_twice(Redemption(login, version, 0.0, 1.0, answered=True) for login, version in others) == (0, 0)


def test_durations_are_right_to_five_per_cent() -> None:
    """Of a thousand known durations the shares are found, and durations of two processes add up."""
    one, other = Durations(), Durations()
    for number in range(1, 1001):
        (one if number % 2 else other).note(number / 1000)
    one.add(other)
    assert one.total == 1000
    for share in (0.5, 0.99, 0.999):
        assert share <= one.within(share) <= share * 1.06
    assert Durations().within(0.5) == 0.0


def test_trouble_knows_every_fault_and_repeats_itself() -> None:
    """All kinds of faults of the server are used and taken by it, and one seed always makes the same ones."""
    assert set(TOKEN_STEPS) == FAULT_KINDS
    assert set(API_RULES) == API_FAULT_KINDS
    one, other = Trouble(3), Trouble(3)
    kinds: set[str] = set()
    with running_server() as server:
        for number in range(300):
            steps, rules = one.steps(), one.rules()
            assert (steps, rules, one.pause()) == (other.steps(), other.rules(), other.pause())
            if not kinds.issuperset(new := {each["kind"] for each in [*steps, *rules]}) or number < 5:
                server.faults(steps)
                server.api_faults(rules)
            kinds |= new
    assert kinds == FAULT_KINDS | API_FAULT_KINDS
    assert one.held == other.held
