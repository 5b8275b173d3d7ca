"""Input of a megabyte, of the worst shapes: bounded in time and memory, and never a lost session."""

from __future__ import annotations

import functools
import time
import tracemalloc
from collections.abc import Callable

import pytest

from tests.core.harness import KEY
from tests.fuzz.targets import SCHEME, check_answer, check_challenge, check_jwt, check_record, jwt, sniffed
from unexpired._core.challenge import Answer, parse_challenges
from unexpired._core.record import decode
from unexpired._core.token import Token
from unexpired.errors import AnswerLost, NotSent, Refused, StoreError
from unexpired.grants.answer import HTTPAnswer, read_token

SIZE = 1_000_000
HEAD = 100_000  # bytes; HTTP clients refuse a longer head of an answer
SECONDS = 5.0
TIMES = 50

SHAPES: dict[str, Callable[[], bytes]] = {
    "lists": lambda: b"[" * SIZE,
    "closed lists": lambda: b"[" * (SIZE // 2) + b"]" * (SIZE // 2),
    "objects": lambda: b'{"a":' * (SIZE // 5),
    "flat lists": lambda: b"[" + b"[]," * (SIZE // 3) + b"1]",
    "members": lambda: b"{" + b",".join(b'"%d":0' % n for n in range(SIZE // 10)) + b"}",
    "one member": lambda: b"{" + b'"a":0,' * (SIZE // 6) + b'"a":0}',
    "digits": lambda: b'{"code":' + b"9" * SIZE + b"}",
    "digits after a point": lambda: b'{"code":0.' + b"9" * SIZE + b"}",
    "exponent": lambda: b'{"expires_in":1e' + b"9" * SIZE + b',"access_token":"AT"}',
    "open text": lambda: b'{"a":"' + b"x" * SIZE,
    "backslashes": lambda: b'{"a":"' + b"\\" * SIZE,
    "escapes": lambda: b'{"access_token":"' + b"\\u0041" * (SIZE // 6) + b'"}',
    "space": lambda: b" " * SIZE,
    "braces": lambda: b"{}" * (SIZE // 2),
    "closing braces": lambda: b'{"x":"' + b"}" * SIZE,
    "zeros": lambda: bytes(SIZE),
    "long token": lambda: b'{"access_token":"' + b"a" * SIZE + b'","refresh_token":"RT-2","expires_in":300}',
    "dots": lambda: b'{"access_token":"' + b"." * SIZE + b'"}',
    "keys": lambda: b'{"code"' * (SIZE // 7),
    "ampersands": lambda: b"&=" * (SIZE // 2),
}
HEADERS: dict[str, Callable[[], str]] = {
    "quotes": lambda: '"' * HEAD,
    "open quotes": lambda: 'a="' * (HEAD // 3),
    "escaped": lambda: 'Bearer a="' + "\\" * HEAD,
    "schemes": lambda: "a " * (HEAD // 2),
    "token68": lambda: "Bearer " + "a" * HEAD + "!",
    "equals": lambda: "Bearer a" + "=" * HEAD,
    "space": lambda: "Bearer" + " " * HEAD + "x" + "\t" * 10 + "=",
    "commas": lambda: "," * HEAD,
    "parameters": lambda: "Bearer " + ",".join(f"a{n}={n}" for n in range(HEAD // 12)),
    "space and equals": lambda: "a = " * (HEAD // 4),
}
MOMENTS: dict[str, Callable[[], str]] = {
    "digits": lambda: "9" * SIZE,
    "fraction": lambda: "0." + "1" * SIZE,
    "words": lambda: "a " * (SIZE // 2),
    "commas": lambda: "," * SIZE,
    "colons": lambda: "Wed, 21 Oct 2015 " + ":" * SIZE,
    "year": lambda: "Wed, 21 Oct " + "9" * SIZE + " 07:28:00 GMT",
    "zone": lambda: "Wed, 21 Oct 2015 07:28:00 +" + "9" * SIZE,
    "dashes": lambda: "1-" * (SIZE // 2),
    "brackets": lambda: "(" * SIZE,
}


def bounded(work: Callable[[], object], size: int = SIZE, times: int = TIMES) -> None:
    """Fail when *work* takes over 5 s of this thread's time, or over *times* the input in memory."""
    since = time.thread_time()
    work()
    took = time.thread_time() - since
    tracemalloc.start()
    try:
        work()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert took < SECONDS
    assert peak < times * size, f"{peak / size:.0f} times the input"


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_token_answer(shape: str) -> None:
    """A megabyte from the token endpoint is an answer or an error in bounded time and memory."""
    body = SHAPES[shape]()

    def read(kind: str) -> object:
        try:
            return read_token(HTTPAnswer(200, {"content-type": kind}, body), endpoint="e", now=1.0)
        except (AnswerLost, Refused) as error:
            return str(error)

    for kind in ("application/json", "application/x-www-form-urlencoded"):
        bounded(functools.partial(read, kind))
        said = read(kind)
        assert isinstance(said, Token) or len(str(said)) < 200
    check_answer(HTTPAnswer(200, {}, body))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_session_file(shape: str) -> None:
    """A megabyte in the place of a session is refused with a short StoreError."""
    body = SHAPES[shape]()

    def read() -> None:
        with pytest.raises(StoreError) as caught:
            decode(body, KEY, "here")
        assert len(str(caught.value)) < 300

    bounded(read)
    assert check_record(body) is None


@pytest.mark.parametrize("shape", SHAPES)
def test_a_large_body(shape: str) -> None:
    """A megabyte from an API is judged the same in one piece and in thousands, in bounded time and memory."""
    body = SHAPES[shape]()
    cuts = list(range(0, SIZE, 500))
    bounded(lambda: sniffed(SCHEME, body, 200, cuts))
    assert sniffed(SCHEME, body, 200, cuts) == sniffed(SCHEME, body, 200, [])
    bounded(lambda: SCHEME.judge(Answer(200, {}, body)))


@pytest.mark.parametrize("shape", HEADERS)
def test_a_large_challenge(shape: str) -> None:
    """The longest ``WWW-Authenticate`` that can arrive is read in bounded time; each challenge is one small object."""
    header = HEADERS[shape]()
    bounded(lambda: parse_challenges(header), HEAD, 4 * TIMES)
    check_challenge(header)


@pytest.mark.parametrize("shape", MOMENTS)
def test_a_large_pause(shape: str) -> None:
    """A megabyte of ``Retry-After`` or ``Date`` is a pause or none."""
    value = MOMENTS[shape]()

    def read() -> None:
        with pytest.raises(NotSent) as caught:
            read_token(HTTPAnswer(429, {"retry-after": value, "date": value}, b""), endpoint="e", now=1.0)
        assert caught.value.retry_after is None or caught.value.retry_after >= 0.0

    bounded(read)


@pytest.mark.parametrize("shape", SHAPES)
def test_large_claims(shape: str) -> None:
    """A megabyte inside a JWT is a token with an expiry or without one."""
    sealed = jwt(SHAPES[shape]())
    bounded(lambda: Token.from_response({"access_token": sealed, "id_token": sealed}, now=1.0).claims())
    check_jwt(SHAPES[shape]()[:5000])
