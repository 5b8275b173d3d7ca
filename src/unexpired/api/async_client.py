"""The client for tasks of asyncio and trio."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import asynccontextmanager
from inspect import isawaitable
from types import TracebackType
from typing import IO, Any, Self, Unpack

import httpx2

from unexpired.api._answers import broken, failed
from unexpired.api._calls import Options
from unexpired.api._client import TROUBLE, Client, Settings
from unexpired.api._files import Counted, opened, sink, total_of
from unexpired.api._showing import Progress
from unexpired.clients.httpx2 import AsyncTokenTransport
from unexpired.errors import LoginRequired
from unexpired.manager import TokenManager

__all__ = ["AsyncApiClient"]


class AsyncApiClient(Client[Coroutine[Any, Any, Any]]):
    """`ApiClient` for asyncio and trio. *clear_user* and *on_login_required* may be async functions.

    They run in the task of the first waiter. One object serves one event loop; any number of them share a manager.
    """

    def __init__(
        self,
        base_url: str = "",
        *,
        manager: TokenManager,
        transport: httpx2.AsyncBaseTransport | None = None,
        **settings: Unpack[Settings],
    ) -> None:
        super().__init__(base_url, manager, settings)
        carrier = AsyncTokenTransport(manager, self._scheme, transport)
        self._http = httpx2.AsyncClient(transport=carrier, **self._http_settings)

    async def request(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> Any:
        """See `ApiClient.request`."""
        with self._calls.counted():
            response = await self.response(method, path, body, **options)
            return self._calls.result(response, options)

    async def response(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> httpx2.Response:
        """See `ApiClient.response`."""
        async with self._telling():
            return await self._http.request(method, path, **self._calls.arguments(body, options))

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Any = None, **options: Unpack[Options]
    ) -> AsyncGenerator[httpx2.Response]:
        """See `ApiClient.stream`."""
        with self._calls.counted():
            async with self._telling():
                arguments = self._calls.arguments(body, options)
                async with self._http.stream(method, path, **arguments) as response:
                    if response.status_code >= 400:
                        await response.aread()
                        raise failed(response)
                    yield response

    async def upload(
        self,
        path: str,
        file: str | os.PathLike[str] | IO[bytes],
        body: Mapping[str, Any] | None = None,
        *,
        field: str = "file",
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> Any:
        """See `ApiClient.upload`."""
        with opened(file) as (name, source):
            options["files"] = {field: (name, Counted(source, progress))}
            return await self.request("POST", path, body, **options)

    async def download(
        self,
        path: str,
        target: str | os.PathLike[str] | IO[bytes],
        *,
        progress: Progress | None = None,
        **options: Unpack[Options],
    ) -> int:
        """See `ApiClient.download`."""
        async with self.stream("GET", path, **options) as response:
            with sink(target) as file:
                done, total = 0, total_of(response.headers)
                async for chunk in response.aiter_bytes():
                    file.write(chunk)
                    done += len(chunk)
                    if progress is not None:
                        progress(done, total)
        return done

    async def login(
        self, path: str, credentials: Any, *, fields: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> Any:
        """See `ApiClient.login`."""
        options["authenticated"], options["unwrap"] = False, False
        body = await self.request("POST", path, credentials, **options)
        await self._manager.alogin(self._calls.seed(body, fields))
        return body

    async def aclose(self) -> None:
        """Close the connections. The manager stays open."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    @asynccontextmanager
    async def _telling(self) -> AsyncGenerator[None]:
        try:
            yield
        except LoginRequired as error:
            if self._calls.is_news(error):
                if self._clear_user is not None:
                    await _done(self._clear_user())
                if self._on_login_required is not None:
                    await _done(self._on_login_required(error))
            raise
        except TROUBLE as error:
            raise broken(error) from error


async def _done(said: object) -> None:
    if isawaitable(said):
        await said
