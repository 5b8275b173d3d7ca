"""What both clients share of a call: how it is made up, and what its caller gets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, TypedDict, cast

import httpx2

from unexpired.api._answers import Envelope, at, checked, parsed, parser
from unexpired.clients._exchange import AUTHENTICATED, RESOURCE
from unexpired.errors import ConfigurationError
from unexpired.grants.answer import picked

__all__ = ["Calls", "Encoding", "Options"]

Encoding = Literal["json", "form"]
_AS_THEY_ARE = ("params", "headers", "files", "content")


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
    """The settings of a client that are about bodies. Immutable; safe for threads and tasks."""

    def __init__(self, *, envelope: Envelope | None, encoding: Encoding, unwrap: bool) -> None:
        self.envelope = envelope
        self._encoding: Encoding = _checked_encoding(encoding)
        self._unwrap = unwrap
        if unwrap:
            self._needs_envelope()

    def arguments(self, body: Any, options: Options) -> dict[str, Any]:
        """The call as httpx2 takes it. Raises, before anything is sent, for options that cannot work."""
        arguments: dict[str, Any] = {}
        encoding: Encoding = self._encoding
        if options:
            if unknown := options.keys() - Options.__optional_keys__:
                known = ", ".join(sorted(Options.__optional_keys__))
                raise TypeError(
                    f"a call takes no {min(unknown)!r}; its body comes after the path, its options are {known}"
                )
            encoding = _checked_encoding(options.get("encoding") or encoding)
            arguments = self._with_options(options)
        if body is not None:
            arguments["data" if encoding == "form" or "files" in arguments else "json"] = body
        return arguments

    def _with_options(self, options: Options) -> dict[str, Any]:
        given = cast("Mapping[str, Any]", options)
        arguments = {name: given[name] for name in _AS_THEY_ARE if given.get(name) is not None}
        if "timeout" in options:
            arguments["timeout"] = options["timeout"]
        extensions: dict[str, Any] = {}
        if not options.get("authenticated", True):
            extensions[AUTHENTICATED] = False
        if (resource := options.get("resource")) is not None:
            extensions[RESOURCE] = resource
        if extensions:
            arguments["extensions"] = extensions
        if options.get("unwrap"):
            self._needs_envelope()
        if (kind := options.get("into")) is not None:
            parser(kind)
        return arguments

    def result(self, response: httpx2.Response, options: Options) -> Any:
        """What the caller gets. Raises ApiError, and what pydantic or msgspec raise for *into*."""
        envelope = self.envelope
        body = checked(response, envelope)
        unwrap = options.get("unwrap")
        if envelope is not None and (self._unwrap if unwrap is None else unwrap) and envelope.fits(body):
            body = at(body, envelope.data)
        kind = options.get("into")
        return body if kind is None else parsed(body, kind)

    def seed(self, body: Any, fields: Mapping[str, str] | None) -> Mapping[str, Any]:
        """The token answer in what a login endpoint answered."""
        if not isinstance(body, Mapping):
            raise ConfigurationError("the login endpoint did not answer with a JSON object, so it holds no token")
        return picked(cast("Mapping[str, Any]", body), fields or {})

    def _needs_envelope(self) -> None:
        if self.envelope is None:
            raise ConfigurationError("unwrap= needs envelope=, or a scheme with business codes: what is the data?")


def _checked_encoding(encoding: Encoding) -> Encoding:
    if encoding not in ("json", "form"):
        raise ConfigurationError(f"encoding is 'json' or 'form', not {encoding!r}")
    return encoding
