"""Processes that are stopped, told to end, or interrupted while their token request is at the server."""

from __future__ import annotations

import signal
import time

import pytest

from tests.concurrency.crashing.conftest import PROMPT, Start, Started, stored
from tests.waiting import until
from unexpired import Token, TokenManager
from unexpired.testing import ServerHandle

HOLD = {"kind": "hold", "name": "gate"}
SILENCE = {"kind": "timeout_after", "hold_after": "never"}


def _in_flight(server: ServerHandle, program: Started, *order: object) -> None:
    """Let *program*'s request arrive at the server, which keeps the answer."""
    server.faults(HOLD)
    program.order(*order)
    server.wait("token_request_held")


def test_nobody_redeems_beside_a_stopped_holder(server: ServerHandle, manager: TokenManager, start: Start) -> None:
    """While the holder of the lease is stopped, others are told within their bounds, and nothing more is sent.

    When it goes on, its late answer is stored, and all go on with it. Scenario 18.
    """
    holder, *others = start(), start(), start(lease_wait=0.3)
    _in_flight(server, holder, "token")
    holder.send(signal.SIGSTOP)

    def nobody_is_served() -> None:
        for other, wait in zip(others, (0.5, 8.0), strict=True):
            other.order("token", wait)
        for kind, _, seconds in [other.hear() for other in others]:
            assert kind == "TemporarilyUnavailable"
            assert seconds < 8.0

    nobody_is_served()
    server.release("gate")
    server.wait("token_request_answered")
    nobody_is_served()
    assert stored(manager).version == 1
    assert server.stats().token_posts == 1
    holder.send(signal.SIGCONT)
    holder.hear_all(["token", 2], ["stored", 2])
    for other in others:
        assert other.ask("token") == ["token", 2]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


def test_a_token_that_is_still_good_is_served_beside_a_stopped_holder(
    server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """When a holder is stopped that refreshes ahead, everybody else is served the current token at once."""
    first = server.login()
    manager.login(
        Token(
            first["access_token"], refresh_token=first["refresh_token"], lifetime=4000.0, expires_at=time.time() + 100.0
        )
    )
    holder, *others = (start() for _ in range(3))
    _in_flight(server, holder, "token")
    assert holder.hear() == ["token", 1]
    holder.send(signal.SIGSTOP)
    for other in others * 3:
        assert other.ask("token", 0.5) == ["token", 1]
        assert other.ask("call") == [200]
    assert server.stats().token_posts == 1
    server.release("gate")
    holder.send(signal.SIGCONT)
    assert holder.hear() == ["stored", 2]
    for program in (holder, *others):
        assert program.ask("token") == ["token", 2]
    assert server.stats().token_posts == 1


def test_an_answer_that_came_while_stopped_is_stored_after_the_deadline(
    server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """A holder stopped for longer than its deadline stores the answer that it finds when it goes on."""
    holder, other = start(deadline=4.0), start()
    _in_flight(server, holder, "token")
    sent = time.monotonic()
    holder.send(signal.SIGSTOP)
    server.release("gate")
    server.wait("token_request_answered")
    until(lambda: time.monotonic() > sent + 4.2)
    holder.send(signal.SIGCONT)
    holder.hear_all(["token", 2], ["stored", 2])
    assert other.ask("token") == ["token", 2]
    assert stored(manager).version == 2
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


INTERRUPTED: dict[str, tuple[signal.Signals, list[object], str, int]] = {
    "Ctrl-C": (signal.SIGINT, ["token"], "KeyboardInterrupt", -signal.SIGINT),
    "Ctrl-C in asyncio": (signal.SIGINT, ["atoken", "asyncio"], "KeyboardInterrupt", -signal.SIGINT),
    "Ctrl-C in trio": (signal.SIGINT, ["atoken", "trio"], "KeyboardInterrupt", -signal.SIGINT),
    "SIGTERM": (signal.SIGTERM, ["token"], "SystemExit", 7),
    "SIGTERM in asyncio": (signal.SIGTERM, ["atoken", "asyncio"], "SystemExit", 7),
}


@pytest.mark.parametrize("how", INTERRUPTED)
def test_an_interrupted_program_stores_the_rotated_token(
    how: str, server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """Ctrl-C, or a SIGTERM whose handler exits, leaves a flight its answer; the exit follows it. Scenarios 57, 59."""
    number, order, raised, status = INTERRUPTED[how]
    program = start(leaves_at_sigterm=True)
    _in_flight(server, program, *order)
    program.send(number)
    assert program.hear()[:2] == ["stopped", raised]
    assert program.process.poll() is None
    answered = time.monotonic()
    server.release("gate")
    assert program.process.wait(30) == status
    assert time.monotonic() - answered < PROMPT
    session = stored(manager)
    assert (session.version, session.intent) == (2, None)
    assert manager.token().minted == 2
    assert server.stats().token_posts == 1


def test_an_exit_does_not_wait_for_ever_for_an_answer(
    server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """When the answer does not come, an interrupted program ends at the deadline, and the intent stays."""
    program = start(deadline=5.0)
    server.faults(SILENCE)
    program.order("token")
    server.wait("token_request_held")
    program.send(signal.SIGINT)
    interrupted = time.monotonic()
    assert program.hear()[:2] == ["stopped", "KeyboardInterrupt"]
    assert program.process.wait(30) == -signal.SIGINT
    assert time.monotonic() - interrupted < 5.0 + PROMPT
    server.release("never")
    session = stored(manager)
    assert session.version == 1
    assert session.intent is not None


def test_a_sigterm_without_a_handler_is_covered_by_the_intent(
    server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """SIGTERM's default ends a process at once, like `kill -9`: the next one fetches the answer again in the grace."""
    server.configure(grace=60.0)
    first, second = (start(reuse_grace=60.0) for _ in range(2))
    server.faults(SILENCE)
    first.order("token")
    server.wait("token_request_held")
    first.send(signal.SIGTERM)
    assert first.process.wait(30) == -signal.SIGTERM
    session = stored(manager)
    assert session.version == 1
    assert session.intent is not None
    second.order("token")
    second.hear_all(["token", 2], ["stored", 2])
    server.release("never")
    assert [row.outcome for row in server.stats().redemptions] == ["rotated", "grace"]
