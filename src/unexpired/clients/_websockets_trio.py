"""`trio_connect`, apart from the others because it needs trio."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from types import TracebackType
from typing import Any

import trio
import websockets.trio.client

from unexpired._core.scheme import Scheme
from unexpired.clients._websockets_handshakes import EXPIRED_CLOSE, Handshakes, transient
from unexpired.manager import TokenManager

__all__ = ["trio_connect"]


class trio_connect(websockets.trio.client.connect):  # noqa: N801 - the client's own spelling
    """``async with trio_connect(manager, uri) as websocket``, ``async for websocket in trio_connect(manager, uri)``.

    `unexpired.clients.websockets.connect`, for trio. *options* are those of ``websockets.trio.client.connect``.
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
        own, kind = websockets.trio.client.ClientConnection, options.get("create_connection")
        options = {"process_exception": transient, **options, "create_connection": self._handshakes.wrap(kind, own)}
        super().__init__(uri, **options)

    async def connect(self, nursery: trio.Nursery) -> websockets.trio.client.ClientConnection:
        """Connect; again, silently, if the token is refused."""
        opened: websockets.trio.client.ClientConnection = await self._handshakes.arun(
            lambda: super(trio_connect, self).connect(nursery)
        )
        return opened

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._handshakes.aleave(super().__aexit__(kind, error, trace), error)

    def __aiter__(self) -> AsyncIterator[websockets.trio.client.ClientConnection]:
        self._handshakes.loops = True
        return super().__aiter__()
