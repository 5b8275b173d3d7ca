"""The program's login page, as one manager knows it: its address, and whether the program is on it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from typing import cast

from unexpired._core.login_page import check_template, fill_template, local_path
from unexpired._engine.arguments import check_callable, check_login_fields
from unexpired.errors import LoginRequired, place_of

__all__ = ["LoginPage"]

_log = logging.getLogger("unexpired")

Field = str | Callable[[], str]


class LoginPage:
    """Where to log in and how to say so. Thread-safe. Raises ConfigurationError for a template that cannot work."""

    def __init__(
        self, template: str | None, fields: Mapping[str, Field] | None, predicate: Callable[[], bool] | None
    ) -> None:
        check_login_fields(fields)
        if predicate is not None:
            check_callable("on_login_page", predicate)
        self._template = template
        self._fields = dict(fields or {})
        self._predicate = predicate
        self._visits = 0
        self._lock = threading.Lock()
        if template is not None:
            check_template(template, self._fields)

    def is_here(self) -> bool:
        """Whether the program is on its login page."""
        return self._visits > 0 or (self._predicate is not None and self._predicate())

    @contextmanager
    def visit(self) -> Generator[None]:
        """The program is on its login page, from here to the end of the block."""
        with self._lock:
            self._visits += 1
        try:
            yield
        finally:
            with self._lock:
                self._visits -= 1

    def address(self, error: LoginRequired) -> LoginRequired:
        """*error* with the address of the page, and with what is in it, unless it has one."""
        if error.login_url is None and (self._template is not None or self._fields):
            fields = {name: _filled(name, value) for name, value in self._fields.items()}
            fields["return_to"] = local_path(fields.get("return_to", "/"))
            error.fields = fields
            if self._template is not None:
                own = {"reason": error.reason, "key": error.key or ""}
                error.login_url = fill_template(self._template, {**own, **fields})
        return error


def _filled(name: str, value: Field) -> str:
    """What the field says now. A mistake in it must not hide that the login is over."""
    if isinstance(value, str):
        return value
    try:
        said = cast("object", value())
    except Exception as mistake:  # noqa: BLE001 - not ours
        _log.warning("login_fields[%r] raised %s", name, place_of(mistake))
        return ""
    return said if isinstance(said, str) else ""
