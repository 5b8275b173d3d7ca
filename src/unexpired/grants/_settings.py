"""What grants take: the checks of the settings that several have in common. Each raises ConfigurationError."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

from unexpired.errors import ConfigurationError

__all__ = ["ANSWER_FIELDS", "check_function", "checked_fields", "checked_grace"]

ANSWER_FIELDS = (
    "access_token",
    "refresh_token",
    "expires_in",
    "expires_at",
    "token_type",
    "scope",
    "id_token",
)
"""The fields of a token answer that a `Token` is made of (RFC 6749 §5.1, OpenID Connect Core §3.1.3.3)."""


def checked_fields(fields: object, known: tuple[str, ...] = ANSWER_FIELDS) -> dict[str, str]:
    """A copy of *fields*, which maps names out of *known* to dotted paths without an empty step."""
    if not isinstance(fields, Mapping):
        raise ConfigurationError(
            f"response_fields must be a mapping of names to dotted paths, not {type(fields).__name__}"
        )
    checked: dict[str, str] = {}
    for name, path in cast("Mapping[object, object]", fields).items():
        if not isinstance(name, str) or name not in known:
            shown = repr(name) if isinstance(name, str) else type(name).__name__
            raise ConfigurationError(f"response_fields has no {shown}: the names are {', '.join(known)}")
        if not isinstance(path, str) or not all(path.split(".")):
            shown = repr(path) if isinstance(path, str) else type(path).__name__
            raise ConfigurationError(f"response_fields maps {name} to a dotted path such as 'data.Token', not {shown}")
        checked[name] = path
    return checked


def checked_grace(seconds: object) -> float:
    """*seconds*, for how long a spent refresh token may be sent again."""
    if isinstance(seconds, int | float) and not isinstance(seconds, bool) and 0 <= seconds < math.inf:
        return seconds
    raise ConfigurationError("reuse_grace must be a number of seconds, 0 for none")


def check_function(argument: str, function: object) -> None:
    """*function*, given as *argument*, can be called with the session and nothing else."""
    if not callable(function):
        raise ConfigurationError(f"{argument} must be a function of the session, not {type(function).__name__}")
    trouble = _misfit(function)
    if trouble:
        name = getattr(function, "__qualname__", type(function).__qualname__)
        raise ConfigurationError(f"{name}() cannot be called with the session alone, as {argument} is: {trouble}")


def _misfit(function: Callable[..., Any]) -> str:
    """Why *function* does not take one positional argument; empty when it does, or does not tell."""
    try:
        signature = inspect.signature(function)
    except (ValueError, TypeError):  # some functions written in C do not tell
        return ""
    try:
        signature.bind(None)
    except TypeError as error:  # its text names parameters only
        return str(error)
    return ""
