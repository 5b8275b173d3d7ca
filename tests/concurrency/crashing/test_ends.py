"""Processes that end, fork, or close their event loop while their token request is at the server."""

from __future__ import annotations

import os
import signal
import time

import pytest

from tests.concurrency.crashing.conftest import PROMPT, Start, Started, stored
from unexpired import TokenManager
from unexpired.testing import ServerHandle


@pytest.fixture
def program(server: ServerHandle, manager: TokenManager, start: Start) -> Started:
    """Start a program on a login with an expired token, whose first request the server keeps."""
    assert manager.logged_in
    server.faults({"kind": "hold", "name": "gate"})
    return start()


@pytest.mark.parametrize("order", ["begin", "close_loop"])
def test_a_process_that_ends_in_flight_stores_the_rotated_token(
    order: str, server: ServerHandle, manager: TokenManager, program: Started
) -> None:
    """The main thread ends, with a daemon thread or a closed event loop waiting: the answer is stored (scenario 59)."""
    program.ask(order)
    server.wait("token_request_held")
    program.stdin.close()
    assert program.hear() == ["ending"]
    assert program.process.poll() is None
    answered = time.monotonic()
    server.release("gate")
    assert program.process.wait(30) == 0
    assert time.monotonic() - answered < PROMPT
    session = stored(manager)
    assert (session.version, session.intent) == (2, None)
    assert server.stats().token_posts == 1


def test_a_closed_loop_costs_no_second_refresh(server: ServerHandle, program: Started) -> None:
    """An event loop that is closed in flight leaves a flight that goes on; who comes next joins it (scenario 59)."""
    assert program.ask("close_loop") == ["closed"]
    program.order("token")
    server.release("gate")
    program.hear_all(["stored", 2], ["token", 2])
    assert server.stats().token_posts == 1


def test_a_forked_child_is_served_by_its_parents_request(
    server: ServerHandle, manager: TokenManager, program: Started
) -> None:
    """A child forked in flight waits for its parent and gets the same token: one request (scenario 60)."""
    program.ask("begin")
    server.wait("token_request_held")
    program.order("fork")
    said = sorted((program.hear() for _ in range(2)), key=str)
    assert [what for what, _ in said] == ["child asks", "forked"]
    child = said[1][1]
    try:
        server.release("gate")
        program.hear_all(["stored", 2], ["token", 2], ["child", "token", 2])
    finally:
        os.kill(child, signal.SIGKILL)
    assert stored(manager).version == 2
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


def test_a_child_does_not_keep_the_lease_of_a_killed_parent(
    server: ServerHandle, manager: TokenManager, start: Start
) -> None:
    """The parent is killed in flight, its forked child lives on: it takes the lease and goes on (scenario 60)."""
    server.configure(grace=60.0)
    parent, other = (start(reuse_grace=60.0) for _ in range(2))
    server.faults({"kind": "timeout_after", "hold_after": "gate"})
    parent.ask("begin")
    server.wait("token_request_held")
    parent.order("fork")
    said = sorted((parent.hear() for _ in range(2)), key=str)
    child = said[1][1]
    try:
        parent.process.kill()
        assert parent.process.wait(10) == -signal.SIGKILL
        killed = time.monotonic()
        parent.hear_all(["stored", 2], ["child", "token", 2])
        assert time.monotonic() - killed < PROMPT
        assert other.ask("token") == ["token", 2]
    finally:
        os.kill(child, signal.SIGKILL)
    server.release("gate")
    assert stored(manager).version == 2
    assert [row.outcome for row in server.stats().redemptions] == ["rotated", "grace"]
