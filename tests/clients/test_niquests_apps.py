"""niquests: adapters of another make, such as for an app in the same process; early answers; what else is handed on."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import niquests
import pytest

from tests.clients.niquests_sessions import Api, Mode, run
from tests.clients.scripted import counting_manager
from unexpired import ConfigurationError, InQuery, Scheme
from unexpired.clients.niquests import AsyncTokenAdapter, TokenAdapter, TokenAuth, TokenOptions

CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])


@pytest.fixture(params=["threads", "asyncio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each kind of session."""
    found: Mode = request.param
    return found


class App:
    """An app in this process, for either kind of session: it knows one token by a code in a 200, the next as good."""

    def __init__(self, *, status: str = "200 OK") -> None:
        self.tokens: list[str] = []
        self.status = status

    def body(self, token: str) -> bytes:
        """What it says."""
        self.tokens.append(token)
        return b'{"code": 40009}' if token == "Bearer t1" else b'{"code": 0}'

    def wsgi(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        """Speak WSGI."""
        body = self.body(environ.get("HTTP_AUTHORIZATION", ""))
        start_response(self.status if len(self.tokens) == 1 else "200 OK", [("content-type", "application/json")])
        return iter([body])

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Speak ASGI."""
        if scope["type"] == "lifespan":
            await receive()
            await send({"type": "lifespan.startup.complete"})
            await receive()
            await send({"type": "lifespan.shutdown.complete"})
            return
        body = self.body(dict(scope["headers"]).get(b"authorization", b"").decode())
        status = int(self.status[:3]) if len(self.tokens) == 1 else 200
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def session_of(app: App, mode: Mode) -> dict[str, Any]:
    """What a session of this mode is given for the app."""
    return {"app": app.wsgi if mode == "threads" else app}


async def mounted(api: Api, scheme: Scheme | None) -> None:
    """Put an adapter around that of the app."""
    carrier: Any = TokenAdapter if api.blocking else AsyncTokenAdapter
    prefix, inner = next(
        (prefix, each) for prefix, each in api.session.adapters.items() if prefix.endswith("gi://default")
    )
    api.session.mount(prefix, carrier(counting_manager(), scheme, inner))


@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized"])
def test_app_in_the_same_process(mode: Mode, status: str) -> None:
    """Around the adapter of an app, refusals by status and by a code in a body are replayed."""
    app = App(status=status)

    async def job(api: Api) -> Any:
        await mounted(api, CODES)
        return (await api.get("/x")).content

    assert run(mode, job, **session_of(app, mode)) == b'{"code": 0}'
    assert app.tokens == ["Bearer t1", "Bearer t2"]


def test_app_whose_answer_is_streamed(mode: Mode) -> None:
    """A streamed answer of an app is not looked into: its status speaks, and its body is the caller's."""
    app = App()

    async def job(api: Api) -> Any:
        await mounted(api, CODES)
        response = await api.get("/x", stream=True)
        return b"".join(await api.pieces(response))

    assert run(mode, job, **session_of(app, mode)) == b'{"code": 40009}'


def test_auth_cannot_send_again_to_an_app(mode: Mode) -> None:
    """TokenAuth says that it does not know what sends, and what to do."""
    app = App(status="401 Unauthorized")

    async def job(api: Api) -> Any:
        api.session.auth = TokenAuth(counting_manager())
        return await api.raises(ConfigurationError, "/x")

    assert "mount a TokenAdapter around that adapter" in str(run(mode, job, **session_of(app, mode)))
    assert app.tokens == ["Bearer t1"]


def test_auth_to_an_app_that_is_content(mode: Mode) -> None:
    """With a good token an app is called by TokenAuth as any other."""
    app = App()

    async def job(api: Api) -> Any:
        api.session.auth = TokenAuth(counting_manager())
        return (await api.get("/x")).status_code

    assert run(mode, job, **session_of(app, mode)) == 200


@pytest.fixture
def early() -> Iterator[str]:
    """Give the address of a server that sends 103 before its answer."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(
                    b"HTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}"
                )
                connection.recv(65536)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}/x"
        thread.join(20)


def test_early_answers_show_no_token(early: str, mode: Mode) -> None:
    """P13: an early answer (103) comes to its hook with the caller's own request."""
    seen: list[Any] = []

    async def job(api: Api) -> int:
        api.carry("adapter", counting_manager(), Scheme(InQuery("access_token")))
        api.session.hooks["early_response"].append(hook if api.blocking else ahook)
        status: int = (await api.get(early)).status_code
        return status

    def hook(response: Any, **_: Any) -> None:
        seen.append(response)

    async def ahook(response: Any, **_: Any) -> None:
        seen.append(response)

    assert run(mode, job) == 200
    assert [(one.status_code, one.url, one.request.url) for one in seen] == [(103, early, early)]


def test_a_session_that_multiplexes_gathers_what_carries_no_token(mode: Mode) -> None:
    """Behind an adapter calls without a token are still promised, and gathered; those with one come at once."""
    from tests.clients.contract.listener2 import Listener2

    async def job(api: Api) -> list[tuple[bool, int]]:
        kind: Any = niquests.adapters.HTTPAdapter if api.blocking else niquests.adapters.AsyncHTTPAdapter
        api.carry("adapter", counting_manager(), None, kind(disable_http1=True, disable_http3=True))
        carried = await api.get(f"{there.url}/x")
        promised = [await api.get(f"{there.url}/x", auth=TokenOptions(authenticated=False)) for _ in range(3)]
        lazy = [response.lazy for response in (carried, *promised)]
        await api.wait(api.session.gather())
        return list(zip(lazy, [response.status_code for response in (carried, *promised)], strict=True))

    with Listener2(lambda token: 200 if token in ("", "t2") else 401) as there:
        assert run(mode, job, multiplexed=True) == [(False, 200), *[(True, 200)] * 3]
    assert there.tokens == ["t1", "t2", "", "", ""]
