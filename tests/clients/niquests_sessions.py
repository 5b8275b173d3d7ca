"""One way to write a test for both sessions of niquests: the awaits of a blocking one never wait."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Literal

import niquests

from tests.clients.contract.fitting import at_once
from unexpired import Scheme, TokenManager
from unexpired.clients.niquests import AsyncTokenAdapter, TokenAdapter, TokenAuth

Mode = Literal["threads", "asyncio"]
Via = Literal["auth", "adapter"]


class Api:
    """A session of one kind or the other."""

    def __init__(self, mode: Mode, **settings: Any) -> None:
        self.blocking = mode == "threads"
        self.session: Any = niquests.Session(**settings) if self.blocking else niquests.AsyncSession(**settings)
        self.session.trust_env = False

    def carry(self, via: Via, manager: TokenManager, scheme: Scheme | None = None, inner: Any = None) -> None:
        """Give it tokens."""
        if via == "auth":
            self.session.auth = TokenAuth(manager, scheme)
        else:
            self.session.mount("http://", self.adapter(manager, scheme, inner))

    def adapter(self, manager: TokenManager, scheme: Scheme | None = None, inner: Any = None) -> Any:
        """An adapter of its kind."""
        return (TokenAdapter if self.blocking else AsyncTokenAdapter)(manager, scheme, inner)

    async def wait(self, given: Any) -> Any:
        """What a method of the session gives in the end."""
        return given if self.blocking else await given

    async def get(self, url: str, **options: Any) -> Any:
        """One GET."""
        return await self.send("GET", url, **options)

    async def send(self, method: str, url: str, **options: Any) -> Any:
        """One request."""
        return await self.wait(self.session.request(method, url, **options))

    async def raises(self, kind: type[BaseException], url: str, **options: Any) -> Any:
        """What a GET raises."""
        try:
            await self.get(url, **options)
        except kind as error:
            return error
        raise AssertionError(f"{kind.__name__} was not raised")

    async def pieces(self, response: Any, size: int = -1) -> list[bytes]:
        """A streamed body, piece by piece."""
        if self.blocking:
            return list(response.iter_content(size))
        return [piece async for piece in await response.iter_content(size)]


def run(mode: Mode, job: Callable[[Api], Coroutine[Any, Any, Any]], **settings: Any) -> Any:
    """What *job* returns, given a session of this mode."""

    async def main() -> Any:
        api = Api(mode, **settings)
        try:
            return await job(api)
        finally:
            await api.wait(api.session.close())

    return at_once(main()) if mode == "threads" else asyncio.run(main())
