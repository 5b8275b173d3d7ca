"""Hiding a token that stands in a query, for urllib3 and requests: from their logs, their errors and their answers.

What goes over the wire is all that these clients know of a request, so they say and keep it. Here they say and keep
the address that the caller gave.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from contextvars import ContextVar
from urllib.parse import quote

from urllib3.response import BaseHTTPResponse

__all__ = ["Disguise", "silence"]

_LOGGERS = ("urllib3.connection", "urllib3.connectionpool", "urllib3.response", "urllib3.util.retry")
_worn: ContextVar[Disguise | None] = ContextVar("unexpired_disguise", default=None)


class Disguise:
    """Puts the caller's own *query* in the place of *dressed*, which is the same with *parameters*: the token."""

    def __init__(self, query: str, dressed: str, parameters: Iterable[tuple[str, str]]) -> None:
        pairs = [(quote(name, ""), quote(value, "")) for name, value in parameters]
        self._query = f"?{query}" if query else ""
        self._dressed = f"?{dressed}"
        self._pairs = [f"{name}={value}" for name, value in pairs]
        self._stars = [f"{name}=***" for name, _ in pairs]

    def __call__(self, text: str) -> str:
        """*text* without the token."""
        text = text.replace(self._dressed, self._query)
        for pair, stars in zip(self._pairs, self._stars, strict=True):
            text = text.replace(pair, stars)
        return text

    @contextmanager
    def worn(self) -> Generator[None, None, None]:
        """While the client sends: what it logs and raises shows no token."""
        before = _worn.set(self)
        try:
            yield
        except Exception as error:
            self._of_error(error)
            raise
        finally:
            _worn.reset(before)

    def of_answer(self, answer: BaseHTTPResponse) -> None:
        """Take the token out of what an answer remembers of its request, and of where it redirects to."""
        retries = answer.retries
        if retries is not None and retries.history:
            retries.history = tuple(one._replace(url=one.url and self(one.url)) for one in retries.history)
            for one in retries.history:
                self._of_error(one.error)
        if answer.url:
            answer.url = self(answer.url)
        location = answer.headers.get("location")
        if location and any(pair in location for pair in self._pairs):
            answer.headers["location"] = self._without(location)

    def _without(self, url: str) -> str:
        """An address that repeats our query, without the token: who is to have it gets it anew."""
        rest, mark, fragment = url.partition("#")
        path, _, query = rest.partition("?")
        kept = "&".join(pair for pair in query.split("&") if pair not in self._pairs)
        return f"{path}?{kept}{mark}{fragment}" if kept else f"{path}{mark}{fragment}"

    def _of_error(self, error: BaseException | None) -> None:
        """Rewrite an error, and all that it is made of."""
        todo: list[object] = [error]
        seen: set[int] = set()
        while todo:
            one = todo.pop()
            if not isinstance(one, BaseException) or id(one) in seen:
                continue
            seen.add(id(one))
            one.args = tuple(self(value) if isinstance(value, str) else value for value in one.args)
            for name, value in list(vars(one).items()):
                if isinstance(value, str):
                    setattr(one, name, self(value))
            todo += [one.__cause__, one.__context__, *one.args, *vars(one).values()]


class _Quiet(logging.Filter):
    """Lets every record pass, without the token of the request that its thread is sending."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Rewrite the record if it shows the token."""
        disguise = _worn.get()
        if disguise is not None:
            told = record.getMessage()
            if (hidden := disguise(told)) != told:
                record.msg, record.args = hidden, ()
        return True


_quiet = _Quiet()


def silence() -> None:
    """From now on urllib3 logs no token of a request that wears a `Disguise`. Any number of times is like once."""
    for name in _LOGGERS:
        logging.getLogger(name).addFilter(_quiet)
