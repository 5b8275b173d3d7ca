"""What all adapters share: how the asks of the replay flow that are not "send" get answered."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any, cast
from urllib.parse import urlsplit

from unexpired._core.effects import Effect, Flow
from unexpired._core.replay import Accepted, End, Newer, Replace
from unexpired._core.scheme import Scheme, origin_of
from unexpired._engine.clock import boot
from unexpired._engine.exchange import Exchange
from unexpired.errors import ConfigurationError, ReplayRefused
from unexpired.events import RequestReplayed
from unexpired.manager import TokenManager

__all__ = [
    "AUTHENTICATED",
    "ORIGIN",
    "OURS",
    "RESOURCE",
    "aanswer",
    "answer",
    "body_refused",
    "check_manager",
    "chosen_scheme",
    "kind_of",
    "no_such_option",
    "not_installed",
    "opted_out",
    "origin",
    "replayed",
    "step",
    "url_origin",
]

AUTHENTICATED = "unexpired.authenticated"
"""Request extension: False for a request that is to carry no token, such as the login call itself."""
RESOURCE = "unexpired.resource"
"""Request extension: the resource (RFC 8707) whose token this request wants."""
ORIGIN = "unexpired.origin"
"""Request extension, set by transports: the address the caller asked for, to recognise redirects by."""
OURS = "unexpired."
"""What the names of all request extensions begin with that are for us."""

origin = lru_cache(maxsize=1024)(origin_of)


def url_origin(url: str) -> str:
    """The origin of an address that a client has found good."""
    parts = urlsplit(url)
    return origin(parts.scheme, parts.hostname or "", parts.port)


def check_manager(manager: object) -> None:
    """Raise ConfigurationError, naming what *manager* is, unless it is a `TokenManager`."""
    if isinstance(manager, TokenManager):
        return
    hint = ""
    if hasattr(manager, "redeem") or callable(manager):
        hint = ": TokenManager(grant) makes one of a grant"
    elif isinstance(manager, str):
        hint = ": make TokenManager(grant), and give it the first token by seed(answer) or login(answer)"
    raise ConfigurationError(f"manager must be a TokenManager, not {kind_of(manager)}{hint}")


def chosen_scheme(scheme: object) -> Scheme:
    """*scheme*, the bearer scheme for None. Raises ConfigurationError, naming what it is, for anything else."""
    if scheme is None:
        return Scheme.bearer()
    if isinstance(scheme, Scheme):
        return scheme
    raise ConfigurationError(
        f'scheme must be a Scheme, such as Scheme.bearer() or Scheme(InQuery("token")), or None, not {kind_of(scheme)}'
    )


def kind_of(value: object) -> str:
    """What *value* is, without a word of what is in it: it could be a token."""
    if isinstance(value, type):
        return f"the class {value.__name__}"
    module, name = type(value).__module__.partition(".")[0], type(value).__name__
    return "None" if value is None else name if module == "builtins" else f"{module}.{name}"


def opted_out(extensions: Mapping[str, object]) -> bool:
    """Whether a caller said that a request is to carry no token. Raises ConfigurationError for what nobody reads."""
    for name in extensions:
        if name.startswith(OURS) and name not in (AUTHENTICATED, RESOURCE, ORIGIN):
            raise no_such_option("request extension", name)
    said = extensions.get(AUTHENTICATED, True)
    if not isinstance(said, bool):
        raise ConfigurationError(f"the request extension {AUTHENTICATED!r} is True or False, not {kind_of(said)}")
    return not said


def no_such_option(kind: str, name: str) -> ConfigurationError:
    """*name* is for us, and unknown here. Its request is not sent: its caller may have meant to take the token off."""
    return ConfigurationError(f"there is no {kind} {name!r}: there are {AUTHENTICATED!r} and {RESOURCE!r}")


def not_installed(client: str, error: ModuleNotFoundError, *beside: str) -> ModuleNotFoundError:
    """*error*, raised where *client*, or what is *beside* it, was imported, in a sentence that names the extra."""
    if error.name not in (client, *beside):
        return error
    text = f"unexpired.clients.{client} needs {error.name}, which is not installed: pip install 'unexpired[{client}]'"
    return ModuleNotFoundError(text, name=error.name)


def step(flow: Flow[Any], told: object) -> Effect[Any] | None:
    """What the flow asks next; None at its end. What others raise, StopIteration too, is none of its business."""
    try:
        return flow.send(told)
    except StopIteration:
        return None


def answer(exchange: Exchange, effect: Effect[Any], status: int) -> object:
    """Answer everything but `Send`, on this thread. *status* is that of the last response."""
    if isinstance(effect, Replace):
        return exchange.replacement(effect.carried, effect.origin, effect.endpoint)
    if isinstance(effect, End):
        return exchange.end(effect.carried)
    return _answer_at_once(exchange, effect, status)


async def aanswer(exchange: Exchange, effect: Effect[Any], status: int) -> object:
    """The same as a task."""
    if isinstance(effect, Replace):
        return await exchange.areplacement(effect.carried, effect.origin, effect.endpoint)
    if isinstance(effect, End):
        return await exchange.aend(effect.carried)
    return _answer_at_once(exchange, effect, status)


def _answer_at_once(exchange: Exchange, effect: Effect[Any], status: int) -> object:
    if isinstance(effect, Newer):
        return exchange.newer(effect.carried)
    accepted = cast("Accepted", effect)
    # A failure may have come about before anybody looked at the token.
    if status < 400:
        exchange.accepted(accepted.token, accepted.origin, accepted.endpoint)
    return None


def replayed(exchange: Exchange, where: str, times: int, since: float) -> None:
    """Tell that a request to *where* was sent again. Its first answer came at boot time *since*."""
    if times:
        exchange.tell(RequestReplayed(exchange.key, where, times, boot() - since))


def body_refused(key: str, method: str, where: str) -> ReplayRefused:
    """The request cannot be sent again as it was."""
    return ReplayRefused(
        f"{method} to {where} was refused with an expired token and its body can be read only once. The token of "
        f"{key!r} is fresh now: send the request again, or give the body as bytes, a seekable file or a body factory",
        key=key,
    )
