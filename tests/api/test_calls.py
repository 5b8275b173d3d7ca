"""How calls are made up: encodings, options, and the same methods on both clients."""

from __future__ import annotations

import inspect
from typing import Any

import httpx2
import pytest

from tests.api.fronts import ANSWER, Api, Front, get
from tests.dialects.dialects import A, B
from unexpired import ApiClient, AsyncApiClient, ConfigurationError, TokenManager
from unexpired.stores import MemoryStore
from unexpired.testing import ServerHandle

TWINS = {"close": "aclose", "__enter__": "__aenter__", "__exit__": "__aexit__"}


def echo(request: httpx2.Request) -> httpx2.Response:
    """An API that says what it got."""
    timeout = request.extensions["timeout"]["read"]
    got = {"method": request.method, "url": str(request.url), "body": request.content.decode(), "timeout": timeout}
    return httpx2.Response(200, json={**got, "headers": dict(request.headers)})


@pytest.mark.parametrize("method", ["post", "put", "patch", "delete"])
@pytest.mark.parametrize("client", ["json", "form"])
@pytest.mark.parametrize("call", [None, "json", "form"])
def test_encoding(front: Front, method: str, client: str, call: str | None) -> None:
    """Bodies go as JSON or as a form, by the client's setting or the call's."""

    async def job(api: Api) -> Any:
        return await api.call(method, "/x", {"id": 7, "name": "a b"}, **({"encoding": call} if call else {}))

    got = front.one(front.answering(echo, encoding=client), job)
    assert got["method"] == method.upper()
    if (call or client) == "form":
        assert (got["body"], got["headers"]["content-type"]) == ("id=7&name=a+b", "application/x-www-form-urlencoded")
    else:
        assert (got["body"], got["headers"]["content-type"]) == ('{"id":7,"name":"a b"}', "application/json")


def test_dialects_take_their_encodings(server: ServerHandle, front: Front) -> None:
    """Dialect A takes forms and refuses JSON, and a call may choose."""

    async def job(api: Api) -> Any:
        form = await api.post("/x", {"a": "1"})
        with pytest.raises(Exception, match="a form is expected"):
            await api.post("/x", {"a": "1"}, encoding="json")
        return form["code"]

    assert front.one(front.settings(server, A.manager(server), A), job) == 0


def test_settings_and_options(front: Front) -> None:
    """Base URL, headers and timeout go for every call; params, headers and timeout of a call add or go before."""
    settings = front.answering(echo, headers={"x-app": "1", "x-both": "1"}, timeout=7.0)
    settings["base_url"] += "/api"

    async def job(api: Api) -> Any:
        options = {"params": {"n": 2}, "headers": {"x-both": "2"}, "timeout": None, "content": b"raw"}
        return [await api.get("/x"), await api.call("request", "PUT", "/y?a=1", **options)]

    plain, full = front.one(settings, job)
    assert (plain["url"], plain["timeout"], plain["headers"]["x-app"]) == ("http://api.test/api/x", 7.0, "1")
    assert (full["url"], full["timeout"]) == ("http://api.test/api/y?a=1&n=2", None)
    assert (full["headers"]["x-both"], full["body"], full["headers"]["x-app"]) == ("2", "raw", "1")


def test_timeout_by_default(front: Front) -> None:
    """A call takes 30 seconds at most unless the program says otherwise."""
    assert front.one(front.answering(echo), get("/"))["timeout"] == 30.0


def test_token_of_another_resource(front: Front) -> None:
    """`resource=` sends the token of that resource (RFC 8707)."""

    def grant(_: object, resource: str | None = None) -> dict[str, Any]:
        return {"access_token": f"for {resource}".replace(" ", "-"), "expires_in": 3600}

    manager = TokenManager(grant, store=MemoryStore())
    manager.login(ANSWER)
    settings = front.answering(echo) | {"manager": manager}

    async def job(api: Api) -> Any:
        return [(await api.get("/", **more))["headers"]["authorization"] for more in ({}, {"resource": "r2"})]

    assert front.one(settings, job) == ["Bearer at", "Bearer for-r2"]


@pytest.mark.parametrize("option", [{"param": {}}, {"json": {}}])
def test_unknown_option(front: Front, option: dict[str, Any]) -> None:
    """An option that no call takes is refused by name, not left out in silence."""
    with pytest.raises(TypeError, match=min(option)):
        front.one(front.answering(echo), get("/", **option))


@pytest.mark.parametrize("client", [ApiClient, AsyncApiClient])
def test_unknown_setting(client: Any) -> None:
    """A setting that no client takes is refused by name, and so is an encoding that nobody knows."""
    manager = TokenManager(lambda _: ANSWER, store=MemoryStore())
    with pytest.raises(TypeError, match=f"{client.__name__} takes no 'on_load'"):
        client(manager=manager, on_load=print)
    with pytest.raises(ConfigurationError, match="'xml'"):
        client(manager=manager, encoding="xml")


def test_unknown_encoding_of_a_call(front: Front) -> None:
    """A call's encoding that nobody knows is refused before anything is sent."""
    with pytest.raises(ConfigurationError, match="'xml'"):
        front.one(front.answering(echo), get("/", encoding="xml"))


def test_both_clients_have_the_same_methods() -> None:
    """`AsyncApiClient` has every method of `ApiClient` with the same parameters, awaited, and no other."""

    def methods(kind: type) -> dict[str, list[Any]]:
        named = {name: item for name, item in inspect.getmembers(kind, inspect.isfunction) if name[0] != "_"}
        enters = {name: item for name, item in vars(kind).items() if name.startswith(("__enter", "__aenter", "__exit"))}
        shown = {**named, **enters, **{name: vars(kind)[name] for name in vars(kind) if name.startswith("__aexit")}}
        return {
            TWINS.get(name, name): [(each.name, each.default, each.kind) for each in parameters(item)]
            for name, item in shown.items()
        }

    def parameters(item: Any) -> list[inspect.Parameter]:
        return list(inspect.signature(item).parameters.values())

    assert methods(ApiClient) == methods(AsyncApiClient)
    assert {"get", "post", "put", "patch", "delete", "request", "response", "stream"} < methods(ApiClient).keys()
    settings, others = (inspect.signature(kind).parameters for kind in (ApiClient, AsyncApiClient))
    assert list(settings) == list(others)


def test_closing(front: Front) -> None:
    """Leaving the block closes the connections, and the manager lives on."""
    closed: list[str] = []

    class Transport(httpx2.MockTransport):
        def close(self) -> None:
            closed.append("sync")

        async def aclose(self) -> None:
            closed.append("async")

    settings = front.answering(echo) | {"transport": Transport(echo)}
    front.one(settings, get("/"))
    assert closed == ["sync" if front.blocking else "async"]
    assert settings["manager"].token().access_token == "at"


def test_dialect_b_sends_json(server: ServerHandle, front: Front) -> None:
    """Scenario 44: dialect B's posts are JSON, with the token in the query beside the call's own parameters."""
    seen: list[Any] = []

    async def job(api: Api) -> Any:
        answer = await api.call("response", "POST", "/x", {"a": 1}, params={"n": 5})
        seen.append(str(answer.request.url))
        return answer.json()["data"]

    data = front.one(front.settings(server, B.manager(server), B), job)
    assert (data["n"], data["body_length"]) == ("5", len(b'{"a":1}'))
    assert seen == [f"{server.url}/b/api/x?n=5"]
    assert server.stats().credentials == {"query": 1}
