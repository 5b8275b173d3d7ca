"""What a program gets out of an answer: a body, a part of it, an object of its own type, or an `ApiError`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any, cast, get_args

import httpx2

from unexpired._core.scheme import Scheme
from unexpired._core.sniff import Code, canonical
from unexpired.errors import ApiError, ConfigurationError

__all__ = ["Envelope", "body_of", "broken", "checked", "parsed"]


@dataclass(frozen=True, slots=True)
class Envelope:
    """The outer JSON object of an API that answers ``{"code": 0, "msg": "", "data": …}``.

    *code*, *message* and *data* are the dotted paths of its parts; *ok* are the codes of success, compared loosely
    (``"0"`` is ``0``). An answer without a code is a success; so is any code when *ok* is empty.
    """

    code: str = "code"
    message: str = "msg"
    data: str = "data"
    ok: Iterable[Code] = field(default=(0,))

    @classmethod
    def of(cls, scheme: Scheme, ok: Iterable[Code] | None = None) -> Envelope | None:
        """The envelope of a scheme with business codes; None for a scheme without."""
        found = scheme.business_code
        return None if found is None else cls(code=found.path, ok=found.ok if ok is None else ok)


def body_of(response: httpx2.Response) -> Any:
    """The body: parsed JSON, text for ``text/*``, bytes for the rest, None when there is none."""
    if not response.content:
        return None
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind.endswith("json") or (kind in ("", "text/plain", "text/html") and response.content[:1] in b"{["):
        try:
            return response.json()
        except ValueError:
            if kind.endswith("json"):
                raise ApiError(-1, "the answer is not JSON", response.text, response) from None
    return response.text if kind.startswith("text/") else response.content


def checked(response: httpx2.Response, envelope: Envelope | None) -> Any:
    """The body of a success. Raises ApiError for an HTTP failure, or a business code that is no success."""
    if response.status_code >= 400:
        raise failed(response)
    body = body_of(response)
    if envelope is None or not isinstance(body, dict):
        return body
    number = at(cast("object", body), envelope.code)
    code = canonical(number)
    allowed = {canonical(one) for one in envelope.ok}
    if code is None or not allowed or code in allowed:
        return cast("dict[str, Any]", body)
    message = at(cast("object", body), envelope.message)
    text = message if isinstance(message, str) else f"code {code}"
    raise ApiError(cast("Code", number), text, body, response)


def failed(response: httpx2.Response) -> ApiError:
    """An HTTP failure, with whatever body it has."""
    try:
        body = body_of(response)
    except ApiError as error:
        body = error.body
    reason = response.reason_phrase or f"HTTP {response.status_code}"
    return ApiError(response.status_code, reason, body, response)


def broken(error: Exception) -> ApiError:
    """No answer: the connection failed, broke off or took too long."""
    return ApiError(-1, f"{type(error).__name__}: {error}".removesuffix(": "))


def at(body: object, path: str) -> object:
    """The member of nested objects at a dotted path; None when there is none."""
    for step in path.split("."):
        body = cast("Mapping[str, object]", body).get(step) if isinstance(body, Mapping) else None
    return body


def parsed(value: object, kind: Any) -> Any:
    """*value* as a *kind*: through msgspec for its structs, else pydantic, else msgspec, whichever is installed.

    Raises what those raise for a value that does not fit, and ConfigurationError when neither is there.
    """
    pydantic, msgspec = _optional("pydantic"), _optional("msgspec")
    if msgspec is not None and (pydantic is None or _is_struct(kind, msgspec)):
        return msgspec.convert(value, kind)
    if pydantic is not None:
        return pydantic.TypeAdapter(kind).validate_python(value)
    raise ConfigurationError("into= needs pydantic or msgspec: install one of them")


def _optional(name: str) -> Any:
    try:
        return import_module(name)
    except ImportError:
        return None


def _is_struct(kind: Any, msgspec: Any) -> bool:
    """Whether *kind* is, or is made of, msgspec's own: pydantic knows nothing of those."""
    inner = (kind, *get_args(kind))
    return any(isinstance(one, type) and issubclass(one, msgspec.Struct) for one in inner)
