"""What errors, endings and records carry besides their kind: whose they are, when, and for how long."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from tests.core.harness import EPOCH, KEY, World, intent, session, token
from unexpired._core import changes
from unexpired._core.effects import Effect, Flow
from unexpired._core.obtain import gone
from unexpired._core.policy import Policy
from unexpired._core.record import decode, encode
from unexpired._core.replay import Accepted, End, Replace, Send, replay
from unexpired._core.scheme import Judgement, Verdict
from unexpired._core.session import Failure
from unexpired.errors import (
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)

WHERE = "/data/alice.json"
ORIGIN = "https://api.example.com"
ENDPOINT = "GET /list"


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        (NotSent("busy", retry_after=60.0), TemporarilyUnavailable),
        (Refused("no", error="invalid_client"), ConfigurationError),
    ],
)
def test_every_error_of_a_caller_names_its_session(said: Exception, kind: type[UnexpiredError]) -> None:
    """A program with many logins learns from `key`, and from the text, which of them has no token."""
    with pytest.raises(kind, match=f"no token for '{KEY}'") as caught:
        World(session(), [said]).obtain()
    assert caught.value.key == KEY


def test_a_store_that_fails_is_told_with_its_session() -> None:
    """The callers of a flight that could not have the lease learn whose it was."""
    world = World(session())
    world.refuse("Lease", 1)
    with pytest.raises(StoreError) as caught:
        world.obtain()
    assert caught.value.key == KEY


@pytest.mark.parametrize("change", ["login", "logout", "end"])
def test_a_record_that_never_holds_still_is_told_with_its_session(change: str) -> None:
    """A change gives up after a hundred tries, and says whose record it was."""
    held = session(token())
    flows: dict[str, Flow[Any]] = {
        "login": changes.login(KEY, "login-2", "RT-2"),
        "logout": changes.logout(KEY),
        "end": changes.end(KEY, held.tokens[None], "refused"),
    }
    world = World(held)
    world._swap = lambda _: False  # type: ignore[assignment, method-assign]
    with pytest.raises(StoreError) as caught:
        world.drive(flows[change])
    assert caught.value.key == KEY
    assert world.counts["Swap"] == 100


def test_an_error_without_a_login_names_its_session() -> None:
    """Nobody logged in, and a login that ended, are both somebody's."""
    assert gone(KEY, None).key == KEY
    assert gone(KEY, session().over("logout", EPOCH)).key == KEY


def test_a_caller_whose_time_is_over_is_told_whose_token_and_when_to_try_again() -> None:
    """The bound is over before the flight ends: the key, and one second."""
    world = World(session())
    world._join = lambda _: None  # type: ignore[assignment, method-assign]
    with pytest.raises(TemporarilyUnavailable) as caught:
        world.obtain(wait=3.0)
    assert (caught.value.key, caught.value.retry_after) == (KEY, 1.0)


def test_a_failure_that_lasts_tells_how_long() -> None:
    """`retry_after` is what is left of the pause, also when the process ends in the middle of it."""
    world = World(session(), [NotSent("busy", retry_after=60.0)])
    with pytest.raises(TemporarilyUnavailable) as caught:
        world.obtain()
    assert caught.value.retry_after == pytest.approx(60.0)
    ending = World(session(), [NotSent("busy", retry_after=20.0)])
    ending.before("Sleep", 1, ending.exits)
    with pytest.raises(TemporarilyUnavailable) as cut:
        ending.obtain()
    assert cut.value.retry_after == pytest.approx(20.0)
    assert cut.value.key == KEY


def test_one_hiccup_is_sat_out_and_no_second_one_however_short() -> None:
    """The second failure in a row is the caller's, even when it would pass in less than a second (scenario 50)."""
    world = World(session(), [NotSent("busy")], chance=0.2)
    with pytest.raises(TemporarilyUnavailable):
        world.obtain()
    assert world.slept == pytest.approx([0.2])


def test_a_pause_as_long_as_the_patience_is_not_sat_out() -> None:
    """Patience is for what passes sooner."""
    world = World(session(), [NotSent("busy", retry_after=20.0)], latency=0.0, policy=Policy(patience=20.0))
    with pytest.raises(TemporarilyUnavailable):
        world.obtain()
    assert world.slept == []


def test_a_process_that_is_ending_sits_nothing_out() -> None:
    """Its callers get the failure at once, without a wait that would be cut short."""
    failure = Failure("unreachable", "busy", EPOCH, EPOCH + 0.5)
    world = World(session(failure=failure), exiting=True)
    with pytest.raises(TemporarilyUnavailable, match="busy"):
        world.obtain()
    assert world.slept == []


def test_an_ended_session_says_when() -> None:
    """A logout and an end write the moment into the record."""
    world = World(session(), boot=507.0)
    world.drive(changes.logout(KEY))
    assert world.stored.ended is not None
    assert world.stored.ended.at == EPOCH + 7.0
    held = session(token(expires_at=EPOCH + 200))
    other = World(held, boot=509.0)
    ended, by_this = other.drive(changes.end(KEY, held.tokens[None], "refused"))
    assert by_this
    assert ended is not None
    assert ended.ended is not None
    assert (ended.ended.reason, ended.ended.at) == ("refused", EPOCH + 9.0)


def test_a_login_is_stored_under_its_key_and_always_anew() -> None:
    """Two logins that name no seed are two, each under the key it was made for."""
    world = World()
    for number in (2, 3):
        assert world.login(f"RT-{number}", f"login-{number}").key == KEY
        assert (world.stored.key, world.stored.login) == (KEY, f"login-{number}")


def _replayed(first: Judgement, *verdicts: Judgement, ends: bool = False) -> list[Effect[Any]]:
    """The effects of a replay at one endpoint, until it ends."""
    done: list[Effect[Any]] = []
    said = list(verdicts)
    flow = replay(KEY, token("AT-1", minted=1), first, ORIGIN, ENDPOINT)
    effect = next(flow)
    while True:
        done.append(effect)
        given: Any = said.pop(0) if isinstance(effect, Send) else token("AT-2", minted=2)
        try:
            effect = flow.send(ends if isinstance(effect, End) else given)
        except StopIteration:
            return done


def test_refusals_and_acceptances_are_remembered_by_endpoint() -> None:
    """The endpoint goes with both, so that one bad endpoint is not taken for the API."""
    done = _replayed(Judgement(Verdict.EXPIRED), Judgement(Verdict.ACCEPTED))
    assert [effect.endpoint for effect in done if isinstance(effect, Replace | Accepted)] == [ENDPOINT, ENDPOINT]


@pytest.mark.parametrize(("verdict", "reason"), [("step_up", "step_up"), ("login_required", "login_required")])
def test_the_api_s_last_word_names_the_session(verdict: str, reason: str) -> None:
    """A stronger login, and a new one, are asked for by key (scenario 47)."""
    with pytest.raises(LoginRequired, match=f"'{KEY}'") as caught:
        _replayed(Judgement(Verdict(verdict), "mfa"), ends=True)
    assert (caught.value.key, caught.value.reason) == (KEY, reason)


def test_a_record_keeps_its_seeds_and_counts_its_notes() -> None:
    """What began the login, and how many notes are on its version, come back as they were stored."""
    one = replace(session(), seeds=("s1", "s2"), notes=7)
    back = decode(encode(one), KEY, WHERE)
    assert (back.seeds, back.notes) == (("s1", "s2"), 7)


def test_a_record_without_the_later_fields_is_read() -> None:
    """What an older record does not name has its plain meaning: no seeds, no notes, a bearer token."""
    document = json.loads(encode(replace(session(), seeds=("s1",), notes=7)))
    del document["seeds"], document["notes"], document["tokens"][""]["token_type"]
    back = decode(json.dumps(document), KEY, WHERE)
    assert (back.seeds, back.notes, back.tokens[None].token_type) == ((), 0, "Bearer")


def test_a_new_version_has_no_notes() -> None:
    """What is minted, salvaged or over begins without any, under the same key."""
    noted = replace(session(), notes=7)
    for one in (noted.minted(token("AT-2")), noted.salvaged("RT-2"), noted.over("logout", EPOCH)):
        assert (one.key, one.version, one.notes) == (KEY, 2, 0)


def test_every_note_counts() -> None:
    """A note on a version is told from the next one: only so can two owners see each other's intents."""
    one = session()
    first = one.noted(intent=intent(), failure=None)
    second = first.noted(intent=intent(owner="me"), failure=None)
    assert [one.notes, first.notes, second.notes] == [0, 1, 2]
    assert not second.replaces(first, one)
    assert second.replaces(first, first)
