"""What a token endpoint's HTTP answer means: a token, or one of the errors of grants. Pure.

The question behind every row is whether the server may have rotated the refresh token. It surely has not when
it said no in a way that is made for that (RFC 6749 §5.2, 429, 503 with ``Retry-After``) or when nothing at
that address redeems tokens (404, 405, a redirect). Everything else without a usable token counts as a lost
answer.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import parse_qsl, urlsplit

from unexpired._core.token import Token
from unexpired.errors import AnswerLost, ConfigurationError, NotSent, Refused

__all__ = ["HTTPAnswer", "TokenCall", "picked", "read_token"]

_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_UNEXPLAINED = frozenset({400, 401})
# No token endpoint is here, or something stands before it and turns requests away without having looked at
# the token.
_ELSEWHERE = frozenset({403, 404, 405, 406, 407, 410, 411, 413, 414, 415, 422, 426, 431, 451})
_TIMEOUT, _TOO_MANY, _UNAVAILABLE = 408, 429, 503

_CODE = re.compile(r"[\x20-\x21\x23-\x5b\x5d-\x7e]{1,64}")  # the characters of RFC 6749 §5.2
_WORD = re.compile(r"[a-z]+(_[a-z]+)*")
_HOST = re.compile(r"[a-z0-9.:-]{1,253}")
# What servers that are known to deviate from RFC 6749 §5.2 say for `invalid_grant`: GitHub, Slack.
_ALIASES = {"bad_refresh_token": "invalid_grant", "invalid_refresh_token": "invalid_grant"}


@dataclass(frozen=True, slots=True)
class TokenCall:
    """One HTTP request to an authorization server. *endpoint* is its address as messages may show it."""

    method: str
    url: str = field(repr=False)
    endpoint: str
    headers: Mapping[str, str] = field(repr=False)
    body: bytes | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class HTTPAnswer:
    """What came back. *headers* have lower-case names. `repr` shows the status only: the rest is secret.

    *broken* says why the body is not whole, None when it is.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)
    broken: str | None = None


def read_token(answer: HTTPAnswer, *, endpoint: str, now: float, fields: Mapping[str, str] | None = None) -> Token:
    """The token in *answer*, to a request that was sent at *now* (UNIX time).

    *fields* maps our names to dotted paths in the answer. *endpoint* names the server in messages, which
    never quote the answer. Raises NotSent, Refused, AnswerLost or ConfigurationError, and nothing else.
    """
    status = answer.status
    if status in _REDIRECTS:
        raise ConfigurationError(_redirected(answer, endpoint))
    retry_after = _retry_after(answer.headers, now)
    if status == _TOO_MANY or (status == _UNAVAILABLE and retry_after is not None):
        raise NotSent(f"{endpoint} asks to come back later (HTTP {status})", retry_after=retry_after)
    members = picked(_members(answer), fields or {})
    if 200 <= status < 300:
        return _token(answer, members, endpoint, now)
    if 400 <= status < 500 and status != _TIMEOUT:
        code = _error_code(members, status)
        if code is not None:
            raise _refused(endpoint, code, status)
        if status in _UNEXPLAINED:
            raise Refused(
                f"{endpoint} refused the request without saying why (HTTP {status})",
                error=None,
                status=status,
            )
        if status in _ELSEWHERE:
            raise ConfigurationError(
                f"{endpoint} turns token requests away (HTTP {status}): check its address, the method, "
                "and what stands in front of it"
            )
    raise AnswerLost(f"{endpoint} answered HTTP {status}")


def picked(answer: Mapping[str, Any], fields: Mapping[str, str]) -> Mapping[str, Any]:
    """*answer* with each name of *fields* taken from its dotted path, or missing if there is nothing."""
    if not fields:
        return answer
    result = {name: value for name, value in answer.items() if name not in fields}
    for name, path in fields.items():
        value: Any = answer
        for step in path.split("."):
            value = cast("Mapping[str, Any]", value).get(step) if isinstance(value, Mapping) else None
        if value is not None:
            result[name] = value
    return result


def _token(answer: HTTPAnswer, members: Mapping[str, Any], endpoint: str, now: float) -> Token:
    try:
        return Token.from_response(members, now=now, server_time=_date(answer.headers.get("date")))
    except ValueError:
        pass
    if members.get("error"):
        raise _refused(endpoint, _error_code(members, answer.status), answer.status)
    trouble = f"and the answer broke off ({answer.broken})" if answer.broken else "without a usable access token"
    raise AnswerLost(f"{endpoint} answered HTTP {answer.status} {trouble}", refresh_token=_salvage(members))


def _refused(endpoint: str, code: str | None, status: int) -> Refused:
    # A code that is no plain word could be anything, even a token: programs may see it, messages do not.
    shown = code if code is not None and _WORD.fullmatch(code) else f"HTTP {status} with an error code of its own"
    return Refused(f"{endpoint} refused the request: {shown}", error=code, status=status)


def _error_code(members: Mapping[str, Any], status: int) -> str | None:
    """The OAuth error code. None when there is none: the HTTP reason, repeated there, explains nothing."""
    code = members.get("error")
    if not isinstance(code, str) or not _CODE.fullmatch(code):
        return None
    if status in HTTPStatus._value2member_map_ and code.lower() == HTTPStatus(status).phrase.lower():
        return None
    return _ALIASES.get(code, code)


def _salvage(members: Mapping[str, Any]) -> str | None:
    """A refresh token that can be trusted to be whole (RFC 6749 appendix A.17: visible ASCII)."""
    value = members.get("refresh_token")
    usable = isinstance(value, str) and value.isascii() and value.isprintable() and value.strip()
    return value if usable else None


def _members(answer: HTTPAnswer) -> Mapping[str, Any]:
    """The members of the JSON object or form that the body is, or of as much as there is of the JSON."""
    if "application/x-www-form-urlencoded" in answer.headers.get("content-type", "").lower():
        text = "" if answer.broken else answer.body.decode("utf-8", "replace")
        try:
            return dict(parse_qsl(text, max_num_fields=100))
        except ValueError:
            return {}
    try:
        value: Any = json.loads(answer.body)
    except (ValueError, RecursionError):
        return _whole_members(answer.body.decode("utf-8", "replace"))
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


_SPACE = re.compile(r"[ \t\r\n]*")


def _whole_members(text: str) -> dict[str, Any]:
    """The members of a JSON object that stand before the place where the text breaks off or goes wrong.

    Only text counts: a number that ends with the text may have lost its last digits. An access token is left
    out, so that a broken answer is never taken for a whole one.
    """

    def after(mark: str, position: int) -> int:
        start = match.end() if (match := _SPACE.match(text, position)) else position
        if not text.startswith(mark, start):
            raise ValueError
        return match.end() if (match := _SPACE.match(text, start + len(mark))) else start + len(mark)

    found: dict[str, Any] = {}
    decoder = json.JSONDecoder()
    mark, position = "{", 0
    try:
        while True:
            name, position = decoder.raw_decode(text, after(mark, position))
            value, position = decoder.raw_decode(text, after(":", position))
            if isinstance(name, str) and isinstance(value, str) and name != "access_token":
                found[name] = value
            mark = ","
    except (ValueError, RecursionError):
        return found


def _redirected(answer: HTTPAnswer, endpoint: str) -> str:
    try:
        host = urlsplit(answer.headers.get("location", "")).netloc.rpartition("@")[2].lower()
    except ValueError:
        host = ""
    where = f" on {host}" if _HOST.fullmatch(host) else ""
    return (
        f"{endpoint} redirects to another address{where} (HTTP {answer.status}): redirects are not followed, "
        "because they would carry the refresh token there; set the url to the token endpoint's own address"
    )


def _retry_after(headers: Mapping[str, str], now: float) -> float | None:
    """Seconds to wait (RFC 9110 §10.2.3: a number or a date); None when nothing readable is asked for."""
    value = headers.get("retry-after", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        date = _date(value)
        if date is None:
            return None
        server_time = _date(headers.get("date"))
        seconds = date - (now if server_time is None else server_time)
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _date(value: str | None) -> float | None:
    """The UNIX time of an HTTP date (RFC 9110 §5.6.7), None for anything else."""
    from email.utils import parsedate_to_datetime  # noqa: PLC0415 - loads sockets and much else

    try:
        moment: datetime = parsedate_to_datetime(value or "")
        return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
