from __future__ import annotations

import json
from types import MappingProxyType

import pytest

from unexpired._core.record import SCHEMA, decode, encode
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import decode_session, encode_session

KEY = "alice@crm"
TOKEN = Token("secret access", refresh_token="secret refresh", extra=MappingProxyType({"account": {"id": 7}}))
SESSION = Session.begin(KEY, "login", TOKEN).noted(
    intent=Intent("login", 1, "owner", 1, 1_700_000_000.0), failure=Failure("lost", "why", 1.0, 2.0)
)


@pytest.mark.parametrize("session", [SESSION, SESSION.over("logout", 1.0)], ids=["live", "ended"])
def test_a_session_comes_back_from_its_bytes(session: Session) -> None:
    """What `encode_session` gives is bytes, from which `decode_session` has every field again."""
    data = encode_session(session)
    assert isinstance(data, bytes)
    assert encode(decode_session(data, KEY, "a row")) == data == encode(session)


def test_our_stores_read_the_same_bytes() -> None:
    """The bytes are those of our own stores, so that what they read in later versions is read from yours too."""
    assert encode(decode(encode_session(SESSION), KEY, "a row")) == encode(SESSION)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "truncated or damaged"),
        (encode(SESSION)[:-1], "truncated or damaged"),
        (b"[]", "not a session"),
        (encode(SESSION).replace(b'"version":1', b'"version":-1'), "damaged"),
        (encode(SESSION).replace(b"alice@crm", b"bob@crm"), "another key"),
        (json.dumps({**json.loads(encode(SESSION)), "unexpired": SCHEMA + 1}).encode(), "newer unexpired"),
    ],
)
def test_what_is_no_session_is_a_store_error(data: bytes, why: str) -> None:
    """What is cut off, damaged, another key's or of a newer layout raises StoreError that names the place only."""
    with pytest.raises(StoreError, match=why) as caught:
        decode_session(data, KEY, "row 17")
    assert "row 17" in str(caught.value)
    assert "secret" not in f"{caught.value!r} {caught.value} {caught.value.__cause__!r}"


def test_a_token_field_that_is_not_json_is_a_store_error() -> None:
    """A field that cannot be kept raises StoreError, without showing the token."""
    bad = Session.begin(KEY, "login", Token("secret access", scope=object()))  # type: ignore[arg-type]
    with pytest.raises(StoreError, match="not JSON") as caught:
        encode_session(bad)
    assert "secret" not in f"{caught.value!r} {caught.value}"
