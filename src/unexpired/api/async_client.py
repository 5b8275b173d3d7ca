"""The client for tasks of asyncio and trio."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator, Coroutine, Mapping
from contextlib import aclosing, asynccontextmanager
from types import TracebackType
from typing import IO, Any, Self, Unpack

import httpx2

from unexpired.api._answers import broken, checked, failed, is_of, may_hold_code
from unexpired.api._calls import Options
from unexpired.api._client import TROUBLE, Client, Settings, addressed
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

    _may_await = True

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
        return self._calls.result(await self.response(method, path, body, **options), options)

    async def response(self, method: str, path: str, body: Any = None, **options: Unpack[Options]) -> httpx2.Response:
        """See `ApiClient.response`."""
        arguments = self._calls.arguments(body, options)
        with self._loading:
            return await self._send(method, path, arguments)

    @asynccontextmanager
    async def stream(
        self, method: str, path: str, body: Any = None, **options: Unpack[Options]
    ) -> AsyncGenerator[httpx2.Response]:
        """See `ApiClient.stream`."""
        arguments = self._calls.arguments(body, options)
        with self._loading:
            response = await self._send(method, path, arguments, stream=True)
            try:
                if response.status_code >= 400:
                    await response.aread()
                    raise failed(response)
                yield response
            except httpx2.RequestError as error:
                if is_of(error, response):
                    raise broken(error, response) from error
                raise
            finally:
                await response.aclose()

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
            if may_hold_code(response, self._calls.envelope):
                await response.aread()
                checked(response, self._calls.envelope)
            done, total = 0, total_of(response.headers)
            with sink(target) as file:
                # Left to the garbage collector, a body that nobody wants to the end would be a warning under trio.
                async with aclosing(response.aiter_bytes()) as chunks:
                    async for chunk in chunks:
                        file.write(chunk)
                        done += len(chunk)
                        if progress is not None:
                            progress(done, total)
        return done

    async def login(
        self, path: str, credentials: Any, *, fields: Mapping[str, str] | None = None, **options: Unpack[Options]
    ) -> Any:
        """See `ApiClient.login`."""
        whole = Options(authenticated=False, unwrap=False, into=None)
        body = await self.request("POST", path, credentials, **(options | whole))
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

    async def _send(
        self, method: str, path: str, arguments: dict[str, Any], *, stream: bool = False
    ) -> httpx2.Response:
        http = self._http
        try:
            return await http.send(http.build_request(method, addressed(path, arguments), **arguments), stream=stream)
        except LoginRequired as error:
            await self._endings.atell(error)
            raise
        except TROUBLE as error:
            raise broken(error) from error
