"""Finding an API's business code (``{"code": 40009}``) in a body, while reading as little of it as possible.

Rules of this module:

* What counts is the first JSON document in the first `SNIFF_LIMIT` bytes. The verdict is therefore the same
  however the network cut the body into pieces, and a stream of documents is judged by its first one, without
  waiting for more.
* The filter on bytes says "no" only where a parser would find no code that matters; it never says "yes".
* One exception, for speed: when the code is the very first key, its value settles the matter before the rest
  arrives. A body that repeats the key, or breaks off later, is then judged by that first value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, cast

from unexpired._core.challenge import ACCEPTED, Answer, Headers, Judgement, Verdict
from unexpired.errors import ConfigurationError

if TYPE_CHECKING:
    from unexpired._core.scheme import Scheme

__all__ = ["SNIFF_LIMIT", "BusinessCode", "Code", "Sniffer", "canonical", "same_code"]

SNIFF_LIMIT = 65536
"""Bytes of a body that are looked at, at most."""

Code = int | float | str
"""A business code as people write it: 40009, "40009", 40009.0, "A0230"."""

_WHITESPACE = b" \t\r\n"
_MAY_START_AN_OBJECT = b"{\xef\xff\xfe\x00"  # the brace; the byte order marks; UTF-16 and UTF-32 without one
_HEAD = 256
_WHOLE_NUMBER = re.compile(r"(0|-?[1-9][0-9]*)(?:\.0*)?")
_PLAIN = re.compile(r"[A-Za-z0-9_-]+")
_NO_DOCUMENT = object()
_DECODER = json.JSONDecoder()


def canonical(value: object) -> str | None:
    """The one spelling of a code: 40009, 40009.0, "40009" and " 40009 " are ``"40009"``. None for others.

    Booleans, None, lists and objects are no codes. Leading zeros are part of a code: "00000" is not 0.
    """
    if isinstance(value, bool):
        return None
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, str):
        text = value.strip(" ")
        number = _WHOLE_NUMBER.fullmatch(text)
        return text if number is None else number[1]
    return None


def same_code(one: object, other: object) -> bool:
    """Whether two values are the same code, loosely (see `canonical`). What is no code equals nothing."""
    code = canonical(one)
    return code is not None and code == canonical(other)


class BusinessCode:
    """Where an API puts its business code, and what its codes mean. Immutable; safe for threads and tasks.

    *path* leads to it through JSON objects: ``code``, ``error.code``. A code belongs to one set only. Raises
    ConfigurationError for an empty path, a value that is no code, and a code in two sets.
    """

    __slots__ = ("_at_start", "_filter", "_key", "_path", "_table", "ok", "path")

    def __init__(
        self, path: str, *, expired: Iterable[Code], login_required: Iterable[Code], ok: Iterable[Code]
    ) -> None:
        self.path = path
        self.ok = tuple(ok)
        self._path = tuple(path.split("."))
        if not all(self._path):
            raise ConfigurationError('code= must be a path of names such as "code" or "error.code"')
        self._table: dict[str, Judgement] = {}
        self._add("expired", Verdict.EXPIRED, expired)
        self._add("login_required", Verdict.LOGIN_REQUIRED, login_required)
        refusals = tuple(self._table)
        self._add("ok", Verdict.ACCEPTED, self.ok)
        self._key = f'"{self._path[-1]}"'.encode()
        self._filter = self._make_filter(refusals)
        self._at_start: re.Pattern[bytes] | None = None
        if len(self._path) == 1:
            space = rb"[ \t\r\n]*"
            value = rb'("[ !#-\[\]-~]*"|-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?|true|false|null)'
            key = re.escape(self._key)
            opening = space.join([rb"(?:\xef\xbb\xbf)?", rb"\{", key, b":", value, rb"[,}]"])
            self._at_start = re.compile(opening)

    def _add(self, name: str, verdict: Verdict, codes: Iterable[Code]) -> None:
        for code in codes:
            text = canonical(code)
            if text is None:
                raise ConfigurationError(f"{name}= must hold numbers and strings, not {type(code).__name__}")
            if text in self._table:
                raise ConfigurationError(f"the code {text!r} is given twice, again in {name}=")
            accepted = verdict is Verdict.ACCEPTED
            self._table[text] = ACCEPTED if accepted else Judgement(verdict, f"code {text}")

    def _make_filter(self, refusals: tuple[str, ...]) -> re.Pattern[bytes] | None:
        """What a body with a refusal surely matches; None when key or codes have too many spellings."""
        if not all(_PLAIN.fullmatch(text) for text in (self._path[-1], *refusals)):
            return None
        # The last two are numbers that a parser may round to a code: with an exponent, or very long.
        known = rb'"? *-?(?:' + "|".join(refusals).encode() + rb")"
        numbers = rb"-?[0-9.]+[eE]|-?[0-9.]{15}"
        return re.compile(self._key + rb"[ \t\r\n]*:[ \t\r\n]*(?:" + known + b"|" + numbers + b")")

    def judge(self, body: bytes | bytearray, status: int, otherwise: Judgement) -> Judgement:
        """The judgement of the code in *body*; *otherwise* if it is missing or unknown. Never raises."""
        if otherwise is ACCEPTED and not self._may_refuse(body):
            return ACCEPTED
        return self._settle(_first_document(body), status, otherwise)

    def judge_start(self, start: bytes | bytearray, status: int, otherwise: Judgement) -> Judgement | None:
        """The same from the start of a body, if the code is its very first key; else None."""
        found = self._at_start and self._at_start.match(start, 0, _HEAD)
        return self._mean(json.loads(found[1]), status, otherwise) if found else None

    def judge_whole(self, start: bytes | bytearray, status: int, otherwise: Judgement) -> Judgement | None:
        """The same from the start of a body, if its first document is complete; None when it is not."""
        document = _first_document(start)
        return None if document is _NO_DOCUMENT else self._settle(document, status, otherwise)

    def _may_refuse(self, body: bytes | bytearray) -> bool:
        # An escape \u00XX is the only other way to spell a plain ASCII letter or digit in JSON.
        if self._filter is None or b"\\u00" in body or not json.detect_encoding(body).startswith("utf-8"):
            return True
        return self._key in body and self._filter.search(body) is not None

    def _settle(self, document: object, status: int, otherwise: Judgement) -> Judgement:
        for name in self._path:
            if not isinstance(document, dict):
                return otherwise
            document = cast("dict[str, Any]", document).get(name)
        return self._mean(document, status, otherwise)

    def _mean(self, value: object, status: int, otherwise: Judgement) -> Judgement:
        text = canonical(value)
        known = None if text is None else self._table.get(text)
        if known is None or (known is ACCEPTED and not 200 <= status < 300):
            return otherwise
        return known


def _first_document(body: bytes | bytearray) -> object:
    """The first JSON document of *body*. Bytes that fit no encoding are forgiven inside texts."""
    text = body.decode(json.detect_encoding(body), "replace").lstrip(" \t\r\n")
    try:
        document: object = _DECODER.raw_decode(text)[0]
    except (ValueError, RecursionError):
        return _NO_DOCUMENT
    return document


class Sniffer:
    """Judges one answer while its body arrives. Not shared: one sniffer per answer, fed by one task.

    The adapter keeps the pieces and hands them on once there is a judgement; from then on nothing is held
    back. At most `SNIFF_LIMIT` bytes are kept here. With *encoded* (a ``Content-Encoding``) the pieces are
    only counted: the adapter decodes the complete body and gives it to `judge_body`. A scheme's own
    ``judge=`` gets the whole body, or none when it is longer than the limit; what it raises passes through.
    """

    __slots__ = (
        "_buffer", "_code", "_depth", "_encoded", "_judgement", "_otherwise", "_parts", "_past_head", "_size",
        "_started", "_try_at",
    )  # fmt: skip

    def __init__(self, scheme: Scheme, status: int, headers: Headers, encoded: bool = False) -> None:
        self._parts = (scheme, status, headers)
        self._encoded = encoded
        self._code = None if encoded or scheme.asks else scheme.business_code
        self._otherwise = ACCEPTED if self._code is None else scheme.judge(Answer(status, headers))
        self._judgement = scheme.judge(Answer(status, headers)) if scheme.plain else None
        self._buffer = bytearray()
        self._size = 0
        self._depth = 0
        # A body of a stated length is no stream: its end is near, and judging it there is cheaper.
        self._try_at = 0 if headers.get("content-length") is None else SNIFF_LIMIT + 1
        self._started = False
        self._past_head = False

    def feed(self, chunk: bytes) -> Judgement | None:
        """Take the next piece of the body. None means: more is needed, keep holding the body back."""
        if self._judgement is None:
            self._buffer += chunk[: SNIFF_LIMIT - len(self._buffer)]
            self._size += len(chunk)
            if self._code is not None:
                self._judgement = self._decide_early(self._code, chunk)
            if self._judgement is None and self._size > SNIFF_LIMIT:
                self._judgement = self.finish() if self._code is not None else self._without_body()
        return self._judgement

    def finish(self) -> Judgement:
        """The judgement at the end of the body. An encoded one counts only through `judge_body`."""
        if self._judgement is None:
            self._judgement = self._without_body() if self._encoded else self.judge_body(bytes(self._buffer))
        return self._judgement

    def judge_body(self, decoded: bytes) -> Judgement:
        """Judge a complete, decoded body. Never raises, unless the scheme's own ``judge=`` does."""
        scheme, status, headers = self._parts
        if scheme.asks and len(decoded) > SNIFF_LIMIT:
            return self._without_body()
        return scheme.judge(Answer(status, headers, decoded[:SNIFF_LIMIT]))

    def _without_body(self) -> Judgement:
        scheme, status, headers = self._parts
        return scheme.judge(Answer(status, headers))

    def _decide_early(self, code: BusinessCode, chunk: bytes) -> Judgement | None:
        _, status, _ = self._parts
        if not self._started:
            first = chunk.lstrip(_WHITESPACE)[:1]
            self._started = bool(first)
            if first not in _MAY_START_AN_OBJECT:
                return self._otherwise
        if not self._past_head:
            self._past_head = len(self._buffer) >= _HEAD
            judgement = code.judge_start(self._buffer, status, self._otherwise)
            if judgement is not None:
                return judgement
        self._depth += chunk.count(b"{") - chunk.count(b"}")
        if self._depth > 0 or b"}" not in chunk or self._size < self._try_at:
            return None
        # Braces in texts mislead the count; trying only at twice the size keeps the sum of all tries linear.
        self._try_at = 2 * self._size
        return code.judge_whole(self._buffer, status, self._otherwise)
