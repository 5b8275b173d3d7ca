"""`sync_connect`: what websockets has for threads, with the loop that its asyncio `connect` has."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Never

import websockets.sync.client
from websockets.client import backoff

from unexpired._core.scheme import Scheme
from unexpired.clients._websockets_handshakes import EXPIRED_CLOSE, Handshakes, transient
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

__all__ = ["sync_connect"]


class sync_connect:  # noqa: N801 - the client's own spelling
    """``with sync_connect(manager, uri) as websocket``, or ``for websocket in sync_connect(manager, uri)``.

    `connect`, for threads. *options* are those of ``websockets.sync.client.connect``; *process_exception* and
    *reconnect_delays* (a function that makes an iterator of seconds) are for the loop, as in `connect`; when the
    iterator ends, the loop raises the error of the last attempt.
    """

    _connection: websockets.sync.client.ClientConnection

    def __init__(
        self,
        manager: TokenManager,
        uri: str,
        scheme: Scheme | None = None,
        *,
        resource: str | None = None,
        expired_close: Iterable[int] = EXPIRED_CLOSE,
        process_exception: Callable[[Exception], Exception | None] = transient,
        reconnect_delays: Callable[[], Iterator[float]] = backoff,
        **options: Any,
    ) -> None:
        self._handshakes = Handshakes(manager, uri, scheme, resource, expired_close, options=options)
        own, kind = websockets.sync.client.ClientConnection, options.get("create_connection")
        self._options = {**options, "uri": uri, "create_connection": self._handshakes.wrap(kind, own)}
        self._process_exception, self._delays = process_exception, reconnect_delays

    def __enter__(self) -> websockets.sync.client.ClientConnection:
        if hasattr(self, "_connection"):
            raise ConfigurationError("one sync_connect() is for one connection at a time: make another one")
        connect: Callable[..., websockets.sync.client.ClientConnection] = websockets.sync.client.connect
        self._connection = self._handshakes.run(partial(connect, **self._options))
        self._connection.__enter__()
        return self._connection

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        connection = self.__dict__.pop("_connection")
        self._handshakes.leave(partial(connection.__exit__, kind, error, trace), error)

    def __iter__(self) -> Iterator[websockets.sync.client.ClientConnection]:
        self._handshakes.loops, delays = True, self._delays()
        while True:
            try:
                with self as connection:
                    yield connection
                delays = self._delays()
            except Exception as error:
                fatal = self._process_exception(error)
                if fatal is error:
                    raise
                if fatal is not None:
                    raise fatal from error
                delay = next(delays, None)
                if delay is None:
                    raise
                time.sleep(delay)

    async def __aenter__(self) -> Never:
        raise ConfigurationError("sync_connect() is for threads: use connect(manager, uri), or trio_connect")

    async def __aexit__(self, *_: object) -> None:
        """Nothing was entered."""
