"""websockets: `connect` for asyncio, `sync_connect` for threads, `trio_connect` for trio.

Each is the client's own ``connect`` with a manager before the address: the token goes on at each handshake, also of a
reconnection. A handshake that is refused because the token expired, or a connection that its server closes for that
reason, leads to one refresh, for everybody who shares the manager. Needs the extra ``unexpired[websockets]``.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterable
from importlib import import_module
from types import TracebackType, coroutine
from typing import TYPE_CHECKING, Any, Never

from unexpired._core.scheme import Scheme
from unexpired.clients._exchange import not_installed
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

try:
    import websockets.asyncio.client
except ModuleNotFoundError as error:
    raise not_installed("websockets", error) from None

from unexpired.clients._websockets_handshakes import EXPIRED_CLOSE, Handshakes, transient
from unexpired.clients._websockets_sync import sync_connect

if TYPE_CHECKING:
    from unexpired.clients._websockets_trio import trio_connect

__all__ = ["EXPIRED_CLOSE", "connect", "sync_connect", "trio_connect"]


class connect(websockets.asyncio.client.connect):  # noqa: N801 - the client's own spelling
    """``async with connect(manager, uri) as websocket``, ``async for websocket in connect(manager, uri)``, or awaited.

    The token goes, as *scheme* places it, to the origin of *uri* (or the scheme's *origins*, where ``wss`` is
    ``https``), and along no redirect of the handshake to another one; the client's own objects and log never hold it.
    A handshake that the scheme judges as expired is sent once more, with a newer token. When the server closes the
    connection with a code of *expired_close*, leaving the block gets a newer token; the loop then connects with it, and
    raises the client's ``ConnectionClosedError`` when the server refuses a fresh token in that way. *resource*: whose
    token it is (RFC 8707). All *options* are those of ``websockets.asyncio.client.connect``; unless
    ``process_exception`` says otherwise, the loop tries again also while no token can be had.

    Connecting, and leaving a block that the server ended, raise what `TokenManager.token` raises; connecting by a
    ``sock`` of the caller's own raises ReplayRefused where it would take another one. Raises ConfigurationError for an
    argument of another kind. One connection at a time, for one task; any number of them share a manager.
    """

    def __init__(
        self,
        manager: TokenManager,
        uri: str,
        scheme: Scheme | None = None,
        *,
        resource: str | None = None,
        expired_close: Iterable[int] = EXPIRED_CLOSE,
        **options: Any,
    ) -> None:
        self._handshakes = Handshakes(manager, uri, scheme, resource, expired_close, options=options)
        own, kind = websockets.asyncio.client.ClientConnection, options.get("create_connection")
        options = {"process_exception": transient, **options, "create_connection": self._handshakes.wrap(kind, own)}
        super().__init__(uri, **options)

    def __await__(self) -> Generator[Any, None, websockets.asyncio.client.ClientConnection]:
        return self._handshakes.arun(self._attempt).__await__()

    @coroutine
    def _attempt(self) -> Generator[Any, None, Any]:
        return (yield from super().__await__())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._handshakes.aleave(super().__aexit__(kind, error, trace), error)

    def __aiter__(self) -> AsyncIterator[websockets.asyncio.client.ClientConnection]:
        self._handshakes.loops = True
        return super().__aiter__()

    def __enter__(self) -> Never:
        raise ConfigurationError("connect() is for asyncio: in blocking code use sync_connect(manager, uri)")

    def __exit__(self, *_: object) -> None:
        """Nothing was entered."""


def __getattr__(name: str) -> Any:
    # trio is needed for this one only.
    if name != "trio_connect":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return import_module("unexpired.clients._websockets_trio").trio_connect
