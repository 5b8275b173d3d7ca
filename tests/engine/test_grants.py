from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from typing import Any

import pytest

from tests.engine.staging import KINDS, Attempt, Crowd, Kind, aboard, manager_for
from tests.waiting import until
from unexpired import Session, Token
from unexpired._core.effects import Redeem, Renew, Sleep
from unexpired._core.flight import Plan
from unexpired._core.policy import Policy
from unexpired._engine import asking
from unexpired._engine.cell import Reading
from unexpired._engine.flying import Flying
from unexpired.errors import ReplayRefused, StoreError, TemporarilyUnavailable
from unexpired.events import LoggedOut, RefreshFailed


class Odd:
    """A grant object of somebody's own that does what no grant may do."""

    reuse_grace = 0.0
    spends_refresh_token = True

    def __init__(self, oddity: object) -> None:
        self.oddity = oddity
        self.calls = 0
        self.gate = threading.Event()

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Any:
        """Raise or return it."""
        assert session.refresh_token
        assert resource is None
        assert timeout > 0
        self.calls += 1
        assert self.gate.wait(20)
        if isinstance(self.oddity, BaseException):
            raise self.oddity
        return self.oddity

    def revoke(self, session: Session) -> bool:
        """Raise something."""
        raise ZeroDivisionError(session.refresh_token)


ODDITIES = [
    ValueError("secret-7"),
    asyncio.CancelledError("secret-7"),
    SystemExit("secret-7"),
    KeyboardInterrupt("secret-7"),
    StoreError("secret-7"),
    ReplayRefused("secret-7"),
    "secret-7",
    None,
    ["secret-7"],
]


@pytest.mark.parametrize("oddity", ODDITIES, ids=lambda oddity: type(oddity).__name__)
def test_whatever_a_grant_does_its_callers_are_told(
    oddity: object, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    """What a grant may not raise or return is a lost answer: a typed error, a pause, no word of its text (P3, P13)."""
    grant = Odd(oddity)
    manager = manager_for(grant)
    failed: list[RefreshFailed] = []
    manager.on(RefreshFailed, failed.append)
    crowd = Crowd("threads", 10, manager)
    until(lambda: aboard(manager) == 10)
    grant.gate.set()
    outcomes = crowd.outcomes()
    assert {type(outcome) for outcome in outcomes} == {TemporarilyUnavailable}
    assert grant.calls == 1
    assert type(oddity).__name__ in str(outcomes[0])
    session = manager.session()
    assert session is not None
    assert session.failure is not None
    assert session.intent is not None
    output = capfd.readouterr()
    for text in (str(outcomes[0]), repr(failed), caplog.text, output.err, output.out, repr(session)):
        assert "secret-7" not in text


def test_a_grant_object_of_ones_own() -> None:
    """An object with the parts of a grant serves a Token or a mapping."""
    for answer in (Token("access 1"), {"access_token": "access 1"}):
        grant = Odd(answer)
        grant.gate.set()
        assert manager_for(grant).token().access_token == "access 1"


@pytest.fixture
def flying() -> Flying:
    """A flight that nobody has started."""
    manager = manager_for(Odd(None))
    return Flying(manager._cell, Plan("default", Policy(), "me"), manager._grant, Reading(manager._cell))


def test_a_renewal_without_a_lease_does_nothing(flying: Flying) -> None:
    """A flight that has given its lease back asks nobody to renew it."""
    assert flying._perform(Renew()) is None


def test_the_end_of_the_process_cuts_a_long_pause_short(flying: Flying, monkeypatch: pytest.MonkeyPatch) -> None:
    """A flight that pauses while the main thread ends is told so at once, not after its pause."""
    monkeypatch.setattr("unexpired._engine.flying.main_is_over", lambda: True)
    assert Attempt(lambda: flying._perform(Sleep(3600.0))).result() is False


def test_ctrl_c_on_the_main_thread_is_not_part_of_the_answer() -> None:
    """A flight that had to run on the main thread lets Ctrl-C through; any other exception stays an answer."""
    effect = Redeem(Session("key", "login", 1, "refresh"), None, 1.0)
    grants = Odd(KeyboardInterrupt()), Odd(ValueError())
    for grant in grants:
        grant.gate.set()
    with pytest.raises(KeyboardInterrupt):
        asking.redeem(grants[0], effect, "key")
    assert "ValueError" in str(asking.redeem(grants[1], effect, "key"))


def test_a_revocation_that_raises_does_not_undo_a_logout() -> None:
    """The logout holds, and its event says that the server did not take the revocation."""
    manager = manager_for(Odd(None))
    told: list[LoggedOut] = []
    manager.on(LoggedOut, told.append)
    manager.logout()
    assert told == [LoggedOut("default", revoked=False)]


@pytest.mark.parametrize("kind", KINDS)
def test_an_async_grant_runs_on_a_loop_of_its_own(kind: Kind) -> None:
    """An async function serves all kinds of callers, on the flight's thread, never on a loop of theirs."""
    threads: list[threading.Thread] = []

    async def grant(session: Session) -> Mapping[str, Any]:
        threads.append(threading.current_thread())
        await asyncio.sleep(0)
        assert session.refresh_token == "refresh 0"
        return {"access_token": "access 1", "expires_in": 60}

    assert Crowd(kind, 20, manager_for(grant)).tokens() == ["access 1"] * 20
    assert [thread.name for thread in threads] == ["unexpired:default"]


def test_a_sync_call_inside_an_event_loop_does_not_wait_for_that_loop() -> None:
    """`token()` on an event loop's own thread, with tasks of the loop waiting too, comes back."""

    async def grant(session: Session) -> Mapping[str, Any]:
        await asyncio.sleep(0)
        return {"access_token": f"after {session.refresh_token}", "expires_in": 60}

    manager = manager_for(grant)

    async def main() -> set[str]:
        task = asyncio.create_task(manager.atoken())
        await asyncio.sleep(0)
        return {manager.token().access_token, (await task).access_token}

    assert Attempt(lambda: asyncio.run(main())).result() == {"after refresh 0"}
