"""Makes expired access tokens a non-event: one refresh for every thread, task and process."""

from __future__ import annotations

from unexpired import errors, events
from unexpired._core.scheme import Answer, InCookie, InHeader, InQuery, Judgement, Scheme, Verdict
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import (
    ConfigurationError,
    LoginRequired,
    ReplayRefused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.manager import TokenManager
from unexpired.seeds import seed_from_environ, seed_from_file

__all__ = [
    "Answer",
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


def __getattr__(name: str) -> str:
    if name == "__version__":
        from importlib.metadata import version  # noqa: PLC0415 - costs time that most programs need not spend

        return version("unexpired")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
