"""Putting a token on a request, for all adapters: what the caller wrote stays as it was written."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote_plus

__all__ = ["url_with", "with_cookies", "with_parameters"]

Pairs = Iterable[tuple[str, str]]


def with_parameters(query: str, parameters: Pairs) -> str:
    """The query with these set: the caller's others stay as they were written, because signatures cover them."""
    parameters = tuple(parameters)
    names = {name for name, _ in parameters}
    pairs = query.split("&") if query else []
    kept = [pair for pair in pairs if unquote_plus(pair.partition("=")[0]) not in names]
    return "&".join([*kept, *(f"{quote(name, '')}={quote(value, '')}" for name, value in parameters)])


def url_with(url: str, parameters: Pairs) -> str:
    """The address with these query parameters set."""
    rest, mark, fragment = url.partition("#")
    path, _, query = rest.partition("?")
    return f"{path}?{with_parameters(query, parameters)}{mark}{fragment}"


def with_cookies(header: str, cookies: Pairs) -> str:
    """The ``Cookie`` header (RFC 6265 §4.2) with these set: the caller's others stay as they were written."""
    cookies = tuple(cookies)
    names = {name for name, _ in cookies}
    kept = [pair for pair in header.split("; ") if pair and pair.partition("=")[0].strip() not in names]
    return "; ".join([*kept, *(f"{name}={value}" for name, value in cookies)])
