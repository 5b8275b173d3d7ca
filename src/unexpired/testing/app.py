"""The embedded authorization server and API as one ASGI application."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from unexpired.testing._api import call, open_call
from unexpired.testing._config import ServerConfig
from unexpired.testing._control import control
from unexpired.testing._dialects import a_wording, call_a, call_b
from unexpired.testing._exchange import Exchange, json_reply
from unexpired.testing._site import Site
from unexpired.testing._token_endpoint import revoke, token

__all__ = ["ServerApp"]

_DIALECT_A_REFRESH = frozenset({"/security-amass/oauth/token", "/a/security-amass/oauth/token"})


class ServerApp:
    """An ASGI 3 application: token endpoint, revocation, bearer API, two dialects, `/_control`.

    It wants the server to lend it the connection (`scope["state"]["connection"]`), as `running_server` does,
    so that it can reset and truncate. All of its state belongs to the event loop that runs it.
    """

    def __init__(self, config: ServerConfig | None = None) -> None:
        self._config = config or ServerConfig()
        self._site = Site(self._config)

    async def __call__(
        self,
        scope: Mapping[str, Any],
        receive: Callable[[], Awaitable[dict[str, Any]]],
        send: Callable[[dict[str, Any]], Awaitable[None]],
    ) -> None:
        """Serve one exchange; a stopping server ends it quietly."""
        site = self._site
        exchange = Exchange(scope, receive, send, site.date())
        try:
            await self._serve(site, exchange)
        except asyncio.CancelledError:
            # only a stopping server cancels, when it has cut the connections: nobody is left to be answered
            if not exchange.connection.gone:
                raise

    def reset(self) -> None:
        """Begin anew, with the settings of the start; who is held is let go and ends in the old state."""
        self._site.open_gates()
        self._site = Site(self._config)

    async def _serve(self, site: Site, exchange: Exchange) -> None:
        path = exchange.path
        if path == "/api" or path.startswith("/api/"):
            await call(site, exchange)
        elif path == "/oauth/token" and exchange.method in ("GET", "POST"):
            await token(site, exchange, site.server.answer)
        elif path in _DIALECT_A_REFRESH and exchange.method == "GET":
            await token(site, exchange, a_wording)
        elif path == "/oauth/revoke" and exchange.method == "POST":
            await revoke(site, exchange)
        elif path.startswith("/a/"):
            await call_a(site, exchange)
        elif path.startswith("/b/api/"):
            await call_b(site, exchange)
        elif path.startswith("/open/"):
            await open_call(site, exchange)
        elif path.startswith("/_control/"):
            await control(site, exchange, self.reset)
        else:
            await exchange.answer(json_reply({"error": "not found"}, 404))
