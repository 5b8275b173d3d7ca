"""The hook by which a session of niquests hears that a request of its own was refused."""

from __future__ import annotations

import asyncio
import sys
import time
from datetime import timedelta
from typing import Any, cast

from niquests import AsyncResponse, PreparedRequest, Response

from unexpired._core.token import Token
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, url_origin
from unexpired.clients._niquests_calls import Awaiting, Blocking, add_cookies, cookies_of, is_task, status_of, twin_of
from unexpired.errors import ConfigurationError

__all__ = ["watch"]

if sys.version_info >= (3, 12):
    from inspect import markcoroutinefunction as awaited_by_tasks
else:

    def awaited_by_tasks(hook: Any) -> None:
        """Let an asynchronous session await what *hook* returns: only that session asks whether it should."""
        hook._is_coroutine = vars(asyncio.coroutines)["_is_coroutine"]


def watch(calls: Calls, request: PreparedRequest, resource: str | None) -> None:
    """Put a token on *request*, and listen for its refusal. ConfigurationError for what is no request of niquests."""
    if not isinstance(cast("object", request), PreparedRequest):
        raise ConfigurationError(f"this TokenAuth is for niquests and was given a request of {kind_of(request)}")
    if calls.scheme.origins is None or calls.scheme.allows(url_origin(str(request.url))):
        _Watch(calls, request, resource)


class _Watch:
    """The hook on a request that its session sends with the token on it, and on all that redirects make of it.

    A request may be sent any number of times, by any number of threads: what it carried is told by its header, and for
    the one that was dressed anew meanwhile by when it was sent.
    """

    def __init__(self, calls: Calls, request: PreparedRequest, resource: str | None) -> None:
        self.calls = calls
        self.request = request
        self.resource = resource
        self.worn: tuple[Token, Token, float] | None = None
        self._failed: TypeError | None = None
        token = calls.manager.warm(resource)
        if token is None and _in_a_loop():
            # Whose session it is shows later: an asynchronous one awaits the first, a blocking one calls the second.
            request._asynchronous_auth, request._pending_async_auth = True, self._afetch
            request.register_hook("pre_request", _Fetch(self))
        else:
            self.dress(request, token or calls.manager.token(resource))
        awaited_by_tasks(self)
        request.register_hook("response", self)

    def __call__(self, response: Any, **settings: Any) -> Any:
        """Replay a refused request that carried the token."""
        if self._failed is not None:
            # niquests asks twice when a hook raises TypeError; once is enough to send a request again.
            failed, self._failed = self._failed, None
            raise failed
        awaited, calls = _is_awaited(response, settings), self.calls
        if calls._plain and not calls._suspicions and status_of(response) not in calls._closer_look:
            # As in the flow itself: nothing is made for an answer that nobody looks at.
            return _itself(response) if awaited else response
        if awaited:
            return self._acall(response, settings)
        token = self._carried(response)
        if token is None:
            return response
        carried = _Carried(self, response, settings)
        try:
            calls.go_on(carried, token, response.status_code)
        except TypeError as error:
            self._failed = error
            raise
        return carried.finish(response)

    async def _acall(self, response: Any, settings: dict[str, Any]) -> Any:
        token = self._carried(response)
        if token is None:
            return response
        carried = _AsyncCarried(self, response, settings)
        try:
            await self.calls.ago_on(carried, token, response.status_code)
        except TypeError as error:
            self._failed = error
            raise
        return carried.finish(response)

    def __reduce__(self) -> tuple[Any, ...]:
        # Answers are pickled and copied together with their requests, and then nobody sends these again.
        return _Unwatched, ()

    def dress(self, request: PreparedRequest, token: Token) -> None:
        """Put *token* on."""
        ((name, value),) = self.calls.scheme.render(token).headers
        request.headers[name] = value
        if self.worn is None:
            self.worn = (token, token, 0.0)
        elif token is not self.worn[0]:
            # In this order: who sends in between is taken to carry the older token, and so refreshes nothing.
            self.worn = (token, self.worn[0], time.perf_counter())

    def _carried(self, response: Response) -> Token | None:
        """The token that the answered request carried; None if a redirect took off the token, or led elsewhere."""
        request, (now, before, since) = response.request, cast("tuple[Token, Token, float]", self.worn)
        if request is self.request:
            sent = time.perf_counter() - response.elapsed.total_seconds()
            return now if sent >= since else before
        if url_origin(str(request.url)) == url_origin(str(self.request.url)):
            for token in (now, before):
                ((name, value),) = self.calls.scheme.render(token).headers
                if request.headers.get(name) == value:
                    return token
        return None

    async def _afetch(self, request: PreparedRequest) -> PreparedRequest:
        self.dress(request, await self.calls.manager.atoken(self.resource))
        return request


class _Fetch:
    """The hook on a request that had no token when it was made."""

    def __init__(self, watch: _Watch) -> None:
        self._watch = watch

    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        """Put a token on it, unless it has one by now or is what a redirect made of it."""
        watch = self._watch
        if not watch.worn or ("Authorization" not in request.headers and request.url == watch.request.url):
            watch.dress(request, watch.calls.manager.token(watch.resource))
            request._asynchronous_auth = False
            vars(request).pop("_pending_async_auth", None)
        return request

    def __reduce__(self) -> tuple[Any, ...]:
        return _Unfetched, ()


class _Unfetched:
    def __call__(self, request: PreparedRequest) -> PreparedRequest:
        return request


class _Unwatched:
    def __init__(self) -> None:
        awaited_by_tasks(self)

    def __call__(self, response: Any, **settings: Any) -> Any:
        return _itself(response) if _is_awaited(response, settings) else response


def _is_awaited(response: Any, settings: dict[str, Any]) -> bool:
    return isinstance(response, AsyncResponse) or is_task(settings.get("on_post_connection"))


async def _itself(response: Any) -> Any:
    return response


class _Carrying:
    """What both kinds of answers to such a request need."""

    request: PreparedRequest
    response: Any
    settings: dict[str, Any]
    watch: _Watch
    promised: bool
    began: float

    def take(self, watch: _Watch, response: Any) -> None:
        """Take *response*, which came of sending it with these settings."""
        self.watch, self.response = watch, response
        self.promised = bool(self.settings.get("multiplexed"))
        if self.promised:
            self.settings = {**self.settings, "multiplexed": False}

    def again(self, token: Token) -> tuple[Any, PreparedRequest]:
        """What sent it before, and what is to be sent; what goes on from here carries *token*."""
        refused, request = self.response, self.request
        sender = getattr(refused, "connection", None)
        if sender is None:
            raise ConfigurationError(
                "TokenAuth cannot send a request again where answers do not say what sent them, as those of an app "
                "in the same process do not: mount a TokenAdapter around that adapter"
            )
        refused.request = twin_of(request)
        self.watch.dress(request, token)
        cookies = cookies_of(refused, request)
        if cookies:
            request = twin_of(request)
            add_cookies(request, cookies)
        self.began = time.perf_counter()
        return sender, request

    def came(self, response: Any) -> int:
        """Take the answer to that; the refused one is its history."""
        response.history.append(self.response)
        response.elapsed = timedelta(seconds=time.perf_counter() - self.began)
        response.request = self.request
        self.response = response
        status: int = response.status_code
        return status

    def finish(self, first: Any) -> Any:
        """The last answer. To a session that multiplexes it is the object that it promised to its caller."""
        last = self.response
        if last is not first and self.promised:
            first.__dict__, last.__dict__ = last.__dict__, first.__dict__
            first.history = [last if each is first else each for each in first.history]
            return first
        return last


class _Carried(_Carrying, Blocking):
    def __init__(self, watch: _Watch, response: Any, settings: dict[str, Any]) -> None:
        super().__init__(watch.calls.scheme, response.request, watch.resource, settings)
        self.take(watch, response)

    def send(self, token: Token) -> int:
        """Send it once more, by what sent it before."""
        sender, request = self.again(token)
        return self.came(sender.send(request, **self.settings))


class _AsyncCarried(_Carrying, Awaiting):
    def __init__(self, watch: _Watch, response: Any, settings: dict[str, Any]) -> None:
        super().__init__(watch.calls.scheme, response.request, watch.resource, settings)
        self.take(watch, response)

    async def send(self, token: Token) -> int:
        """Send it once more, by what sent it before."""
        await self.sought()
        sender, request = self.again(token)
        return self.came(await sender.send(request, **self.settings))


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
