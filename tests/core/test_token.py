from __future__ import annotations

import base64
import json
import math
import time
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unexpired._core.token import LONGEST_LIFETIME, Token, is_credential

NOW = 1_700_000_000.0


def read(server_time: float | None = None, **more: Any) -> Token:
    """A token out of an answer with these members."""
    return Token.from_response({"access_token": "AT-1", **more}, now=NOW, server_time=server_time)


def jwt(**claims: Any) -> str:
    """An access token that is a JWT."""
    return f"e30.{base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip('=')}.x"


@pytest.mark.parametrize(
    ("expires_in", "lifetime"),
    [(3600, 3600.0), ("3600", 3600.0), (" 60 ", 60.0), (59.5, 59.5), ("1e3", 1000.0), (-5, -5.0), ("-5", -5.0),
     (10**400, None), (10**30, LONGEST_LIFETIME), ("1e300", LONGEST_LIFETIME),
     (0, None), ("0", None), (0.0, None), (None, None), (True, None), (False, None), ("", None), ("soon", None),
     ("inf", None), (math.inf, None), (-math.inf, None), (math.nan, None), ("nan", None), ([3600], None), ({}, None)],
)  # fmt: skip
def test_a_lifetime_is_read_from_whatever_servers_send(expires_in: object, lifetime: float | None) -> None:
    """`expires_in` counts as number or numeric string; zero, nonsense and infinity name no lifetime."""
    token = read(expires_in=expires_in)
    assert token.lifetime == lifetime
    assert token.expires_at == (None if lifetime is None else NOW + lifetime)


@pytest.mark.parametrize(
    ("expires_at", "moment"),
    [(NOW + 60, NOW + 60), (str(int(NOW + 60)), NOW + 60), ((NOW + 60) * 1000, NOW + 60),
     ("2023-11-14T22:14:20Z", NOW + 60),
     ("2023-11-14T23:14:20+01:00", NOW + 60), (" 2023-11-14 22:14:20 ", NOW + 60), (NOW - 60, NOW - 60),
     ("9999-12-31T23:59:59Z", NOW + LONGEST_LIFETIME), (253402300799, NOW + LONGEST_LIFETIME),
     ("9999-12-31T23:59:59-23:00", NOW + LONGEST_LIFETIME), (1e300, NOW + LONGEST_LIFETIME),
     ("never", None), (0, None), ("", None), (None, None), (True, None), (math.nan, None), ("inf", None), ([], None)],
)  # fmt: skip
def test_an_absolute_expiry_is_unix_time_milliseconds_or_iso_8601(expires_at: object, moment: float | None) -> None:
    """`expires_at` counts when there is no `expires_in`, up to the year 9999 that some servers mean "never" by."""
    token = read(expires_at=expires_at)
    assert token.expires_at == (None if moment is None else pytest.approx(moment, abs=0.01))
    assert (token.lifetime is None) == (moment is None)


@pytest.mark.parametrize(
    ("exp", "moment"),
    [(NOW + 60, NOW + 60), (str(NOW + 60), NOW + 60), ("x", None), (None, None), (True, None), ([1], None)],
)
def test_the_exp_claim_of_a_jwt_is_the_last_resort(exp: object, moment: float | None) -> None:
    """Without any other word on it the expiry is that of the access token itself (RFC 7519 §4.1.4)."""
    for more in ({}, {"expires_at": 0}, {"expires_in": 0}, {"expires_at": "never"}):
        assert read(access_token=jwt(exp=exp), **more).expires_at == moment
    assert read(access_token=jwt(exp=exp), expires_at=NOW + 9).expires_at == NOW + 9
    assert read(access_token=jwt(exp=exp), expires_in=7).expires_at == NOW + 7


@pytest.mark.parametrize("text", ["a.b", "a.b.c.d", "a.!.c", "a.é.c", "a..c", "e30.W10.x", "e30.IjEi.x", "a.____.c"])
def test_what_only_looks_like_a_jwt_names_no_expiry(text: str) -> None:
    """An opaque token with dots in it is no JWT and no error."""
    assert read(access_token=text).expires_at is None


def test_a_jwt_nested_beyond_reason_is_no_error() -> None:
    """A payload made to exhaust the parser counts as none."""
    payload = base64.urlsafe_b64encode(b"[" * 100_000).decode()
    assert read(access_token=f"e30.{payload}.x").expires_at is None


@pytest.mark.parametrize(
    ("skew", "corrected"), [(600.0, True), (-600.0, True), (4.0, False), (-4.0, False), (0.0, False)]
)
def test_absolute_times_are_corrected_by_the_servers_clock(skew: float, corrected: bool) -> None:
    """Ten minutes of difference to the server's `Date` are taken out, a slow answer's seconds are not (scenario 64)."""
    expected = NOW + 300 - (skew if corrected else 0.0)
    token = read(server_time=NOW + skew, expires_at=NOW + 300)
    assert token.expires_at == expected
    assert token.lifetime == expected - NOW
    assert read(server_time=NOW + skew, expires_in=300).expires_at == NOW + 300


@given(st.floats(1.0, 1e7), st.floats(0.0, 1e4))
def test_leeway_takes_at_most_a_tenth_of_the_life(lifetime: float, leeway: float) -> None:
    """A token counts as expired *leeway* early, or 10 % of its lifetime if that is less (scenario 66)."""
    token = read(expires_in=lifetime)
    margin = token.margin(leeway)
    assert margin == min(leeway, lifetime * 0.1)
    expires_at = token.expires_at
    assert expires_at is not None
    assert token.expired(expires_at - margin, leeway)
    assert not token.expired(expires_at - margin - max(0.01, lifetime * 1e-6), leeway)
    assert token.expired(expires_at)


def test_margins_of_odd_lifetimes() -> None:
    """Without a lifetime the whole leeway counts; a negative lifetime leaves none; no expiry never expires."""
    assert Token("AT", expires_at=NOW).margin(30.0) == 30.0
    assert Token("AT", expires_at=NOW, lifetime=-5.0).margin(30.0) == 0.0
    assert Token("AT", lifetime=100.0).margin(300.0, 0.25) == 25.0
    assert not Token("AT").expired(1e300, 1e300)


@pytest.mark.parametrize(
    ("change", "later", "newer"),
    [
        ({"minted": 2, "access_token": "AT-2"}, True, True),
        ({"minted": 2}, True, False),
        ({"access_token": "AT-2"}, False, False),
        ({"minted": 0, "access_token": "AT-2"}, False, False),
        ({"login": "other", "minted": 0, "access_token": "AT-2"}, True, True),
        ({"login": "other"}, True, False),
        ({"minted": 2, "access_token": "AT-2", "resource": "a"}, True, False),
        ({}, False, False),
    ],
)
def test_what_newer_means(change: dict[str, Any], later: bool, newer: bool) -> None:
    """Newer: same resource, another login or a larger version, and a different string; no clock is asked."""
    old = Token("AT-1", login="login-1", minted=1, expires_at=NOW)
    new = replace(old, **change)
    assert new.later_than(old) is later
    assert new.newer_than(old) is newer


@pytest.mark.parametrize(
    "value",
    [
        "AT\r\nX: y",
        "AT\n",
        "\x00",
        "AT\x7f",
        "AT\x85",
        "AT\u2028",
        "AT\ud800",
        "",
        " ",
        "\u3000",
        None,
        7,
        ["AT"],
        b"AT",
        True,
    ],
)
def test_what_could_break_a_header_is_no_token(value: object) -> None:
    """An access token with control characters or without characters is refused, and the message does not quote it."""
    assert not is_credential(value)
    with pytest.raises(ValueError, match=r"^the answer has no usable access_token$"):
        read(access_token=value)
    assert read(refresh_token=value).refresh_token is None


def test_an_answer_without_a_token_is_refused() -> None:
    """200 without `access_token` is no token (scenario 54)."""
    with pytest.raises(ValueError, match="no usable access_token"):
        Token.from_response({"error": "x"}, now=NOW)


def test_all_members_of_an_answer_find_their_place() -> None:
    """Known members become fields, the others are kept in `extra`, and wrong types are left out."""
    token = read(token_type="DPoP", scope="a b", refresh_token="RT-1", id_token="ID-1", expires_in=5, shop=7)
    assert (token.token_type, token.scope, token.refresh_token, token.id_token) == ("DPoP", "a b", "RT-1", "ID-1")
    assert dict(token.extra) == {"shop": 7}
    odd = read(token_type=None, scope=["a"], id_token="")
    assert (odd.token_type, odd.scope, odd.id_token, dict(odd.extra)) == ("Bearer", None, None, {})


def test_now_is_the_present_moment_by_default() -> None:
    """People who seed a token need not say what time it is."""
    before = time.time()
    expires_at = Token.from_response({"access_token": "AT", "expires_in": 60}).expires_at
    assert expires_at is not None
    assert before + 60 <= expires_at <= time.time() + 60


def test_a_token_is_frozen_and_shows_no_secret() -> None:
    """Tokens are shared between threads, and printed by accident."""
    secrets: dict[str, Any] = {"refresh_token": "RT-s3cret", "id_token": "ID-s3cret", "login": "l-s3cret"}
    token = Token("AT-s3cret", extra={"k": "x-s3cret"}, **secrets)
    assert "s3cret" not in repr(token) + str(token)
    with pytest.raises((FrozenInstanceError, TypeError)):
        token.access_token = "other"  # type: ignore[misc]
    with pytest.raises(TypeError):
        read(shop=7).extra["shop"] = 8  # type: ignore[index]


def test_claims_come_from_the_id_token() -> None:
    """The claims of the id token are readable, those of anything else are none."""
    assert read(id_token=jwt(sub="alice")).claims() == {"sub": "alice"}
    assert read().claims() == {}


NAMES = ["expires_in", "expires_at", "scope", "token_type", "refresh_token", "id_token", "x"]


@given(st.dictionaries(st.sampled_from(NAMES),
                       st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())),
       st.text(), st.none() | st.floats(0, 1e11))  # fmt: skip
def test_any_answer_is_read_or_refused(answer: dict[str, Any], access_token: str, server_time: float | None) -> None:
    """Whatever a server sends is a token with a finite expiry or none, or a ValueError."""
    try:
        token = Token.from_response({**answer, "access_token": access_token}, now=NOW, server_time=server_time)
    except ValueError:
        assert not is_credential(access_token)
        return
    assert (token.expires_at is None) == (token.lifetime is None)
    assert token.expires_at is None or math.isfinite(token.expires_at)
    assert token.lifetime is None or token.lifetime <= LONGEST_LIFETIME


def test_an_expiry_that_is_no_number_is_as_good_as_none() -> None:
    """A token with an infinite or undefined expiry, made by hand, can be stored: its lifetime is unknown."""
    for odd in (float("inf"), float("nan")):
        made = Token("AT", expires_at=odd, lifetime=odd)
        assert (made.with_lifetime(None, 100.0).expires_at, made.with_lifetime(None, 100.0).lifetime) == (None, None)
        assert made.with_lifetime(60.0, 100.0).expires_at == 160.0
    known = Token("AT", expires_at=5.0, lifetime=7.0)
    assert known.with_lifetime(60.0, 100.0) is known


def test_a_lifetime_follows_from_an_expiry() -> None:
    """A token made by hand with an expiry only gets its lifetime, so short ones last (scenario 66)."""
    assert Token("AT", expires_at=115.0).with_lifetime(None, 100.0).lifetime == 15.0
