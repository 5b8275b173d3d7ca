"""What a manager's methods take. Each function raises ConfigurationError that names the argument and what it takes.

Only numbers are ever quoted: anything else could be a secret that went to the wrong place, so it is named by its type.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import cast

from unexpired._core.token import LONGEST_LIFETIME, Token
from unexpired.errors import ConfigurationError
from unexpired.events import Event

__all__ = [
    "check_callable",
    "check_durations",
    "check_key",
    "check_listener",
    "check_login_fields",
    "check_resource",
    "check_store",
    "check_token",
]

STORE_PARTS = ("identity", "load", "swap", "stamp", "lease", "set_aside", "close")
_MAY_BE_NONE = frozenset({"default_lifetime"})
_MUST_BE_ABOVE_ZERO = frozenset({"deadline"})


def check_store(store: object) -> None:
    """*store* has what a `Store` has."""
    if isinstance(store, str | Path):
        raise ConfigurationError(
            f"store must be an object that keeps sessions, not {_shown(store)}: did you mean FileStore('…')?"
        )
    if isinstance(store, type):
        raise ConfigurationError(f"store must be an object, not the class: {store.__name__}(…)")
    missing = [part for part in STORE_PARTS if not hasattr(store, part)]
    if missing:
        raise ConfigurationError(
            f"store must have the methods of unexpired.stores.Store: {_kind(store)} has no {', '.join(missing)}"
        )


def check_durations(**named: object) -> None:
    """Each is a finite number of seconds, 0 or more; *deadline* is above 0, *default_lifetime* may be None.

    More than 100 years is refused like infinity: clocks and timeouts cannot count it.
    """
    for name, value in named.items():
        if not _is_duration(name, value):
            least = "above 0" if name in _MUST_BE_ABOVE_ZERO else "0 or more"
            more = ", or None" if name in _MAY_BE_NONE else ""
            raise ConfigurationError(
                f"{name} must be a number of seconds, {least}, 100 years at most{more}, not {_shown(value)}"
            )


def _is_duration(name: str, value: object) -> bool:
    if value is None:
        return name in _MAY_BE_NONE
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return 0 <= value <= LONGEST_LIFETIME and (value > 0 or name not in _MUST_BE_ABOVE_ZERO)


def check_key(key: object) -> None:
    """*key* is text, and not empty."""
    if not isinstance(key, str) or not key:
        raise ConfigurationError(f"key must be a string that names the session, such as 'alice@crm', not {_shown(key)}")


def check_callable(name: str, value: object) -> None:
    """*value*, given as the argument *name*, is a function, and no async one: nobody would await it."""
    if not callable(value):
        raise ConfigurationError(f"{name} must be a function, not {_shown(value)}")
    if inspect.iscoroutinefunction(value):
        raise ConfigurationError(f"{name} must be a plain function, not an async one: it is called and not awaited")


def check_login_fields(fields: object) -> None:
    """*fields* is None, or maps names to strings or functions."""
    if fields is None:
        return
    if not isinstance(fields, Mapping):
        raise ConfigurationError(
            f"login_fields must be a mapping of names to strings or functions, not {_shown(fields)}"
        )
    for name, value in cast("Mapping[object, object]", fields).items():
        if not isinstance(name, str):
            raise ConfigurationError(f"login_fields must have strings as names, not {_shown(name)}")
        if isinstance(value, str):
            continue
        if not callable(value):
            raise ConfigurationError(
                f"login_fields[{name!r}] must be a string, or a function that returns one, not {_shown(value)}"
            )
        check_callable(f"login_fields[{name!r}]", value)


def check_resource(resource: object) -> None:
    """*resource* is None, or text that is not empty."""
    if resource is None or (isinstance(resource, str) and resource):
        return
    number = isinstance(resource, int | float) and not isinstance(resource, bool)
    hint = "; a time to wait is given as wait=" if number else ""
    raise ConfigurationError(
        f"resource must be a string (RFC 8707), or None for the default one, not {_shown(resource)}{hint}"
    )


def check_listener(event_type: object, callback: object) -> None:
    """*event_type* is a class of events, *callback* a function."""
    if not _is_event_type(event_type):
        raise ConfigurationError(
            "event_type must be a class of unexpired.events, before the callback: "
            f"manager.on(RefreshSucceeded, callback), not {_shown(event_type)}"
        )
    check_callable("callback", callback)


def _is_event_type(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Event)


def check_token(seed: object) -> None:
    """*seed* is a `Token` or a mapping; what is in it is not looked at."""
    if isinstance(seed, Token | Mapping):
        return
    hint = ""
    if isinstance(seed, str):
        hint = '; for a token alone: {"access_token": …} or {"refresh_token": …}'
    elif callable(getattr(seed, "json", None)):
        hint = "; what a response holds is its .json()"
    raise ConfigurationError(
        f"token must be a Token or a mapping such as the token endpoint's answer, not {_shown(seed)}{hint}"
    )


def _kind(value: object) -> str:
    return f"an object of type {type(value).__name__}"


def _shown(value: object) -> str:
    """A number, None or an empty string as it is, anything else by its type: it could be a secret."""
    short = isinstance(value, int) and value.bit_length() <= 64
    if value is None or short or isinstance(value, float) or (isinstance(value, str) and not value):
        return repr(value)
    return f"the class {value.__name__}" if isinstance(value, type) else _kind(value)
