"""Makes expired access tokens a non-event: one refresh for every thread, task and process."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unexpired import errors, events
from unexpired._core.scheme import Answer, InCookie, InHeader, InQuery, Judgement, Scheme, Verdict
from unexpired._core.session import Session
from unexpired._core.token import Token
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
from unexpired.seeds import seed_from_environ, seed_from_file

if TYPE_CHECKING:
    from unexpired.api import ApiClient, AsyncApiClient

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
    "UnexpiredError",
    "Verdict",
    "errors",
    "events",
    "seed_from_environ",
    "seed_from_file",
]


def __getattr__(name: str) -> object:
    if name in ("ApiClient", "AsyncApiClient"):
        from unexpired import api  # noqa: PLC0415 - loads an HTTP client, which `import unexpired` does not

        return getattr(api, name)
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - costs time that most programs need not spend

        return version("unexpired")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
