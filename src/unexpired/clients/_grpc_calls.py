"""What the interceptors of both kinds share: how a call asks for a token, carries it, and what its answer means."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import grpc

from unexpired._core.scheme import Answer, Judgement, Rendered, Scheme
from unexpired._core.token import Token
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import AUTHENTICATED, OURS, RESOURCE, chosen_scheme, kind_of, no_such_option
from unexpired.clients._grpc_futures import Line
from unexpired.errors import ConfigurationError, ReplayRefused
from unexpired.manager import TokenManager

__all__ = ["STATUS", "Asked", "CallDetails", "Site", "judged", "metadata_scheme", "status_of"]

Pair = tuple[str, Any]
"""One entry of metadata."""

STATUS: dict[object, int] = {
    grpc.StatusCode.OK: 200,
    grpc.StatusCode.CANCELLED: 499,
    grpc.StatusCode.UNKNOWN: 500,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.NOT_FOUND: 404,
    grpc.StatusCode.ALREADY_EXISTS: 409,
    grpc.StatusCode.PERMISSION_DENIED: 403,
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.FAILED_PRECONDITION: 400,
    grpc.StatusCode.ABORTED: 409,
    grpc.StatusCode.OUT_OF_RANGE: 400,
    grpc.StatusCode.UNIMPLEMENTED: 501,
    grpc.StatusCode.INTERNAL: 500,
    grpc.StatusCode.UNAVAILABLE: 503,
    grpc.StatusCode.DATA_LOSS: 500,
    grpc.StatusCode.UNAUTHENTICATED: 401,
}
"""The HTTP status that stands for each code of gRPC, as gateways between the two have it."""

_MARKS = frozenset({AUTHENTICATED, RESOURCE})
_KEY = re.compile(r"(?!grpc-)[0-9a-z_.-]+(?<!-bin)")
_SAID = {"true": True, "false": False}


class _Fields(NamedTuple):
    method: str
    timeout: float | None
    metadata: Any
    credentials: grpc.CallCredentials | None
    wait_for_ready: bool | None
    compression: grpc.Compression | None


class CallDetails(_Fields, grpc.ClientCallDetails):
    """How a call of a blocking channel is to be sent."""


class _Headers(dict[str, str]):
    """Metadata of an answer, found whatever the case of their names."""

    def get(self, name: str, default: Any = None) -> Any:
        """Give the value of *name*."""
        return super().get(name.lower(), default)


def metadata_scheme(scheme: Scheme | None) -> Scheme:
    """*scheme*, if metadata can carry it and gRPC can answer in its words. Raises ConfigurationError otherwise."""
    scheme = chosen_scheme(scheme)
    headers, *others = scheme.places
    if any(others):
        raise ConfigurationError("gRPC carries a token in metadata only: give it an InHeader, no InQuery or InCookie")
    for place in headers:
        if not _KEY.fullmatch(place.name.lower()):
            raise ConfigurationError(
                f"{place}: the name cannot be a metadata key: take letters, digits, '_', '-' and '.', neither "
                f"beginning with grpc- nor ending with -bin"
            )
    if scheme.business_code is not None:
        raise ConfigurationError(
            "gRPC answers have no JSON body to find a code in: judge=… is shown the status and the metadata"
        )
    return scheme


def status_of(code: object) -> int:
    """The HTTP status that stands for *code*."""
    return STATUS.get(code, 500)


def judged(scheme: Scheme, code: object, details: str | None, *metadata: Iterable[Pair] | None) -> Judgement:
    """What an answer means. A judge of the user's own finds the code and the details under their names on the wire."""
    headers = _Headers({"grpc-status": str(getattr(code, "value", (2,))[0]), "grpc-message": details or ""})
    for pairs in metadata:
        for name, value in pairs or ():
            if isinstance(value, str):
                headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return scheme.judge(Answer(status_of(code), headers))


def _kept(message: Any) -> Any:
    """*message* as it is now, for those kinds of which a copy costs no more than sending them does; any other itself.

    A deep copy of whatever there is would hold up an event loop for longer than the call.
    """
    if isinstance(message, bytearray):
        return message.copy()
    if hasattr(message, "CopyFrom") and hasattr(message, "SerializeToString"):
        kept = type(message)()
        kept.CopyFrom(message)
        return kept
    return message


class Site:
    """One manager and one scheme, for the calls of any number of channels to one *target*."""

    def __init__(self, manager: TokenManager, scheme: Scheme | None, target: str | None) -> None:
        scheme = metadata_scheme(scheme)
        if scheme.origins is not None:
            raise ConfigurationError(
                "a gRPC channel goes to one server and follows no redirects: leave origins= out, and give the "
                "interceptor to the channels that may have the token"
            )
        if not isinstance(cast("object", target), str | None):
            raise ConfigurationError(f"target must be a str such as 'api.example.com:443', not {kind_of(target)}")
        self.calls = Calls(manager, scheme)
        self.manager = manager
        self.target = target
        self.line = Line()
        self.replaced = frozenset(place.name.lower() for place in scheme.places[0]) | _MARKS
        self._render = scheme.render
        self._last: tuple[Rendered, tuple[Pair, ...]] | None = None

    def pairs(self, token: Token) -> tuple[Pair, ...]:
        """*token* as metadata; that of the last call is remembered."""
        rendered = self._render(token)
        # One tuple, read once and replaced whole: threads see either pair and need no lock.
        last = self._last
        if last is None or last[0] is not rendered:
            last = self._last = (rendered, tuple((name.lower(), value) for name, value in rendered.headers))
        return last[1]


class Asked:
    """One call as its caller asked for it, before the token is on it."""

    resource: str | None = None
    authenticated = True
    repeatable = True

    def __init__(self, site: Site, continuation: Any, details: Any, request: Any) -> None:
        self.site = site
        self.details = details
        self.request = request
        self._continuation: Any = continuation
        self._until = None if details.timeout is None else time.monotonic() + details.timeout
        self._own = () if details.metadata is None else self._read(tuple(details.metadata))

    def _read(self, metadata: tuple[Pair, ...]) -> tuple[Pair, ...]:
        """Read what is said to us alone; what is left is sent."""
        for name, _ in metadata:
            if name in self.site.replaced or name.startswith(OURS):
                return self._sift(metadata)
        return metadata

    def _sift(self, metadata: tuple[Pair, ...]) -> tuple[Pair, ...]:
        for name, value in metadata:
            if name == RESOURCE:
                self.resource = value
            elif name == AUTHENTICATED:
                if value not in _SAID:
                    raise ConfigurationError(f'the metadata {AUTHENTICATED} is "true" or "false"')
                self.authenticated = _SAID[value]
            elif name.startswith(OURS):
                raise no_such_option("metadata", name)
        taken = self.site.replaced if self.authenticated else _MARKS
        return tuple(pair for pair in metadata if pair[0] not in taken)

    def again(self) -> None:
        """Keep the message as it is now: its owner may go on and write the next one into it."""
        try:
            self.request = _kept(self.request)
        except Exception:  # noqa: BLE001 - whatever a message of somebody's own raises: it cannot be had again
            self.repeatable = False

    def release(self) -> None:
        """Let go of the message: the call is not sent again. Errors hold their calls for as long as they are kept."""
        # In this order, as _send reads them in the other: a thread that sends meanwhile never sends None.
        self._continuation = self.request = None

    @property
    def left(self) -> float | None:
        """Seconds until the caller's deadline; negative after it, and such a call is not sent by gRPC."""
        return None if self._until is None else self._until - time.monotonic()

    def origin(self) -> str:
        """Where it goes: the target, as far as it is known, or the service."""
        return f"grpc://{self.site.target or self._method.strip('/').partition('/')[0]}"

    def target(self) -> tuple[str, str]:
        """The method stands for itself: no part of its path tells one thing from its siblings."""
        return self._method, ""

    def rewind(self) -> bool:
        """Raise ReplayRefused for a message that cannot be had again."""
        if self.repeatable and not hasattr(self.request, "__next__"):
            return True
        raise self.refused("its message cannot be sent again: send a new one")

    def refused(self, why: str) -> ReplayRefused:
        """The call was refused with an expired token, and *why* nothing more can be done from here."""
        key = self.site.manager.key
        return ReplayRefused(
            f"{self._method} was refused with an expired token. The token of {key!r} is fresh now, but {why}", key=key
        )

    @property
    def _method(self) -> str:
        method = self.details.method
        return method if isinstance(method, str) else bytes(method).decode()
