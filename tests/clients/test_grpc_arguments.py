"""gRPC: which schemes it can carry, what is refused, and tokens as call credentials of secure channels."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.clients.contract.grpc_like import EXPIRED, OK, GrpcServer, only
from tests.clients.grpc_parts import ECHO, channel
from tests.clients.scripted import counting_manager
from unexpired import (
    ConfigurationError,
    InCookie,
    InHeader,
    InQuery,
    LoginRequired,
    Scheme,
    TokenManager,
)
from unexpired.clients.grpc import TokenCredentials, TokenInterceptor, aio_interceptors
from unexpired.events import FreshTokenRefused, RequestReplayed

LOCAL = grpc.LocalConnectionType.LOCAL_TCP
MAKERS: list[Callable[..., Any]] = [TokenInterceptor, aio_interceptors, TokenCredentials]


@pytest.fixture
def secure() -> Iterator[GrpcServer]:
    """Give a server that takes call credentials."""
    with GrpcServer(credentials=grpc.local_server_credentials(LOCAL)) as made:
        yield made


def credentials(plugin: grpc.AuthMetadataPlugin) -> grpc.ChannelCredentials:
    """What a channel is made secure with, and what it sends with each call."""
    return grpc.composite_channel_credentials(
        grpc.local_channel_credentials(LOCAL), grpc.metadata_call_credentials(plugin)
    )


@contextmanager
def opened_with(api: GrpcServer, plugin: grpc.AuthMetadataPlugin) -> Iterator[Any]:
    """A secure channel that has its tokens from *plugin*."""
    with grpc.secure_channel(api.address, credentials(plugin)) as made:
        yield made


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("place", [InQuery("token"), InCookie("token")])
def test_places_that_there_are_not(make: Callable[..., Any], place: Any) -> None:
    """A token goes into metadata: a query and cookies are refused in a sentence."""
    with pytest.raises(ConfigurationError, match="metadata only: give it an InHeader"):
        make(counting_manager(), Scheme(place))
    with pytest.raises(ConfigurationError, match="metadata only"):
        make(counting_manager(), Scheme(InHeader("authorization"), place))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize("name", ["x+y", "token-bin", "grpc-token", "Grpc-Token", "TOKEN-BIN"])
def test_keys_that_metadata_cannot_have(make: Callable[..., Any], name: str) -> None:
    """A header whose name gRPC would not send, or would send as something else, is refused."""
    with pytest.raises(ConfigurationError, match="cannot be a metadata key"):
        make(counting_manager(), Scheme(InHeader(name)))


@pytest.mark.parametrize("make", MAKERS)
def test_codes_in_bodies(make: Callable[..., Any]) -> None:
    """Business codes stand in JSON bodies, of which gRPC has none: that is refused, and the way to do it named."""
    with pytest.raises(ConfigurationError, match="judge="):
        make(counting_manager(), Scheme.bearer(code="code", expired=[40009]))


@pytest.mark.parametrize("make", MAKERS)
@pytest.mark.parametrize(("manager", "scheme"), [("secret-token", None), (None, None), (counting_manager(), "bearer")])
def test_wrong_arguments(make: Callable[..., Any], manager: Any, scheme: Any) -> None:
    """A manager or scheme of another kind is refused in a sentence that does not say what it holds."""
    with pytest.raises(ConfigurationError, match=r"must be a (TokenManager|Scheme)") as caught:
        make(manager, scheme)
    assert "secret-token" not in str(caught.value)


@pytest.mark.parametrize("make", MAKERS[:2])
def test_origins_and_target(make: Callable[..., Any]) -> None:
    """An interceptor cannot see where its channel goes: a list of origins is refused, and a target that is no text."""
    with pytest.raises(ConfigurationError, match="leave origins= out"):
        make(counting_manager(), Scheme.bearer(origins=["https://api.example.com"]))
    with pytest.raises(ConfigurationError, match="target must be a str"):
        make(counting_manager(), target=443)


def test_marks_that_mean_nothing() -> None:
    """A mark with a value that it cannot have is refused, and nothing is sent."""
    with GrpcServer() as api, channel(api, counting_manager()) as opened:
        for value in ("no", b"false"):
            with pytest.raises(ConfigurationError, match=r"unexpired\.authenticated"):
                opened.unary_unary(ECHO)(b"x", metadata=(("unexpired.authenticated", value),))
        with pytest.raises(ConfigurationError, match=r"there is no metadata 'unexpired\.anonymous'"):
            opened.unary_unary(ECHO)(b"x", metadata=(("unexpired.anonymous", "true"),))
    assert api.heard == []


def test_headers_of_its_own() -> None:
    """A scheme's own headers become metadata keys in lower case, in a stale one's place, several if need be."""
    scheme = Scheme(InHeader("Access_Token"), InHeader("X-Refresh", "R {refresh_token}"))
    metadata = (("access_token", "stale"), ("authorization", "Basic mine"))
    with (
        GrpcServer(lambda _, before: OK if before else EXPIRED) as api,
        channel(api, counting_manager(), scheme=scheme) as opened,
    ):
        assert opened.unary_unary(ECHO)(b"x", metadata=metadata) == b"x"
    first, second = api.heard
    assert (first.all("access_token"), first.all("x-refresh")) == (["t1"], ["R r1"])
    assert (second.all("access_token"), second.all("x-refresh")) == (["t2"], ["R r2"])
    assert second.all("authorization") == ["Basic mine"]


def test_forbidden_may_mean_expired() -> None:
    """PERMISSION_DENIED is 403: it refreshes where the scheme says so, and nowhere else."""
    with GrpcServer() as api:
        for statuses, wanted in (((401,), ["t1"]), ((401, 403), ["t1", "t2"])):
            api.heard.clear()
            api.judge = only("t2", no=grpc.StatusCode.PERMISSION_DENIED)
            with channel(api, counting_manager(), scheme=Scheme.bearer(expired_status=statuses)) as opened:
                future = opened.unary_unary(ECHO).future(b"x")
                assert (future.exception(25) is None) == (len(wanted) == 2)
            assert api.tokens == wanted


def test_step_up_in_metadata() -> None:
    """A challenge in the metadata of a refusal is read: a stronger login is asked for, without a refresh."""
    challenge = 'Bearer error="insufficient_user_authentication", acr_values="gold"'
    with GrpcServer() as api, channel(api, counting_manager()) as opened:
        api.judge = only("t2", trailers=(("www-authenticate", challenge),))
        with pytest.raises(LoginRequired) as caught:
            opened.unary_unary(ECHO)(b"x")
    assert (caught.value.reason, caught.value.challenge["acr_values"]) == ("step_up", "gold")
    assert api.tokens == ["t1"]


@pytest.mark.parametrize(("target", "origin"), [(None, "grpc://test.v1.Api"), ("a.test:443", "grpc://a.test:443")])
@pytest.mark.usefixtures("no_pause_passes")
def test_what_events_say_of_where(target: str | None, origin: str) -> None:
    """Events name the target, or the service where it is not known; a server that refuses all is told of."""
    manager = counting_manager()
    told: list[str] = []
    refused = threading.Event()
    manager.on(RequestReplayed, lambda event: told.append(event.origin))
    manager.on(FreshTokenRefused, lambda event: told.append(event.origin))
    manager.on(FreshTokenRefused, lambda _: refused.set())
    with GrpcServer(only("t2")) as api, grpc.insecure_channel(api.address) as plain:
        opened: Any = grpc.intercept_channel(plain, TokenInterceptor(manager, target=target))
        assert opened.unary_unary(ECHO)(b"x") == b"x"
        api.judge = only()
        for _ in range(3):
            with pytest.raises(grpc.RpcError):
                opened.unary_unary(ECHO)(b"x")
        assert refused.wait(25)
    assert set(told) == {origin}


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without gRPC the import says in one sentence which extra brings it."""
    monkeypatch.delitem(sys.modules, "unexpired.clients.grpc")
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unexpired\[grpc\]'"):
        import unexpired.clients.grpc  # noqa: F401 - that it cannot be


@pytest.mark.parametrize("kind", ["blocking", "asyncio"])
def test_credentials(secure: GrpcServer, kind: str) -> None:
    """Call credentials bring a token that is not expired on every call, refreshed by its time."""
    manager = counting_manager()
    manager.login({"access_token": "t1", "refresh_token": "r1", "expires_in": -1})
    plugin = TokenCredentials(manager)

    async def main() -> list[bytes]:
        async with grpc.aio.secure_channel(secure.address, credentials(plugin)) as made:
            method: Any = made.unary_unary(ECHO)
            return list(await asyncio.gather(*[method(b"x") for _ in range(20)]))

    if kind == "asyncio":
        found = asyncio.run(main())
    else:
        with opened_with(secure, plugin) as opened:
            found = [future.result(25) for future in [opened.unary_unary(ECHO).future(b"x") for _ in range(20)]]
    assert found == [b"x"] * 20
    assert set(secure.tokens) == {"t2"}


def test_credentials_of_a_login_that_is_over(secure: GrpcServer) -> None:
    """Where there is no token, gRPC's own error says why, and nothing is sent."""
    manager = counting_manager()
    manager.logout()
    with (
        opened_with(secure, TokenCredentials(manager)) as opened,
        pytest.raises(grpc.RpcError) as caught,
    ):
        opened.unary_unary(ECHO)(b"x")
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "alice" in (caught.value.details() or "")
    assert secure.heard == []


def test_credentials_are_not_refreshed_by_a_refusal(secure: GrpcServer) -> None:
    """A refusal is the caller's: gRPC does not tell call credentials of it."""
    secure.judge = only("t2")
    with (
        opened_with(secure, TokenCredentials(counting_manager())) as opened,
        pytest.raises(grpc.RpcError) as caught,
    ):
        opened.unary_unary(ECHO)(b"x")
    assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert secure.tokens == ["t1"]


class Context:
    """What gRPC tells of a call."""

    def __init__(self, service_url: str) -> None:
        self.service_url, self.method_name = service_url, "Echo"


@pytest.mark.parametrize(
    ("url", "carried"),
    [
        ("https://api.example.com/test.v1.Api", True),
        ("https://api.example.com:8443/test.v1.Api", False),
        ("https://elsewhere.example.com/test.v1.Api", False),
        ("://127.0.0.1:443/test.v1.Api", False),
    ],
)
def test_credentials_know_where_they_go(url: str, carried: bool) -> None:
    """P12: with a list of origins other servers get no token from call credentials."""
    told: list[Any] = []
    scheme = Scheme.bearer(origins=["https://api.example.com"])
    plugin: Any = TokenCredentials(counting_manager(), scheme)
    plugin(Context(url), lambda *given: told.append(given))
    assert told == [((("authorization", "Bearer t1"),) if carried else (), None)]


def test_credentials_of_a_resource() -> None:
    """Call credentials may be for one resource; their `repr` shows no token."""
    asked: list[str | None] = []

    class Noting(TokenManager):
        def token(self, resource: str | None = None, *, wait: float | None = None) -> Any:
            asked.append(resource)
            return super().token(wait=wait)

    manager = counting_manager()
    manager.__class__ = Noting
    plugin: Any = TokenCredentials(manager, resource="https://files.example.com")
    plugin(Context("https://x/y"), lambda *_: None)
    assert asked == ["https://files.example.com"]
    assert "t1" not in repr(plugin)


def test_interceptors_on_a_secure_channel_with_other_credentials(secure: GrpcServer) -> None:
    """Interceptors and call credentials of another kind go together, also at a replay and on streams."""

    class Other(grpc.AuthMetadataPlugin):
        def __call__(self, context: Any, callback: Any) -> None:
            callback((("x-other", context.method_name),), None)

    secure.judge = only("t2")
    call = grpc.metadata_call_credentials(Other())
    with grpc.secure_channel(secure.address, grpc.local_channel_credentials(LOCAL)) as plain:
        opened: Any = grpc.intercept_channel(plain, TokenInterceptor(counting_manager()))
        assert opened.unary_unary(ECHO)(b"x", credentials=call) == b"x"
        assert list(opened.unary_stream("/test.v1.Api/Count")(b"1", credentials=call)) == [b"0"]
    assert [heard.all("x-other") for heard in secure.heard] == [["Echo"], ["Echo"], ["Count"]]
    assert secure.tokens == ["t1", "t2", "t2"]
