from __future__ import annotations

import json

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import check_challenge, check_sniff
from tests.fuzz.values import damaged, jsons, nested, numbers
from unexpired._core.challenge import Answer, parse_challenges
from unexpired._core.scheme import Scheme, Verdict
from unexpired._core.sniff import SNIFF_LIMIT

SPELLINGS = [
    *[b"40009", b'"40009"', b'" 40009 "', b"40009.0", b"4.0009e4", b"400090e-1", b'"A0230"', b'"\\u0041\\u00300230"',
     b'"\\u0034\\u00300009"', b"5", b"0.5e1", b"5.000", b"0", b"-0", b"-0.0", b"0e7", b'"0"', b'"-0"', b'"00"', b"true",
     b"null", b'"40009.00"', b'"4.0009e4"', b"40008.99999999999999999", b"40009.00000000000000001", b"9" * 400, b"{}",
     b"[40009]", b'"40009\\n"', b'"\xd9\xa4\xd9\xa0\xd9\xa0\xd9\xa0\xd9\xa9"', b"1e400", b"-Infinity", b"NaN"]
]  # fmt: skip
_SPACE = st.sampled_from([b"", b"", b" ", b"\r\n", b"\t" * 300])
_SPELLED = st.sampled_from(SPELLINGS)
KEYS = [b'"code"', b'"co\\u0064e"', b'"CODE"', b'"x"', b'"error"', b'"a\\"code\\":40009"']
_KEYS = st.sampled_from([b'"code"'] * 5 + KEYS)
_REST = st.one_of(jsons.map(json.dumps).map(str.encode), nested.map(str.encode), st.just(b'"}}}"'), st.just(b'"\xff"'))


@st.composite
def _bodies(draw: st.DrawFn) -> bytes:
    """A JSON object with members spelled in every way there is, or what is left of one."""
    members = [
        b"".join([draw(_SPACE), draw(_KEYS), draw(_SPACE), b":", draw(_SPACE), draw(_SPELLED | _REST), draw(_SPACE)])
        for _ in range(draw(st.integers(0, 4)))
    ]
    body = draw(_SPACE) + b"{" + b",".join(members) + b"}"
    if draw(st.booleans()):
        body = b'{"error":' + body + b"}"
    return body + draw(st.sampled_from([b"", b"\n", b" x", b'\n{"code": 40009}', b" " * 70_000]))


_WRITTEN = st.builds(
    lambda document, encoding: json.dumps(document, ensure_ascii=False).encode(encoding, "surrogatepass"),
    st.dictionaries(st.sampled_from(["code", "error", "x", "\ud800"]), jsons | numbers, max_size=4),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-be", "utf-32", "utf-32-le"]),
)
BODIES = _bodies() | _WRITTEN | damaged(_bodies()) | st.binary(max_size=60)


@given(BODIES, st.sampled_from([200, 401, 500]), st.lists(st.integers(0, 80_000), max_size=5), st.booleans())
@settings(max_examples=400)
@example(b'{"code": 40009}', 200, [], False)
@example(b'{"x": "\xed\xa0\x80", "code": 40009}', 200, [9], False)
@example(b'{"error": {"code": "A0230"}}', 200, [3], True)
@example(b'{"x":' + b"[" * 5000 + b"]" * 5000 + b',"code":40009}', 200, [], False)
def test_a_body_is_judged_as_a_parser_would(body: bytes, status: int, cuts: list[int], nested_path: bool) -> None:
    """Scenario 37: where the body is JSON, the verdict follows from its code alone; elsewhere it is the status's."""
    check_sniff(body, status, cuts, nested=nested_path)


@pytest.mark.parametrize("start", [b"{", b'{"x": [1, {"y": "}"}], ', b" \r\n{"])
@pytest.mark.parametrize("key", KEYS)
def test_every_spelling_of_a_code_is_judged_as_a_parser_would(start: bytes, key: bytes) -> None:
    """Scenario 37: the quick looks at the bytes know every way in which JSON can spell a key and a code."""
    for spelled in SPELLINGS:
        for status in (200, 401):
            body = start + key + b": " + spelled + b', "z": 1}'
            check_sniff(body, status, [len(start) + 3])
            check_sniff(b'{"error": ' + body + b"}", status, [len(start) + 3], nested=True)


@given(st.integers(-3, 3), _SPELLED)
def test_a_code_at_the_limit_is_seen_or_not(offset: int, code: bytes) -> None:
    """Around the last byte that is looked at, the verdict is still the same however the body is cut."""
    body = b'{"x": "' + b"a" * (SNIFF_LIMIT - 20 - len(code) + offset) + b'", "code":' + code + b"}"
    check_sniff(body, 200, [SNIFF_LIMIT - 1, SNIFF_LIMIT, SNIFF_LIMIT // 2])


_WORDS = st.sampled_from(
    ["Bearer", "DPoP", "Basic", "NTLM", "error", "realm", "scope", "claims", "=", ",", " ", '"', "\\", "\t", '="', '",',
     "invalid_token", "insufficient_scope", "use_dpop_nonce", "insufficient_user_authentication", "acr_values", "====",
     "insufficient_claims", "\x00", "ü", "\r\n"]
)  # fmt: skip
_HEADERS = st.lists(_WORDS, max_size=25).map("".join) | st.text(max_size=60)


@given(_HEADERS, st.sampled_from([200, 400, 401, 403, 404]))
@settings(max_examples=200)
def test_a_challenge_is_read_or_skipped(header: str, status: int) -> None:
    """Scenario 38: any header is read without an error, and only a known error in a known scheme changes a verdict."""
    check_challenge(header, status)


_VALUES = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=12)
_NAMES = st.text("abcdefgh-_", min_size=1, max_size=6)


def _quoted(value: str) -> str:
    return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'


@given(st.lists(st.tuples(_NAMES, st.dictionaries(_NAMES, _VALUES, min_size=1, max_size=3)), max_size=3))
def test_a_challenge_that_was_written_is_read_back(written: list[tuple[str, dict[str, str]]]) -> None:
    """What is spelled by RFC 9110 §11.6.1, quotes and escapes included, is read as it was meant."""
    header = ", ".join(f"{name} " + ", ".join(f"{k}={_quoted(v)}" for k, v in p.items()) for name, p in written)
    assert [(one.scheme, dict(one.params)) for one in parse_challenges(header)] == written


@given(_HEADERS, st.sampled_from(["invalid_token", "use_dpop_nonce"]))
def test_words_in_quotes_are_no_challenge(text: str, error: str) -> None:
    """Text that a server quotes cannot pass for a challenge of its own."""
    header = f"Basic realm={_quoted(f'x, Bearer error={error}, {text}')}"
    assert [one.scheme for one in parse_challenges(header)] == ["basic"]
    answer = Answer(401, {"www-authenticate": header})
    assert Scheme.bearer(expired_status=()).judge(answer).verdict is Verdict.ACCEPTED


@given(_HEADERS.map(lambda text: text.replace('"', "")), st.sampled_from(["invalid_token", "use_dpop_nonce"]))
def test_a_quote_that_is_never_closed_hides_the_rest(text: str, error: str) -> None:
    """Nothing behind an open quote is read: it could be anybody's text."""
    for header in (f'Basic realm="x, Bearer error={error}, {text}', f'Basic x, " Bearer error={error}, {text}'):
        assert [one.scheme for one in parse_challenges(header.replace("\\", ""))] == ["basic"]
