"""The edges of numbers and texts: the last value that counts, and the first one that does not."""

from __future__ import annotations

import base64
import json
import pickle
import time
from collections.abc import Iterator
from typing import Any, cast

import pytest

from tests.core.harness import EPOCH
from unexpired._core.scheme import ACCEPTED, Answer, InHeader, InQuery, Judgement, Place, Scheme, Verdict
from unexpired._core.session import Failure
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer, canonical, same_code
from unexpired._core.suspicion import Suspicion, endpoint_of, refuses
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError

NOW = 1_700_000_000.0
GONE = Judgement(Verdict.EXPIRED, "code 40009")


@pytest.fixture
def far_east(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This machine's clock is shown nine hours ahead of UTC."""
    monkeypatch.setenv("TZ", "JST-9")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("far_east")
def test_a_time_without_a_zone_is_utc_wherever_the_program_runs() -> None:
    """An ISO 8601 expiry that names no zone does not move with the machine's own; one that does is believed."""
    moments = [
        Token.from_response({"access_token": "AT-1", "expires_at": text}, now=NOW).expires_at
        for text in ("2023-11-14T22:13:30", "2023-11-14T22:13:30+00:00", "2023-11-15T07:13:30+09:00")
    ]
    assert moments == [NOW + 10.0] * 3


def test_a_time_of_a_million_million_is_milliseconds() -> None:
    """From 1e12 on a time can only be milliseconds."""
    read = [
        Token.from_response({"access_token": "AT-1", "expires_at": moment}, now=0.0).expires_at
        for moment in (1e12, 2e12)
    ]
    assert read == [1e9, 2e9]


@pytest.mark.parametrize(
    "fields",
    [
        {"token_type": 7},
        {"scope": b"read"},
        {"refresh_token": 7},
        {"id_token": ["ID"]},
        {"resource": 7},
        {"expires_at": "soon"},
        {"expires_at": float("nan")},
        {"lifetime": "300"},
        {"lifetime": True},
        {"extra": ["shop"]},
        {"access_token": ""},
    ],
    ids=str,
)
def test_a_token_made_by_hand_is_sound_only_when_every_field_is(fields: dict[str, Any]) -> None:
    """One field of a wrong type is enough, whatever the others are."""
    sound = {"access_token": "AT-1", "expires_at": NOW + 60.0, "lifetime": 60, "scope": "read", "extra": {"shop": 1}}
    assert Token(**cast("Any", sound)).is_sound()
    assert Token("AT-1").is_sound()
    assert not Token(**cast("Any", sound | fields)).is_sound()


def test_no_token_lives_longer_than_a_hundred_years() -> None:
    """What a server says beyond that is cut to it."""
    read = Token.from_response({"access_token": "AT-1", "expires_in": 10**12}, now=0.0)
    assert (read.lifetime, read.expires_at) == (3_153_600_000.0, 3_153_600_000.0)


def test_a_jwt_of_any_length_is_read() -> None:
    """Its parts come without padding, whatever their length."""
    for length in range(12):
        payload = base64.urlsafe_b64encode(json.dumps({"exp": NOW + 60, "x": "y" * length}).encode()).decode()
        read = Token.from_response({"access_token": f"e30.{payload.rstrip('=')}.x"}, now=NOW)
        assert read.expires_at == NOW + 60


def test_a_failure_holds_from_a_second_before_it_began_until_its_end() -> None:
    """A clock that was set back by more than a second does not prolong it."""
    failure = Failure("lost", "", EPOCH, EPOCH + 5.0)
    assert [failure.holds(EPOCH + at) for at in (-1.01, -1.0, 4.99, 5.0)] == [False, True, True, False]


def test_a_status_is_200_to_599() -> None:
    """The first and the last one may be configured; their neighbours are no statuses of an answer."""
    assert Scheme.bearer(expired_status=(200, 599)).suspicious_status >= {200, 599}
    for wrong in (199, 600):
        with pytest.raises(ConfigurationError, match="statuses"):
            Scheme.bearer(expired_status=(wrong,))


@pytest.mark.parametrize(("status", "settled"), [(200, True), (299, True), (300, False)])
def test_an_ok_code_settles_every_2xx(status: int, settled: bool) -> None:
    """From 200 to 299 an *ok* code overrules the status, and no other."""
    scheme = Scheme(InQuery("token"), code="code", ok=[0], expired_status=(200, 299, 300))
    judgement = scheme.judge(Answer(status, {}, b'{"code": 0}'))
    assert (judgement is ACCEPTED) is settled


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        *((name, wrong) for name in ("expired", "login_required", "ok") for wrong in ("40009", [None], [1, 1])),
        ("expired_status", 401),
        ("origins", "https://a.example"),
    ],
)
def test_a_wrong_option_is_called_by_its_name(name: str, wrong: object) -> None:
    """Whether it is no list, or what it lists is wrong or given twice."""
    with pytest.raises(ConfigurationError, match=rf"\b{name}="):
        Scheme.bearer(code="code", **cast("Any", {name: wrong}))


def test_what_is_no_place_is_called_by_its_type() -> None:
    """The message names what was given."""
    with pytest.raises(ConfigurationError, match="not int"):
        Scheme(cast("Place", 7))


def test_a_place_that_cannot_take_the_token_is_named() -> None:
    """With what it needs; never with the value."""
    with pytest.raises(ConfigurationError, match=r"^InHeader\('X'\): the value has characters"):
        InHeader("X").fill(Token("AT\n"))
    with pytest.raises(ConfigurationError, match=r"\{access_token\}, \{refresh_token\}, \{id_token\}, \{token_type\}"):
        InHeader("X", "{scope}")


@pytest.mark.parametrize(
    ("code", "body"),
    [
        ("A+1", b'{"x": 1, "code": "A+1"}'),
        ("A 1", b'{"x": 1, "code": "A 1"}'),
        (40009, b'{"x": 1, "code": 4.0009E4}'),
        (40009, b'{"x": 1, "code": 4.0009e4}'),
        (40009, b'{"x": 1, "code": 40009.00000000000001}'),
    ],
)
def test_every_spelling_of_a_refusal_is_found(code: int | str, body: bytes) -> None:
    """Codes with characters of their own, exponents in both cases and roundings are refusals too."""
    scheme = Scheme(InQuery("token"), code="code", expired=[code])
    assert scheme.judge(Answer(200, {}, body)).verdict is Verdict.EXPIRED


@pytest.mark.parametrize("before", [b"X", b"\x0c", b"\xc2\xa0"])
def test_only_json_s_own_white_space_may_come_first(before: bytes) -> None:
    """What a JSON parser would refuse holds no code."""
    scheme = Scheme(InQuery("token"), code="code", expired=[40009])
    body = b'{"x": 1, "code": 40009}'
    assert scheme.judge(Answer(200, {}, b" \t\r\n" + body)) == GONE
    assert scheme.judge(Answer(200, {}, before + body)) is ACCEPTED


@pytest.mark.parametrize(
    "chunks",
    [
        [b'{"a": {"b": "xxxxxxxxxxxxxxxxxxxxxxxx"', b"}", b', "code": 40009}'],
        [b'{"a": "}', b'", "c":1', b', "code": 40009}'],
        [b'{"a": "}xxxxxxxxxxxxx', b'","code": 40009}     '],
    ],
    ids=["nested", "misled", "twice the size"],
)
def test_a_stream_is_judged_with_the_end_of_its_first_document(chunks: list[bytes]) -> None:
    """Not with the next one, nor with its own end: nobody knows when that comes."""
    sniffer = Sniffer(Scheme(InQuery("token"), code="code", expired=[40009]), 200, {})
    assert [sniffer.feed(chunk) for chunk in chunks] == [*[None] * (len(chunks) - 1), GONE]


def test_what_no_document_can_begin_with_is_judged_at_once() -> None:
    """A form feed is no white space of JSON."""
    sniffer = Sniffer(Scheme(InQuery("token"), code="code", expired=[40009]), 200, {})
    assert sniffer.feed(b"\x0c{") is ACCEPTED


def test_only_blanks_around_a_code_do_not_count() -> None:
    """Letters and other white space are part of it; a broken number is its own text."""
    assert [canonical(text) for text in ("  7 ", "\t7", "X7X", "XX")] == ["7", "\t7", "X7X", "XX"]
    assert same_code(1.5, "1.5")
    assert not same_code(1.5, 2.5)


def test_a_business_code_says_where_it_is() -> None:
    """Its path is kept as it was written."""
    code = Scheme(InQuery("token"), code="error.code", ok=[0]).business_code
    assert code is not None
    assert code.path == "error.code"


@pytest.mark.parametrize(("more", "seen"), [(0, SNIFF_LIMIT), (1, None)])
def test_a_judge_of_one_s_own_sees_bodies_up_to_the_limit(more: int, seen: int | None) -> None:
    """The longest body that is kept is shown whole; of a longer one only status and headers are."""
    asked: list[Answer] = []
    headers = {"x": "y"}
    scheme = Scheme.bearer(judge=asked.append)
    sniffer = Sniffer(scheme, 418, headers, encoded=True)
    assert sniffer.judge_body(b"x" * (SNIFF_LIMIT + more)) is ACCEPTED
    assert [(one.status, one.headers, one.body and len(one.body)) for one in asked] == [(418, headers, seen)]


def test_a_scheme_can_be_limited_and_stays_what_it_was() -> None:
    """The limited one is another object, for these origins only."""
    scheme = Scheme.bearer()
    limited = scheme.limited_to("https://A.example", "https://b.example:8443")
    assert limited.origins == frozenset({"https://a.example", "https://b.example:8443"})
    assert limited.places == scheme.places
    assert scheme.origins is None


def test_a_token_crosses_process_borders_whole() -> None:
    """All its fields, the answer's other ones included."""
    one = Token("AT-1", "DPoP", NOW, 60.0, "read", "RT-1", "ID-1", {"shop": [7]}, "https://a", "login-1", 3)
    other = pickle.loads(pickle.dumps(one))
    assert type(other) is Token
    assert [getattr(other, name) for name in Token.__slots__] == [getattr(one, name) for name in Token.__slots__]


def test_no_suspicion_lasts_longer_than_ten_minutes() -> None:
    """After any number of strikes; the dice take up to half of it off."""
    before = Suspicion(Token("AT-1", login="a", minted=1), 0.0, strikes=50)
    refused = Token("AT-2", login="a", minted=2)
    assert refuses(before, refused, 1.0, 0.0) == (True, Suspicion(refused, 300.0, 51))
    assert refuses(before, refused, 1.0, 0.5)[1].pause == 450.0


def test_an_endpoint_leaves_out_what_tells_one_thing_from_its_siblings() -> None:
    """A segment with a digit is one of many; method and other words are the endpoint's own."""
    assert endpoint_of("GET", "/users/17/orders/a-3") == "GET /users/*/orders/*"
    assert endpoint_of("POST", "/users/me") == "POST /users/me"
