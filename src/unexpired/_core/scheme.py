"""How one API speaks: where the token goes, to which origins, and which answers mean that it is over."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterable
from copy import copy
from typing import Self, TypedDict, TypeVar, Unpack, cast
from urllib.parse import urlsplit

from unexpired._core.challenge import (
    ACCEPTED,
    Answer,
    Headers,
    InCookie,
    InHeader,
    InQuery,
    Judgement,
    Place,
    Rendered,
    Verdict,
    judge_challenges,
    parse_challenges,
)
from unexpired._core.sniff import SNIFF_LIMIT, BusinessCode, Code
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError

__all__ = [
    "ACCEPTED",
    "Answer",
    "Headers",
    "InCookie",
    "InHeader",
    "InQuery",
    "Judgement",
    "Place",
    "Rendered",
    "Scheme",
    "Verdict",
    "origin_of",
]

_T = TypeVar("_T")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def origin_of(scheme: str, host: str, port: int | None = None) -> str:
    """The one spelling of an origin (RFC 6454 §6.2): ``https://api.example.com``, ``https://[::1]:8443``.

    Lower case, names beyond ASCII in their ``xn--`` form, IPv6 compressed and in brackets, default ports
    dropped. Never raises: what is not an address stays as it is, and so equals nothing else.
    """
    scheme = scheme.lower()
    host = host.removeprefix("[").removesuffix("]")
    if ":" in host:
        try:
            import ipaddress  # noqa: PLC0415 - `import unexpired` is quicker without it

            host = ipaddress.IPv6Address(host).compressed
        except ValueError:
            host = host.lower()
        host = f"[{host}]"
    elif host.isascii():
        host = host.lower()
    else:
        host = ".".join(_ascii_label(label) for label in host.split("."))
    return f"{scheme}://{host}" if port in (None, _DEFAULT_PORTS.get(scheme)) else f"{scheme}://{host}:{port}"


def _ascii_label(label: str) -> str:
    """One label of a host name in ASCII (RFC 3492).

    Not the "idna" codec, which folds different names into one ("ß" into "ss"): an origin that merely
    resembles an allowed one must not get the token.
    """
    if label.isascii():
        return label.lower()
    return "xn--" + unicodedata.normalize("NFC", label.lower()).encode("punycode").decode("ascii")


def _parse_origin(origin: str) -> str | None:
    """The one spelling of an origin that somebody wrote; None for what is not one."""
    try:
        parts = urlsplit(origin)
        port = parts.port
    except ValueError:
        return None
    rest = (parts.path.removeprefix("/"), parts.query, parts.fragment)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname or any(rest) or _NOT_IN_ORIGIN.search(origin):
        return None
    return origin_of(parts.scheme, parts.hostname, port)


_NOT_IN_ORIGIN = re.compile(r"[\s*%@\\\x00-\x1f\x7f]")

_JSON_LIKE = frozenset({"", "application/json", "text/json", "text/plain", "text/html", "text/javascript"})
_ENDLESS = frozenset({"application/stream+json"})
_HEADER_STATUS = frozenset({400, 401, 403})  # RFC 6750 §3.1, RFC 9449 §9, RFC 9470 §3


class _Options(TypedDict, total=False):
    code: str | None
    expired: Iterable[Code]
    login_required: Iterable[Code]
    ok: Iterable[Code]
    expired_status: Iterable[int]
    origins: Iterable[str] | None
    judge: Callable[[Answer], Verdict | Judgement | None] | None


class Scheme:
    """How one API takes the token and says that it is no longer good. Immutable; safe for threads and tasks.

    *places* say where the token goes. An answer means *expired* when its ``WWW-Authenticate`` says
    ``invalid_token`` (RFC 6750) or its status is in *expired_status*; some APIs need ``expired_status=(401,
    403)``. For an API that says it in a JSON body, *code* is the path to its business code and *expired*,
    *login_required* and *ok* are the codes, compared loosely ("40009" is 40009). *origins* are the only ones
    that get the token; without them it goes where the caller asked, and along no redirect elsewhere. *judge*
    is asked first and may answer None for "as usual".

    Raises ConfigurationError, saying what to do, for anything that cannot work.
    """

    __slots__ = (
        "_by_status", "_judge", "_last", "asks", "business_code", "origins", "places", "plain",
        "suspicious_status",
    )  # fmt: skip

    plain: bool
    """Whether status and headers alone are judged. Any status not in `suspicious_status` is then ACCEPTED."""
    suspicious_status: frozenset[int]
    """The statuses of a plain scheme that need `judge`; an adapter's fast path is one look into this set."""
    origins: frozenset[str] | None
    """The origins that get the token, spelled as by `origin_of`; None when there is no list."""
    places: tuple[tuple[Place, ...], ...]
    """The places of the token by kind: headers, query, cookies."""
    asks: bool
    """Whether there is a judge of the user's own, which wants to see whole bodies."""
    business_code: BusinessCode | None
    """Where to find a code in a body, if the API has any."""

    def __init__(
        self,
        *places: Place,
        code: str | None = None,
        expired: Iterable[Code] = (),
        login_required: Iterable[Code] = (),
        ok: Iterable[Code] = (),
        expired_status: Iterable[int] = (401,),
        origins: Iterable[str] | None = None,
        judge: Callable[[Answer], Verdict | Judgement | None] | None = None,
    ) -> None:
        sets = {"expired": expired, "login_required": login_required, "ok": ok}
        codes = {name: _listed(name, values) for name, values in sets.items()}
        if code is None and any(codes.values()):
            raise ConfigurationError('codes need their path in the body: add code="code", for example')
        self.places = _sorted_places(places)
        self._last: tuple[Token, Rendered] | None = None
        self._judge = judge
        self.asks = judge is not None
        self.business_code = None if code is None else BusinessCode(code, **codes)
        self.plain = judge is None and code is None
        self._by_status = {
            status: Judgement(Verdict.EXPIRED, f"status {status}")
            for status in _listed("expired_status", expired_status)
        }
        if not all(_is_status(status) for status in self._by_status):
            raise ConfigurationError("expired_status= must hold HTTP statuses such as 401")
        self.suspicious_status = _HEADER_STATUS.union(self._by_status)
        self.origins = None if origins is None else _read_origins(_listed("origins", origins))

    @classmethod
    def bearer(cls, **same: Unpack[_Options]) -> Self:
        """The token as ``Authorization: Bearer …`` (RFC 6750 §2.1). Takes the same options as `Scheme`."""
        return cls(InHeader("Authorization", "Bearer {access_token}"), **same)

    def limited_to(self, *origins: str) -> Self:
        """This scheme for these origins only. Raises ConfigurationError for what is not one."""
        limited = copy(self)
        limited.origins = _read_origins(origins)
        return limited

    def render(self, token: Token) -> Rendered:
        """What to put on a request for *token*. Cheap for the token of the last call: it is remembered.

        Raises ConfigurationError, naming the place and never a value, if *token* lacks what a template needs
        or has characters that cannot stand there.
        """
        # One tuple, read once and replaced whole: threads see either pair and need no lock.
        last = self._last
        if last is not None and last[0] is token:
            return last[1]
        headers, query, cookies = (tuple((place.name, place.fill(token)) for place in places) for places in self.places)
        rendered = Rendered(headers, query, cookies)
        self._last = (token, rendered)
        return rendered

    def allows(self, origin: str) -> bool:
        """Whether *origin* may get the token (RFC 6454 §5). True for all without a list. Never raises."""
        if self.origins is None or origin in self.origins:
            return True
        return _parse_origin(origin) in self.origins

    def wants_body(self, status: int, content_type: str | None, content_length: int | None, method: str) -> bool:
        """Whether a body must be sniffed. Never for streams, media, downloads and bodies over the limit."""
        if self.plain or method == "HEAD" or status < 200 or status in (204, 304):
            return False
        if content_length is not None and content_length > SNIFF_LIMIT:
            return False
        kind = (content_type or "").partition(";")[0].strip().lower()
        return kind in _JSON_LIKE or (kind.endswith("+json") and kind not in _ENDLESS)

    def judge(self, answer: Answer) -> Judgement:
        """What *answer* means for the token.

        Asked in turn: the user's own judge, the business code, the ``WWW-Authenticate`` header (RFC 6750 §3,
        RFC 9470 §3, RFC 9449 §9; of answers with 400, 401, 403 or an *expired_status*), the status. An *ok*
        code settles a 2xx only; a code in no set settles nothing. Raises what the user's judge raises, and
        ConfigurationError if that answers with something else than a verdict.
        """
        if self._judge is not None:
            judgement = _as_judgement(self._judge(answer))
            if judgement is not None:
                return judgement
        judgement = self._judge_head(answer.status, answer.headers)
        if self.business_code is None or answer.body is None:
            return judgement
        return self.business_code.judge(answer.body, answer.status, judgement)

    def _judge_head(self, status: int, headers: Headers) -> Judgement:
        if status not in self.suspicious_status:
            return ACCEPTED
        judgement = judge_challenges(parse_challenges(headers.get("www-authenticate") or ""))
        return self._by_status.get(status, ACCEPTED) if judgement is None else judgement


def _listed(name: str, values: Iterable[_T]) -> tuple[_T, ...]:
    """*values* as a tuple; one string is not read as its letters."""
    if isinstance(values, str | bytes) or not isinstance(cast("object", values), Iterable):
        raise ConfigurationError(f"{name}= must be a list, even of one")
    return tuple(values)


def _is_status(value: object) -> bool:
    return isinstance(value, int) and 200 <= value <= 599


def _read_origins(written: Iterable[str]) -> frozenset[str]:
    origins: set[str] = set()
    for one in written:
        origin = _parse_origin(one)
        if origin is None:
            raise ConfigurationError(f'{one!r} is not an origin such as "https://api.example.com:8443"')
        origins.add(origin)
    if not origins:
        raise ConfigurationError("origins= is empty: name the origins that may get the token, or leave it out")
    return frozenset(origins)


def _as_judgement(answer: object) -> Judgement | None:
    """What a user's judge returned, as a judgement; None for "as usual"."""
    if answer is None or isinstance(answer, Judgement):
        return answer
    if isinstance(answer, Verdict):
        return ACCEPTED if answer is Verdict.ACCEPTED else Judgement(answer, "judge")
    raise ConfigurationError(f"judge= must return Verdict, Judgement or None, not {type(answer).__name__}")


def _sorted_places(places: Iterable[Place]) -> tuple[tuple[Place, ...], ...]:
    """The places by kind: headers, query, cookies."""
    seen: set[tuple[type, str]] = set()
    for place in cast("Iterable[object]", places):
        if not isinstance(place, InHeader | InQuery | InCookie):
            raise ConfigurationError(
                f"a place for the token is InHeader, InQuery or InCookie, not {type(place).__name__}"
            )
        name = (type(place), place.name.lower() if isinstance(place, InHeader) else place.name)
        if name in seen:
            raise ConfigurationError(f"{place} is given twice: keep one of them")
        seen.add(name)
    if not seen:
        raise ConfigurationError('the token needs a place: Scheme.bearer(), or Scheme(InQuery("token"))')
    return tuple(tuple(p for p in places if isinstance(p, kind)) for kind in (InHeader, InQuery, InCookie))
