"""What both clients share: how a call is made up, the count of calls under way, and the end of a login told once."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import Any, Literal, TypedDict, cast

from unexpired.api._answers import Envelope, at, checked, parsed
from unexpired.api._showing import Spinner
from unexpired.clients._exchange import AUTHENTICATED, RESOURCE
from unexpired.errors import ConfigurationError, LoginRequired, StoreError, place_of
from unexpired.events import LoggedIn
from unexpired.grants.answer import picked
from unexpired.manager import TokenManager

__all__ = ["Calls", "Encoding", "Options"]

Encoding = Literal["json", "form"]
_log = logging.getLogger("unexpired")


class Options(TypedDict, total=False):
    """What every call takes.

    *params* are added to the query, *headers* to the client's. *timeout* is in seconds. *encoding* overrides the
    client's for this body; *files* and *content* go as httpx2 has them. *authenticated=False* sends no token;
    *resource* asks for another one's (RFC 8707). *unwrap* overrides the client's, *into* is a type to parse the
    result into (pydantic or msgspec).
    """

    params: Mapping[str, Any] | None
    headers: Mapping[str, str] | None
    timeout: float | None
    encoding: Encoding | None
    files: Any
    content: Any
    authenticated: bool
    resource: str | None
    unwrap: bool | None
    into: Any


class Calls:
    """The settings of a client, and what is known of its calls. Thread-safe."""

    def __init__(
        self,
        manager: TokenManager,
        *,
        envelope: Envelope | None,
        encoding: Encoding,
        unwrap: bool,
        on_loading: Callable[[int], object] | None,
    ) -> None:
        if encoding not in ("json", "form"):
            raise ConfigurationError(f"encoding is 'json' or 'form', not {encoding!r}")
        self.manager = manager
        self.envelope = envelope
        self._encoding: Encoding = encoding
        self._unwrap = unwrap
        self._watchers: list[Callable[[int], object]] = [] if on_loading is None else [on_loading]
        self._active = 0
        self._lock = threading.Lock()
        self._told: object = None
        manager.on(LoggedIn, self._forget)

    # -- what is sent and what comes back -------------------------------------------------------------------------

    def arguments(self, body: Any, options: Options) -> dict[str, Any]:
        """The call as httpx2 takes it."""
        extensions: dict[str, Any] = {}
        if not options.get("authenticated", True):
            extensions[AUTHENTICATED] = False
        if (resource := options.get("resource")) is not None:
            extensions[RESOURCE] = resource
        given = {name: options.get(name) for name in ("params", "headers", "files", "content")}
        arguments = {name: value for name, value in given.items() if value is not None}
        if "timeout" in options:
            arguments["timeout"] = options["timeout"]
        if extensions:
            arguments["extensions"] = extensions
        if body is not None:
            form = (options.get("encoding") or self._encoding) == "form" or "files" in arguments
            arguments["data" if form else "json"] = body
        return arguments

    def result(self, response: Any, options: Options) -> Any:
        """What the caller gets. Raises ApiError."""
        body = checked(response, self.envelope)
        unwrap = options.get("unwrap")
        if self.envelope is not None and (self._unwrap if unwrap is None else unwrap):
            body = at(body, self.envelope.data)
        kind = options.get("into")
        return body if kind is None else parsed(body, kind)

    def seed(self, body: Any, fields: Mapping[str, str] | None) -> Mapping[str, Any]:
        """The token answer in what a login endpoint answered."""
        if not isinstance(body, Mapping):
            raise ConfigurationError("the login endpoint did not answer with a JSON object, so it holds no token")
        return picked(cast("Mapping[str, Any]", body), fields or {})

    # -- loading --------------------------------------------------------------------------------------------------

    @contextmanager
    def counted(self) -> Generator[None]:
        """One call under way, from here to the end of the block, whatever ends it."""
        self._count(1)
        try:
            yield
        finally:
            self._count(-1)

    def _count(self, step: int) -> None:
        with self._lock:
            self._active += step
            active, watchers = self._active, list(self._watchers)
        for watcher in watchers:
            try:
                watcher(active)
            except Exception as error:  # noqa: BLE001 - a call must not fail because of how it is shown
                _log.warning("on_loading raised %s", place_of(error))

    @contextmanager
    def loading(self, text: str) -> Generator[None]:
        """Show a spinner while calls are under way, until the block ends."""
        spinner = Spinner(text)
        with self._lock:
            self._watchers.append(spinner)
        try:
            yield
        finally:
            with self._lock:
                self._watchers.remove(spinner)
            spinner(0)

    # -- the end of a login ---------------------------------------------------------------------------------------

    def is_news(self, error: LoginRequired) -> bool:
        """Whether this caller is the first of this client to hear that this login is over."""
        if error.reason == "login_page":
            return False
        try:
            session = self.manager.session()
        except StoreError:
            session = None
        login = session.login if session is not None else ""
        news = (login, error.reason == "step_up" and sorted(error.challenge.items()))
        with self._lock:
            if self._told == news:
                return False
            self._told = news
            return True

    def _forget(self, _: LoggedIn) -> None:
        with self._lock:
            self._told = None
