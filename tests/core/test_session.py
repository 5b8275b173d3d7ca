from __future__ import annotations

from dataclasses import replace

import pytest

from tests.core.harness import EPOCH, KEY, LOGIN, intent, session, token
from unexpired._core.session import Failure, Session
from unexpired._core.token import Token

FAILURE = Failure("lost", "reset", EPOCH, EPOCH + 1.0)


def test_a_login_begins_at_version_1() -> None:
    """A first token answer is stored as version 1, with its refresh token."""
    begun = Session.begin(KEY, LOGIN, token())
    assert (begun.version, begun.refresh_token, begun.tokens[None].minted) == (1, "RT-1", 1)
    assert begun.tokens[None].login == LOGIN


def test_a_new_token_makes_the_next_version_and_forgets_intent_and_failure() -> None:
    """Version + 1, the rotated refresh token, and nothing left of what went wrong before."""
    before = session(intent=intent(), failure=FAILURE)
    after = before.minted(Token("AT-2", refresh_token="RT-2"))
    assert (after.version, after.refresh_token, after.intent, after.failure) == (2, "RT-2", None, None)
    assert after.login == before.login
    assert before.tokens[None].access_token == "AT-1"


def test_tokens_of_other_resources_stay() -> None:
    """Redeeming for one resource keeps the access tokens of the others, minted when they were."""
    after = session().minted(Token("AT-a", id_token="ID-a"), "a")
    assert {name: one.minted for name, one in after.tokens.items()} == {None: 1, "a": 2}
    assert after.tokens["a"].resource == "a"
    assert after.minted(Token("AT-b"), "a").tokens["a"].id_token == "ID-a"


def test_what_an_answer_omits_is_kept() -> None:
    """Refresh token, id token and scope of the version before stay (RFC 6749 §6, scenario 28)."""
    before = session(token(id_token="ID-1", scope="read"))
    kept = before.minted(Token("AT-2")).tokens[None]
    assert (kept.refresh_token, kept.id_token, kept.scope) == ("RT-1", "ID-1", "read")
    new = before.minted(Token("AT-2", id_token="ID-2", scope="write", refresh_token="RT-2")).tokens[None]
    assert (new.refresh_token, new.id_token, new.scope) == ("RT-2", "ID-2", "write")


def test_a_salvaged_refresh_token_makes_the_next_version() -> None:
    """The refresh token changes, the access tokens stay, and the next attempt is the first one of its version."""
    after = session(intent=intent(attempt=3), failure=FAILURE).salvaged("RT-2")
    assert (after.version, after.refresh_token, after.intent, after.failure) == (2, "RT-2", None, None)
    assert after.tokens[None].minted == 1


def test_an_ended_session_holds_nothing_to_steal() -> None:
    """The end is the next version, with its reason and time, and without any token."""
    over = session(intent=intent(), failure=FAILURE).over("logout", EPOCH)
    assert (over.version, over.login, over.refresh_token, dict(over.tokens)) == (2, LOGIN, None, {})
    assert over.ended is not None
    assert (over.ended.reason, over.ended.at, over.intent, over.failure) == ("logout", EPOCH, None, None)


def test_a_version_is_known_by_login_and_number() -> None:
    """Intent and failure make no new version; another login or number does."""
    one = session()
    assert one.same_version(replace(one, intent=intent(), failure=FAILURE))
    assert not one.same_version(replace(one, version=2))
    assert not one.same_version(replace(one, login="login-2"))
    assert not one.same_version(None)


@pytest.mark.parametrize(
    ("at", "holds"),
    [(0.0, True), (59.9, True), (60.0, False), (-0.9, True), (-1.1, False), (-600.0, False), (600.0, False)],
)
def test_a_failure_holds_until_its_time_whatever_the_clock_does(at: float, holds: bool) -> None:
    """It forbids requests from its storing to `retry_at`; a clock set back does not prolong it (scenario 64)."""
    assert replace(FAILURE, retry_at=EPOCH + 60.0).holds(EPOCH + at) is holds


def test_neither_session_nor_intent_shows_a_secret() -> None:
    """The login id and the refresh token stay out of every repr."""
    shown = repr(session(token("AT-s3cret", refresh_token="RT-s3cret"), login="s3cret", intent=intent()))
    assert "s3cret" not in shown
    assert LOGIN not in shown


def test_a_note_is_fenced_by_the_notes_before_it() -> None:
    """A note on the same version replaces what it was made from only; a new version replaces any notes on the old."""
    one = session()
    mine, other = (one.noted(intent=intent(owner=owner), failure=None) for owner in ("me", "another"))
    assert mine.replaces(one, one)
    assert not other.replaces(mine, one)
    assert other.minted(Token("AT-2")).replaces(mine, other)
    assert other.over("logout", EPOCH).replaces(mine, other)
    assert not other.noted(intent=None, failure=FAILURE).replaces(mine, mine.minted(Token("AT-2")))


def test_nothing_is_replaced_by_who_expected_nothing_and_no_other() -> None:
    """Who expects no record finds none, and who expects one finds one."""
    one = session()
    assert one.replaces(None, None)
    assert not one.replaces(one, None)
    assert not one.replaces(None, one)


def test_a_new_login_replaces_any_notes() -> None:
    """A login does not care for what is being done with the one before it."""
    one = session()
    assert session(login="login-2").replaces(one.noted(intent=intent(), failure=None), one)


def test_a_new_version_counts_its_notes_anew() -> None:
    """Notes are counted per version."""
    noted = session().noted(intent=intent(), failure=FAILURE)
    assert (session().notes, noted.notes, noted.noted(intent=None, failure=None).notes) == (0, 1, 2)
    assert (noted.minted(Token("AT-2")).notes, noted.salvaged("RT-2").notes, noted.over("x", EPOCH).notes) == (0, 0, 0)
