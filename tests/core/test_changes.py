from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import EPOCH, KEY, LOGIN, REFUSING, World, session, token
from unexpired._core import changes
from unexpired._core.effects import Revoke
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError


@pytest.mark.parametrize("before", [None, session(), session().over("logout", EPOCH)])
def test_a_login_replaces_whatever_was_there(before: Any) -> None:
    """A login is stored over nothing, over another login and over an ended one, without a lease."""
    world = World(before)
    begun = world.login(Token("AT-9", refresh_token="RT-9"))
    assert world.record is begun
    assert (begun.login, begun.version, begun.refresh_token) == ("login-2", 1, "RT-9")
    assert begun.tokens[None].minted == 1
    assert world.counts["Lease"] == 0


def test_a_login_may_bring_only_a_refresh_token() -> None:
    """Seeding with a refresh token alone makes a session without an access token."""
    world = World(None)
    begun = world.login("RT-9")
    assert (begun.version, begun.refresh_token, dict(begun.tokens)) == (1, "RT-9", {})


def test_a_login_is_fenced_too() -> None:
    """A record that changes between the look and the swap is looked at again."""
    world = World(session())
    world.before("Swap", 1, world.others_refresh)
    assert world.login("RT-9") is world.record
    assert world.counts["Swap"] == 2


def test_a_record_that_cannot_be_read_is_set_aside_by_a_login() -> None:
    """A damaged record is moved out of the way, not destroyed, and the login is stored."""
    world = World(None)
    world.refuse("Load", 1)
    assert world.login("RT-9") is world.record
    assert world.names == ["Load", "SetAside", "Load", "Swap"]


def test_a_login_says_what_the_store_says_when_nothing_was_set_aside() -> None:
    """A record that is refused again, with the same words, was not set aside: those words reach the caller."""
    world = World(session())
    world.refuse("Load", 1, 2)
    with pytest.raises(StoreError) as caught:
        world.login("RT-9")
    assert str(caught.value) == REFUSING
    assert world.names == ["Load", "SetAside", "Load"]


def test_a_login_sets_aside_after_another_trouble() -> None:
    """Two different refusals are two troubles: the second is set aside as well, and the login is stored."""
    world = World(None)
    world.refuse("Load", 1)
    world.faults["Load", 2] = StoreError("another trouble")
    assert world.login("RT-9") is world.record
    assert world.names == ["Load", "SetAside", "Load", "SetAside", "Load", "Swap"]


def test_a_logout_ends_the_record_and_then_revokes() -> None:
    """The ended record is stored first and holds no token; then what was stored is revoked (RFC 7009)."""
    world = World(session())
    done = world.drive(changes.logout(KEY))
    assert done is not None
    over, revoked = done
    assert world.record is over
    assert over.ended is not None
    assert (over.ended.reason, over.version, over.login, revoked) == ("logout", 2, LOGIN, True)
    assert (over.refresh_token, dict(over.tokens)) == (None, {})
    assert world.names == ["Load", "Swap", "Revoke"]
    (revocation,) = [effect for effect in world.trace if isinstance(effect, Revoke)]
    assert revocation.session.refresh_token == "RT-1"
    world = World(session(), revokes=False)
    failed = world.drive(changes.logout(KEY))
    assert failed is not None
    assert failed[1] is False


@pytest.mark.parametrize("record", [None, session().over("refused", EPOCH)])
def test_logging_out_twice_does_nothing(record: Any) -> None:
    """Without a login there is nothing to end or revoke."""
    world = World(record)
    assert world.drive(changes.logout(KEY)) is None
    assert world.names == ["Load"]


def test_a_logout_ends_the_version_that_came_meanwhile() -> None:
    """A refresh that is stored between look and swap is logged out, and revoked, like any other (scenario 61)."""
    world = World(session())
    world.before("Swap", 1, world.others_refresh)
    assert world.drive(changes.logout(KEY)) is not None
    assert world.stored.version == 3
    assert world.stored.ended is not None


def test_an_end_is_for_the_current_token_only() -> None:
    """The API's word ends the session when the token it was said about is the current one."""
    world = World(session())
    over, ended = world.drive(changes.end(KEY, world.stored.tokens[None], "login_required"))
    assert ended
    assert over is world.record
    assert world.stored.ended is not None
    assert world.stored.ended.reason == "login_required"
    assert world.counts["Revoke"] == 0


@pytest.mark.parametrize("other", ["refreshed", "logged in", "logged out", "gone", "another resource", "foreign"])
def test_a_late_word_ends_nothing(other: str) -> None:
    """Said about an older, another login's or an unknown token it changes nothing."""
    world = World(session())
    carried = world.stored.tokens[None]
    if other == "refreshed":
        world.others_refresh()
    elif other == "logged in":
        world.others_log_in()
    elif other == "logged out":
        world.others_log_out()
    elif other == "gone":
        world.record = None
    elif other == "another resource":
        carried = token("AT-a", resource="a", login=LOGIN, minted=1)
    else:
        carried = token("AT-x")
    before = world.record
    assert world.drive(changes.end(KEY, carried, "login_required")) == (before, False)
    assert world.record is before


def test_an_end_that_meets_a_newer_version_ends_nothing() -> None:
    """A refresh that is stored between look and swap is not deleted."""
    world = World(session())
    carried = world.stored.tokens[None]
    world.before("Swap", 1, world.others_refresh)
    assert world.drive(changes.end(KEY, carried, "login_required")) == (world.record, False)
    assert world.stored.ended is None


def test_a_record_that_never_holds_still_is_an_error() -> None:
    """Each change gives up with a StoreError, after many tries, and says which one it was."""
    carried = session().tokens[None]
    flows: list[tuple[Any, str]] = [
        (changes.login(KEY, "new", "RT-9"), "login"),
        (changes.logout(KEY), "logout"),
        (changes.end(KEY, carried, "login_required"), "end"),
    ]
    for flow, word in flows:
        world = World(session())
        world._swap = lambda _: False  # type: ignore[assignment, method-assign]
        with pytest.raises(StoreError, match=f"the {word} of .*kept changing") as caught:
            world.drive(flow)
        assert caught.value.key == KEY


def test_a_seed_is_stored_once() -> None:
    """The answer that began a session is not stored again over what became of it; another one is."""
    world = World()
    first = token("AT-1")
    begun = world.drive(changes.login(KEY, "login-1", first, "seed-1", once=True))
    world.others_refresh()
    assert world.drive(changes.login(KEY, "login-2", first, "seed-1", once=True)) is world.record
    assert world.stored.login == begun.login
    world.others_log_out()
    assert world.drive(changes.login(KEY, "login-3", first, "seed-1", once=True)).ended is not None
    assert world.drive(changes.login(KEY, "login-4", token("AT-9"), "seed-9", once=True)).login == "login-4"


def test_of_many_processes_with_one_seed_one_begins_the_session() -> None:
    """Who finds the same seed stored at the moment of storing takes that session."""
    world = World()
    other = Session.begin(KEY, "login-1", token("AT-1")).grown_from("seed-1", None)
    world.before("Swap", 1, lambda: setattr(world, "record", other))
    assert world.drive(changes.login(KEY, "login-2", token("AT-1"), "seed-1", once=True)) is other


def test_a_login_replaces_even_what_the_same_answer_began() -> None:
    """`login` means it: a login handler that stores the same answer twice gets a new session."""
    world = World()
    world.drive(changes.login(KEY, "login-1", token("AT-1"), "seed-1"))
    assert world.drive(changes.login(KEY, "login-2", token("AT-1"), "seed-1")).login == "login-2"


def test_a_login_in_between_is_not_undone_by_an_older_seed() -> None:
    """A program that seeds at each start, and logs in for real one day, keeps the real login; so many are known."""
    world = World()
    world.drive(changes.login(KEY, "login-1", token("AT-1"), "seed-1", once=True))
    for number in range(2, 9):
        world.drive(changes.login(KEY, f"login-{number}", token(f"AT-{number}"), f"seed-{number}"))
    assert world.drive(changes.login(KEY, "login-x", token("AT-1"), "seed-1", once=True)).login == "login-8"
    assert len(world.stored.seeds) == 8
    assert world.drive(changes.login(KEY, "login-9", token("AT-9"), "seed-9")).seeds[-1] == "seed-2"
