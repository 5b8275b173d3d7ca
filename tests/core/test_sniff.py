from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unexpired._core.scheme import ACCEPTED, Answer, InQuery, Judgement, Scheme, Verdict
from unexpired._core.sniff import SNIFF_LIMIT, Sniffer, canonical, same_code

EXPIRED = Judgement(Verdict.EXPIRED, "code 40009")
OVER = Judgement(Verdict.LOGIN_REQUIRED, "code A0230")


def _scheme(path: str = "code", **more: Any) -> Scheme:
    options: dict[str, Any] = {"expired": [40009], "login_required": ["A0230"], "ok": [0]}
    return Scheme(InQuery("token"), code=path, **(options | more))


def _sniff(scheme: Scheme, chunks: Iterable[bytes], status: int = 200) -> Judgement:
    sniffer = Sniffer(scheme, status, {})
    for chunk in chunks:
        judgement = sniffer.feed(chunk)
        if judgement is not None:
            return judgement
    return sniffer.finish()


def _cut(body: bytes, cuts: Iterable[int]) -> list[bytes]:
    places = sorted({0, len(body), *(cut % (len(body) + 1) for cut in cuts)})
    return [body[start:end] for start, end in pairwise(places)]


_SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-3, 50000)
    | st.floats()
    | st.text(max_size=6)
    | st.sampled_from(["40009", " 40009 ", 40009, 40009.0, "A0230", 0, "{}}", '"code":40009'])
)
_KEYS = st.sampled_from(["code", "data", "error", "co", "x"]) | st.text(max_size=4)
_DOCUMENTS = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=8,
)
_HOT = st.sampled_from([40009, "40009", " 40009 ", 40009.0, "A0230", 0, "0", 7, True, None])
_OBJECTS = st.builds(
    lambda before, code, after: before | {"code": code} | {k: v for k, v in after.items() if k != "code"},
    st.dictionaries(_KEYS, _DOCUMENTS, max_size=3),
    _HOT | _DOCUMENTS,
    st.dictionaries(_KEYS, _DOCUMENTS, max_size=2),
)
_TEXTS = st.builds(
    lambda document, ascii_only, indent, tail: json.dumps(document, ensure_ascii=ascii_only, indent=indent) + tail,
    _OBJECTS | _DOCUMENTS,
    st.booleans(),
    st.sampled_from([None, 0, 200]),
    st.sampled_from(["", "\n", " x", '\n{"code": 40009}']),
)
_ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "latin-1"])
_BODIES = (
    st.builds(lambda text, encoding: text.encode(encoding, "replace"), _TEXTS, _ENCODINGS)
    | st.binary(max_size=60)
    | st.text(alphabet='{}[]":, code40009\\eE.-+\n', max_size=60).map(str.encode)
)


@given(_BODIES, st.lists(st.integers(0, 5000), max_size=8), st.sampled_from([200, 401]))
@example(b'{"x": "}}}}}", "code": 4.0009e4}', [8, 15], 200)
@example(b"{" + b" " * 300 + b'"code": 40009, "code": 0}', [256], 200)
@example(b'{"a": "}", "b": {"c": 1}, "code": 40009}' + b" " * 70_000, [9, 40], 200)
def test_the_cuts_of_the_network_do_not_matter(body: bytes, cuts: list[int], status: int) -> None:
    """The verdict is the same whole, cut anywhere, and byte by byte."""
    whole = _sniff(_scheme(), [body], status)
    assert _sniff(_scheme(), _cut(body, cuts), status) == whole
    assert _sniff(_scheme(), (body[n : n + 1] for n in range(len(body))), status) == whole


@given(
    st.dictionaries(_KEYS, _DOCUMENTS, max_size=5),
    st.booleans(),
    st.sampled_from(["utf-8", "utf-16", "utf-32"]),
)
@example({"x": 1, "code": -0.0}, True, "utf-8")
def test_the_quick_ways_agree_with_a_parser(document: dict[str, Any], ascii_only: bool, encoding: str) -> None:
    """The byte filter and the look at the start never say something else than a full parse."""
    body = json.dumps(document, ensure_ascii=ascii_only).encode(encoding, "surrogatepass")
    by_parser = {"40009": EXPIRED, "A0230": OVER}.get(canonical(document.get("code")) or "", ACCEPTED)
    assert _sniff(_scheme(), [body]) == by_parser
    assert Sniffer(_scheme(), 200, {}, encoded=True).judge_body(body) == by_parser
    assert _scheme().judge(Answer(200, {}, body)) == by_parser


_ANYTHING = _SCALARS | st.lists(st.integers(), max_size=1)


@given(_ANYTHING, _ANYTHING)
def test_codes_compare_the_same_both_ways(one: object, other: object) -> None:
    """Comparing is symmetrical, and every number equals its own text."""
    assert same_code(one, other) == same_code(other, one)
    if isinstance(one, int) and not isinstance(one, bool):
        assert same_code(one, f" {one} ")
        assert same_code(float(one), one)


@pytest.mark.parametrize("spelling", [40009, 40009.0, "40009", " 40009 ", "40009.0", "40009."])
def test_a_code_has_many_spellings(spelling: object) -> None:
    """Numbers, whole floats and their texts are one code."""
    assert same_code(spelling, 40009)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (True, 1),
        (False, 0),
        (None, None),
        (None, 0),
        ("00000", 0),
        ([], []),
        (1.5, 1),
        ("a", "A"),
        (True, "True"),
    ],
)
def test_what_is_no_code_equals_nothing(one: object, other: object) -> None:
    """Booleans never equal numbers, None equals nothing, and leading zeros and case count."""
    assert not same_code(one, other)


@pytest.mark.parametrize(
    ("path", "body", "verdict"),
    [
        ("code", {"data": {"code": 40009}, "code": 0}, ACCEPTED),
        ("code", {"data": [{"code": 40009}]}, ACCEPTED),
        ("code", {"msg": '"code": 40009'}, ACCEPTED),
        ("code", {"a": {"code": 1}, "code": 40009}, EXPIRED),
        ("code", [{"code": 40009}], ACCEPTED),
        ("error.code", {"x": 1, "error": {"code": "40009"}}, EXPIRED),
        ("error.code", {"error": "code 40009", "code": 40009}, ACCEPTED),
        ("error.code", {"error": {"x": {"code": 40009}}}, ACCEPTED),
        ("errcode", {"errmsg": "", "errcode": 40009}, EXPIRED),
        ("a b", {"x": 1, "a b": 40009}, EXPIRED),
    ],
)
def test_only_the_code_at_its_path_counts(path: str, body: object, verdict: Judgement) -> None:
    """A nested key, a list and a text that looks like a code fool nobody (scenario 37)."""
    raw = json.dumps(body).encode()
    assert _sniff(_scheme(path), [raw]) == verdict
    assert _sniff(_scheme(path), [raw[:7], raw[7:]]) == verdict


@pytest.mark.parametrize(
    "body",
    [
        rb'{"x": 1, "c\u006fde": 40009}',
        rb'{"x": 1, "code": "\u00340009"}',
        b'{"x": 1, "code": 4.0009e4}',
        b'{"x": 1, "code": 40008.9999999999999999}',
        b'\xef\xbb\xbf {"x": 1, "code": 40009}',
        '{"x": 1, "code": 40009}'.encode("utf-16-be"),
        b'{"msg": "\xb5\xc7\xc2\xbc", "code": 40009}',
    ],
)
def test_odd_spellings_are_found(body: bytes) -> None:
    """Escapes, exponents, byte order marks, UTF-16 and texts in another encoding hide no code."""
    assert _sniff(_scheme(), [body]) == EXPIRED
    assert _scheme().judge(Answer(200, {}, body)) == EXPIRED


def test_codes_beyond_ascii_are_found_however_they_are_escaped() -> None:
    """A code or key beyond plain ASCII is found both escaped and as UTF-8."""
    scheme = Scheme(InQuery("t"), code="状态", expired=["过期"])
    for ascii_only in (True, False):
        body = json.dumps({"x": 1, "状态": "过期"}, ensure_ascii=ascii_only).encode()
        assert _sniff(scheme, [body]).verdict is Verdict.EXPIRED


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"   ",
        b"{",
        b'{"x": 1, "code": 40009',
        b'{"x": nope, "code": 40009}',
        b'{"x": ' + b"[" * 30_000 + b', "code": 40009}',
        b'{"x": ' + b"9" * 5000 + b', "code": 40009}',
        b'<p>"code": 40009</p>',
    ],
)
def test_a_body_that_is_not_json_has_no_code(body: bytes) -> None:
    """Broken JSON, deep nesting and huge numbers hold no code: header and status decide, nothing raises."""
    assert _sniff(_scheme(), [body]) is ACCEPTED
    assert _sniff(_scheme(), [body], 401) == Judgement(Verdict.EXPIRED, "status 401")


@pytest.mark.parametrize(
    ("start", "verdict"),
    [
        (b'{"code":0,', ACCEPTED),
        (b' {\n "code" : "40009" ,', EXPIRED),
        (b'\xef\xbb\xbf{"code":"A0230","data":', OVER),
        (b'{"code":7,', ACCEPTED),
        (b'{"code":null,', ACCEPTED),
        (b'{"code":40009.0,', EXPIRED),
        (b"  <!doctype", ACCEPTED),
        (b"[", ACCEPTED),
        (b'{"data": {"code": 40009}}\n', ACCEPTED),
        (b'{"data": 1, "code": 40009}\n{"next', EXPIRED),
    ],
)
def test_the_verdict_comes_as_early_as_it_can(start: bytes, verdict: Judgement) -> None:
    """A leading code, a body that is no object and a complete first document are judged at once."""
    if b"{" in start[:8] and b"\n{" in start:
        first, rest = start.split(b"\n{")
        sniffer = Sniffer(_scheme(), 200, {})
        assert sniffer.feed(first) == verdict
        assert sniffer.feed(b"\n{" + rest) == verdict
    else:
        assert Sniffer(_scheme(), 200, {}).feed(start) == verdict


@pytest.mark.parametrize("start", [b"", b" \n", b'{"code":4000', b'{"code":40009', b'{"data":{"code":40009}', b"\xff"])
def test_no_verdict_comes_too_early(start: bytes) -> None:
    """A value that may go on, an object that is still open and mere white space wait for more."""
    assert Sniffer(_scheme(), 200, {}).feed(start) is None


def test_a_start_in_pieces_is_judged_as_early() -> None:
    """A leading code, a body that is no object and a complete document are seen across pieces too."""
    for pieces, judgement in [
        ((b'{"co', b'de":40009,'), EXPIRED),
        ((b"", b" ", b"["), ACCEPTED),
        ((b'{"a":{"b":1}', b',"c":1}'), ACCEPTED),
    ]:
        sniffer = Sniffer(_scheme(), 200, {})
        assert [sniffer.feed(piece) for piece in pieces] == [None] * (len(pieces) - 1) + [judgement]


def test_a_long_body_is_let_go_at_the_limit() -> None:
    """A body over the limit is judged without it once the limit is passed, with at most the limit kept."""
    sniffer = Sniffer(_scheme(), 401, {})
    assert sniffer.feed(b'{"x": "') is None
    assert sniffer.feed(b"a" * (SNIFF_LIMIT - 7)) is None
    assert sniffer.feed(b'a", "code": 40009}') == Judgement(Verdict.EXPIRED, "status 401")
    assert len(sniffer._buffer) == SNIFF_LIMIT


def test_a_body_of_exactly_the_limit_is_judged() -> None:
    """The limit itself still counts."""
    body = b'{"x": "' + b"a" * (SNIFF_LIMIT - 24) + b'", "code":40009}'
    assert len(body) == SNIFF_LIMIT - 1
    assert _sniff(_scheme(), [body[:100], body[100:] + b" "]) == EXPIRED
    assert _sniff(_scheme(), [b" " + body]) == EXPIRED
    assert _sniff(_scheme(), [b"  " + body]) is ACCEPTED


def test_an_encoded_body_is_counted_and_judged_when_decoded() -> None:
    """Of a compressed body nothing is read before the adapter has decoded it; over the limit it is let go."""
    sniffer = Sniffer(_scheme(), 200, {}, encoded=True)
    assert sniffer.feed(b'{"code":40009}') is None
    assert sniffer.judge_body(b'{"code":40009}') == EXPIRED
    assert sniffer.finish() is ACCEPTED
    assert Sniffer(_scheme(), 200, {}, encoded=True).feed(b"{" * (SNIFF_LIMIT + 1)) is ACCEPTED
    assert sniffer.judge_body(b'{"x":1,"code":40009}' + b" " * SNIFF_LIMIT) == EXPIRED
    assert sniffer.judge_body(b'{"x":"' + b" " * SNIFF_LIMIT + b'","code":40009}') is ACCEPTED


def test_a_judge_of_ones_own_gets_the_whole_body_or_none() -> None:
    """A judge of the user's own gets the complete body and nothing early, or None when it is too long."""
    seen: list[bytes | None] = []

    def judge(answer: Answer) -> None:
        seen.append(answer.body)

    scheme = _scheme(judge=judge)
    sniffer = Sniffer(scheme, 200, {})
    assert sniffer.feed(b'{"code":40009,') is None
    assert sniffer.feed(b'"x":1}') is None
    assert seen == []
    assert sniffer.finish() == EXPIRED
    assert seen == [b'{"code":40009,"x":1}']
    assert Sniffer(scheme, 200, {}).feed(b"{" * (SNIFF_LIMIT + 1)) is ACCEPTED
    assert Sniffer(scheme, 200, {}, encoded=True).judge_body(b"{" * (SNIFF_LIMIT + 1)) is ACCEPTED
    assert seen[1:] == [None, None]


def test_a_plain_scheme_holds_nothing_back() -> None:
    """A scheme without codes is judged from status and headers at the first piece."""
    assert Sniffer(Scheme.bearer(), 401, {}).feed(b'{"code":') == Judgement(Verdict.EXPIRED, "status 401")


def test_a_judgement_stands() -> None:
    """Once judged, more pieces and the end of the body change nothing."""
    sniffer = Sniffer(_scheme(), 200, {})
    assert sniffer.feed(b'{"code":40009,') == EXPIRED
    assert sniffer.feed(b'"code":0}') == EXPIRED
    assert sniffer.finish() == EXPIRED


def test_a_body_of_stated_length_is_judged_at_its_end() -> None:
    """With a Content-Length nothing is parsed on the way: the body is judged at its end, once."""
    sniffer = Sniffer(_scheme(), 200, {"content-length": "25"})
    assert sniffer.feed(b'{"x": 1, "code": 40009}') is None
    assert sniffer.feed(b" \n") is None
    assert sniffer.finish() == EXPIRED


def test_braces_in_texts_only_make_it_wait() -> None:
    """Texts with braces mislead the look for a complete document into waiting, never into another verdict."""
    sniffer = Sniffer(_scheme(), 200, {})
    for piece in (b'{"x": "}", ', b'"y": "}", ', b'"code": 40009 ', b', "z": "', b"a" * 20, b'"'):
        assert sniffer.feed(piece) is None
    assert sniffer.feed(b"}") == EXPIRED
    tried = Sniffer(_scheme(), 200, {})
    assert tried.feed(b'{"x": "}}}}}}}}}}}}}}}}}}}}}') is None
    assert tried.feed(b'","code":40009}') is None, "tried again before the body was twice as long"
    assert tried.finish() == EXPIRED
