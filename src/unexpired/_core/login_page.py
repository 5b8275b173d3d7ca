"""Where to log in, with the way back: a URL from a template that nobody can turn into another address."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from string import Formatter
from urllib.parse import quote

from unexpired.errors import ConfigurationError

__all__ = ["check_template", "fill_template", "local_path"]

OWN_FIELDS = frozenset({"return_to", "reason", "key"})


def check_template(template: str, fields: Collection[str]) -> None:
    """Raise ConfigurationError unless every ``{field}`` of *template* is known and nothing in it breaks a header."""
    try:
        fields_of = [(name, spec or turn) for _, name, spec, turn in Formatter().parse(template) if name is not None]
    except ValueError:
        raise ConfigurationError(f"login_url {template!r} is not a template: its braces do not match") from None
    if any(more for _, more in fields_of):
        raise ConfigurationError(f"login_url {template!r} formats a field: only plain ones, {{return_to}}, are filled")
    unknown = sorted({name for name, _ in fields_of} - OWN_FIELDS - set(fields))
    if unknown:
        raise ConfigurationError(
            f"login_url asks for {{{unknown[0]}}}, which nobody supplies: use {{return_to}}, {{reason}}, {{key}}, or "
            "name it in login_fields"
        )
    if not template.isprintable():
        raise ConfigurationError("login_url holds a control character")


def fill_template(template: str, fields: Mapping[str, str]) -> str:
    """The URL, every field percent-encoded (RFC 3986), so that none can add a parameter, a host or a header line."""
    safe = {**fields, "return_to": local_path(fields.get("return_to", "/"))}
    return template.format_map({name: quote(value, safe="", errors="replace") for name, value in safe.items()})


def local_path(path: str) -> str:
    r"""*path* if it stays on this site, else ``/``: browsers read ``//host`` and ``/\host`` as another host."""
    stays = path.startswith("/") and not path.startswith(("//", "/\\")) and path.isprintable()
    return path if stays else "/"
