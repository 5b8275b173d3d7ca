from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.core.harness import EPOCH, KEY, World, session
from tests.fuzz.targets import STATUSES, check_answer, check_flight, check_jwt, check_token, jwt
from tests.fuzz.values import MOMENTS, answers, bodies, headers, jsons, objects, sayings, texts
from tests.grants.endpoint import Peer, Request, endpoint
from unexpired._core.session import Session
from unexpired._core.token import Token, is_credential
from unexpired.errors import AnswerLost, ConfigurationError, NotSent, Refused, UnexpiredError
from unexpired.grants import RefreshTokenGrant
from unexpired.grants.answer import HTTPAnswer, read_token

FIELDS: tuple[Mapping[str, str], ...] = ({}, {"access_token": "data.Token", "error": "code", "expires_in": "data.t"})


@given(answers, st.none() | st.floats(-1e12, 1e12))
def test_an_answer_is_a_token_or_a_value_error(answer: dict[str, Any], server_time: float | None) -> None:
    """Scenario 54: whatever the fields hold, the answer is a token that can be sent and stored, or a ValueError."""
    if not is_credential(answer.get("access_token")):
        with pytest.raises(ValueError, match=r"\Athe answer has no usable access_token\Z"):
            Token.from_response(answer, now=EPOCH, server_time=server_time)
        return
    made = Token.from_response(answer, now=EPOCH, server_time=server_time)
    assert made.access_token == answer["access_token"]
    check_token(made)


@given(sayings | objects)
def test_a_flight_lands_whatever_a_grant_brings(said: object) -> None:
    """Scenario 54, P3: any answer, token made by hand, object or error ends the flight, and nothing stored is lost."""
    check_flight(said)


@given(st.lists(sayings | objects, min_size=1, max_size=4))
def test_a_session_survives_a_bad_day(said: list[object]) -> None:
    """P5: after any answers in a row, the record can be read and a good answer brings a token, or the login is over."""
    world = World(session())
    for one in said:
        world.server = [one]
        world.fly()
        world.boot += 4000.0
        assert world.stored.ended is not None or world.stored.refresh_token
    if world.stored.ended is None:
        world = check_flight({"access_token": "AT-good", "refresh_token": "RT-good", "expires_in": 9e9}, world.stored)


@given(st.sampled_from(STATUSES), headers, bodies, st.sampled_from([None, "ReadError"]), st.sampled_from(FIELDS))
@settings(max_examples=150)
def test_an_http_answer_is_a_token_or_one_of_four_errors(
    status: int, fields: dict[str, str], body: bytes, broken: str | None, names: dict[str, str]
) -> None:
    """Scenario 54: any status, headers and body are a token that stands in them, or an error, and the flight lands."""
    check_answer(HTTPAnswer(status, fields, body, broken), names)


class Wire:
    """An endpoint that answers with the bytes at hand, and a grant that asks it."""

    grant: RefreshTokenGrant
    said = b""

    def speak(self, peer: Peer, _request: Request) -> None:
        """Say it."""
        peer.send(self.said)


@pytest.fixture(scope="module")
def wire() -> Any:
    """Give a real endpoint on a socket."""
    wire = Wire()
    with endpoint(wire.speak) as served:
        wire.grant = RefreshTokenGrant(served.url, client_id="crm")
        yield wire


def _spelled(status: int, fields: Mapping[str, str], body: bytes, shorter: int) -> bytes:
    lines = [f"HTTP/1.1 {status} Any", *(f"{name}: {value}" for name, value in fields.items())]
    head = "\r\n".join([*lines, f"content-length: {len(body) + shorter}", "connection: close", "", ""])
    return head.encode("latin-1", "replace") + body


_WIRE = st.builds(_spelled, st.sampled_from(STATUSES), headers, bodies, st.sampled_from([0, 0, 0, 1, -1, 5000]))


@given(_WIRE | st.binary(max_size=200) | st.binary(max_size=100).map(b"HTTP/1.1 200 OK\r\n".__add__))
@settings(max_examples=80)
def test_a_real_endpoint_may_say_anything(wire: Wire, said: bytes) -> None:
    """Scenario 54: whatever comes over the wire, in any encoding or length, is a token or one of the four errors."""
    wire.said = said
    before = Session.begin(KEY, "login-1", "RT-1")
    answer: Token | UnexpiredError
    try:
        answer = wire.grant.redeem(before, resource=None, timeout=5.0)
    except (NotSent, Refused, AnswerLost, ConfigurationError) as error:
        answer = error
    if isinstance(answer, Token):
        check_token(answer)
    else:
        assert answer.__cause__ is None
        assert answer.__context__ is None or answer.__suppress_context__
    check_flight(answer)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize(
    "to", ["https://[x/", "//a:99999999/", "https://u:p@h.test/?q", "\\", "", "http://[::1", "\xff"]
)
def test_a_redirect_to_anywhere_is_an_error_of_configuration(status: int, to: str) -> None:
    """Wherever a token endpoint sends us, we do not go, and nothing of the address but its host is told."""
    said = check_answer(HTTPAnswer(status, {"location": to}, b""))
    assert isinstance(said, ConfigurationError)
    assert "u:p" not in str(said)


@given(MOMENTS, st.none() | MOMENTS, st.sampled_from([429, 503]))
@example("9" * 400, None, 429)
@example("Wed, 21 Oct 2015 07:28:00 GMT", "Wed, 21 Oct 2015 07:27:00 GMT", 503)
def test_a_pause_is_a_number_or_none(value: str, date: str | None, status: int) -> None:
    """Scenario 51: any ``Retry-After`` is a finite pause or none, and the failure it leaves is bounded."""
    fields = {"retry-after": value} if date is None else {"retry-after": value, "date": date}
    said = check_answer(HTTPAnswer(status, fields, b""))
    if status == 429:
        assert isinstance(said, NotSent)
        failure = check_flight(said).failure
        assert EPOCH < failure.retry_at <= EPOCH + 3700.0


@given(st.integers(0, 10**9))
def test_a_pause_in_seconds_is_taken_at_its_word(seconds: int) -> None:
    """A whole number is the pause itself, with or without spaces."""
    for value in (f"{seconds}", f" {seconds}\t"):
        with pytest.raises(NotSent) as caught:
            read_token(HTTPAnswer(429, {"retry-after": value}, b""), endpoint="e", now=EPOCH)
        assert caught.value.retry_after == seconds


@given(st.dictionaries(st.sampled_from(["exp", "sub", "iss", "x"]), jsons).map(json.dumps).map(str.encode) | bodies)
@example(b'{"exp": 1000300}')
@example(b'{"exp": 1e400, "sub": NaN}')
def test_a_jwt_brings_its_expiry_or_nothing(payload: bytes) -> None:
    """The claims of any payload are the payload's own, and its ``exp`` is the expiry or unknown."""
    check_jwt(payload)
    check_jwt(payload, sealed=False)


@given(texts, st.sampled_from(["id_token", "access_token"]))
def test_any_text_may_stand_where_a_jwt_would(text: str, name: str) -> None:
    """A token that is no JWT has no claims and no expiry, whatever its characters."""
    settings: dict[str, Any] = {"access_token": "AT-2", name: text}
    made = Token(**settings)
    assert made.claims() == {} or name == "id_token"
    check_flight({"access_token": "AT-2", "refresh_token": "RT-2", name: text})


@given(jsons.filter(lambda sub: sub == sub and sub != "alice"))  # noqa: PLR0124 - NaN, the one that is not itself
def test_a_token_of_another_person_is_never_stored(sub: object) -> None:
    """Scenario 35: an id token with another ``sub``, of any type, leaves the record's tokens as they were."""
    world = check_flight({"access_token": "AT-2", "expires_in": 300, "id_token": jwt({"sub": sub})})
    assert world.stored.tokens[None].access_token == "AT-1"
    assert world.failure.kind == "configuration"
