"""Makes expired access tokens a non-event: one refresh for every thread, task, process and machine."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from unexpired import errors, events
    from unexpired._core.scheme import Answer, InCookie, InHeader, InQuery, Judgement, Scheme, Verdict
    from unexpired._core.session import Session
    from unexpired._core.token import Token
    from unexpired.api import ApiClient, AsyncApiClient
    from unexpired.errors import (
        ApiError,
        ConfigurationError,
        LoginRequired,
        ReplayRefused,
        StoreError,
        TemporarilyUnavailable,
        UnexpiredError,
    )
    from unexpired.manager import TokenManager
    from unexpired.managers import TokenManagers
    from unexpired.seeds import seed_from_environ, seed_from_file

    __version__: str

__all__ = [
    "Answer",
    "ApiClient",
    "ApiError",
    "AsyncApiClient",
    "ConfigurationError",
    "InCookie",
    "InHeader",
    "InQuery",
    "Judgement",
    "LoginRequired",
    "ReplayRefused",
    "Scheme",
    "Session",
    "StoreError",
    "TemporarilyUnavailable",
    "Token",
    "TokenManager",
    "TokenManagers",
    "UnexpiredError",
    "Verdict",
    "errors",
    "events",
    "seed_from_environ",
    "seed_from_file",
]

# Names are loaded when they are first asked for: `import unexpired` costs next to nothing.
_HOMES = {
    "Answer": "unexpired._core.scheme",
    "ApiClient": "unexpired.api",
    "ApiError": "unexpired.errors",
    "AsyncApiClient": "unexpired.api",
    "ConfigurationError": "unexpired.errors",
    "InCookie": "unexpired._core.scheme",
    "InHeader": "unexpired._core.scheme",
    "InQuery": "unexpired._core.scheme",
    "Judgement": "unexpired._core.scheme",
    "LoginRequired": "unexpired.errors",
    "ReplayRefused": "unexpired.errors",
    "Scheme": "unexpired._core.scheme",
    "Session": "unexpired._core.session",
    "StoreError": "unexpired.errors",
    "TemporarilyUnavailable": "unexpired.errors",
    "Token": "unexpired._core.token",
    "TokenManager": "unexpired.manager",
    "TokenManagers": "unexpired.managers",
    "UnexpiredError": "unexpired.errors",
    "Verdict": "unexpired._core.scheme",
    "seed_from_environ": "unexpired.seeds",
    "seed_from_file": "unexpired.seeds",
}


def __getattr__(name: str) -> object:
    if name == "__version__":
        value: object = import_module("importlib.metadata").version("unexpired")
    elif name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name in ("errors", "events"):
        value = import_module(f"unexpired.{name}")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*globals(), *__all__]
