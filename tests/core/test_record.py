from __future__ import annotations

import json
import math
from types import MappingProxyType
from typing import Any, get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.core.harness import EPOCH, KEY, LOGIN, intent, session, token
from unexpired._core.record import SCHEMA, decode, encode
from unexpired._core.session import Ended, Failure, FailureKind, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import StoreError

WHERE = "/data/alice.json"
FULL = session(
    token("AT-s3cret", refresh_token="RT-s3cret", id_token="ID-s3cret", scope="read", extra={"shop": [7, "s3cret"]}),
    token("AT-a", resource="https://a", expires_at=None, lifetime=None, refresh_token=None),
    intent=intent(),
    failure=Failure("unexplained", "HTTP 400", EPOCH, EPOCH + 1.0, 4, 2, EPOCH - 60.0),
)

# Surrogates by themselves: JSON takes two that follow each other for the one character they stand for.
text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from("\ud800\x00\u2028"))
number = st.floats(allow_nan=False, allow_infinity=False)
whole = st.integers(0, 2**63)
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=5,
)


@st.composite
def sessions(draw: st.DrawFn) -> Session:
    """Any session that could be stored."""
    login = draw(text)
    resources = draw(st.sets(st.none() | text.filter(bool), max_size=3))
    maybe = st.none() | text
    tokens: dict[str | None, Token] = {
        resource: Token(
            draw(text), draw(text), draw(st.none() | number), draw(st.none() | number), draw(maybe),
            draw(maybe), draw(maybe),
            MappingProxyType(draw(st.dictionaries(text, plain, max_size=3))), resource, login, draw(whole),
        )
        for resource in resources
    }  # fmt: skip
    kind = st.sampled_from(get_args(FailureKind))
    return Session(
        KEY, login, draw(whole), draw(maybe), MappingProxyType(tokens),
        draw(st.none() | st.builds(Intent, text, whole, text, whole, number)),
        draw(st.none() | st.builds(Failure, kind, text, number, number, whole, whole, number)),
        draw(st.none() | st.builds(Ended, text, number)),
    )  # fmt: skip


def _values(one: Session) -> list[Any]:
    tokens = {
        resource: [getattr(held, name) if name != "extra" else dict(held.extra) for name in Token.__slots__]
        for resource, held in one.tokens.items()
    }
    return [one.key, one.login, one.version, one.refresh_token, tokens, one.intent, one.failure, one.ended]


@given(sessions())
def test_every_session_comes_back_as_it_was_stored(one: Session) -> None:
    """What is encoded is decoded to the same values, text beyond ASCII and broken surrogates included."""
    assert _values(decode(encode(one), KEY, WHERE)) == _values(one)


def test_a_record_is_one_line_of_ascii_json() -> None:
    """Other tools can read it, and its first member says whose it is."""
    data = encode(FULL)
    assert data.isascii()
    assert b"\n" not in data
    assert data.startswith(b'{"unexpired":1,"key":"alice",')


def test_members_that_are_not_json_do_not_keep_a_login_from_being_stored() -> None:
    """A rotated refresh token is saved whatever else came with it: what is not JSON is left out (scenario 27)."""
    circle: list[Any] = []
    circle.append(circle)
    odd = {"nan": math.nan, "object": object(), "bytes": b"x", "circle": circle, ("a",): 1, "fine": {"n": [1, None]}}
    stored = decode(encode(session(token(extra=odd))), KEY, WHERE)
    assert dict(stored.tokens[None].extra) == {"fine": {"n": [1, None]}}
    assert stored.refresh_token == "RT-1"


def test_a_session_that_cannot_be_written_is_refused_without_a_word_of_it() -> None:
    """A made-up token with an infinite expiry gets a clear error that quotes only the key."""
    with pytest.raises(StoreError, match="alice") as caught:
        encode(session(token("AT-s3cret", expires_at=math.inf)))
    assert "s3cret" not in str(caught.value)
    assert caught.value.key == KEY


def test_every_kind_of_failure_can_be_stored() -> None:
    """The reader knows each kind that a flight can leave."""
    for kind in get_args(FailureKind):
        stored = decode(encode(session(failure=Failure(kind, "", 0.0, 0.0))), KEY, WHERE)
        assert stored.failure is not None
        assert stored.failure.kind == kind


def _with(path: str, value: object, *, drop: bool = False) -> bytes:
    document = json.loads(encode(FULL))
    document["ended"] = {"reason": "logout", "at": 1.0}
    *parents, last = path.split("/")
    inner = document
    for name in parents:
        inner = inner[name]
    if drop:
        del inner[last]
    else:
        inner[last] = value
    return json.dumps(document).encode()


REQUIRED = [
    "unexpired", "key", "login", "version", "tokens", "tokens//access_token", "tokens//minted", "intent/login",
    "intent/version", "intent/owner", "intent/attempt", "intent/since", "failure/kind", "failure/message",
    "failure/since", "failure/retry_at", "failure/count", "failure/unexplained", "failure/unexplained_since",
    "ended/reason", "ended/at",
]  # fmt: skip
OPTIONAL = ["refresh_token", "tokens//scope", "tokens//refresh_token", "tokens//id_token", "tokens//expires_at",
            "tokens//lifetime", "intent", "failure", "ended"]  # fmt: skip


def _refused(data: bytes | str, words: str = "cannot read") -> str:
    with pytest.raises(StoreError, match=words) as caught:
        decode(data, KEY, WHERE)
    message = str(caught.value)
    assert caught.value.key == KEY
    assert WHERE in message
    assert "s3cret" not in message
    assert LOGIN not in message
    return message


def test_the_documents_that_are_damaged_below_are_whole_at_first() -> None:
    """The damage is what makes the difference."""
    assert decode(_with("version", 7), KEY, WHERE).version == 7
    for path in OPTIONAL:
        assert decode(_with(path, None), KEY, WHERE).key == KEY


@pytest.mark.parametrize("path", REQUIRED)
def test_a_missing_field_is_an_error_that_tells_nothing(path: str) -> None:
    """Nothing is guessed: a record without one of its fields is refused."""
    _refused(_with(path, None, drop=True))


@pytest.mark.parametrize(
    "value", [[], {}, "s3cret", True, -1, 1.5, 10**400, [["", {}]], "", [{}]], ids=lambda value: repr(value)[:20]
)
@pytest.mark.parametrize("path", [*REQUIRED, *OPTIONAL, "tokens/", "tokens//extra", "tokens//token_type"])
def test_a_field_of_another_type_is_an_error_that_tells_nothing(path: str, value: object) -> None:
    """Every field accepts its own type only, and whatever else is there is a StoreError."""
    fits: dict[type, tuple[str, ...]] = {
        str: ("login", "refresh_token", "token_type", "access_token", "scope", "id_token", "owner", "message",
              "reason"),
        int: ("expires_at", "lifetime", "since", "retry_at", "unexplained_since", "at"),
        float: ("expires_at", "lifetime", "since", "retry_at", "unexplained_since", "at"),
        dict: ("extra", "tokens"),
    }  # fmt: skip
    name = path.rpartition("/")[2]
    whole_numbers = ("version", "minted", "attempt", "count", "unexplained")
    if (name in fits.get(type(value), ()) and value != 10**400) or (name in whole_numbers and value == 10**400):
        assert decode(_with(path, value), KEY, WHERE).key == KEY
    else:
        _refused(_with(path, value))


@pytest.mark.parametrize(
    ("data", "words"),
    [(b"", "not JSON"), (b"{", "not JSON"), (encode(FULL)[:-9], "not JSON"), (b"\xff\xfe\x00", "not JSON"),
     (b"\x00" * 64, "not JSON"), ("[" * 100_000, "not JSON"), ("9" * 5000, "not"), (b"null", "not a session"),
     (b"[1]", "not a session"), (b"{}", "not a session"), (b'{"unexpired":"1"}', "not a session"),
     (b'{"unexpired":true}', "not a session"), (b'{"unexpired":0}', "not a session"),
     (_with("unexpired", SCHEMA + 1), r"newer unexpired \(this one reads layouts up to 1\)"),
     (_with("key", "bob"), "another key"),
     (_with("key", None), "another key"), (_with("failure/kind", "odd"), "damaged"),
     (_with("failure/kind", []), "damaged")],
)  # fmt: skip
def test_what_is_not_a_session_of_this_key_is_refused_with_its_reason(data: bytes | str, words: str) -> None:
    """Foreign, truncated, newer and misplaced records are told apart, and how to go on is said."""
    assert "log in again" in _refused(data, words)


PIECES = [b"null", b"1e999", b"[]", b"{}", b'""', b"-1", b"true"]


@given(st.data())
def test_a_mutilated_record_raises_store_errors_only(data: st.DataObject) -> None:
    """A record with bytes changed, cut out or put in is read or refused, never anything else."""
    record = bytearray(encode(FULL))
    for _ in range(data.draw(st.integers(1, 4))):
        start = data.draw(st.integers(0, len(record)))
        end = data.draw(st.integers(start, min(start + 8, len(record))))
        record[start:end] = data.draw(st.binary(max_size=4) | st.sampled_from(PIECES))
    message = ""
    try:
        assert decode(bytes(record), KEY, WHERE).key == KEY
    except StoreError as error:
        message = str(error)
    assert "s3cret" not in message
