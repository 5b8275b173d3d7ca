"""The two halves of HTTP authentication (RFC 9110 §11): how a request carries a token, what the answer says.

Rules of this module:

* A ``WWW-Authenticate`` header never raises. What cannot be read is skipped; a string that is never closed
  ends the reading, so that text inside it cannot pass for a challenge.
* Nothing that a server wrote reaches a `reason` or a `repr`, except codes this module knows by name.
"""

from __future__ import annotations

import enum
import json
import re
import string
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Final, Protocol, cast

from unexpired._core.token import Token
from unexpired.errors import ConfigurationError

__all__ = [
    "ACCEPTED", "Answer", "Challenge", "Headers", "InCookie", "InHeader", "InQuery", "Judgement", "Place",
    "Rendered", "Verdict", "judge_challenges", "parse_challenges",
]  # fmt: skip

_FIELDS = ("access_token", "refresh_token", "id_token", "token_type")
_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")  # RFC 9110 §5.6.2


@dataclass(frozen=True, slots=True)
class Place:
    """Where a request carries the token: *name*, and a *template* for the value. Frozen.

    A template may use ``{access_token}``, ``{refresh_token}``, ``{id_token}`` and ``{token_type}``. Raises
    ConfigurationError, naming the place, for a name that is empty or not allowed there, a field that is not
    one of these, and a template without any.
    """

    name: str
    template: str = "{access_token}"
    _parts: tuple[tuple[str, str | None], ...] = field(init=False, repr=False, compare=False)

    _allowed_name: ClassVar[re.Pattern[str]] = _TOKEN
    _forbidden_in_value: ClassVar[re.Pattern[str]] = re.compile(r"[\x00-\x1f\x7f]")
    _must_be_trimmed: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not self._allowed_name.fullmatch(self.name):
            raise ConfigurationError(f"{self}: the name is empty or has characters not allowed in it")
        object.__setattr__(self, "_parts", tuple(self._compile()))

    def __str__(self) -> str:
        return f"{type(self).__name__}({self.name!r})"

    def _compile(self) -> Iterable[tuple[str, str | None]]:
        try:
            parsed = list(string.Formatter().parse(self.template))
        except ValueError as error:
            raise ConfigurationError(f"{self}: the braces of its template do not match ({error})") from None
        if all(name is None for _, name, _, _ in parsed):
            raise ConfigurationError(f"{self}: its template uses no token: write {{access_token}}")
        for literal, name, layout, conversion in parsed:
            if name is not None and (name not in _FIELDS or layout or conversion):
                known = ", ".join(f"{{{known}}}" for known in _FIELDS)
                raise ConfigurationError(f"{self}: its template uses {{{name}}}; it may use {known}")
            yield literal, name

    def fill(self, token: Token) -> str:
        """The value for *token*. Secret. Raises ConfigurationError, without it, if it cannot go there."""
        value = ""
        for literal, name in self._parts:
            value += literal
            if name is not None:
                secret = cast("str | None", getattr(token, name))
                if not secret:
                    raise ConfigurationError(f"{self} needs {{{name}}}, and the token has none")
                value += secret
        if self._forbidden_in_value.search(value) or (self._must_be_trimmed and value != value.strip()):
            raise ConfigurationError(f"{self}: the value has characters that are not allowed there")
        return Masked(value)


class InHeader(Place):
    """The token in a header: ``InHeader("Authorization", "Bearer {access_token}")`` (RFC 6750 §2.1)."""

    __slots__ = ()
    _forbidden_in_value = re.compile(r"[^\x20-\x7e]")


class InQuery(Place):
    """The token in the query, added to the call's own parameters: ``InQuery("token")`` (RFC 6750 §2.3)."""

    __slots__ = ()
    _allowed_name = re.compile(r"[^\x00-\x20\x7f]+")
    _must_be_trimmed = False


class InCookie(Place):
    """The token in a cookie: ``InCookie("session")`` (RFC 6265 §4.2)."""

    __slots__ = ()
    _forbidden_in_value = re.compile(r"[^\x20-\x7e]|;")


class Masked(str):
    """A secret as it goes on the wire: clients that show a request's headers in a `repr` show three stars for it."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "'***'"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What to put on a request for one token: pairs of name and value. Secret; `repr` shows none."""

    headers: tuple[tuple[str, str], ...] = field(repr=False)
    query: tuple[tuple[str, str], ...] = field(repr=False)
    cookies: tuple[tuple[str, str], ...] = field(repr=False)


class Verdict(enum.Enum):
    """What an answer means for the token that the request carried."""

    ACCEPTED = "accepted"
    """The answer is the caller's, whatever its status: the token is not what is wrong."""
    EXPIRED = "expired"
    """The token is no longer good: replay with a newer one, refresh if there is none."""
    LOGIN_REQUIRED = "login_required"
    """The login is over. A refresh cannot help."""
    STEP_UP = "step_up"
    """The login is not strong enough for this call (RFC 9470, or missing claims). The session lives on."""
    RETRY_SAME = "retry_same"
    """Send once more with the same token: the API handed out a nonce (RFC 9449 §9)."""


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict and why. Frozen; safe to share between threads and tasks.

    *reason* is short and made here: ``invalid_token``, ``status 401``, ``code 40009``; empty for plain
    acceptance. *challenge* holds what a step-up asks for, as far as the API named it: ``error``,
    ``acr_values``, ``max_age`` (seconds, as text), ``claims``, ``scope``. Its values are the server's words
    and stay out of `repr`.
    """

    verdict: Verdict
    reason: str = ""
    challenge: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


ACCEPTED: Final = Judgement(Verdict.ACCEPTED)
"""The one object that every acceptance of ours returns, so the warm path allocates nothing."""


class Headers(Protocol):
    """Response headers, looked up in any case.

    A plain dict works if its keys are lower case. Several lines of one header come joined by ``", "`` (RFC
    9110 §5.3); a client that keeps them apart joins them first.
    """

    def get(self, name: str, /) -> str | None:
        """The value of the header *name*, None when it was not sent."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a scheme judges: an API's answer as far as it was looked at.

    *body* is None when it was not read: a stream, a type that cannot hold a code, too long. `repr` shows the
    status only, because headers and bodies can hold secrets.
    """

    status: int
    headers: Headers = field(repr=False)
    body: bytes | None = field(default=None, repr=False)

    def json(self) -> object | None:
        """The body as JSON; None without a body or when it is not JSON. Parsed at each call; never raises."""
        if self.body is None:
            return None
        try:
            document: object = json.loads(self.body)
        except (ValueError, RecursionError):
            return None
        return document


@dataclass(frozen=True, slots=True)
class Challenge:
    """One challenge of a ``WWW-Authenticate`` header (RFC 9110 §11.6.1).

    *scheme* and the names in *params* are lower case. Of a parameter that is given twice the first counts, so
    that nothing appended to a header can change what it said.
    """

    scheme: str
    token68: str | None = field(default=None, repr=False)
    params: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)


_SEPARATORS = re.compile(r"[\s,]*")
_EQUALS = re.compile(r"[ \t]*=[ \t]*")
_QUOTED = re.compile(r'"([^"\\]*(?:\\.[^"\\]*)*)"', re.DOTALL)
_QUOTED_PAIR = re.compile(r"\\(.)", re.DOTALL)
_TOKEN68 = re.compile(r"[ \t]+([A-Za-z0-9\-._~+/]+=*)[ \t]*(?=,|\Z)")


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Every challenge of a ``WWW-Authenticate`` value, in order (RFC 9110 §11.6.1). Never raises.

    Takes several challenges in one line, quoted strings with commas and escapes, token68, and lines joined by
    commas. Missing commas are forgiven. Parameters before any scheme belong to nobody and are dropped. Linear
    in the length.
    """
    found: list[Challenge] = []
    params: dict[str, str] = {}
    position = _end(_SEPARATORS.match(header), 0)
    while position < len(header):
        name = _TOKEN.match(header, position)
        if name is None:
            if header[position] == '"' and _QUOTED.match(header, position) is None:
                break
            position = _end(_QUOTED.match(header, position), position + 1)
        elif equals := _EQUALS.match(header, name.end()):
            quoted = _QUOTED.match(header, equals.end())
            bare = _TOKEN.match(header, equals.end())
            if quoted is not None:
                params.setdefault(name[0].lower(), _QUOTED_PAIR.sub(r"\1", quoted[1]))
            elif bare is not None:
                params.setdefault(name[0].lower(), bare[0])
            position = _end(quoted or bare, equals.end())
        else:
            token68 = _TOKEN68.match(header, name.end())
            params = {}
            found.append(Challenge(name[0].lower(), token68[1] if token68 else None, params))
            position = _end(token68, name.end())
        position = _end(_SEPARATORS.match(header, position), position)
    return tuple(found)


def _end(match: re.Match[str] | None, otherwise: int) -> int:
    return otherwise if match is None else match.end()


_TOKEN_SCHEMES = frozenset({"bearer", "dpop"})
_STRONGER_LOGIN = "insufficient_user_authentication"
_ASKED_FOR = ("error", "acr_values", "max_age", "claims", "scope")


def judge_challenges(challenges: Iterable[Challenge]) -> Judgement | None:
    """What Bearer and DPoP challenges say about the token, None when nothing. The first known error wins.

    ``invalid_token`` (RFC 6750 §3.1) is expired. ``insufficient_scope`` is accepted: a refresh gives no wider
    scope. ``insufficient_user_authentication`` (RFC 9470 §3) and ``insufficient_claims`` with *claims* are a
    step-up. ``use_dpop_nonce`` (RFC 9449 §9) is one more try with the same token.
    """
    for challenge in challenges:
        if challenge.scheme not in _TOKEN_SCHEMES:
            continue
        params = challenge.params
        error = params.get("error")
        if error == "invalid_token":
            return _INVALID_TOKEN
        if error == "insufficient_scope":
            return ACCEPTED
        if error == "use_dpop_nonce":
            return _USE_DPOP_NONCE
        if error == _STRONGER_LOGIN or (error == "insufficient_claims" and params.get("claims")):
            asked = {name: params[name] for name in _ASKED_FOR if name in params}
            return Judgement(Verdict.STEP_UP, error, asked)
    return None


_INVALID_TOKEN = Judgement(Verdict.EXPIRED, "invalid_token")
_USE_DPOP_NONCE = Judgement(Verdict.RETRY_SAME, "use_dpop_nonce")
