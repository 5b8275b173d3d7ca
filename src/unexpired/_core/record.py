"""A session as a JSON document, and back. What is not one of ours is refused with a clear error, never guessed at."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, cast

from unexpired._core.session import Ended, Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import StoreError

__all__ = ["SCHEMA", "decode", "decode_session", "encode", "encode_session"]

SCHEMA = 1
"""The number of this layout. A reader refuses a larger one."""

_TOKEN_FIELDS = (
    "access_token", "token_type", "expires_at", "lifetime", "scope", "refresh_token", "id_token", "minted",
)  # fmt: skip
_DEEPEST = 64
"""Levels of a field beside the known ones; what goes deeper is left out."""

_KINDS = frozenset({"unreachable", "lost", "unexplained", "configuration", "expired", "unsaved", "store", "time"})


def encode_session(session: Session) -> bytes:
    """A session as bytes, for a store of one's own. Its tokens are in the clear in them.

    `decode_session` of this and of every later version of unexpired reads them. They are JSON in ASCII, but what is
    in it is not promised. Raises StoreError when a field of a token is not JSON.
    """
    return encode(session)


def decode_session(data: bytes, key: str, where: str) -> Session:
    """The session in *data*, which `encode_session` made, of this or an earlier version of unexpired.

    *key* is the one it is stored under, *where* names the place (a path, a row) in the message of the error. Raises
    StoreError, with no word of the content, for what is cut off or damaged, belongs to another key, or was written
    by a newer unexpired in a layout that this one does not know.
    """
    return decode(data, key, where)


def encode(session: Session) -> bytes:
    """The session as JSON in ASCII. Raises StoreError when an extra field of a token is not JSON."""
    document: dict[str, Any] = {
        "unexpired": SCHEMA,
        "key": session.key,
        "login": session.login,
        "version": session.version,
        "refresh_token": session.refresh_token,
        "notes": session.notes,
        "seeds": list(session.seeds),
        "tokens": {resource or "": _token_document(token) for resource, token in session.tokens.items()},
    }
    if session.intent is not None:
        intent = session.intent
        document["intent"] = {
            "login": intent.login,
            "version": intent.version,
            "owner": intent.owner,
            "attempt": intent.attempt,
            "since": intent.since,
        }
    if session.failure is not None:
        failure = session.failure
        document["failure"] = {name: getattr(failure, name) for name in Failure.__slots__}
    if session.ended is not None:
        document["ended"] = {"reason": session.ended.reason, "at": session.ended.at}
    try:
        return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError):
        raise StoreError(
            f"the session {session.key!r} holds a token field that is not JSON: keep only plain values in it",
            key=session.key,
        ) from None


def decode(data: bytes | str, key: str, where: str) -> Session:
    """The session in *data*, which was found at *where*. Raises StoreError, with no word of its content."""
    try:
        document: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise _foreign(key, where, "it is not JSON: truncated or damaged") from None
    if not isinstance(document, dict):
        raise _foreign(key, where, "it is not a session of unexpired")
    fields = cast("dict[str, Any]", document)
    schema = fields.get("unexpired")
    if type(schema) is not int or schema < 1:
        raise _foreign(key, where, "it is not a session of unexpired")
    if schema > SCHEMA:
        raise _foreign(key, where, f"it was written by a newer unexpired (this one reads layouts up to {SCHEMA})")
    if fields.get("key") != key:
        raise _foreign(key, where, "it belongs to another key")
    try:
        return _session(fields)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise _foreign(key, where, "its fields are damaged") from None


def _foreign(key: str, where: str, why: str) -> StoreError:
    return StoreError(
        f"cannot read the session {key!r} in {where}: {why}. It was left as it is; log in again to replace it "
        "(it is set aside, not destroyed)",
        key=key,
    )


def _token_document(token: Token) -> dict[str, Any]:
    document = {name: getattr(token, name) for name in _TOKEN_FIELDS}
    extra = {name: value for name, value in token.extra.items() if _is_plain({name: value})}
    if extra:
        document["extra"] = extra
    return {name: value for name, value in document.items() if value is not None}


def _is_plain(document: Mapping[str, Any]) -> bool:
    """Whether it is JSON, and no deeper than every reader can take apart, however full its stack is."""
    level: list[Any] = [document]
    for _ in range(_DEEPEST):
        level = [inner for outer in level for inner in _within(outer)]
        if not level:
            break
    else:
        return False
    try:
        json.dumps(document, allow_nan=False)
    except (TypeError, ValueError):
        return False
    return True


def _within(value: object) -> Iterable[object]:
    if isinstance(value, Mapping):
        return cast("Mapping[object, object]", value).values()
    return cast("list[object]", value) if isinstance(value, list | tuple) else ()


def _session(document: Mapping[str, Any]) -> Session:
    login = _str(document["login"])
    version = _int(document["version"])
    tokens = {
        resource or None: _token(entry, resource or None, login)
        for resource, entry in _object(document["tokens"]).items()
    }
    intent = document.get("intent")
    failure = document.get("failure")
    ended = document.get("ended")
    return Session(
        key=_str(document["key"]),
        login=login,
        version=version,
        refresh_token=_optional(document.get("refresh_token")),
        tokens=MappingProxyType(tokens),
        intent=_intent(intent) if intent is not None else None,
        failure=_failure(failure) if failure is not None else None,
        ended=Ended(_str(ended["reason"]), _float(ended["at"])) if ended is not None else None,
        seeds=tuple(_str(one) for one in list(document.get("seeds", ()))),
        notes=_int(document.get("notes", 0)),
    )


def _token(entry: Mapping[str, Any], resource: str | None, login: str) -> Token:
    expires_at, lifetime = entry.get("expires_at"), entry.get("lifetime")
    return Token(
        access_token=_str(entry["access_token"]),
        token_type=_str(entry.get("token_type", "Bearer")),
        expires_at=None if expires_at is None else _float(expires_at),
        lifetime=None if lifetime is None else _float(lifetime),
        scope=_optional(entry.get("scope")),
        refresh_token=_optional(entry.get("refresh_token")),
        id_token=_optional(entry.get("id_token")),
        extra=MappingProxyType(_object(entry.get("extra", {}))),
        resource=resource,
        login=login,
        minted=_int(entry["minted"]),
    )


def _intent(entry: Mapping[str, Any]) -> Intent:
    return Intent(
        _str(entry["login"]),
        _int(entry["version"]),
        _str(entry["owner"]),
        _int(entry["attempt"]),
        _float(entry["since"]),
    )


def _failure(entry: Mapping[str, Any]) -> Failure:
    kind = entry["kind"]
    if kind not in _KINDS:
        raise ValueError("unknown kind")
    return Failure(
        kind,
        _str(entry["message"]),
        _float(entry["since"]),
        _float(entry["retry_at"]),
        _int(entry["count"]),
        _int(entry["unexplained"]),
        _float(entry["unexplained_since"]),
        tuple(_optional(one) for one in list(entry.get("resources", ()))),
    )


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("not an object")
    return cast("dict[str, Any]", value)


def _str(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("not a string")
    return value


def _optional(value: object) -> str | None:
    return None if value is None else _str(value)


def _int(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError("not a whole number")
    return value


def _float(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError("not a finite number")
    return float(value)
