"""niquests: `TokenAuth` for ``auth=``, and `TokenAdapter` or `AsyncTokenAdapter` for what a hook cannot do.

`TokenAuth` serves a `Session` and an `AsyncSession`. It carries schemes that put the token into the ``Authorization``
header, business codes in bodies included. Tokens in headers of their own, in the query or in cookies need an adapter,
which is mounted: a session would carry such a header along redirects, and show such a query in its history.

A single request says with ``auth=TokenOptions(authenticated=False)`` that it carries no token, and to a mounted adapter
with ``auth=TokenOptions(resource=…)`` whose token it wants (RFC 8707). Everything here is safe for any number of
threads and tasks. Needs the extra ``unexpired[niquests]``.
"""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any

from unexpired._core.scheme import Scheme
from unexpired.clients._bodies import AsyncFactory, SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._dressing import header_scheme
from unexpired.clients._exchange import not_installed
from unexpired.manager import TokenManager

try:
    from niquests import AsyncResponse, PreparedRequest, Response
    from niquests.adapters import AsyncBaseAdapter, AsyncHTTPAdapter, BaseAdapter, HTTPAdapter
    from niquests.auth import AuthBase
except ModuleNotFoundError as error:
    raise not_installed("niquests", error) from None

from unexpired.clients._niquests_calls import AsyncSending, Sending, notes_of
from unexpired.clients._niquests_mounting import OPTIONS, Mounted
from unexpired.clients._niquests_watch import watch

__all__ = ["AsyncBodyFactory", "AsyncTokenAdapter", "BodyFactory", "TokenAdapter", "TokenAuth", "TokenOptions"]


class BodyFactory(SyncFactory):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes, or opens a file."""


class AsyncBodyFactory(AsyncFactory):
    """The same for an `AsyncSession`; *factory* may make async iterables of bytes too."""


class TokenOptions(AuthBase):
    """``auth=TokenOptions(authenticated=False)``: this request carries no token.

    ``TokenOptions(resource="https://files.example.com")`` asks a mounted adapter for that resource's token (RFC 8707);
    where a `TokenAuth` is in use, give the request another one: ``auth=TokenAuth(manager, resource=…)``.
    """

    def __init__(self, *, authenticated: bool = True, resource: str | None = None) -> None:
        self.authenticated = authenticated
        self.resource = resource

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Note it on the request, from where redirects take it along."""
        notes_of(r)[OPTIONS] = (self.authenticated, self.resource)
        return r


class TokenAuth(AuthBase):
    """``session.auth = TokenAuth(manager)``: the token on every request, and a silent replay when it is refused.

    For a `Session` and for an `AsyncSession`, which never blocks its event loop for it. The refused answer stands in
    ``response.history``, as with niquests' own digest authentication. niquests keeps ``Authorization`` when ``http``
    redirects to ``https`` on the same host; where that is too much, mount a `TokenAdapter`. *resource*: whose token it
    is (RFC 8707). Raises ConfigurationError for a scheme that it cannot carry safely; requests raise what
    `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, resource: str | None = None) -> None:
        self._calls = Calls(manager, header_scheme(scheme, "TokenAuth", "TokenAdapter"))
        self._resource = resource

    def __call__(self, r: PreparedRequest) -> PreparedRequest:
        """Put the token on, and listen for its refusal."""
        watch(self._calls, r, self._resource)
        return r


class TokenAdapter(Mounted, BaseAdapter):
    """``session.mount("https://api.example.com", TokenAdapter(manager, scheme))``: any scheme, on every hop.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to another
    one; the session's requests, hooks and history never hold it. *adapter* is what sends, with its retries and pools
    (default: a new `niquests.adapters.HTTPAdapter`). Answers come at once, also to a session that multiplexes. Requests
    raise what `TokenManager.token` raises, and ReplayRefused. Raises ConfigurationError for an argument of another
    kind, for an adapter that would itself try a refused token again, and when an `AsyncSession` uses it.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, adapter: BaseAdapter | None = None) -> None:
        super().__init__()
        adapter = HTTPAdapter() if adapter is None else adapter
        self._adapter: BaseAdapter = self._mount(manager, scheme, adapter, BaseAdapter, "AsyncTokenAdapter")

    def send(self, request: PreparedRequest, *args: Any, **settings: Any) -> Response:
        """Send it with a token; again, silently, if the token is refused."""
        settings = self._settings(args, settings, tasks=False)
        carries, resource = self._resource(request)
        if not carries:
            return self._adapter.send(request, **settings)
        sending = Sending(self._calls.scheme, request, resource, self._adapter, settings)
        self._calls.run(sending)
        response: Response = sending.finish(self)
        return response

    def close(self) -> None:
        """Close the adapter that sends. The manager stays open."""
        self._adapter.close()

    def gather(self, *responses: Response, max_fetch: int | None = None) -> None:
        """Fetch answers that are still to come, of requests without a token."""
        self._adapter.gather(*responses, max_fetch=max_fetch)


class AsyncTokenAdapter(Mounted, AsyncBaseAdapter):
    """`TokenAdapter` for an `AsyncSession`; *adapter* (default: a new `AsyncHTTPAdapter`) is an asynchronous one."""

    def __init__(
        self, manager: TokenManager, scheme: Scheme | None = None, adapter: AsyncBaseAdapter | None = None
    ) -> None:
        super().__init__()
        adapter = AsyncHTTPAdapter() if adapter is None else adapter
        self._adapter: AsyncBaseAdapter = self._mount(manager, scheme, adapter, AsyncBaseAdapter, "TokenAdapter")

    # Not `async`: it speaks up before anyone awaits it.
    def send(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, request: PreparedRequest, *args: Any, **settings: Any
    ) -> Coroutine[Any, Any, AsyncResponse]:
        """Send it with a token; again, silently, if the token is refused."""
        return self._send(request, self._settings(args, settings, tasks=True))

    async def _send(self, request: PreparedRequest, settings: dict[str, Any]) -> AsyncResponse:
        carries, resource = self._resource(request)
        if not carries:
            return await self._adapter.send(request, **settings)
        sending = AsyncSending(self._calls.scheme, request, resource, self._adapter, settings)
        await self._calls.arun(sending)
        response: AsyncResponse = sending.finish(self)
        return response

    async def close(self) -> None:
        """Close the adapter that sends. The manager stays open."""
        await self._adapter.close()

    async def gather(self, *responses: Response, max_fetch: int | None = None) -> None:
        """Fetch answers that are still to come, of requests without a token."""
        await self._adapter.gather(*responses, max_fetch=max_fetch)
