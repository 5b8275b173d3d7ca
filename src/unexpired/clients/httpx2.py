"""httpx2: `TokenAuth` for ``auth=``, and transports for what ``auth=`` cannot do.

`TokenAuth` carries schemes that put the token into the ``Authorization`` header, business codes in bodies included.
Tokens in headers of their own, in the query or in cookies need `TokenTransport` or `AsyncTokenTransport`: the client
would carry such a header along redirects, and show such a query in its log and history.

A request made with ``extensions={"unexpired.authenticated": False}`` carries no token; ``"unexpired.resource"`` names
the resource whose token it wants (RFC 8707). Everything here is safe for any number of threads, tasks and event loops.
"""

from __future__ import annotations

from typing import Any, ClassVar

import httpx2

from unexpired.clients._bodies import AsyncFactory, SyncFactory
from unexpired.clients._httpx_adapters import AsyncFlowTransport, FlowAuth, FlowTransport

__all__ = ["AsyncBodyFactory", "AsyncTokenTransport", "BodyFactory", "TokenAuth", "TokenTransport"]


class BodyFactory(SyncFactory, httpx2.SyncByteStream):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``client.post(url, content=BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed. An
    `httpx2.AsyncClient` wants an `AsyncBodyFactory`. Sending raises ConfigurationError when the factory makes
    something else.
    """


class AsyncBodyFactory(AsyncFactory, httpx2.AsyncByteStream):
    """`BodyFactory` for `httpx2.AsyncClient`: *factory* makes a new iterable, or async iterable, of bytes each time."""


class TokenAuth(FlowAuth[httpx2.Request, httpx2.Response], httpx2.Auth):
    """``httpx2.Client(auth=TokenAuth(manager))``: the token on every request, and a silent replay when it is refused.

    For `httpx2.Client` and `httpx2.AsyncClient`, on asyncio and trio. A refused response is read, so that its
    connection is used again; it stays in ``response.history``, as with httpx2's own authentication schemes. httpx2
    keeps ``Authorization`` when ``http`` redirects to ``https`` on the same host; where that is too much, use the
    transport. Raises ConfigurationError for a scheme that it cannot carry safely; requests raise what
    `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent again.
    """

    _module: ClassVar[Any] = httpx2


class TokenTransport(FlowTransport[httpx2.Request, httpx2.Response, httpx2.BaseTransport], httpx2.BaseTransport):
    """``httpx2.Client(transport=TokenTransport(manager, scheme))``: any scheme, on every hop of a redirect.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to
    another one that this transport saw begin; the client's own requests, hooks, log and history never hold it.
    *transport* is what sends (default: a new `httpx2.HTTPTransport`). Requests raise what `TokenManager.token`
    raises, and ReplayRefused. Raises ConfigurationError for an argument of another kind, and when an
    `httpx2.AsyncClient` begins to use it.
    """

    _module: ClassVar[Any] = httpx2


class AsyncTokenTransport(
    AsyncFlowTransport[httpx2.Request, httpx2.Response, httpx2.AsyncBaseTransport], httpx2.AsyncBaseTransport
):
    """`TokenTransport` for `httpx2.AsyncClient`, on asyncio and trio; an `httpx2.Client` is refused."""

    _module: ClassVar[Any] = httpx2
