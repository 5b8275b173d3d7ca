from __future__ import annotations

import json
import time
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, ConfigurationError, NotSent, Refused
from unexpired.grants.answer import HTTPAnswer, picked, read_token

NOW = 1_800_000_000.0
ENDPOINT = "https://id.example.com/token"
JSON = {"content-type": "application/json"}
FORM = {"content-type": "application/x-www-form-urlencoded; charset=utf-8"}
SECRET = "rt-9f8e7d6c"


def read(
    status: int,
    body: bytes | dict[str, Any] = b"",
    headers: dict[str, str] | None = None,
    *,
    fields: dict[str, str] | None = None,
    broken: str | None = None,
) -> Token:
    """Read one answer that came at `NOW`."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    answer = HTTPAnswer(status, JSON if headers is None else headers, content, broken)
    return read_token(answer, endpoint=ENDPOINT, now=NOW, fields=fields)


@pytest.mark.parametrize("status", [200, 201, 203, 206])
def test_a_whole_answer_is_a_token(status: int) -> None:
    """Any 2xx answer with an access token is a token whose lifetime starts when the request was sent."""
    token = read(status, {"access_token": "a1", "expires_in": 60, "refresh_token": SECRET, "x": 1})
    assert (token.access_token, token.refresh_token, token.expires_at) == ("a1", SECRET, NOW + 60)
    assert token.extra == {"x": 1}


def test_what_the_server_omits_is_kept() -> None:
    """Tokens that the answer omits are kept, and an omitted lifetime is unknown (scenario 28, RFC 6749 §6)."""
    before = Session.begin("key", "login", Token("a0", refresh_token="r0", id_token="i0"))
    token = read(200, {"access_token": "a1"})
    assert (token.refresh_token, token.id_token, token.expires_at) == (None, None, None)
    after = before.minted(token).tokens[None]
    assert (after.access_token, after.refresh_token, after.id_token) == ("a1", "r0", "i0")


def test_the_clock_of_the_server_corrects_absolute_times() -> None:
    """An absolute expiry is moved by as much as the server's Date differs from this machine's clock."""
    headers = {**JSON, "date": formatdate(NOW + 3600, usegmt=True)}
    token = read(200, {"access_token": "a1", "expires_at": NOW + 3600 + 60}, headers)
    assert token.expires_at == pytest.approx(NOW + 60)


def test_a_form_is_an_answer_too() -> None:
    """A form-encoded answer is read when its content type says that it is one."""
    token = read(200, b"access_token=a1&refresh_token=r%201&expires_in=60", FORM)
    assert (token.access_token, token.refresh_token, token.expires_at) == ("a1", "r 1", NOW + 60)
    with pytest.raises(Refused) as refusal:
        read(200, b"error=bad_refresh_token&error_description=gone", FORM)
    assert refusal.value.error == "invalid_grant"


def test_a_form_with_endless_fields_is_not_read() -> None:
    """A form of more fields than any token answer has is a lost answer."""
    with pytest.raises(AnswerLost):
        read(200, b"access_token=a1" + b"&x=1" * 1000, FORM)


def test_fields_are_found_where_they_are_said_to_be() -> None:
    """A mapped field comes from its path and from nowhere else; the others keep their standard names."""
    fields = {"access_token": "data.Token", "refresh_token": "data.pair.1"}
    body = {"data": {"Token": "a1", "pair": ["x", "y"]}, "refresh_token": "stale", "expires_in": 60}
    token = read(200, body, fields=fields)
    assert (token.access_token, token.refresh_token, token.expires_at) == ("a1", None, NOW + 60)
    assert picked({"data": None}, {"access_token": "data.Token"}) == {"data": None}


@pytest.mark.parametrize(
    ("status", "body", "code"),
    [
        (400, {"error": "invalid_grant", "error_description": SECRET}, "invalid_grant"),
        (401, {"error": "invalid_client"}, "invalid_client"),
        (403, {"error": "access_denied"}, "access_denied"),
        (404, {"error": "invalid_grant"}, "invalid_grant"),
        (400, {"error": "a" * 64}, "a" * 64),
        (400, {"error": "a" * 65}, None),
        (400, {"error": "line\nbreak"}, None),
        (400, {"error": {"code": 7}}, None),
        (401, {"error": "Unauthorized", "status": 401}, None),
        (400, b"", None),
        (401, b"<html>", None),
        (400, [1], None),
        (200, {"error": "invalid_grant"}, "invalid_grant"),
        (200, {"error": {"code": 7}}, None),
        (200, {"error": "invalid_grant", "access_token": ""}, "invalid_grant"),
    ],
)
def test_a_no_is_a_no(status: int, body: Any, code: str | None) -> None:
    """An OAuth error is a refusal, with HTTP 200 too; 400 and 401 without one are unexplained (scenario 54)."""
    with pytest.raises(Refused) as refusal:
        read(status, body if isinstance(body, bytes) else json.dumps(body).encode())
    assert (refusal.value.error, refusal.value.status) == (code, status)
    assert ENDPOINT in str(refusal.value)


def test_an_error_beside_a_usable_token_is_no_error() -> None:
    """A token in hand is never thrown away for an `error` member beside it."""
    assert read(200, {"error": "ok", "access_token": "a1"}).access_token == "a1"


def test_only_plain_words_reach_the_message() -> None:
    """An error code that could hold a secret is kept for programs and left out of the message."""
    with pytest.raises(Refused, match="invalid_grant"):
        read(400, {"error": "invalid_grant"})
    with pytest.raises(Refused) as refusal:
        read(400, {"error": f"bad token {SECRET}"})
    assert SECRET not in str(refusal.value)
    assert SECRET not in repr(refusal.value)


@pytest.mark.parametrize("status", [403, 404, 405, 406, 410, 415])
def test_a_wall_in_front_is_a_matter_of_configuration(status: int) -> None:
    """An HTML page that turns the request away ends no session and loses no answer (scenario 54)."""
    with pytest.raises(ConfigurationError, match=f"HTTP {status}"):
        read(status, f"<html>{SECRET}</html>".encode(), {"content-type": "text/html"})


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_is_named_by_its_host_only(status: int) -> None:
    """A redirect of the token endpoint is an error of configuration that names the other host (scenario 46)."""
    location = f"https://user:{SECRET}@Other.example:8443/x?refresh_token={SECRET}"
    with pytest.raises(ConfigurationError, match=r"on other\.example:8443 ") as error:
        read(status, b"", {"location": location})
    assert SECRET not in str(error.value)


@pytest.mark.parametrize("location", ["", "/relative", "https://[broken", f"https://a b{SECRET}/"])
def test_an_unreadable_location_is_left_out(location: str) -> None:
    """A redirect to nowhere in particular is told without a host."""
    with pytest.raises(ConfigurationError, match=r"another address \(HTTP 302\)"):
        read(302, b"", {"location": location})


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-5", 0.0),
        (formatdate(NOW + 90, usegmt=True), 90.0),
        (formatdate(NOW - 90, usegmt=True), 0.0),
    ],
)
@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_is_honoured(status: int, value: str, seconds: float) -> None:
    """429 and 503 with Retry-After, in seconds or as a date, were surely not processed (scenario 51)."""
    with pytest.raises(NotSent) as refusal:
        read(status, b"", {"retry-after": value})
    assert refusal.value.retry_after == pytest.approx(seconds)
    assert not refusal.value.connecting


def test_retry_after_is_measured_on_the_clock_that_wrote_it() -> None:
    """A Retry-After date is compared with the server's own Date (scenario 51)."""
    ahead = {"retry-after": formatdate(NOW + 4000, usegmt=True), "date": formatdate(NOW + 3600, usegmt=True)}
    with pytest.raises(NotSent) as refusal:
        read(429, b"", ahead)
    assert refusal.value.retry_after == pytest.approx(400)


@pytest.mark.parametrize("value", ["soon", "", "nan", "inf", "9" * 400, "Tue, 99 Foo 2026 00:00:00 GMT"])
def test_garbage_in_retry_after_is_ignored(value: str) -> None:
    """An unreadable Retry-After is none: 429 is still definite, 503 is a lost answer (scenario 51)."""
    with pytest.raises(NotSent) as refusal:
        read(429, b"", {"retry-after": value})
    assert refusal.value.retry_after is None
    with pytest.raises(AnswerLost):
        read(503, b"", {"retry-after": value})


@pytest.mark.parametrize("status", [100, 300, 304, 408, 409, 425, 500, 502, 503, 504, 599])
def test_the_rest_is_a_lost_answer(status: int) -> None:
    """Whatever does not say that the request was left alone may have rotated (scenario 54)."""
    with pytest.raises(AnswerLost, match=f"HTTP {status}"):
        read(status, {"error": "server_error"} if status >= 500 or status == 408 else b"")


@pytest.mark.parametrize(
    ("body", "salvage"),
    [
        (b"<html>welcome</html>", None),
        (b"", None),
        (b"null", None),
        (b'["access_token"]', None),
        (b'{"refresh_token": "r1"}', "r1"),
        (b'{"access_token": "", "refresh_token": "r1"}', "r1"),
        (b'{"access_token": 7, "refresh_token": "r\\n1"}', None),
        (b'{"refresh_token": "r1", "access_token": "a1', "r1"),
        (b' {\n "n": {"a": [1]} , "refresh_token" : "r1" ,', "r1"),
        (b'{"access_token": "a1", "refresh_token": "r1", "expires_in": 36', "r1"),
        (b'{"access_token": "a1", "refresh_token": "r', None),
        (b'{"previous": {"refresh_token": "r0"}, "access_tok', None),
        (b'{"refresh_token": "r\xff1", "access_tok', None),
        (b"[" * 100_000, None),
    ],
    ids=range(14),
)
def test_a_broken_answer_gives_up_its_refresh_token(body: bytes, salvage: str | None) -> None:
    """A 200 without a token is a lost answer; a refresh token that is surely whole is saved (scenario 54)."""
    with pytest.raises(AnswerLost) as lost:
        read(200, body)
    assert lost.value.refresh_token == salvage
    assert "r1" not in repr(lost.value) + str(lost.value)


def test_a_body_that_broke_off_is_named() -> None:
    """The message of an answer that was cut short says so, and a form cut short is not trusted at all."""
    with pytest.raises(AnswerLost, match="ReadError"):
        read(200, b'{"access_tok', broken="ReadError")
    with pytest.raises(AnswerLost) as lost:
        read(200, b"access_token=a1&refresh_token=r", FORM, broken="ReadError")
    assert lost.value.refresh_token is None


def test_an_object_that_is_whole_counts_though_the_body_is_not() -> None:
    """Once the closing brace is there the answer is used, however the connection ended."""
    assert read(200, b'{"access_token": "a1"}', broken="ReadError").access_token == "a1"


def test_an_answer_shows_no_secret() -> None:
    """The `repr` of an answer has neither its headers nor its body."""
    assert SECRET not in repr(HTTPAnswer(200, {"set-cookie": SECRET}, SECRET.encode()))


_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
)
_NAMES = st.sampled_from(["access_token", "refresh_token", "expires_in", "expires_at", "error", "id_token", "scope"])
_BODIES = st.one_of(
    st.binary(),
    st.dictionaries(_NAMES | st.text(), _VALUES).map(lambda body: json.dumps(body).encode()),
    st.dictionaries(_NAMES, _VALUES).map(lambda body: json.dumps(body).encode()[:-2]),
    st.text().map(lambda text: f"access_token=a&error={text}".encode("utf-8", "surrogatepass")),
)
_DATES = st.text() | st.integers().map(str) | st.floats(0, 1e11).map(lambda at: formatdate(at, usegmt=True))
_HEADERS = st.fixed_dictionaries(
    {},
    optional={
        "content-type": st.sampled_from([JSON["content-type"], FORM["content-type"], "text/html", ""]),
        "retry-after": _DATES,
        "date": _DATES,
        "location": st.text() | st.just("https://[x/"),
    },
)


@given(
    status=st.integers(100, 599),
    headers=_HEADERS,
    body=_BODIES,
    broken=st.sampled_from([None, "ReadError"]),
    fields=st.sampled_from([{}, {"access_token": "data.Token", "error": "code"}]),
)
def test_any_answer_is_a_token_or_one_of_our_errors(
    status: int, headers: dict[str, str], body: bytes, broken: str | None, fields: dict[str, str]
) -> None:
    """No status, header or body makes reading fail in any other way than the four it names."""
    answer = HTTPAnswer(status, headers, body, broken)
    try:
        token = read_token(answer, endpoint=ENDPOINT, now=time.time(), fields=fields)
    except (NotSent, Refused, AnswerLost, ConfigurationError):
        return
    assert 200 <= status < 300
    assert token.access_token
