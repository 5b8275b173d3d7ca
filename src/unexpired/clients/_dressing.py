"""Putting a token on a request, for all adapters: what the caller wrote stays as it was written."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import quote, unquote_plus

from unexpired._core.challenge import Masked
from unexpired._core.scheme import Scheme
from unexpired.clients._exchange import chosen_scheme
from unexpired.errors import ConfigurationError

__all__ = ["header_scheme", "url_with", "with_cookies", "with_parameters", "without_parameters"]

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
    kept = [pair for pair in header.split(";") if pair.strip() and pair.partition("=")[0].strip() not in names]
    own = ";".join(kept).strip()
    return Masked("; ".join([*([own] if own else []), *(f"{name}={value}" for name, value in cookies)]))


def without_parameters(url: str, parameters: Pairs) -> str:
    """The address without these parameters, value and all: a server may repeat what it was asked in a redirect."""
    secret = set(parameters)
    rest, mark, fragment = url.partition("#")
    path, asks, query = rest.partition("?")
    kept = [pair for pair in query.split("&") if _read(pair) not in secret]
    return f"{path}{asks if any(kept) else ''}{'&'.join(kept)}{mark}{fragment}"


def _read(pair: str) -> tuple[str, str]:
    name, _, value = pair.partition("=")
    return unquote_plus(name), unquote_plus(value)


def header_scheme(scheme: Scheme | None, what: str, other: str) -> Scheme:
    """The scheme for *what*, which gives the client a header and no more. ConfigurationError if it would leak there.

    *other* is what carries such a scheme.
    """
    scheme = chosen_scheme(scheme)
    plain = [one for one in scheme.origins or () if one.startswith("http://") and one.count(":") == 1]
    if plain:
        raise ConfigurationError(
            f"{what} cannot keep the token to {plain[0]}: the client sends it along when that redirects to https "
            f"on the same host. Use {other}, or an https origin"
        )
    headers, *others = scheme.places
    if any(others) or [place.name.lower() for place in headers] != ["authorization"]:
        raise ConfigurationError(
            f"{what} carries a token in the Authorization header only: the client would send other headers along "
            f"redirects and show a query in its log. Use {other} for this scheme"
        )
    return scheme
