"""What a call returns and raises, for every kind of answer."""

from __future__ import annotations

import dataclasses
import pickle
import sys
import traceback
from collections.abc import Callable
from typing import Annotated, Any

import httpx2
import msgspec
import pydantic
import pytest

from tests.api.fronts import Api, Front, get
from tests.dialects.dialects import A, B
from unexpired import ApiError, ConfigurationError, Scheme
from unexpired.api import Envelope
from unexpired.testing import ServerHandle


class Order(pydantic.BaseModel):
    """One for pydantic."""

    n: int


class OrderStruct(msgspec.Struct):
    """One for msgspec."""

    n: int


@dataclasses.dataclass
class OrderData:
    """One for both."""

    n: int


def response(**parts: Any) -> Callable[[httpx2.Request], httpx2.Response]:
    """An API that always answers this."""
    return lambda _: httpx2.Response(**({"status_code": 200} | parts))


def typed(kind: str, content: bytes) -> dict[str, Any]:
    """An answer of a content type."""
    return {"headers": {"content-type": kind} if kind else {}, "content": content}


@pytest.mark.parametrize(
    ("kind", "content", "body"),
    [
        ("application/json; charset=utf-8", b'{"a": 1}', {"a": 1}),
        ("application/problem+json", b"[1]", [1]),
        ("text/plain", b' \n{"a": 1}', {"a": 1}),
        ("text/html", b"[1]", [1]),
        ("", b'{"a": 1}', {"a": 1}),
        ("", b"{half", b"{half"),
        ("text/plain", b"{half", "{half"),
        ("text/html", b"<p>", "<p>"),
        ("image/png", b"{}", b"{}"),
        ("application/x-ndjson", b"{}\n{}", b"{}\n{}"),
        ("application/json", b"", None),
    ],
)
def test_bodies(front: Front, kind: str, content: bytes, body: Any) -> None:
    """A body comes as what its type says: parsed JSON, text, bytes or nothing; JSON without a type is seen."""
    assert front.one(front.answering(response(**typed(kind, content))), get("/")) == body


@pytest.mark.parametrize("content", [b"{half", b"\xff\xfe\xff", b"[" * 200_000], ids=["half", "binary", "deep"])
def test_unreadable_json(front: Front, content: bytes) -> None:
    """Scenario 54: what calls itself JSON and is not is an ApiError of code -1, with the text and the response."""
    with pytest.raises(ApiError, match="not JSON") as caught:
        front.one(front.answering(response(**typed("application/json", content))), get("/"))
    assert (caught.value.code, caught.value.response.status_code) == (-1, 200)
    assert isinstance(caught.value.body, str)


@pytest.mark.parametrize(
    ("status", "parts", "message", "body"),
    [
        (404, {"json": {"why": "gone"}}, "Not Found", {"why": "gone"}),
        (500, {"text": "oh"}, "Internal Server Error", "oh"),
        (502, typed("application/json", b"<html>"), "Bad Gateway", "<html>"),
        (599, {}, "HTTP 599", None),
        (400, {"json": {"code": 7, "msg": "no"}}, "Bad Request", {"code": 7, "msg": "no"}),
    ],
)
def test_http_failures(front: Front, status: int, parts: dict[str, Any], message: str, body: Any) -> None:
    """An HTTP failure is an ApiError with the status as code and its reason as message; body and response are there."""
    settings = front.answering(response(status_code=status, **parts), envelope=Envelope())
    with pytest.raises(ApiError) as caught:
        front.one(settings, get("/"))
    error = caught.value
    assert (error.code, error.message, error.body, error.response.status_code) == (status, message, body, status)
    assert str(error) == f"{message} ({status})"


def test_business_codes(server: ServerHandle, front: Front) -> None:
    """Scenario 37: a code that is no success is an ApiError with the API's code and message, and its whole body."""
    with pytest.raises(ApiError) as caught:
        front.one(front.settings(server, B.manager(server), B), get("/fail"))
    error = caught.value
    assert (error.code, error.message) == (500, "the operation failed")
    assert error.body == {"code": 500, "msg": "the operation failed", "detail": {"code": 401}}
    assert error.response.json() == error.body
    assert (server.stats().token_posts, str(error)) == (0, "the operation failed (500)")


def test_no_answer(server: ServerHandle, front: Front) -> None:
    """Scenario 53: without an answer the code is -1 and the message says why; the token is nowhere to be seen."""
    manager = B.manager(server)
    settings = front.settings(server, manager, B) | {"base_url": "http://127.0.0.1:9"}
    with pytest.raises(ApiError, match="ConnectError") as caught:
        front.one(settings, get("/orders"))
    assert (caught.value.code, caught.value.body, caught.value.response) == (-1, None, None)
    assert isinstance(caught.value.__cause__, httpx2.ConnectError)
    cause = caught.value.__cause__
    seen = "".join(traceback.format_exception(caught.value)) + str(cause.request.url) + repr(vars(cause))
    assert manager.token().access_token not in seen


def test_timeout(server: ServerHandle, front: Front) -> None:
    """A call that takes longer than its own timeout has code -1."""
    server.api_faults([{"kind": "hold", "name": "held"}])
    # connecting takes as long as it takes
    timeout = httpx2.Timeout(30, read=0.2)
    with pytest.raises(ApiError, match="ReadTimeout"):
        front.one(front.settings(server, A.manager(server), A), get("/orders", timeout=timeout))
    server.release("held")


def test_invalid_address(front: Front) -> None:
    """An address that is none has code -1, too."""
    with pytest.raises(ApiError, match="InvalidURL"):
        front.one(front.answering(response()), get("http://[::1"))


def test_whole_response(server: ServerHandle, front: Front) -> None:
    """`response` gives the whole response of any status, with the token renewed and nowhere in it."""
    manager = A.manager(server)
    server.expire()

    async def job(api: Api) -> Any:
        return [await api.call("response", "GET", path) for path in ("/orders", "/broken")]

    server.api_faults([{"kind": "status", "prefix": "/a/broken", "code": 418, "body": "teapot"}])
    good, bad = front.one(front.settings(server, manager, A), job)
    assert (good.json()["code"], bad.json()["code"]) == (0, 418)
    token = manager.token().access_token
    assert token not in f"{good.request.headers!r} {good.request.url} {bad.request.headers!r}"


def test_errors_can_be_pickled(front: Front) -> None:
    """An ApiError travels between processes with its code, message, body and response."""
    with pytest.raises(ApiError) as caught:
        front.one(front.answering(response(status_code=404, json={"a": 1})), get("/"))
    error = pickle.loads(pickle.dumps(caught.value))
    assert (error.code, error.message, error.body, error.response.json()) == (404, "Not Found", {"a": 1}, {"a": 1})


@pytest.mark.parametrize(
    ("code", "served"), [(0, True), ("0", True), ("0000", True), (1, False), ("A01", False), (None, True)]
)
def test_envelope(front: Front, code: Any, served: bool) -> None:
    """Scenario 37: codes of success are compared loosely, one without a code is one, its parts have names of choice."""
    envelope = Envelope(code="head.code", message="head.text", data="body.rows", ok=(code for code in (0, "0000")))
    answer = {"head": {"code": code, "text": 7}, "body": {"rows": [1]}}
    settings = front.answering(response(json=answer), envelope=envelope, unwrap=True)
    for _ in range(2):
        if served:
            assert front.one(settings, get("/")) == (answer if code is None else [1])
        else:
            with pytest.raises(ApiError, match=f"code {code}") as caught:
                front.one(settings, get("/"))
            assert (caught.value.code, caught.value.body) == (code, answer)


def test_envelope_without_codes_of_success(front: Front) -> None:
    """A scheme that names no codes of success leaves every code to the program."""
    scheme = Scheme.bearer(code="code", expired=[401])
    assert front.one(front.answering(response(json={"code": 7}), scheme=scheme), get("/")) == {"code": 7}


@pytest.mark.parametrize("wrong", [{"ok": "0"}, {"ok": [None]}, {"ok": [True]}, {"data": ""}, {"code": "a..b"}])
def test_impossible_envelopes(wrong: Any) -> None:
    """An envelope with an empty path, or with what is no list of codes, is refused when it is made."""
    with pytest.raises(ConfigurationError):
        Envelope(**wrong)


def test_unwrap(server: ServerHandle, front: Front) -> None:
    """The data of the envelope is what calls return, for the client or one call; what is no envelope stays whole."""
    settings = front.settings(server, A.manager(server), A)

    async def job(api: Api) -> Any:
        return [(await api.get("/x", unwrap=True))["method"], (await api.get("/x"))["data"]["method"]]

    assert front.one(settings, job) == ["GET", "GET"]

    async def other(api: Api) -> Any:
        return [(await api.get("/x"))["method"], (await api.get("/x", unwrap=False))["data"]["method"]]

    assert front.one(settings | {"unwrap": True, "transport": front.transport()}, other) == ["GET", "GET"]
    bare = front.answering(response(json=[1, 2]), envelope=Envelope())
    assert front.one(bare | {"unwrap": True}, get("/")) == [1, 2]


def test_unwrap_without_an_envelope(front: Front) -> None:
    """Unwrapping without knowing an envelope is refused, for the client and, before it is sent, for the call."""
    sent: list[httpx2.Request] = []

    def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200)

    for settings, job in ((front.answering(respond, unwrap=True), get("/")), (front.answering(respond), None)):
        with pytest.raises(ConfigurationError, match="envelope="):
            front.one(settings, job or get("/", unwrap=True))
    assert sent == []


@pytest.mark.parametrize(
    ("kind", "answer", "result"),
    [
        (Order, {"n": "7"}, Order(n=7)),
        (list[Order], [{"n": 7}], [Order(n=7)]),
        (OrderData, {"n": 7}, OrderData(7)),
        (OrderStruct, {"n": 7}, OrderStruct(7)),
        (dict[str, list[OrderStruct]], {"a": [{"n": 7}]}, {"a": [OrderStruct(7)]}),
        (Annotated[int, pydantic.Field(json_schema_extra={"a": 1})], "7", 7),
        (Annotated[int, []], 7, 7),
    ],
    ids=str,
)
def test_into(front: Front, kind: Any, answer: Any, result: Any) -> None:
    """A result becomes the program's own type: a pydantic model, a msgspec struct, a dataclass, a list of them."""
    settings = front.answering(response(json={"code": 0, "data": answer}), envelope=Envelope(), unwrap=True)
    assert front.one(settings, get("/", into=kind)) == result


@pytest.mark.parametrize(("missing", "kind"), [("pydantic", OrderData), ("msgspec", OrderData), ("msgspec", Order)])
def test_into_with_one_of_them(front: Front, monkeypatch: pytest.MonkeyPatch, missing: str, kind: Any) -> None:
    """Either package alone will do."""
    monkeypatch.setitem(sys.modules, missing, None)
    assert front.one(front.answering(response(json={"n": 7})), get("/", into=kind)) == kind(n=7)


def test_into_with_neither(front: Front, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without pydantic and msgspec `into=` is refused before anything is sent, with what to install."""
    sent: list[httpx2.Request] = []
    for name in ("pydantic", "msgspec"):
        monkeypatch.setitem(sys.modules, name, None)

    def respond(request: httpx2.Request) -> httpx2.Response:
        sent.append(request)
        return httpx2.Response(200, json={"n": 7})

    with pytest.raises(ConfigurationError, match="install"):
        front.one(front.answering(respond), get("/", into=OrderData))
    assert sent == []


def test_into_that_does_not_fit(front: Front) -> None:
    """What does not fit the type is told in the words of the package that says so."""
    for kind, error in ((Order, pydantic.ValidationError), (OrderStruct, msgspec.ValidationError)):
        with pytest.raises(error):
            front.one(front.answering(response(json={"n": "many"})), get("/", into=kind))
