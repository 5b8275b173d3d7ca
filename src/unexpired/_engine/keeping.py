"""One round over many sessions, in which those are refreshed whose login would lapse because nobody uses it."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from unexpired._core.session import Session
from unexpired._core.token import LONGEST_LIFETIME, Token
from unexpired._engine.clock import draw, instant, main_is_over
from unexpired.errors import LoginRequired, UnexpiredError, place_of

__all__ = ["KeptAlive", "due", "keep_alive"]

_LIVES = ("refresh_token_expires_in", "refresh_expires_in", "x_refresh_token_expires_in")
"""Under which names servers tell how many seconds a refresh token lives. Zero tells nothing."""

Fate = Literal["kept", "ended", "failed", "unknown", "untouched"]
Load = Callable[[str], Session | None]
Refresh = Callable[[str, Token], object]


@dataclass(frozen=True, slots=True)
class KeptAlive:
    """What became of the sessions in one round of `TokenManagers.keep_alive`, by key.

    *kept* have a newer token now. *ended* turned out to be over (with the reason). *failed* could not be refreshed
    this time, or cannot be as things are set up (with the cause). Of *unknown* nobody knows how old their tokens are
    or how long they live, so they were left alone. *untouched* counts the others: not due yet, ended before, or
    without a refresh token.
    """

    kept: tuple[str, ...]
    ended: Mapping[str, str]
    failed: Mapping[str, str]
    unknown: tuple[str, ...]
    untouched: int


def keep_alive(
    keys: Iterable[str], load: Load, refresh: Refresh, *, older_than: float | None, at_once: int
) -> KeptAlive:
    """Look at each session once, *at_once* at a time, and *refresh* those that are due."""
    # Several processes that begin at the same time do not work through the same list side by side.
    names = deque(sorted(keys, key=lambda _: draw()))
    fates: deque[tuple[str, Fate, str]] = deque()
    caller, interrupted = threading.current_thread(), threading.Event()

    def work() -> None:
        while not interrupted.is_set() and not (caller.daemon and main_is_over()):
            try:
                name = names.popleft()
            except IndexError:
                return
            fates.append((name, *_fate(name, load, refresh, older_than)))

    helpers = [threading.Thread(target=work, name="unexpired:keep-alive") for _ in range(min(at_once, len(names)) - 1)]
    try:
        # Where no more threads can be started, fewer work.
        with suppress(RuntimeError):
            for helper in helpers:
                helper.start()
        work()
        for helper in helpers:
            if helper.ident is not None:
                helper.join()
    finally:
        interrupted.set()
    return _report(fates)


def due(token: Token | None, older_than: float | None) -> float | None:
    """From which moment on (UNIX time) an unused login is refreshed. None: nobody knows."""
    if token is None or token.expires_at is None or token.lifetime is None:
        return None
    lives = [seconds for name in _LIVES if (seconds := _seconds(token.extra.get(name))) is not None]
    ages = [older_than] if older_than is not None else []
    ages += [min(lives) / 2] if lives else []
    return token.expires_at - token.lifetime + min(ages) if ages else None


def _seconds(value: object) -> float | None:
    """A number above zero, as servers write it."""
    try:
        seconds = float(value) if isinstance(value, int | float | str) else 0.0
    except (ValueError, OverflowError):
        return None
    return seconds if 0.0 < seconds <= LONGEST_LIFETIME else None


def _fate(key: str, load: Load, refresh: Refresh, older_than: float | None) -> tuple[Fate, str]:
    """What becomes of one session, and why."""
    try:
        session = load(key)
        if session is None or session.ended is not None or session.refresh_token is None:
            return "untouched", ""
        now = instant().wall
        failure = session.failure
        if failure is not None and failure.kind == "configuration" and not failure.resources and failure.holds(now):
            return "failed", failure.message
        token = max(session.tokens.values(), key=lambda one: one.minted, default=None)
        moment = due(token, older_than)
        if token is None or moment is None:
            return "unknown", ""
        if now < moment:
            return "untouched", ""
        refresh(key, token)
    except LoginRequired as over:
        return ("failed", str(over)) if over.reason == "login_page" else ("ended", over.reason)
    except UnexpiredError as error:
        return "failed", str(error)
    except Exception as error:  # noqa: BLE001 - not ours, and its text could hold a secret
        return "failed", place_of(error)
    return "kept", ""


def _report(fates: Iterable[tuple[str, Fate, str]]) -> KeptAlive:
    found: dict[Fate, dict[str, str]] = {"kept": {}, "ended": {}, "failed": {}, "unknown": {}, "untouched": {}}
    for key, fate, why in fates:
        found[fate][key] = why
    ended, failed = MappingProxyType(found["ended"]), MappingProxyType(found["failed"])
    return KeptAlive(tuple(found["kept"]), ended, failed, tuple(found["unknown"]), len(found["untouched"]))
