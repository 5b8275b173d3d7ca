"""What all adapters share: how the asks of the replay flow that are not "send" get answered."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, cast

from unexpired._core.effects import Effect
from unexpired._core.replay import Accepted, End, Newer, Replace
from unexpired._core.scheme import origin_of
from unexpired.errors import ReplayRefused
from unexpired.events import RequestReplayed

if TYPE_CHECKING:
    from unexpired.manager import TokenManager

__all__ = ["AUTHENTICATED", "ORIGIN", "RESOURCE", "aanswer", "answer", "body_refused", "origin", "replayed"]

AUTHENTICATED = "unexpired.authenticated"
"""Request extension: False for a request that is to carry no token, such as the login call itself."""
RESOURCE = "unexpired.resource"
"""Request extension: the resource (RFC 8707) whose token this request wants."""
ORIGIN = "unexpired.origin"
"""Request extension, set by transports: the origin the caller asked for, to recognise redirects by."""

origin = lru_cache(maxsize=1024)(origin_of)


def answer(manager: TokenManager, effect: Effect[Any]) -> object:
    """Answer everything but `Send`, on this thread."""
    if isinstance(effect, Replace):
        return manager.replacement(effect.carried, effect.origin)
    if isinstance(effect, End):
        return manager.end(effect.carried)
    return _answer_at_once(manager, effect)


async def aanswer(manager: TokenManager, effect: Effect[Any]) -> object:
    """The same as a task."""
    if isinstance(effect, Replace):
        return await manager.areplacement(effect.carried, effect.origin)
    if isinstance(effect, End):
        return await manager.aend(effect.carried)
    return _answer_at_once(manager, effect)


def _answer_at_once(manager: TokenManager, effect: Effect[Any]) -> object:
    if isinstance(effect, Newer):
        return manager.newer(effect.carried)
    accepted = cast("Accepted", effect)
    manager.accepted(accepted.token, accepted.origin)
    return None


def replayed(manager: TokenManager, where: str, times: int) -> None:
    """Tell that a request to *where* was sent again."""
    if times:
        manager.tell(RequestReplayed(manager.key, where, times))


def body_refused(key: str, method: str, where: str) -> ReplayRefused:
    """The request cannot be sent again as it was."""
    return ReplayRefused(
        f"{method} to {where} was refused with an expired token and its body can be read only once. The token of "
        f"{key!r} is fresh now: send the request again, or give the body as bytes, a seekable file or a body factory",
        key=key,
    )
