from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.stores.frozen_scene import BOUND, DEADLINE, LOCAL, MARGIN, TIMED, Scene, late, place_of, token
from unexpired._core.session import Session
from unexpired.testing import Stats

pytestmark = pytest.mark.timeout(120)
UNSENT = ("leased", "before intent", "after intent")
AT_LAST = "connected"
LATER = ("in the air", "overtaken", "replaced", "logged out", "released")
EVERYWHERE = (*UNSENT, AT_LAST, *LATER)


@dataclass(frozen=True)
class Facts:
    """What became of one session: what two processes were told, the other one once more, and what the server saw."""

    holder: dict[str, Any]
    other: dict[str, Any]
    again: dict[str, Any]
    stats: Stats
    stored: Session
    leased: bool = False
    since: float = 0.0
    in_vain: dict[str, Any] = field(default_factory=dict[str, Any])
    sent_by_then: int = 0


# ---- a holder that goes on when its lease is over -------------------------------------------------------------------


@pytest.fixture(scope="module", params=TIMED)
def thawed(request: pytest.FixtureRequest) -> Iterator[dict[str, Facts]]:
    """By session: one process was stopped at every point of a flight, and went on when others had had its leases."""
    with place_of(request.param) as place, Scene(place) as scene:
        holder, other = scene.start(2)
        for key in EVERYWHERE:
            grace = BOUND if key == "overtaken" else 0.0
            issuer = scene.begin(key, grace=grace, grace_answer="new")
            holder.manage(key, issuer, grace=grace)
            other.manage(key, issuer, grace=grace, deadline=BOUND if key == "released" else DEADLINE)
        for key in UNSENT:
            holder.go_until(key, key)
        for key in ("overtaken", "replaced", "logged out"):
            holder.go_until(key, "before result")
        holder.go_until("released", "before release")
        holder.go_until(AT_LAST, AT_LAST)
        late(scene.issuers["in the air"], "late")
        holder.order("refresh", "in the air")
        scene.issuers["in the air"].wait("token_request_held")
        holder.freeze()
        scene.issuers["in the air"].release("late")
        scene.issuers["in the air"].wait("token_request_answered")
        scene.manager("replaced").login(scene.issuers["replaced"].login())
        scene.manager("logged out").logout()
        late(scene.issuers["released"], "theirs", "hold")
        asked = (*UNSENT, AT_LAST, "overtaken", "released")
        for key in asked:
            other.order("refresh", key)
        others = {key: other.hear(key) for key in asked if key != "released"}
        assert not scene.leased("in the air", wait=BOUND)
        scene.issuers["released"].wait("token_request_held")
        holder.thaw()
        holders = {key: holder.hear(key) for key in EVERYWHERE}
        leased = scene.leased("released")
        scene.issuers["released"].release("theirs")
        others["released"] = other.hear("released")
        yield {
            key: Facts(
                holders[key],
                others.get(key, {}),
                scene.told(other, key),
                scene.issuers[key].stats(),
                scene.stored(key),
                leased and key == "released",
            )
            for key in EVERYWHERE
        }


@pytest.mark.parametrize("point", [*UNSENT, AT_LAST])
def test_a_holder_that_is_frozen_before_it_sends_does_not_send(thawed: dict[str, Facts], point: str) -> None:
    """Scenario 16: stopped past its lease before it sent, it finds that another has refreshed, and sends nothing.

    Its callers get the other's token. So it is even with a connection made, and the first byte not sent.
    """
    facts = thawed[point]
    assert facts.other == facts.holder == facts.again == token(point, 2, facts.stored)
    assert (facts.stored.version, facts.stats.token_posts, facts.stats.reuse_detected) == (2, 1, 0)


def test_a_late_answer_is_saved_while_its_version_stands(thawed: dict[str, Facts]) -> None:
    """Stopped past lease and deadline after it sent, it saves the answer that came meanwhile: nobody redeemed since."""
    facts = thawed["in the air"]
    assert facts.holder == facts.again == token("in the air", 2, facts.stored)
    assert (facts.stored.version, facts.stored.intent) == (2, None)
    assert (facts.stats.token_posts, facts.stats.refreshes, facts.stats.revocations) == (1, 1, 0)


def test_a_late_answer_to_a_version_that_is_gone_is_dropped_unrevoked(thawed: dict[str, Facts]) -> None:
    """Another has redeemed the same version, in the server's grace period: the late answer is dropped, not revoked.

    Revoking it would end the whole login at the server, and with it what the other has stored.
    """
    facts = thawed["overtaken"]
    assert facts.other == facts.holder == facts.again == token("overtaken", 2, facts.stored)
    stats = facts.stats
    assert (stats.token_posts, stats.refreshes, stats.reuse_detected, stats.revocations) == (2, 2, 0, 0)


def test_a_late_answer_of_an_earlier_login_is_dropped_unrevoked(thawed: dict[str, Facts]) -> None:
    """Somebody has logged in anew: the late answer is dropped, and who waited for it gets the new login's token."""
    facts = thawed["replaced"]
    assert facts.holder == facts.again == token("replaced", 1, facts.stored)
    assert (facts.stored.version, facts.stats.revocations, facts.stats.token_posts) == (1, 0, 1)


def test_a_late_answer_after_a_logout_is_revoked(thawed: dict[str, Facts]) -> None:
    """This very login was logged out: the late answer is revoked, and nobody is logged in again by it."""
    facts = thawed["logged out"]
    assert facts.holder == facts.again == {"key": "logged out", "got": "LoginRequired", "why": "logout"}
    assert (facts.stored.refresh_token, facts.stats.revocations, facts.stats.token_posts) == (None, 1, 1)


def test_a_release_after_the_end_frees_nobody_elses_lease(thawed: dict[str, Facts]) -> None:
    """Scenario 17: stopped before its release, it goes on while another refreshes, whose lease stays as it is."""
    facts = thawed["released"]
    assert facts.holder == token("released", 2, facts.stored)
    assert facts.leased
    assert facts.other == facts.again == token("released", 3, facts.stored)
    assert (facts.stats.token_posts, facts.stats.max_in_air, facts.stats.reuse_detected) == (2, 1, 0)


@pytest.mark.parametrize("kind", LOCAL)
def test_a_holder_that_is_frozen_past_its_deadline_keeps_its_lock_and_sends_nothing(kind: str) -> None:
    """Scenario 16, where a lease ends with its holder: others wait in vain, and it sends nothing when it goes on.

    What it had sent before is saved. Then whoever asks next refreshes.
    """
    with place_of(kind) as place, Scene(place) as scene:
        holder, other = scene.start(2)
        for key in (*UNSENT, "in the air"):
            scene.begin(key)
            holder.manage(key, scene.issuers[key], patience=0)
            other.manage(key, scene.issuers[key], patience=0, lease_wait=DEADLINE)
        for key in UNSENT:
            holder.go_until(key, key)
        issuer = scene.issuers["in the air"]
        late(issuer, "late")
        holder.order("refresh", "in the air")
        issuer.wait("token_request_held")
        holder.freeze()
        issuer.release("late")
        for key in (*UNSENT, "in the air"):
            other.order("refresh", key)
        for key in (*UNSENT, "in the air"):
            assert other.hear(key)["got"] == "TemporarilyUnavailable"
        holder.thaw()
        for key in UNSENT:
            told = holder.hear(key)
            assert told["got"] == "TemporarilyUnavailable"
            assert "no time left to ask the server" in told["why"]
            assert scene.issuers[key].stats().token_posts == 0
            assert other.ask("refresh", key) == token(key, 2, scene.stored(key))
            assert scene.issuers[key].stats().token_posts == 1
        told = holder.hear("in the air")
        saved = token("in the air", 2, scene.stored("in the air"))
        assert told == scene.told(other, "in the air") == saved
        assert issuer.stats().token_posts == 1


# ---- a holder that never goes on ------------------------------------------------------------------------------------

DYING = ("unsaved", "undecided", "decided", "graced", "leased", "after intent")
Killed = tuple[bool, dict[str, Facts]]


@pytest.fixture(scope="module", params=(*TIMED, *LOCAL))
def killed(request: pytest.FixtureRequest) -> Iterator[Killed]:
    """Whether leases are timed, and by session: one process was stopped at every point, waited for, and killed."""
    with place_of(request.param) as place, Scene(place) as scene:
        holder, other = scene.start(2)
        graces = {key: BOUND if key in ("graced", "unsaved") else 0.0 for key in DYING}
        for key in DYING:
            issuer = scene.begin(key, grace=graces[key])
            holder.manage(key, issuer, grace=graces[key])
            other.manage(key, issuer, grace=graces[key], lease_wait=0.5, patience=0)
        holder.go_until("unsaved", "before result")
        for key in ("undecided", "decided", "graced"):
            late(scene.issuers[key], "never", "reset_before_commit" if key == "undecided" else "timeout_after")
            holder.order("refresh", key)
            scene.issuers[key].wait("token_request_held")
        unleased = time.time()
        holder.go_until("leased", "leased")
        holder.go_until("after intent", "after intent")
        holder.freeze()
        for key in DYING:
            other.order("refresh", key)
        in_vain = {key: other.hear(key) for key in DYING}
        sent = {key: scene.issuers[key].stats().token_posts for key in DYING}
        intents = {key: scene.stored(key).intent for key in DYING}
        holder.kill()
        for key in DYING:
            if intents[key] is not None:
                scene.lose_lease(key)
            scene.issuers[key].release("never")
            other.manage(key, scene.issuers[key], grace=graces[key])
            other.order("refresh", key)
        others = {key: other.hear(key) for key in DYING}
        facts = {
            key: Facts(
                {},
                others[key],
                scene.told(other, key),
                scene.issuers[key].stats(),
                scene.stored(key),
                since=intent.since if (intent := intents[key]) is not None else unleased,
                in_vain=in_vain[key],
                sent_by_then=sent[key],
            )
            for key in DYING
        }
        yield request.param in TIMED, facts


@pytest.mark.parametrize(("point", "posts"), [("leased", 0), ("after intent", 0), ("undecided", 1), ("graced", 1)])
def test_a_wait_for_the_lease_that_ends_in_vain_refreshes_nothing(killed: Killed, point: str, posts: int) -> None:
    """Scenario 18: who has waited too long for a frozen holder is told to come back.

    Nothing is sent without the lease, and nobody is logged out: when the holder is gone, the next one goes on.
    """
    facts = killed[1][point]
    why = f"no token for {point!r}: another process has been refreshing {point!r} for 0.5 s"
    assert facts.in_vain == {"key": point, "got": "TemporarilyUnavailable", "why": why}
    assert facts.sent_by_then == posts
    assert facts.other == facts.again == token(point, 2, facts.stored)


@pytest.mark.parametrize(("point", "posts"), [("leased", 1), ("after intent", 1), ("undecided", 2)])
def test_a_holder_that_dies_before_the_server_answered_logs_nobody_out(killed: Killed, point: str, posts: int) -> None:
    """Scenario 21: killed before it sent, or before the server decided: another goes on, and the login lives."""
    facts = killed[1][point]
    assert facts.other == facts.again == token(point, 2, facts.stored)
    assert (facts.stats.token_posts, facts.stats.refreshes, facts.stats.reuse_detected) == (posts, 1, 0)


@pytest.mark.parametrize("point", ["unsaved", "graced"])
def test_a_holder_that_dies_with_the_answer_costs_one_more_in_the_grace_period(killed: Killed, point: str) -> None:
    """Killed when the server had rotated, before the token was stored: another sends the same version again, once."""
    facts = killed[1][point]
    assert facts.other == facts.again == token(point, 2, facts.stored)
    assert (facts.stats.token_posts, facts.stats.reuse_detected) == (2, 0)


def test_a_holder_that_dies_with_the_answer_costs_the_login_without_grace(killed: Killed) -> None:
    """Without a grace period the version is sent once more, refused, and the login is over: `answer_lost`, for good."""
    facts = killed[1]["decided"]
    assert facts.other == facts.again == {"key": "decided", "got": "LoginRequired", "why": "answer_lost"}
    assert facts.stats.token_posts == 2


@pytest.mark.parametrize("point", DYING)
def test_nothing_is_sent_while_a_dead_holder_could_still_be_sending(killed: Killed, point: str) -> None:
    """A timed lease lasts until no flight of the dead one can go on, and where it was lost its intent is waited out.

    A lock that the system frees when its holder dies proves that nothing can be sent any more: nobody waits.
    """
    timed, named = killed
    facts = named[point]
    taken, wait = facts.stats.redemptions[-1].received, DEADLINE + MARGIN if timed else 0.0
    assert taken >= facts.since + wait - 0.05
