"""The faults of the two front ends that the dialects come from, each of which must not be ours."""

from __future__ import annotations

import pytest

from tests.clients.modes import Mode, get
from tests.dialects.dialects import A, B, Dialect
from tests.waiting import until
from unexpired import LoginRequired
from unexpired.events import SessionEnded
from unexpired.testing import ServerHandle

each = pytest.mark.parametrize("dialect", [A, B], ids=["A", "B"])


@each
def test_the_caller_that_triggers_the_refresh_gets_its_own_response(
    server: ServerHandle, mode: Mode, dialect: Dialect
) -> None:
    """Scenario 41: the one call that meets the expired token gets its own data (in the originals: nothing)."""
    manager = dialect.manager(server)
    server.expire()
    answer = mode.one(dialect.client(server, mode, manager), get("/orders?n=17")).json()
    assert (answer["code"], answer["data"]["n"]) == (0, "17")
    assert server.stats().token_posts == 1


@each
def test_fifty_callers(server: ServerHandle, mode: Mode, dialect: Dialect) -> None:
    """Scenarios 1, 2 and 37: 50 callers refused at once cost one refresh, and each gets its own data."""
    manager = dialect.manager(server)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    batch = mode.start(dialect.client(server, mode, manager), [get(f"/orders?n={number}") for number in range(50)])
    server.wait("api_call_held", 50)
    server.release("all")
    assert [answer.json()["data"]["n"] for answer in batch.result(25)] == [str(number) for number in range(50)]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


@each
def test_every_waiter_is_told_when_the_refresh_fails(server: ServerHandle, mode: Mode, dialect: Dialect) -> None:
    """Scenario 48: when the refresh fails all 50 are told where to log in (in the originals 49 hang for ever)."""
    manager = dialect.manager(server)
    user = {"name": "alice"}
    ended: list[SessionEnded] = []
    manager.on(SessionEnded, ended.append)
    manager.on(SessionEnded, lambda _: user.clear())
    server.expire()
    server.faults([{"kind": "hold", "name": "refresh"}])
    batch = mode.start(dialect.client(server, mode, manager), [get("/orders")] * 50)
    server.wait("api_call_refused", 50)
    server.revoke_family()
    server.release("refresh")
    outcomes = batch.result(25)
    assert {type(error) for error in outcomes} == {LoginRequired}
    assert {error.login_url for error in outcomes} == {dialect.login_url}
    until(lambda: ended and not user)  # listeners are told after the waiters
    assert len(ended) == 1
    (later,) = mode.run(dialect.client(server, mode, manager), [get("/orders")])
    assert (type(later), later.login_url) == (LoginRequired, dialect.login_url)
    stats = server.stats()
    assert (stats.token_posts, stats.api_calls) == (1, 50)


@each
def test_late_answers_start_no_second_refresh(server: ServerHandle, mode: Mode, dialect: Dialect) -> None:
    """Scenario 9: answers for the old token that arrive after the refresh start none (in the originals: one more)."""
    manager = dialect.manager(server)
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "late", "prefix": f"{dialect.base}/late"}])
    late = mode.start(dialect.client(server, mode, manager), [get(f"/late?n={number}") for number in range(10)])
    server.wait("api_call_held", 10)
    assert mode.one(dialect.client(server, mode, manager), get("/orders")).json()["code"] == 0
    server.release("late")
    assert [answer.json()["data"]["n"] for answer in late.result(25)] == [str(number) for number in range(10)]
    assert server.stats().token_posts == 1


@each
def test_on_the_login_page_a_call_fails_clearly(server: ServerHandle, mode: Mode, dialect: Dialect) -> None:
    """Scenario 48: on the login page nothing refreshes and a call ends with an error (in the originals: never)."""
    manager = dialect.manager(server, on_login_page=lambda: True)
    server.expire()
    outcomes = mode.run(dialect.client(server, mode, manager), [get("/orders")] * 5)
    assert {(type(error), error.reason) for error in outcomes} == {(LoginRequired, "login_page")}
    assert server.stats().token_posts == 0


@each
def test_two_refreshes_in_a_row(server: ServerHandle, mode: Mode, dialect: Dialect) -> None:
    """Each refresh spends what the last one brought: two expiries in a row are no reuse."""
    manager = dialect.manager(server)
    for posts in (1, 2, 3):
        server.expire()
        assert mode.one(dialect.client(server, mode, manager), get("/orders")).json()["code"] == 0
        assert server.stats().token_posts == posts
    assert server.stats().reuse_detected == 0
