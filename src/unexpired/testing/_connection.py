"""The only module that knows uvicorn: its HTTP/1.1 protocol, with the socket lent to the application."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from unexpired.testing.app import ServerApp

__all__ = ["Listener"]

_KEEP_ALIVE_SECONDS = 60


class _Protocol(H11Protocol):
    """One connection, lent to the application: ASGI alone can't reset or break a promise of length."""

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, {**app_state, "connection": self}, _loop)
        self.access_log = False

    @property
    def gone(self) -> bool:
        """Whether the connection is closing or closed."""
        return self.transport.is_closing()

    def reset(self) -> None:
        """End the connection with a TCP RST."""
        if not self.gone:
            raw: socket.socket = self.transport.get_extra_info("socket")
            # lingering for zero seconds is how a close becomes a reset
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    def hang_up(self) -> None:
        """Send what was written and close."""
        self.transport.close()


class Listener:
    """The application on a listening socket. Made, started and stopped on one event loop."""

    def __init__(self, app: ServerApp, tls: tuple[str, str] | None) -> None:
        certificate, key = tls or (None, None)
        self._config = Config(
            app,
            loop="asyncio",
            http=_Protocol,
            ws="none",
            lifespan="off",
            log_config=None,
            proxy_headers=False,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        self._config.load()
        self._state = ServerState()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen, and give the port; `OSError` when it is taken."""
        loop = asyncio.get_running_loop()

        def protocol() -> asyncio.Protocol:
            return _Protocol(self._config, self._state, {}, loop)

        self._server = await loop.create_server(protocol, host, port, ssl=self._config.ssl, backlog=2048)
        bound: int = self._server.sockets[0].getsockname()[1]
        return bound

    async def stop(self) -> None:
        """Stop listening, cut every connection, end every exchange; it does not wait for slow answers."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._state.connections):
            connection.transport.abort()
        # a few turns of the loop: connections must know that they are lost before their exchanges end
        while self._state.connections:  # noqa: ASYNC110 - uvicorn has no event for it
            await asyncio.sleep(0)
        tasks = list(self._state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
