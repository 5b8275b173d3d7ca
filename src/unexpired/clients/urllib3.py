"""urllib3: `TokenPool`, which drops in for a `PoolManager`.

It is a `urllib3.PoolManager` around the one that sends, which may be a `ProxyManager`. A single request says with
``authenticated=False`` that it carries no token, and with ``resource=…`` whose token it wants (RFC 8707). Everything
here is safe for any number of threads. Needs the extra ``unexpired[urllib3]``.
"""

from __future__ import annotations

from copy import copy
from typing import Any, Never, cast

from unexpired._core.scheme import Scheme
from unexpired.clients._bodies import SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, not_installed
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

try:
    from urllib3 import PoolManager
    from urllib3.connectionpool import HTTPConnectionPool
    from urllib3.exceptions import MaxRetryError
    from urllib3.response import BaseHTTPResponse
except ModuleNotFoundError as error:
    raise not_installed("urllib3", error) from None

from unexpired.clients._urllib3_calls import ASKED, Asked, Hop, start_of
from unexpired.clients._urllib3_quiet import silence

__all__ = ["BodyFactory", "TokenPool"]


class BodyFactory(SyncFactory):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``pool.request("POST", url, body=BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed.
    """


class TokenPool(PoolManager):
    """``TokenPool(manager, scheme, pool)``: what *pool* does, with the token on every request and on every hop.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to another
    one, and stays out of urllib3's logs, errors and answers. A refused request is sent again, silently. *pool* is what
    sends, with its connections, headers, retries and timeouts (default: a new `urllib3.PoolManager`); its ``retries``
    leave refused tokens to us. Connections taken from it by ``connection_from_url`` and the like send without a token.

    Raises ConfigurationError for an argument of another kind; requests raise what urllib3 and `TokenManager.token`
    raise, and ReplayRefused for a body that cannot be sent again.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, pool: PoolManager | None = None) -> None:
        self._calls = Calls(manager, scheme)
        if isinstance(cast("object", pool), TokenPool):
            raise ConfigurationError("a TokenPool takes the PoolManager itself: make one for each login, on the same")
        if not isinstance(cast("object", pool), PoolManager | None):
            raise ConfigurationError(f"pool must be a urllib3.PoolManager, not {kind_of(pool)}")
        self._pool = PoolManager() if pool is None else pool
        # All that a pool manager is asked for beside requests: its pools, settings, headers, and its proxy's.
        vars(self).update({**vars(self._pool), **vars(self)})
        # Only a copy of it comes by here to connect, and it shares the connections.
        self._sender = copy(self._pool)
        vars(self._sender)["connection_from_host"] = self._hop
        if self._calls.scheme.places[1]:
            silence()

    def urlopen(  # type: ignore[override]  # as of PoolManager itself
        self,
        method: str,
        url: str,
        redirect: bool = True,
        *,
        authenticated: bool = True,
        resource: str | None = None,
        **kw: Any,
    ) -> BaseHTTPResponse:
        """Send a request as `PoolManager.urlopen` does, with a token unless it is not to be *authenticated*."""
        if not authenticated:
            return self._pool.urlopen(method, url, redirect, **kw)
        body = kw.get("body")
        if body is not None and kw.get("body_pos") is None and (start := start_of(body)) is not None:
            kw["body_pos"] = start
        kw[ASKED] = Asked(resource)
        if "headers" not in kw:
            kw["headers"] = self.headers
        try:
            return self._sender.urlopen(method, url, redirect, **kw)
        except MaxRetryError as error:
            if isinstance(cast("object", error.pool), Hop):
                error.pool = cast("Any", error.pool).connections
            raise

    def connection_from_host(
        self,
        host: str | None,
        port: int | None = None,
        scheme: str | None = "http",
        pool_kwargs: dict[str, Any] | None = None,
    ) -> HTTPConnectionPool:
        """Take a pool of connections to one host, which send without a token."""
        return self._pool.connection_from_host(host, port, scheme, pool_kwargs)

    def __reduce__(self) -> Never:
        raise ConfigurationError(
            "a TokenPool cannot be pickled or copied: make it anew in each process, with a manager on the same store"
        )

    def _hop(self, host: str | None, port: int | None = None, scheme: str | None = "http", **more: Any) -> Any:
        connections = self._pool.connection_from_host(host, port, scheme, **more)
        return Hop(connections, (scheme or "http", host or "", port), self._calls)
