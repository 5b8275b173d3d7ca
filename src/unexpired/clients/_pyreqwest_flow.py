"""The middlewares for pyreqwest: one for threads, one for tasks."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from pyreqwest.exceptions import PyreqwestError, RedirectError
from pyreqwest.request import Request

from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, opted_out
from unexpired.clients._pyreqwest_calls import AsyncSending, Sending
from unexpired.clients._pyreqwest_requests import origin_of_url
from unexpired.errors import ConfigurationError

__all__ = ["AsyncTokens", "SyncTokens"]


class _Tokens:
    """Any number of managers, of which the first that is for a request's origin serves it."""

    def __init__(self, calls: tuple[Calls, ...], max_redirects: int = 0) -> None:
        self._all = calls
        self._max_redirects = max_redirects
        # who serves all that is not redirected, without a look at the address
        self._at_home = calls[0] if calls[0].scheme.origins is None else None

    def _calls_for(self, request: Any, extensions: dict[str, Any], asked: str) -> Calls | None:
        """Who gives this request its token. *asked* is the origin that its caller asked for, empty for the first."""
        if opted_out(extensions):
            return None
        here = origin_of_url(request.url)
        return next((calls for calls in self._all if calls.carries(here, asked or here)), None)

    def _check(self, request: object, builder: str) -> None:
        if not isinstance(request, Request):
            name = type(self).__name__
            raise ConfigurationError(
                f"{name} of unexpired.clients.pyreqwest takes requests of pyreqwest, not {kind_of(request)}: "
                f"give it to a builder, as in {builder}().with_middleware({name}(manager))"
            )


class SyncTokens(_Tokens):
    """For a `SyncClientBuilder`."""

    def __call__(self, request: Any, following: Any = None, *_: object) -> Any:
        """Send it with a token; again, silently, if the token is refused; on, if it is redirected."""
        self._check(request, "SyncClientBuilder")
        asked, hops = "", 0
        while True:
            extensions = request.extensions
            calls = None if extensions else self._at_home
            if calls is None or asked:
                calls = self._calls_for(request, extensions, asked)
            if calls is None and not self._max_redirects:
                return following.run(request)
            sending = Sending(request, following, None if calls is None else calls.scheme, extensions)
            if calls is None:
                sending.send(None)
            else:
                calls.run(sending)
            request = sending.redirect() if self._max_redirects else None
            if request is None:
                return sending.answer() if sending.is_read() else sending.response
            asked, hops = asked or sending.origin(), hops + 1
            sending.discard()
            if hops > self._max_redirects:
                raise _too_many()


class AsyncTokens(_Tokens):
    """For a `ClientBuilder`."""

    def __init__(self, calls: tuple[Calls, ...], max_redirects: int = 0) -> None:
        super().__init__(calls, max_redirects)
        # pyreqwest insists on an async function, and looks for one here. What it calls is the class's.
        vars(self)["__call__"] = self._send

    def __call__(self, request: Any, following: Any = None, *_: object) -> Awaitable[Any]:
        """As `SyncTokens`."""
        # Not in the coroutine, because another client may not await it.
        self._check(request, "ClientBuilder")
        return self._send(request, following)

    async def _send(self, request: Any, following: Any) -> Any:
        asked, hops = "", 0
        while True:
            extensions = request.extensions
            calls = None if extensions else self._at_home
            if calls is None or asked:
                calls = self._calls_for(request, extensions, asked)
            if calls is None and not self._max_redirects:
                return await following.run(request)
            sending = AsyncSending(request, following, None if calls is None else calls.scheme, extensions)
            if calls is None:
                await sending.send(None)
            else:
                # `Calls.arun`, with fewer coroutines to go through while all is well
                token = calls.manager.warm(sending.resource) or await calls.manager.atoken(sending.resource)
                try:
                    sending.response = response = await following.run(sending.dressed(token))
                except PyreqwestError as error:
                    sending.conceal(error, token)
                    raise
                await calls.ago_on(sending, token, response.status)
            request = sending.redirect() if self._max_redirects else None
            if request is None:
                return await sending.answer() if sending.is_read() else sending.response
            asked, hops = asked or sending.origin(), hops + 1
            await sending.discard()
            if hops > self._max_redirects:
                raise _too_many()


def _too_many() -> RedirectError:
    return RedirectError("error following redirect", {"causes": [{"message": "too many redirects"}]})
