"""gRPC: `TokenInterceptor` for blocking channels, `aio_interceptors` for asyncio, `TokenCredentials` for either.

The interceptors send a call with one request and one response again, silently, when its token is refused with
``UNAUTHENTICATED``. Streams get a fresh token at their start; when it is refused, the token is refreshed and their
reader is raised ReplayRefused, which says to begin the stream again.

One call says with the metadata ``("unexpired.authenticated", "false")`` that it carries no token, and with
``("unexpired.resource", …)`` whose token it wants (RFC 8707); neither is sent. Everything here is safe for any number
of threads, tasks and event loops. Needs the extra ``unexpired[grpc]``.
"""

from __future__ import annotations

from typing import Any

from unexpired._core.scheme import Scheme
from unexpired.clients._exchange import check_manager, not_installed, url_origin
from unexpired.errors import UnexpiredError
from unexpired.manager import TokenManager

try:
    import grpc
    import grpc.aio
except ModuleNotFoundError as error:
    raise not_installed("grpc", error) from None

from unexpired.clients import _grpc_aio, _grpc_sync
from unexpired.clients._grpc_calls import Site, metadata_scheme

__all__ = ["TokenCredentials", "TokenInterceptor", "aio_interceptors"]


class TokenInterceptor(
    grpc.UnaryUnaryClientInterceptor,
    grpc.UnaryStreamClientInterceptor,
    grpc.StreamUnaryClientInterceptor,
    grpc.StreamStreamClientInterceptor,
):
    """``grpc.intercept_channel(channel, TokenInterceptor(manager))``: the token on every call of a blocking channel.

    A call that begins while there is no fresh token waits for one, ``future()`` too; futures that are refused wait on
    one thread for each resource. *target* is the channel's: it tells several servers of one service apart, in events
    and in what is remembered of refusals. Raises ConfigurationError for a scheme that metadata cannot carry; calls
    raise what `TokenManager.token` raises, and ReplayRefused.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, target: str | None = None) -> None:
        self._site = Site(manager, scheme, target)

    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Send it with a token; again, silently, if the token is refused."""
        return _grpc_sync.Unary(self._site, continuation, client_call_details, request).begin()

    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        """Begin a stream with a token."""
        return _grpc_sync.Stream(self._site, continuation, client_call_details, request).begin()

    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Begin a stream with a token."""
        return _grpc_sync.Upload(self._site, continuation, client_call_details, request_iterator).begin()

    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        """Begin a stream with a token."""
        return _grpc_sync.Stream(self._site, continuation, client_call_details, request_iterator).begin()


def aio_interceptors(
    manager: TokenManager, scheme: Scheme | None = None, *, target: str | None = None
) -> list[grpc.aio.ClientInterceptor]:
    """``grpc.aio.insecure_channel(…, interceptors=aio_interceptors(manager))``: `TokenInterceptor` for asyncio.

    One for each kind of call, because an asyncio channel uses an interceptor for one kind only. Raises the same.
    """
    site = Site(manager, scheme, target)
    return [_AioUnaryUnary(site), _AioUnaryStream(site), _AioStreamUnary(site), _AioStreamStream(site)]


class _Aio:
    def __init__(self, site: Site) -> None:
        self._site = site


class _AioUnaryUnary(_Aio, grpc.aio.UnaryUnaryClientInterceptor):
    def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _grpc_aio.Unary(self._site, continuation, client_call_details, request).begin()


class _AioUnaryStream(_Aio, grpc.aio.UnaryStreamClientInterceptor):
    def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        return _grpc_aio.Stream(self._site, continuation, client_call_details, request).begin()


class _AioStreamUnary(_Aio, grpc.aio.StreamUnaryClientInterceptor):
    def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return _grpc_aio.Stream(self._site, continuation, client_call_details, request_iterator).begin()


class _AioStreamStream(_Aio, grpc.aio.StreamStreamClientInterceptor):
    def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        return _grpc_aio.Stream(self._site, continuation, client_call_details, request_iterator).begin()


class TokenCredentials(grpc.AuthMetadataPlugin):
    """``grpc.metadata_call_credentials(TokenCredentials(manager))``: for libraries that make their channels themselves.

    A token that is not expired on every call, and no more: gRPC tells call credentials nothing of a refusal, so nothing
    is refreshed or sent again for one, and a login that is over reaches the caller as gRPC's ``UNAVAILABLE``. gRPC
    takes call credentials on secure channels only. With *origins* in the scheme, calls to other servers carry no token.
    *resource*: whose token it is (RFC 8707). Raises ConfigurationError like `TokenInterceptor`.
    """

    def __init__(self, manager: TokenManager, scheme: Scheme | None = None, *, resource: str | None = None) -> None:
        check_manager(manager)
        self._manager = manager
        self._scheme = metadata_scheme(scheme)
        self._resource = resource

    def __call__(self, context: grpc.AuthMetadataContext, callback: grpc.AuthMetadataPluginCallback) -> None:
        """Give the metadata of one call; gRPC asks on a thread of its own, which may wait."""
        if self._scheme.origins is not None and not self._scheme.allows(url_origin(context.service_url)):
            callback((), None)
            return
        try:
            headers = self._scheme.render(self._manager.token(self._resource)).headers
        except UnexpiredError as error:
            callback((), error)
        else:
            callback(tuple((name.lower(), value) for name, value in headers), None)
