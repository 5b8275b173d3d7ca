"""What a program gets out of an answer: a body, a part of it, an object of its own type, or an `ApiError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from importlib import import_module
from typing import Any, cast, get_args

import httpx2

from unexpired._core.scheme import Scheme
from unexpired._core.sniff import SNIFF_LIMIT, Code, canonical
from unexpired.errors import ApiError, ConfigurationError

__all__ = ["Envelope", "at", "body_of", "broken", "checked", "failed", "is_of", "may_hold_code", "parsed", "parser"]

_MAYBE_JSON = frozenset({"", "text/plain", "text/html", "text/javascript"})


@dataclass(frozen=True, slots=True)
class Envelope:
    """The outer JSON object of an API that answers ``{"code": 0, "msg": "", "data": …}``.

    *code*, *message* and *data* are the dotted paths of its parts; *ok* are the codes of success, compared loosely
    (``"0"`` is ``0``). What has no code is no envelope, and a success; so is any code when *ok* is empty. Raises
    ConfigurationError for an empty path and for a value that is no code.
    """

    code: str = "code"
    message: str = "msg"
    data: str = "data"
    ok: Iterable[Code] = (0,)
    _allowed: frozenset[str | None] = field(init=False, repr=False, compare=False, default=frozenset())

    def __post_init__(self) -> None:
        paths: list[object] = [self.code, self.message, self.data]
        if not all(isinstance(path, str) for path in paths) or not isinstance(cast("object", self.ok), Iterable):
            raise ConfigurationError("an envelope has dotted paths for code, message and data, and a list of ok= codes")
        listed = tuple(self.ok)
        allowed = frozenset(canonical(code) for code in listed)
        if isinstance(self.ok, str) or None in allowed:
            raise ConfigurationError("ok= must be a list of codes, numbers or strings, even of one")
        if not all(step for path in (self.code, self.message, self.data) for step in path.split(".")):
            raise ConfigurationError("the parts of an envelope are dotted paths of names, none of them empty")
        object.__setattr__(self, "ok", listed)
        object.__setattr__(self, "_allowed", allowed)

    @classmethod
    def of(cls, scheme: Scheme) -> Envelope | None:
        """The envelope of a scheme with business codes; None for a scheme without."""
        found = scheme.business_code
        return None if found is None else cls(code=found.path, ok=found.ok)

    def fits(self, body: object) -> bool:
        """Whether *body* is such an envelope."""
        return canonical(at(body, self.code)) is not None

    def refuses(self, body: object) -> bool:
        """Whether *body* is such an envelope with a code that is no success."""
        code = canonical(at(body, self.code))
        return code is not None and bool(self._allowed) and code not in self._allowed


def body_of(response: httpx2.Response) -> Any:
    """The body: parsed JSON, text for ``text/*``, bytes for the rest, None when there is none."""
    content = response.content
    if not content:
        return None
    kind = _kind(response)
    surely = kind in ("application/json", "text/json") or kind.endswith("+json")
    if surely or (kind in _MAYBE_JSON and content[:64].lstrip()[:1] in (b"{", b"[")):
        try:
            return response.json()
        except (ValueError, RecursionError):
            if surely:
                raise ApiError(-1, "the answer is not JSON", response.text, response) from None
    return response.text if kind.startswith("text/") else content


def may_hold_code(response: httpx2.Response, envelope: Envelope | None) -> bool:
    """Whether what arrives in place of a file may be an envelope: an error, not the file."""
    length = response.headers.get("content-length", "")
    kind = _kind(response)
    small = not (length.isascii() and length.isdigit()) or int(length) <= SNIFF_LIMIT
    return envelope is not None and small and (kind == "application/json" or kind.endswith("+json"))


def _kind(response: httpx2.Response) -> str:
    kind: str = response.headers.get("content-type", "")
    return kind.partition(";")[0].strip().lower()


def checked(response: httpx2.Response, envelope: Envelope | None) -> Any:
    """The body of a success. Raises ApiError for an HTTP failure, or a business code that is no success."""
    if response.status_code >= 400:
        raise failed(response)
    body = body_of(response)
    if envelope is not None and envelope.refuses(body):
        code = at(body, envelope.code)
        message = at(body, envelope.message)
        text = message if isinstance(message, str) else f"code {code}"
        raise ApiError(cast("Code", code), text, body, response)
    return body


def failed(response: httpx2.Response) -> ApiError:
    """An HTTP failure, with whatever body it has."""
    try:
        body = body_of(response)
    except ApiError as error:
        body = error.body
    reason = response.reason_phrase or f"HTTP {response.status_code}"
    return ApiError(response.status_code, reason, body, response)


def broken(error: Exception, response: httpx2.Response | None = None) -> ApiError:
    """No answer, or half of one: the connection failed, broke off or took too long."""
    return ApiError(-1, f"{type(error).__name__}: {error}".removesuffix(": "), None, response)


def is_of(error: httpx2.RequestError, response: httpx2.Response) -> bool:
    """Whether *error* is about the body of *response*, and not about another request made meanwhile."""
    try:
        return error.request is response.request
    except RuntimeError:  # it knows no request
        return False


def at(body: object, path: str) -> object:
    """The member of nested objects at a dotted path; None when there is none."""
    for step in path.split("."):
        body = cast("Mapping[str, object]", body).get(step) if isinstance(body, Mapping) else None
    return body


def parsed(value: object, kind: Any) -> Any:
    """*value* as a *kind*. Raises what pydantic or msgspec raise for a value that does not fit."""
    return parser(kind)(value)


def parser(kind: Any) -> Any:
    """What parses into *kind*: msgspec for its structs, else pydantic, else msgspec, whichever is installed.

    Raises ConfigurationError when neither is.
    """
    pydantic, msgspec = _optional("pydantic"), _optional("msgspec")
    if msgspec is not None and (pydantic is None or _holds_struct(kind, msgspec)):
        return partial(msgspec.convert, type=kind, str_keys=True)
    if pydantic is None:
        raise ConfigurationError("into= needs pydantic or msgspec: install one of them")
    try:
        return _adapter(kind).validate_python
    except TypeError:  # a kind that cannot be a key, because of what annotates it
        return pydantic.TypeAdapter(kind).validate_python


@lru_cache(maxsize=256)
def _adapter(kind: Any) -> Any:
    return import_module("pydantic").TypeAdapter(kind)


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _holds_struct(kind: Any, msgspec: Any) -> bool:
    """Whether *kind* is, or is made of, msgspec's own: pydantic knows nothing of those."""
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return True
    return any(_holds_struct(inner, msgspec) for inner in get_args(kind))
