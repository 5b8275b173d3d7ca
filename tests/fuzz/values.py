"""Odd values for Hypothesis: what a server, a file or a program of the user's own might really hold."""

from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any, get_args

from hypothesis import strategies as st

from tests.core.harness import KEY
from unexpired._core.session import Ended, Failure, FailureKind, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    GrantError,
    LoginRequired,
    NotSent,
    Refused,
    UnexpiredError,
)

__all__ = ["answers", "bodies", "damaged", "headers", "jsons", "nested", "objects", "sayings", "sessions", "texts"]

texts = st.text(st.characters() | st.sampled_from("\ud800\udfff\x00\u2028\r\n"))
finite = st.floats(allow_nan=False, allow_infinity=False)
numbers = st.integers() | st.floats() | st.sampled_from([10**400, -(10**400), 2**63, 1e308, -1e308, 1e12, 0, -0.0])
scalars = st.none() | st.booleans() | numbers | texts
jsons = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3), max_leaves=6
)
nested = st.builds(
    lambda depth, pair: pair[0] * depth + pair[1] * depth,
    st.sampled_from([1, 5, 100, 500, 5_000]),
    st.sampled_from([("[", "]"), ('{"a":', "}"), ("[", ""), ('{"a":[', "]}")]),
)

_DATES = st.sampled_from(
    ["2030-01-01", "2030-01-01T00:00:00Z", "9999-12-31T23:59:59-23:59", "0001-01-01", "1e3", " 5 "]
)
_JWTS = st.sampled_from(
    ["e30.e30.", "e30.W10.", "a.b.c", "e30.eyJleHAiOjFlNDAwfQ.", "e30.eyJzdWIiOiJib2IifQ.", "..", "."]
)
_LIKELY: dict[str, st.SearchStrategy[Any]] = {
    "access_token": st.sampled_from(["AT-2", "", " AT", "AT\n"]) | _JWTS | jsons,
    "refresh_token": st.sampled_from(["RT-2", "RT-2", "", " RT ", "RT\r\nX: y"]) | jsons,
    "expires_in": numbers | _DATES | numbers.map(str) | jsons,
    "expires_at": numbers | _DATES | jsons,
    "token_type": st.sampled_from(["Bearer", "DPoP", ""]) | jsons,
    "scope": jsons,
    "id_token": _JWTS | jsons,
    "error": st.sampled_from(["invalid_grant", "invalid_client", "server_error", "Bad Request"]) | jsons,
    "error_description": texts,
    "data": st.fixed_dictionaries({}, optional={"Token": jsons, "t": jsons}) | jsons,
}
answers = st.one_of(
    st.fixed_dictionaries(
        {"access_token": st.just("AT-2")}, optional={k: v for k, v in _LIKELY.items() if k[0] != "a"}
    ),
    st.fixed_dictionaries({}, optional=_LIKELY),
    st.dictionaries(texts, jsons, max_size=4),
)


def _written(document: Any, *, ascii_only: bool, encoding: str) -> bytes:
    return json.dumps(document, ensure_ascii=ascii_only).encode(encoding, "surrogatepass")


_ENCODINGS = st.sampled_from(["utf-8", "utf-8", "utf-8", "utf-16", "utf-32-le", "utf-8-sig"])
_whole = st.builds(
    lambda document, ascii_only, encoding: _written(document, ascii_only=ascii_only, encoding=encoding),
    answers | jsons,
    st.booleans(),
    _ENCODINGS,
)
_FORMS = st.sampled_from([b"access_token=AT-2&expires_in=5", b"error=invalid_grant", b"&" * 500, b"%ff=%00"])


@st.composite
def damaged(draw: st.DrawFn, whole: st.SearchStrategy[bytes]) -> bytes:
    """Bytes that were whole once: cut short, with bits flipped, pieces put in, cut out or said twice."""
    data = bytearray(draw(whole))
    for _ in range(draw(st.integers(1, 3))):
        start = draw(st.integers(0, len(data)))
        how = draw(st.sampled_from(["cut", "flip", "put", "out", "twice"]))
        if how == "cut":
            del data[start:]
        elif how == "flip" and start < len(data):
            data[start] ^= 1 << draw(st.integers(0, 7))
        elif how == "put":
            data[start:start] = draw(st.binary(max_size=4) | st.sampled_from(_PIECES))
        else:
            piece = data[start : start + draw(st.integers(1, 20))]
            data[start : start + len(piece)] = b"" if how == "out" else piece * 2
    return bytes(data)


_PIECES = [b"null", b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b"[" * 3000, b'"\\ud800"', b"true", b"-1", b"{}", b","]
bodies = st.one_of(_whole, damaged(_whole), _FORMS, nested.map(str.encode), st.binary(max_size=80))

_HEADER_TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=40)
MOMENTS = st.one_of(
    numbers.map(str),
    _HEADER_TEXT,
    st.sampled_from(
        ["120", "-1", "1e9", "nan", "inf", "1_0", "\u0663", "9" * 400, "Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct",
         "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Wed, 21 Oct 99999 07:28:00 GMT", "0 0 0 0 0",
         "Wed, 31 Feb 2015 25:61:61 +9999", "Wed, 21 Oct 2015 07:28:00 -99999999999999999999", "1 Jan 1 0:0 +2359"]
    ),
)  # fmt: skip
headers = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from(["application/json", "application/x-www-form-urlencoded", "text/html", ""]),
        "content-encoding": st.sampled_from(["gzip", "deflate", "identity", "br", "gzip, gzip", "x"]),
        "retry-after": MOMENTS,
        "date": MOMENTS,
        "location": _HEADER_TEXT | st.sampled_from(["https://[x/", "//a:99999999/", "https://u:p@h.test/?q", "\\"]),
        "set-cookie": _HEADER_TEXT | st.sampled_from(["a=b; expires=Wed, 99 Foo 9999", "a=b; max-age=x; domain=."]),
    },
)


def _unsound(**fields: Any) -> Token:
    return Token(**fields)


sayings: st.SearchStrategy[object] = st.one_of(
    answers,
    jsons,
    st.builds(
        _unsound, access_token=jsons, token_type=jsons, expires_at=jsons, lifetime=jsons, refresh_token=jsons,
        scope=jsons, id_token=_JWTS | jsons, resource=jsons, extra=jsons, login=jsons, minted=jsons,
    ),
    st.builds(Refused, texts, error=st.none() | texts | st.sampled_from(["invalid_grant", "server_error"])),
    st.builds(NotSent, texts, retry_after=st.none() | st.floats() | st.integers(), connecting=st.booleans()),
    st.builds(AnswerLost, texts, refresh_token=st.none() | st.sampled_from(["RT-2", ""])),
    st.builds(LoginRequired, texts, reason=st.sampled_from(["gone", "no_refresh_token"])),
    st.builds(lambda kind, text: kind(text), st.sampled_from([ConfigurationError, GrantError, UnexpiredError]), texts),
)  # fmt: skip
"""What a grant may bring: answers, tokens made by hand, errors."""

objects = st.sampled_from(
    [object(), b"x", 1.5j, math, {1}, (("access_token", "AT-2"),), {1: 2, "access_token": "AT-2"}]
)

_whole_numbers = st.integers(0, 2**70)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Any session that could be stored."""
    login, maybe = draw(texts), st.none() | texts
    resources = draw(st.sets(st.none() | texts.filter(bool), max_size=3))
    extra = st.dictionaries(texts, jsons, max_size=2).map(MappingProxyType)
    held = {
        resource: Token(
            draw(texts), draw(texts), draw(st.none() | finite), draw(st.none() | finite), draw(maybe), draw(maybe),
            draw(maybe), draw(extra), resource, login, draw(_whole_numbers),
        )
        for resource in resources
    }  # fmt: skip
    kinds = st.sampled_from(get_args(FailureKind))
    return Session(
        KEY, login, draw(_whole_numbers), draw(maybe), MappingProxyType(held),
        draw(st.none() | st.builds(Intent, texts, _whole_numbers, texts, _whole_numbers, finite)),
        draw(st.none() | st.builds(Failure, kinds, texts, finite, finite, _whole_numbers, _whole_numbers, finite)),
        draw(st.none() | st.builds(Ended, texts, finite)), tuple(draw(st.lists(texts, max_size=3))),
        draw(_whole_numbers),
    )  # fmt: skip
