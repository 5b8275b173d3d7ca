"""The authorization server's state machine, with a clock in the test's hand."""

from __future__ import annotations

import base64
import itertools
import json
from typing import Any

import pytest

from unexpired.testing import ServerConfig
from unexpired.testing.server import AuthorizationServer, Minted


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.time = 1_000_000.0

    def __call__(self) -> float:
        """Tell the time."""
        return self.time


@pytest.fixture
def clock() -> Clock:
    """Give a clock that stands still."""
    return Clock()


def make(clock: Clock, **settings: Any) -> AuthorizationServer:
    """Make a server with *settings* that numbers its tokens."""
    numbers = itertools.count(1)
    return AuthorizationServer(ServerConfig(**settings), now=clock, text=lambda: str(next(numbers)))


def refresh_token(minted: Minted | None) -> str:
    """Take the refresh token of a pair that has one."""
    assert minted is not None
    assert minted.refresh_token is not None
    return minted.refresh_token


def good(server: AuthorizationServer, minted: Minted | None) -> bool:
    """Tell whether the API would take the access token."""
    assert minted is not None
    record = server.find(minted.access_token)
    return record is not None and server.is_good(record)


def claims(token: object) -> dict[str, Any]:
    """Read the claims of an unsigned JWT."""
    assert isinstance(token, str)
    part = token.split(".")[1]
    found: dict[str, Any] = json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))
    return found


def test_rotation(clock: Clock) -> None:
    """A redemption answers a new pair, and the new refresh token is the one to redeem next (RFC 6749 §6)."""
    server = make(clock)
    first = server.login()
    second = server.redeem(refresh_token(first))
    third = server.redeem(refresh_token(second.minted))
    assert (second.outcome, third.outcome) == ("rotated", "rotated")
    assert len({refresh_token(each) for each in (first, second.minted, third.minted)}) == 3
    assert server.refreshes == 2
    assert (server.reuse_detected, server.families_revoked) == (0, 0)


def test_reuse_revokes_the_login(clock: Clock) -> None:
    """A used refresh token is a reuse: its login ends, with all of its tokens (RFC 9700 §4.14.2)."""
    server = make(clock)
    first = server.login()
    second = server.redeem(refresh_token(first)).minted
    assert server.redeem(refresh_token(first)).outcome == "reuse"
    assert (server.reuse_detected, server.families_revoked) == (1, 1)
    assert not good(server, second)
    assert server.redeem(refresh_token(second)).outcome == "revoked"
    assert server.reuse_detected == 1


def test_reuse_is_counted_for_each_straggler(clock: Clock) -> None:
    """Fifty redemptions of one refresh token are one refresh, 49 reuses and one revoked login."""
    server = make(clock)
    token = refresh_token(server.login())
    outcomes = [server.redeem(token).outcome for _ in range(50)]
    assert outcomes == ["rotated"] + ["reuse"] * 49
    assert (server.refreshes, server.reuse_detected, server.families_revoked) == (1, 49, 1)


def test_reuse_leaves_other_logins_alone(clock: Clock) -> None:
    """A reuse in one login changes nothing for another, of the same person too."""
    server = make(clock)
    mine, other = server.login(), server.login()
    server.redeem(refresh_token(mine))
    server.redeem(refresh_token(mine))
    assert good(server, other)
    assert server.redeem(refresh_token(other)).outcome == "rotated"


def test_reuse_without_revocation(clock: Clock) -> None:
    """Without `revoke_on_reuse` a used refresh token is refused and its login lives on."""
    server = make(clock, revoke_on_reuse=False)
    first = server.login()
    second = server.redeem(refresh_token(first)).minted
    assert server.redeem(refresh_token(first)).outcome == "reuse"
    assert good(server, second)
    assert server.families_revoked == 0


def test_unknown_and_foreign_tokens(clock: Clock) -> None:
    """A refresh token that was never minted, or is another client's, is refused and ends nothing."""
    server = make(clock)
    bound = server.login(client_id="crm")
    assert server.redeem("rt-made-up").outcome == "unknown"
    assert server.redeem(refresh_token(bound), "public").outcome == "wrong_client"
    assert server.redeem(refresh_token(bound), "crm").outcome == "rotated"
    assert server.families_revoked == 0


def test_grace_answers_the_same_successor(clock: Clock) -> None:
    """Within the grace the previous refresh token gets the very same answer, after it it is a reuse."""
    server = make(clock, grace=10)
    token = refresh_token(server.login())
    answer = server.redeem(token).minted
    clock.time += 9.9
    again = server.redeem(token)
    assert (again.outcome, again.minted) == ("grace", answer)
    clock.time += 0.1
    assert server.redeem(token).outcome == "reuse"
    assert not good(server, answer)


def test_grace_covers_one_generation(clock: Clock) -> None:
    """A refresh token whose successor was redeemed is a reuse, also within the grace."""
    server = make(clock, grace=10)
    token = refresh_token(server.login())
    server.redeem(refresh_token(server.redeem(token).minted))
    assert server.redeem(token).outcome == "reuse"


def test_grace_may_fork(clock: Clock) -> None:
    """With `grace_answer="new"` the previous refresh token gets another child, and both children are good."""
    server = make(clock, grace=10, grace_answer="new")
    token = refresh_token(server.login())
    first, second = server.redeem(token).minted, server.redeem(token).minted
    assert first != second
    assert good(server, first)
    assert good(server, second)
    assert server.redeem(refresh_token(second)).outcome == "rotated"


def test_previous_until_used(clock: Clock) -> None:
    """With `previous_until_used` a lost answer can be asked for again until its token is used at the API."""
    server = make(clock, previous_until_used=True)
    first = server.login()
    server.used(first.access_token)
    token = refresh_token(first)
    server.redeem(token)
    clock.time += 86400
    again = server.redeem(token)
    assert again.outcome == "grace"
    assert again.minted is not None
    server.used(first.access_token)
    assert server.redeem(token).outcome == "grace"
    server.used(again.minted.access_token)
    assert server.redeem(token).outcome == "reuse"


def test_previous_until_the_successor_is_redeemed(clock: Clock) -> None:
    """Redeeming the successor spends the previous refresh token as well."""
    server = make(clock, previous_until_used=True)
    token = refresh_token(server.login())
    server.redeem(refresh_token(server.redeem(token).minted))
    assert server.redeem(token).outcome == "reuse"


@pytest.mark.parametrize(("setting", "stated"), [({"rotate": False}, True), ({"omit_refresh_token": True}, False)])
def test_without_rotation(clock: Clock, setting: dict[str, bool], stated: bool) -> None:
    """Without rotation one refresh token is good again and again, whether the answer repeats it or not."""
    server = make(clock, **setting)
    token = refresh_token(server.login())
    for _ in range(3):
        minted = server.redeem(token).minted
        assert minted is not None
        assert minted.refresh_token == (token if stated else None)
        assert ("refresh_token" in server.answer(minted)) == stated
        assert good(server, minted)


def test_access_lifetime(clock: Clock) -> None:
    """The server takes an access token for its lifetime, whatever the answer says."""
    server = make(clock, access_lifetime=60, expires_in=9999)
    minted = server.login()
    assert server.answer(minted)["expires_in"] == 9999
    clock.time += 59.9
    assert good(server, minted)
    clock.time += 0.1
    assert not good(server, minted)


@pytest.mark.parametrize(
    ("settings", "stated"),
    [
        ({}, 3600),
        ({"access_lifetime": 0.5}, 0.5),
        ({"expires_in": "900"}, "900"),
        ({"omit_expires_in": True}, None),
    ],
)
def test_expires_in(clock: Clock, settings: dict[str, Any], stated: object) -> None:
    """`expires_in` is a number, a string or left out, as configured (RFC 6749 §5.1 and what servers do)."""
    server = make(clock, **settings)
    assert server.answer(server.login()).get("expires_in") == stated


@pytest.mark.parametrize("kill", [True, False])
def test_a_refresh_may_kill_the_old_access_token(clock: Clock, kill: bool) -> None:
    """With `kill_old_access_token_on_refresh` a refresh ends the earlier access token, else it lives on."""
    server = make(clock, kill_old_access_token_on_refresh=kill)
    first = server.login()
    second = server.redeem(refresh_token(first)).minted
    assert good(server, first) is not kill
    assert good(server, second)


def test_expire(clock: Clock) -> None:
    """Expiring by hand kills one login's access tokens, or all, and leaves the refresh tokens good."""
    server = make(clock)
    first, second = server.login(), server.login()
    assert server.expire(refresh_token(first))
    assert (good(server, first), good(server, second)) == (False, True)
    server.expire_all()
    assert not good(server, second)
    assert good(server, server.redeem(refresh_token(second)).minted)
    assert not server.expire("made-up")


def test_revoke(clock: Clock) -> None:
    """Revoking either token of a login ends the whole login, once (RFC 7009 §2.1)."""
    server = make(clock)
    first, second = server.login(), server.login()
    assert server.revoke(first.access_token)
    assert server.revoke(refresh_token(second))
    assert not server.revoke(refresh_token(second))
    assert not server.revoke("made-up")
    assert not good(server, first)
    assert server.redeem(refresh_token(second)).outcome == "revoked"
    assert server.families_revoked == 2
    server.revoke_all()
    assert server.families_revoked == 2


def test_single_token(clock: Clock) -> None:
    """A single-token login redeems its access token, also an expired one, and rotates like any other."""
    server = make(clock, access_lifetime=1)
    first = server.login(single=True)
    assert first.access_token == first.refresh_token
    clock.time += 5
    second = server.redeem(first.access_token).minted
    assert second is not None
    assert second.access_token == second.refresh_token
    assert server.redeem(first.access_token).outcome == "reuse"


def test_scope(clock: Clock) -> None:
    """The answer states the login's scope, the server's usual one without, or none."""
    server = make(clock)
    assert server.answer(server.login(scope="read"))["scope"] == "read"
    assert server.answer(server.login())["scope"] == "api"
    assert "scope" not in (quiet := make(clock, scope=None)).answer(quiet.login())


def test_id_token(clock: Clock) -> None:
    """With `id_token` the answer has one of JWT shape, told on the server's own clock."""
    server = make(clock, id_token=True, clock_offset=600, access_lifetime=60)
    answer = server.answer(server.login(subject="bob", client_id="crm"))
    found = claims(answer["id_token"])
    assert (found["sub"], found["aud"], found["iat"], found["exp"]) == ("bob", "crm", 1_000_600, 1_000_660)


def test_jwt_access_token(clock: Clock) -> None:
    """With `jwt_access_token` access tokens are JWTs with an `exp`, and good ones."""
    server = make(clock, jwt_access_token=True, access_lifetime=60)
    first, second = server.login(), server.login()
    assert claims(first.access_token)["exp"] == 1_000_060
    assert first.access_token != second.access_token
    assert good(server, first)


def test_no_secret_in_repr(clock: Clock) -> None:
    """Neither records nor settings show a token, a secret or a password in their `repr`."""
    server = make(clock, grace=10)
    first = server.login()
    second = server.redeem(refresh_token(first))
    shown = repr([server.config, first, first.login, second, server.find(first.access_token)])
    assert "at-" not in shown
    assert "rt-" not in shown
    assert "crm-secret" not in shown
    assert "wonderland" not in shown


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"no_such": 1}, "no_such"),
        ({"grace": "long"}, "grace"),
        ({"rotate": 1}, "rotate"),
        ({"refresh_latency": True}, "refresh_latency"),
        ({"access_lifetime": -1}, "access_lifetime"),
        ({"grace_answer": "other"}, "grace_answer"),
        ({"refusal_status": 200}, "refusal_status"),
        ({"client_auth": ["private_key_jwt"]}, "client_auth"),
    ],
)
def test_wrong_settings(changes: dict[str, object], named: str) -> None:
    """A setting that makes no sense is refused with a sentence that names it."""
    with pytest.raises(ValueError, match=named):
        ServerConfig().changed(changes)


def test_settings_survive_json() -> None:
    """What `to_json` gives makes an equal record again."""
    config = ServerConfig(clients={"one": None}, client_auth=("none",), expires_in="60", expired_code="40009")
    again = ServerConfig().changed(json.loads(json.dumps(config.to_json())))
    assert again == config
