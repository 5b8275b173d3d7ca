"""The entry points for foreign bytes, each with what must hold for whatever comes in. They raise AssertionError only.

A target takes bytes, so that Hypothesis and a coverage-guided fuzzer can both drive it.
"""

from __future__ import annotations

import base64
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from decimal import Decimal
from typing import Any, cast

from tests.core.harness import EPOCH, KEY, LOGIN, World, session, token
from unexpired._core.challenge import Answer, judge_challenges, parse_challenges
from unexpired._core.effects import Need
from unexpired._core.record import decode, encode
from unexpired._core.scheme import InQuery, Judgement, Scheme, Verdict
from unexpired._core.session import Session
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer
from unexpired._core.token import LONGEST_LIFETIME, Token, is_credential
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.grants.answer import HTTPAnswer, read_token

__all__ = ["TARGETS", "check_answer", "check_flight", "check_record", "check_session", "check_sniff"]

WHERE = "/data/alice.json"
OUTCOMES = (NotSent, Refused, AnswerLost, ConfigurationError)
SCHEME = Scheme(InQuery("token"), code="code", expired=[40009], login_required=["A0230", 5], ok=[0])
NESTED = Scheme(InQuery("token"), code="error.code", expired=[40009], login_required=["A0230", 5], ok=[0])
STATUSES = (200, 200, 201, 204, 299, 301, 307, 400, 401, 403, 404, 408, 418, 422, 429, 500, 503, 504, 599)
_FIELDS: tuple[Mapping[str, str], ...] = ({}, {"access_token": "data.Token", "error": "code", "expires_in": "data.t"})


def same(one: Session, other: Session) -> bool:
    """Whether two sessions hold the same values: they compare by identity themselves."""
    return _values(one) == _values(other)


def _values(one: Session) -> list[object]:
    tokens = {
        resource: [dict(held.extra) if name == "extra" else getattr(held, name) for name in Token.__slots__]
        for resource, held in one.tokens.items()
    }
    return [tokens, *(getattr(one, name) for name in Session.__slots__ if name != "tokens")]


def check_session(one: Session) -> None:
    """What is stored is read again, the same but for extra fields that are no JSON."""
    data = encode(one)
    again = decode(data, one.key, WHERE)
    kept = {resource: replace(held, extra=_jsonable(held.extra)) for resource, held in one.tokens.items()}
    assert same(again, replace(one, tokens=kept)), "a stored session comes back as another one"
    assert encode(again) == data


def _jsonable(extra: Mapping[Any, object]) -> dict[str, object]:
    """The members that JSON can hold, as it gives them back."""
    kept: dict[str, object] = {}
    for name, value in extra.items():
        with suppress(TypeError, ValueError, RecursionError):
            kept |= json.loads(json.dumps({name: value}, allow_nan=False))
    return kept


def check_token(made: Token) -> None:
    """A token out of an answer can be sent, stored and compared."""
    assert made.is_sound()
    assert is_credential(made.access_token)
    assert (made.expires_at is None) == (made.lifetime is None)
    if made.lifetime is not None and made.expires_at is not None:
        assert math.isfinite(made.expires_at)
        assert made.lifetime <= LONGEST_LIFETIME
    made.claims()
    check_session(Session.begin(KEY, LOGIN, made))


def check_answer(answer: HTTPAnswer, fields: Mapping[str, str] = _FIELDS[0]) -> Token | UnexpiredError:
    """An HTTP answer is a token that stands in it, or one of the four errors; then a flight lands with it."""
    try:
        said: Token | UnexpiredError = read_token(answer, endpoint="https://id.test/token", now=EPOCH, fields=fields)
    except OUTCOMES as error:
        said = error
    assert "AT-2" not in f"{said!r} {said}"
    assert "RT-2" not in f"{said!r} {said}"
    if isinstance(said, NotSent):
        assert said.retry_after is None or 0.0 <= said.retry_after < math.inf
    if isinstance(said, Token):
        assert 200 <= answer.status < 300
        check_token(said)
        plain = _parsed(answer.body)
        if isinstance(plain, dict) and not fields and "form-urlencoded" not in answer.headers.get("content-type", ""):
            assert said.access_token == plain["access_token"]
    check_flight(said)
    return said


def _parsed(body: bytes) -> object:
    try:
        return cast("object", json.loads(body))
    except (ValueError, RecursionError):
        return None


def check_flight(said: object, record: Session | None = None, need: Need | None = None) -> World:
    """A flight that is answered *said* ends for everybody, and nothing of value that was stored before is gone."""
    before = record or session(token(id_token=jwt({"sub": "alice"})))
    world = World(before, [said], needs={need or Need()})
    world.fly()
    after = world.stored
    assert not world.held
    assert world.results
    assert (after.login, after.key) == (before.login, before.key)
    assert before.version <= after.version <= before.version + 1
    check_session(after)
    if after.ended is not None:
        ended_by = isinstance(said, LoginRequired) or (isinstance(said, Refused) and said.error == "invalid_grant")
        assert before.ended is not None or ended_by or before.failure is not None
        return world
    if world.redeemed:
        brought = _brought(said)
        assert after.refresh_token in {before.refresh_token, *brought}
        if isinstance(said, Token) and said.is_sound() and after.version > before.version:
            assert after.tokens[None].access_token == said.access_token
    kept = {resource: one for resource, one in before.tokens.items() if after.version == before.version}
    assert all(after.tokens[resource].access_token == one.access_token for resource, one in kept.items())
    return world


def _brought(said: object) -> set[object]:
    found: object = None
    if isinstance(said, Token | AnswerLost):
        found = said.refresh_token
    elif isinstance(said, Mapping):
        found = cast("Mapping[str, object]", said).get("refresh_token")
    return {found} if isinstance(found, str) else set()


def check_record(data: bytes) -> Session | None:
    """A record is a session or a StoreError; a session that was read is one that flights and callers can use."""
    try:
        read = decode(data, KEY, WHERE)
    except StoreError:
        return None
    assert read.key == KEY
    check_session(read)
    for said in ({"access_token": "AT-2", "refresh_token": "RT-2", "expires_in": 300}, Refused("no", error=None)):
        check_flight(said, read, Need(than=read.tokens.get(None), rejected=True))
    with suppress(LoginRequired, TemporarilyUnavailable, ConfigurationError, StoreError):
        assert isinstance(World(read, [AnswerLost("lost")]).obtain(wait=5.0), Token)
    return read


def check_sniff(body: bytes, status: int, cuts: list[int], *, nested: bool = False) -> Judgement:
    """A body is judged the same however it is cut, and as a parser and the documented rules judge it."""
    scheme = NESTED if nested else SCHEME
    whole = sniffed(scheme, body, status, [])
    assert sniffed(scheme, body, status, cuts) == whole
    document = _parsed_once(body) if len(body) <= SNIFF_LIMIT else None
    if document is not None:
        verdict = _by_rule(document[0], status, ("error", "code") if nested else ("code",))
        assert whole.verdict is verdict
        assert scheme.judge(Answer(status, {}, body)).verdict is verdict
    return whole


def sniffed(scheme: Scheme, body: bytes, status: int, cuts: list[int]) -> Judgement:
    """The judgement of *body*, fed in pieces."""
    sniffer = Sniffer(scheme, status, {})
    for start, end in itertools.pairwise(sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})):
        judgement = sniffer.feed(body[start:end])
        if judgement is not None:
            return judgement
    return sniffer.finish()


def _parsed_once(body: bytes) -> tuple[object] | None:
    """The document in *body*, in a tuple; None when it is no JSON or says anything twice."""

    def unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
        if len(dict(pairs)) != len(pairs):
            raise ValueError
        return dict(pairs)

    try:
        return (json.loads(body, object_pairs_hook=unique),)
    except (ValueError, RecursionError):
        return None


def _by_rule(document: object, status: int, path: tuple[str, ...]) -> Verdict:
    """What the code at *path* means, told from the rules alone."""
    otherwise = Verdict.EXPIRED if status == 401 else Verdict.ACCEPTED
    value = document
    for name in path:
        value = cast("dict[str, object]", value).get(name) if isinstance(value, dict) else None
    if isinstance(value, str):
        text = value.strip(" ")
        value = Decimal(text) if re.fullmatch(r"(0|-?[1-9][0-9]*)(\.0*)?", text, re.ASCII) else text
    if isinstance(value, bool) or not isinstance(value, int | float | str | Decimal):
        return otherwise
    if value == 40009:
        return Verdict.EXPIRED
    if value in ("A0230", 5):
        return Verdict.LOGIN_REQUIRED
    return Verdict.ACCEPTED if value == 0 and 200 <= status < 300 else otherwise


def check_challenge(header: str, status: int = 401) -> None:
    """A header is read without an error into challenges whose names can stand in one; known errors are obeyed."""
    challenges = parse_challenges(header)
    for one in challenges:
        assert re.fullmatch(r"[!-~]+", one.scheme)
        assert one.scheme == one.scheme.lower()
        assert all(name and name == name.lower() and name.isascii() for name in one.params)
    judgement = Scheme.bearer().judge(Answer(status, {"www-authenticate": header}))
    judged = judge_challenges(challenges)
    expected = judged if judged is not None and status in (400, 401, 403) else None
    if expected is not None:
        assert judgement == expected
    else:
        assert judgement.verdict is (Verdict.EXPIRED if status == 401 else Verdict.ACCEPTED)
    assert header not in repr(judgement) or len(header) < 20


def jwt(claims: object) -> str:
    """An unsigned JWT with *claims*."""
    payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
    return f"e30.{base64.urlsafe_b64encode(payload).rstrip(b'=').decode()}."


def check_jwt(payload: bytes, *, sealed: bool = True) -> None:
    """A token that may be a JWT brings the expiry that its claims name, or none; another person's is refused."""
    text = jwt(payload) if sealed else payload.decode("utf-8", "replace")
    claims = _parsed(payload)
    try:
        made = Token.from_response({"access_token": text, "id_token": text}, now=EPOCH)
    except ValueError:
        assert not is_credential(text)
        return
    check_token(made)
    if sealed and isinstance(claims, dict):
        assert repr(dict(made.claims())) == repr(claims)
        exp = cast("object", claims.get("exp"))
        if isinstance(exp, int) and not isinstance(exp, bool) and EPOCH < exp < EPOCH + LONGEST_LIFETIME:
            assert made.expires_at == exp
    check_flight(made)


def _http(data: bytes, *, default: str) -> HTTPAnswer:
    """A status, a few headers in lines, and a body, cut out of *data*."""
    head, _, body = data[1:].partition(b"\n\n")
    headers = {"content-type": default}
    for line in head.decode("latin-1").split("\n")[:8]:
        name, colon, value = line.partition(":")
        if colon:
            headers[name.strip().lower()] = value.strip()
    return HTTPAnswer(STATUSES[data[0] % len(STATUSES)], headers, body, "ReadError" if data[0] & 0x80 else None)


def token_answer(data: bytes) -> None:
    """Any HTTP answer of a token endpoint."""
    if data:
        check_answer(_http(data, default="application/json"), _FIELDS[data[0] >> 6 & 1])


def grant_answer(data: bytes) -> None:
    """Any JSON that a function of the application's own returns."""
    check_flight(_parsed(data))


def record(data: bytes) -> None:
    """Any content of a session file."""
    check_record(data)


def challenge(data: bytes) -> None:
    """Any ``WWW-Authenticate`` header."""
    check_challenge(data[1:].decode("latin-1"), (401, 403, 400, 200)[data[0] % 4] if data else 401)


def sniff(data: bytes) -> None:
    """Any body of an API's answer."""
    if len(data) > 2:
        check_sniff(data[3:], 401 if data[0] & 1 else 200, [data[1], data[2] * 7], nested=bool(data[0] & 2))


def retry_after(data: bytes) -> None:
    """Any ``Retry-After`` and ``Date``."""
    value, _, date = data.decode("latin-1").partition("\n")
    check_answer(HTTPAnswer(429, {"retry-after": value, "date": date}, b""))
    check_answer(HTTPAnswer(503, {"retry-after": value}, b""))


def claims(data: bytes) -> None:
    """Any payload of a JWT, and any text in its place."""
    check_jwt(data)
    check_jwt(data, sealed=False)


TARGETS: dict[str, Callable[[bytes], None]] = {
    target.__name__: target for target in (token_answer, grant_answer, record, challenge, sniff, retry_after, claims)
}

SEEDS: dict[str, list[Any]] = {
    "token_answer": [
        b'\x00date: Wed, 21 Oct 2015 07:28:00 GMT\n\n{"access_token":"AT-2","refresh_token":"RT-2","expires_in":300}',
        b'\x00\n\n{"access_token":"AT-2","expires_at":"2030-01-01T00:00:00Z","scope":"a b","x":[1,{"y":null}]}',
        b"\x00content-type: application/x-www-form-urlencoded\n\naccess_token=AT-2&expires_in=5",
        b'\x07\n\n{"error":"invalid_grant"}',
        b'\x80\n\n{"refresh_token":"RT-2","access_token":"AT',
        b'\x40\n\n{"data":{"Token":"AT-2","t":"300"},"code":null}',
        b"\x05location: https://user@host.test/x\n\n",
        b"\x10retry-after: 7\n\n",
    ],
    "grant_answer": [b'{"access_token":"AT-2","refresh_token":"RT-2","expires_in":300}', b'{"refresh_token":"RT-2"}'],
    "record": [encode(session()), encode(session().over("logout", EPOCH))],
    "challenge": [
        b'\x00Bearer realm="a, b", error="invalid_token", DPoP algs="ES256"',
        b"\x01NTLM TlRM==, Bearer error=insufficient_user_authentication, acr_values=x, max_age=5",
    ],
    "sniff": [
        b'\x00\x05\x07{"code": 40009, "msg": "x"}',
        b'\x01\x05\x07{"a": {"b": "}"}, "code": "A0230"}',
        b'\x02\x05\x07{"error": {"code": 4.0009e4}}',
        b"\x00\x01\x02" + '{"code": "40009"}'.encode("utf-16"),
    ],
    "retry_after": [b"120", b"Wed, 21 Oct 2015 07:28:00 GMT\nWed, 21 Oct 2015 07:27:00 GMT", b"1e5"],
    "claims": [b'{"sub":"alice","iss":"i","exp":1000300}', b'{"exp":"2030-01-01T00:00:00+02:00"}', b"e30.e30."],
}
"""Where a coverage-guided fuzzer begins."""
