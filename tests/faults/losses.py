"""What a store that is shared by a fleet can lose, as the documentation says; and what is done then."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.faults.stage import Issuer, Staged, managed
from unexpired.errors import LoginRequired, UnexpiredError
from unexpired.events import FlightEnded, SessionEnded, Unsaved
from unexpired.stores import Store

__all__ = ["lose_the_last_write", "outlive_the_lease"]

KEY = "alice@crm"
_BOUND = 40.0


def lose_the_last_write(
    near: Store, far: Store, separate: Callable[[], object], fail_over: Callable[[], object]
) -> None:
    """After *separate* nothing reaches the replica any more; *fail_over* brings it into the primary's place."""
    issuer, ended = Issuer(), list[SessionEnded]()
    here, there = (managed(Staged(store, name), issuer, KEY, 5.0) for name, store in (("here", near), ("there", far)))
    here.on(SessionEnded, ended.append)
    here.login(issuer.login(KEY))
    separate()
    newer = here.refresh()
    fail_over()
    assert here.token().access_token == newer.access_token, "what is known is served"
    with pytest.raises(LoginRequired) as over:
        until_decided(lambda: here.refresh(newer).access_token)
    assert over.value.reason == "refused"
    assert (len(issuer.thefts), issuer.redeemed[KEY]) == (1, [1, 1])
    until_decided(lambda: ended or None)
    assert [event.reason for event in ended] == ["refused"]
    with pytest.raises(LoginRequired):
        until_decided(lambda: there.refresh().access_token)
    assert issuer.redeemed[KEY] == [1, 1], "nobody asks again"
    again = here.login(issuer.login(KEY)).tokens[None].access_token
    until_decided(lambda: there.logged_in or None)
    assert there.token().access_token == again


def outlive_the_lease(near: Store, far: Store, cut: Callable[[], object], heal: Callable[[], object]) -> None:
    """*cut* keeps the first store alone from the server, between the answer and its storing."""
    issuer, unsaved, over_with = Issuer(), list[Unsaved](), list[FlightEnded]()
    here, there = (managed(Staged(store, name), issuer, KEY, 1.5) for name, store in (("here", near), ("there", far)))
    here.on(Unsaved, unsaved.append)
    here.on(FlightEnded, over_with.append)
    first = here.login(issuer.login(KEY)).tokens[None].access_token
    assert there.token().access_token == first
    issuer.answered = cut
    with ThreadPoolExecutor(1) as pool:
        newer = pool.submit(here.refresh, first).result(_BOUND).access_token
        issuer.answered = bool
        assert newer != first, "it is served from memory"
        with pytest.raises(LoginRequired) as over:
            there.refresh(first)
        assert over.value.reason == "answer_lost"
        assert here.token().access_token == newer
        heal()
        with pytest.raises(LoginRequired) as over:
            until_decided(lambda: None if here.token().access_token == newer else "another")
        assert over.value.reason == "answer_lost"
    until_decided(lambda: over_with or None)
    assert (len(unsaved), [flight.outcome for flight in over_with]) == (1, ["overtaken"])
    assert issuer.redeemed[KEY] == [1, 1]


def until_decided(call: Callable[[], object]) -> object:
    """What *call* brings, when it is something. LoginRequired is a decision, any other error passes."""
    until = time.monotonic() + _BOUND
    while True:
        try:
            if (found := call()) is not None:
                return found
        except LoginRequired:
            raise
        except UnexpiredError:
            pass
        assert time.monotonic() < until, "nothing was decided"
        time.sleep(0.01)
