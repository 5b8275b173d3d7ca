"""pyreqwest: `TokenMiddleware` and `SyncTokenMiddleware`, and `token_client` for what a middleware cannot do.

pyreqwest follows redirects below its middlewares and tells them nothing of it. Where one leads to another host or port
it takes the ``Authorization`` header off, but no header of your own, and it shows the query: so the middlewares carry
schemes with that one header only. `token_client` builds a client that leaves redirects to the middleware, and carries
every scheme.

A request made with ``.extensions({"unexpired.authenticated": False})`` carries no token; ``"unexpired.resource"`` names
the resource whose token it wants (RFC 8707). Everything here is safe for any number of threads, tasks and event loops.
pyreqwest runs on asyncio only. Needs the extra ``unexpired[pyreqwest]``.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self, cast, overload

from unexpired._core.scheme import Scheme
from unexpired.clients._bodies import AsyncFactory, SyncFactory
from unexpired.clients._calls import Calls
from unexpired.clients._exchange import kind_of, not_installed
from unexpired.errors import ConfigurationError
from unexpired.manager import TokenManager

try:
    from pyreqwest.client import Client, ClientBuilder, SyncClient, SyncClientBuilder
except ModuleNotFoundError as error:
    raise not_installed("pyreqwest", error) from None

from unexpired.clients._pyreqwest_flow import AsyncTokens, SyncTokens

__all__ = [
    "AsyncBodyFactory",
    "BodyFactory",
    "SyncTokenMiddleware",
    "TokenMiddleware",
    "token_client",
]


class BodyFactory(SyncFactory):
    """A request body that can be sent any number of times: *factory* makes a new iterable of bytes for each.

    ``client.post(url).body_stream(BodyFactory(lambda: open(path, "rb")))``: a file is read in blocks, and closed. For
    both kinds of clients. Sending raises ConfigurationError when the factory makes something else.
    """

    def __copy__(self) -> Self:
        return self


class AsyncBodyFactory(AsyncFactory):
    """`BodyFactory` for asynchronous clients: *factory* makes a new iterable, or async iterable, of bytes each time."""

    def __copy__(self) -> Self:
        return self


class TokenMiddleware(AsyncTokens):
    """``ClientBuilder().with_middleware(TokenMiddleware(manager))``: a token on every request, replayed when refused.

    The caller's request never holds the token; middlewares that come after this one see it. A redirect to another
    origin never takes it along, but a 401 from there looks like one from the API itself: where that matters, use
    `token_client`. Requests raise what `TokenManager.token` raises, and ReplayRefused for a body that cannot be sent
    again. Raises ConfigurationError for a scheme that it cannot carry safely, and for an argument of another kind.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None) -> None:
        super().__init__((_header_calls(manager, scheme, "TokenMiddleware"),))


class SyncTokenMiddleware(SyncTokens):
    """`TokenMiddleware`, for a `SyncClientBuilder`."""

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None) -> None:
        super().__init__((_header_calls(manager, scheme, "SyncTokenMiddleware"),))


@overload
def token_client(
    builder: ClientBuilder,
    manager: TokenManager,
    scheme: Scheme | None = None,
    *,
    others: Iterable[tuple[TokenManager, Scheme]] = (),
    max_redirects: int = 10,
) -> Client: ...
@overload
def token_client(
    builder: SyncClientBuilder,
    manager: TokenManager,
    scheme: Scheme | None = None,
    *,
    others: Iterable[tuple[TokenManager, Scheme]] = (),
    max_redirects: int = 10,
) -> SyncClient: ...
def token_client(
    builder: ClientBuilder | SyncClientBuilder,
    manager: TokenManager,
    scheme: Scheme | None = None,
    *,
    others: Iterable[tuple[TokenManager, Scheme]] = (),
    max_redirects: int = 10,
) -> Client | SyncClient:
    """Build the client of *builder*, which carries tokens in any place, on every hop of a redirect.

    The token goes to the origin that the caller asked for (or the scheme's *origins*) and along no redirect to another
    one. *others* are further managers, each with a scheme that names its *origins*; they come first. Redirects are
    followed as pyreqwest does it, but without a ``Referer``: *max_redirects* of them at most, then requests raise
    `pyreqwest.exceptions.RedirectError`; with 0 the caller gets the redirect. The client's timeouts hold for each hop.
    Requests raise what `TokenManager.token` raises, and ReplayRefused. Raises ConfigurationError for an argument of
    another kind.
    """
    if not isinstance(cast("object", builder), ClientBuilder | SyncClientBuilder):
        raise ConfigurationError(
            f"builder must be a pyreqwest.client.ClientBuilder or SyncClientBuilder, not {kind_of(builder)}"
        )
    calls = (*(_calls_elsewhere(one) for one in others), Calls(manager, scheme))
    builder.follow_redirects(False)
    if isinstance(builder, SyncClientBuilder):
        return builder.with_middleware(SyncTokens(calls, max_redirects)).build()
    return builder.with_middleware(AsyncTokens(calls, max_redirects)).build()


def _header_calls(manager: TokenManager, scheme: Scheme | None, what: str) -> Calls:
    calls = Calls(manager, scheme)
    headers, *others = calls.scheme.places
    if any(others) or [place.name.lower() for place in headers] != ["authorization"]:
        raise ConfigurationError(
            f"{what} carries a token in the Authorization header only: pyreqwest would send other headers along "
            "redirects, and a query as their Referer. Build the client with token_client for this scheme"
        )
    return calls


def _calls_elsewhere(pair: Any) -> Calls:
    manager, scheme = cast("tuple[Any, Any]", pair) if isinstance(pair, tuple) else (pair, None)
    calls = Calls(manager, scheme)
    if calls.scheme.origins is None:
        raise ConfigurationError(
            "others= holds pairs of a manager and a scheme that says where it is for: "
            'Scheme.bearer(origins=["https://files.example.com"])'
        )
    return calls
