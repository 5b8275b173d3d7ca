"""Looks for secrets in everything the library says while the tests run: each test fails for what was told in it.

Every secret of the suite can be told by its shape: the embedded server's tokens, anything in the shape of a JWT, the
registered client secret and password, the made-up tokens of the tests, and the server's own words about an error.
Besides, every long token that was ever put into a `Token` or a `Session` is looked for as it is.
"""

from __future__ import annotations

import functools
import logging
import os
import re
import weakref
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import TracebackType
from typing import Any, cast

import httpx2
import pytest

import unexpired
from unexpired import events
from unexpired._core import challenge, effects, session, token
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenTransport
from unexpired.errors import ApiError, UnexpiredError
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.grants.answer import HTTPAnswer, TokenCall
from unexpired.stores import FileStore, MemoryStore

__all__ = ["WATCH", "Watch"]

SHAPES = re.compile(
    r"\b[ar]t-[\w-]{32}"  # the embedded server's tokens
    r"|eyJ[\w-]{8,}\.(?:eyJ|e30)"  # a JWT
    r"|crm-secret|wonderland|5ecre7|very-secret|M4RK3D|hunter2"
    r"|\b(?:access|refresh) \d+\b|\b[AR]T-\w|\bID-[\da-z]"  # tokens made up by tests
    r"|the test server says"
)
_SECRET_BY_CONTRACT = frozenset({"_refresh_token", "error"})  # how grants hand a token, or the server's code, inwards
_HOME = os.path.dirname(unexpired.__file__)
_LONG = 20
_LOOKS = 8  # at one kind of object in one test; Hypothesis makes thousands of the same


class Watch:
    """What was said in one test that holds a secret. Any thread may add to it."""

    def __init__(self) -> None:
        self.leaks: list[str] = []
        self.told_on_purpose = False
        self._known: tuple[str, ...] = ()  # replaced as a whole: other threads are reading it
        self._seen: set[str] = set()
        self._looks: Counter[str] = Counter()
        self._living: list[weakref.ref[object]] = []

    def look(self, where: str, text: str) -> None:
        """Take down *text* if it holds a secret."""
        if self.told_on_purpose or text in self._seen:
            return
        self._seen.add(text)
        found = SHAPES.search(text)
        known = next((one for one in self._known if one in text), None)
        if found is not None or known is not None:
            place = found.start() if found is not None else text.index(cast("str", known))
            self.leaks.append(f"{where}: …{text[max(0, place - 60) : place + 60]!r}…")

    def note(self, *secrets: object) -> None:
        """Look for these from now on."""
        for one in secrets:
            if isinstance(one, str) and len(one) >= _LONG and one not in self._known:
                self._known = (*self._known[-31:], one)

    def meet(self, kind: str, one: object, *, later: bool) -> None:
        """Look at what the object shows of itself: now, and *later* again, if it is still there."""
        if self.told_on_purpose:
            return
        self._looks[kind] += 1
        if self._looks[kind] <= _LOOKS:
            with suppress(ValueError):  # a number that Python refuses to spell
                self.look(f"repr of {kind}", repr(one))
            if later:
                self._living.append(weakref.ref(one))

    def read(self, error: BaseException, where: str) -> None:
        """Look at an error as a traceback, a log or a debugger would show it, causes and notes included."""
        seen: set[int] = set()
        one: BaseException | None = None if self.told_on_purpose else error
        while one is not None and id(one) not in seen:
            seen.add(id(one))
            shown = [repr(one), str(one), *getattr(one, "__notes__", ())]
            if isinstance(one, UnexpiredError) and not isinstance(one, ApiError):
                shown += [repr(value) for name, value in vars(one).items() if name not in _SECRET_BY_CONTRACT]
            for text in shown:
                self.look(f"{where} {type(one).__name__}", text)
            one = one.__cause__ or (None if one.__suppress_context__ else one.__context__)

    def settle(self) -> list[str]:
        """What was told since the last time."""
        for living in self._living:
            if (one := living()) is not None:
                self.look(f"repr of {type(one).__name__}", repr(one))
        leaks, purpose = list(dict.fromkeys(self.leaks)), self.told_on_purpose
        self.__init__()  # type: ignore[misc]  # everything anew for the next test
        return [] if purpose else leaks


WATCH = Watch()


class _LogWatch(logging.Handler):
    """Reads each record as a formatter would, and its arguments too."""

    def emit(self, record: logging.LogRecord) -> None:
        text = f"{record.getMessage()} {record.args!r} {getattr(record, 'unexpired_event', '')!r}"
        WATCH.look(f"log record of {record.name}", text)
        if record.exc_info and record.exc_info[1] is not None:
            WATCH.read(record.exc_info[1], f"log record of {record.name} with")


def _after_init(kind: type, then: Callable[[Any], None]) -> None:
    original = cast("Any", kind).__init__

    @functools.wraps(original)
    def init(self: Any, *args: Any, **named: Any) -> None:
        original(self, *args, **named)
        if type(self) is kind:
            then(self)

    cast("Any", kind).__init__ = init


def _met_token(one: token.Token) -> None:
    WATCH.note(one.access_token, one.refresh_token, one.id_token)
    WATCH.meet("Token", one, later=False)


def _met_session(one: session.Session) -> None:
    WATCH.note(one.refresh_token, one.login)
    WATCH.meet("Session", one, later=False)


def _kinds() -> Iterator[tuple[type, bool]]:
    """What has a `repr` that people see, and whether it lives long enough to learn secrets."""
    for kind in (effects.Result, challenge.Rendered, challenge.Challenge, HTTPAnswer, TokenCall):
        yield kind, False
    for living in (unexpired.TokenManager, unexpired.Scheme, FunctionGrant, RefreshTokenGrant, MemoryStore, FileStore):
        yield living, hasattr(living, "__weakref__")


def _errors(kind: type[UnexpiredError] = UnexpiredError) -> Iterator[type[UnexpiredError]]:
    yield kind
    for inner in kind.__subclasses__():
        yield from _errors(inner)


def install() -> None:
    """Watch this process from now on."""
    logging.getLogger().addHandler(_LogWatch())
    logging.getLogger("unexpired").setLevel(logging.DEBUG)
    _after_init(token.Token, _met_token)
    _after_init(session.Session, _met_session)
    for kind, later in _kinds():
        _after_init(kind, functools.partial(WATCH.meet, kind.__name__, later=later))
    for name in events.__all__:
        _after_init(getattr(events, name), lambda event: WATCH.look("event", repr(event)))
    for error in _errors():
        _after_init(error, functools.partial(WATCH.read, where="error"))
    # At the end of its life an error has everything it will ever show: causes, notes, what was added later.
    cast("Any", UnexpiredError).__del__ = lambda error: WATCH.read(error, "error")
    _after_sending()
    _after_raises()


def _after_raises() -> None:
    """Look at every error of the library that a test has waited for, whatever its type."""
    expected: Any = pytest.RaisesExc
    leave = expected.__exit__

    def exit_(self: Any, *raised: Any) -> bool:
        caught: bool = leave(self, *raised)
        if caught and _is_ours(raised[2]):
            WATCH.read(raised[1], "error caught:")
        return caught

    expected.__exit__ = exit_


def _is_ours(trace: TracebackType | None) -> bool:
    """Whether an error was raised in the library, and not by a test."""
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return trace is not None and trace.tb_frame.f_code.co_filename.startswith(_HOME)


def _after_sending() -> None:
    """Look at what a caller sees of its requests where the token is put in behind its back."""
    blocking, waiting = httpx2.Client.send, httpx2.AsyncClient.send

    def send(self: httpx2.Client, *args: Any, **named: Any) -> httpx2.Response:
        return _seen(self, blocking(self, *args, **named))

    async def asend(self: httpx2.AsyncClient, *args: Any, **named: Any) -> httpx2.Response:
        return _seen(self, await waiting(self, *args, **named))

    setter: Any = setattr
    setter(httpx2.Client, "send", send)
    setter(httpx2.AsyncClient, "send", asend)


def _seen(client: httpx2.Client | httpx2.AsyncClient, response: httpx2.Response) -> httpx2.Response:
    if isinstance(client._transport, TokenTransport | AsyncTokenTransport):
        for one in (response, *response.history):
            WATCH.look("history", f"{one!r} {one.request!r} {one.request.headers!r}")
    return response
