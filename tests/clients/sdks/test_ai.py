"""The OpenAI and Anthropic SDKs, as they come from the registry, over an `http_client` that carries our token."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anthropic
import httpx
import httpx2
import openai
import pytest

import unexpired.clients.httpx
from tests.clients.contract.listener import Answer, Heard, Listener
from tests.clients.modes import BOUND, Api, Job, Library, Mode, Via, manager_for
from tests.clients.sdks.gate import Gate, admitted, asked, document, events, kinds
from unexpired import LoginRequired, TemporarilyUnavailable, TokenManager
from unexpired.clients.httpx2 import AsyncTokenTransport, TokenAuth, TokenTransport
from unexpired.errors import UnexpiredError
from unexpired.testing import ServerHandle

CROWD = 20
PLACEHOLDER = "unused"


@dataclass(frozen=True)
class Sdk:
    """One SDK: its module and clients, the path that it calls, and how to ask it for one word or for a stream."""

    module: Any
    sync: type[Any]
    tasks: type[Any]
    base: str
    ask: Callable[..., Any]
    word: Callable[[Any], str]
    piece: Callable[[Any], str | None]

    def create(self, api: Api, number: int, **more: Any) -> Any:
        """One call of the SDK: its answer, or what is to be awaited for it."""
        return self.ask(api.client, extra_query={"n": str(number)}, **more)

    def one(self, number: int) -> Job:
        """The job of one call: the word that came back."""

        async def job(api: Api) -> str:
            sent = self.create(api, number)
            return self.word(sent if api.blocks else await sent)

        return job


def _openai(client: Any, **more: Any) -> Any:
    return client.chat.completions.create(model="m", messages=[{"role": "user", "content": "?"}], **more)


def _anthropic(client: Any, **more: Any) -> Any:
    return client.messages.create(model="m", max_tokens=9, messages=[{"role": "user", "content": "?"}], **more)


OPENAI = Sdk(
    openai,
    openai.OpenAI,
    openai.AsyncOpenAI,
    "/v1",
    _openai,
    lambda answer: str(answer.choices[0].message.content),
    lambda event: event.choices[0].delta.content,
)
ANTHROPIC = Sdk(
    anthropic,
    anthropic.Anthropic,
    anthropic.AsyncAnthropic,
    "",
    _anthropic,
    lambda answer: str(answer.content[0].text),
    lambda event: event.delta.text if event.type == "content_block_delta" else None,
)


@pytest.fixture(params=[OPENAI, ANTHROPIC], ids=lambda one: one.module.__name__)
def sdk(request: pytest.FixtureRequest) -> Sdk:
    """Give each SDK."""
    found: Sdk = request.param
    return found


@pytest.fixture(params=["threads", "asyncio"])
def mode(request: pytest.FixtureRequest, sdk: Sdk) -> Mode:
    """Give each of the two clients that an SDK has."""
    return Mode(request.param, Library(SimpleNamespace(Client=sdk.sync, AsyncClient=sdk.tasks), None))


@pytest.fixture
def service(server: ServerHandle) -> Iterator[Listener]:
    """Give a service that speaks both SDKs' languages, behind a gate."""
    gate = Gate(server)

    def respond(heard: Heard, _: int) -> Answer:
        refusal = admitted(gate, heard)
        return refusal or _answer(heard)

    with Listener(respond=respond) as listener:
        yield listener


def settings(sdk: Sdk, mode: Mode, service: Listener, manager: TokenManager, via: Via, **more: Any) -> dict[str, Any]:
    """What to construct the SDK's client with: its own kind of HTTP client, or one of httpx2."""
    if via == "auth":
        kind = sdk.module.DefaultHttpxClient if mode.blocking else sdk.module.DefaultAsyncHttpxClient
        http = kind(auth=TokenAuth(manager))
    elif mode.blocking:
        http = httpx2.Client(transport=TokenTransport(manager))
    else:
        http = httpx2.AsyncClient(transport=AsyncTokenTransport(manager))
    return {"base_url": service.url + sdk.base, "api_key": PLACEHOLDER, "http_client": http, **more}


def _answer(heard: Heard) -> Answer:
    query = asked(heard)
    word, streams = query.get("n", ""), "stream" in query
    if heard.target.startswith("/v1/files"):
        return document(
            {"id": "f", "object": "file", "bytes": heard.length, "created_at": 0, "filename": "f", "purpose": "batch"}
        )
    if heard.target.startswith("/v1/chat/completions"):
        return events(_chunks(word)) if streams else document(_completion(word))
    assert heard.target.startswith("/v1/messages")
    return events(_message_events(word)) if streams else document(_message([{"type": "text", "text": word}]))


def _completion(word: str) -> dict[str, Any]:
    message = {"role": "assistant", "content": word}
    choice = {"index": 0, "finish_reason": "stop", "message": message}
    return {"id": "c", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice]}


def _chunks(word: str) -> Iterator[tuple[str | None, Any]]:
    for each in word:
        choice = {"index": 0, "delta": {"content": each}, "finish_reason": None}
        yield (
            None,
            {"id": "c", "object": "chat.completion.chunk", "created": 0, "model": "m", "choices": [choice]},
        )
        assert TAKEN.acquire(timeout=BOUND), "the piece before this one was held back"
    yield None, "[DONE]"


def _message(content: list[Any]) -> dict[str, Any]:
    told = {"id": "m", "type": "message", "role": "assistant", "model": "m", "stop_sequence": None}
    return {**told, "content": content, "stop_reason": "end_turn", "usage": {"input_tokens": 1, "output_tokens": 1}}


def _message_events(word: str) -> Iterator[tuple[str | None, Any]]:
    yield "message_start", {"type": "message_start", "message": _message([])}
    start = {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}
    yield "content_block_start", start
    for each in word:
        delta = {"type": "text_delta", "text": each}
        yield "content_block_delta", {"type": "content_block_delta", "index": 0, "delta": delta}
        assert TAKEN.acquire(timeout=BOUND), "the piece before this one was held back"
    yield "content_block_stop", {"type": "content_block_stop", "index": 0}
    yield "message_stop", {"type": "message_stop"}


TAKEN = threading.Semaphore(0)
"""Released for each piece of a stream that its reader has got: the service sends no further one before."""


@pytest.mark.parametrize("via", ["auth", "transport"])
def test_many_calls_at_an_expiry(
    server: ServerHandle, manager: TokenManager, service: Listener, *, sdk: Sdk, mode: Mode, via: Via
) -> None:
    """20 calls of an SDK that are refused together cost one refresh, and each gets its own answer."""
    server.expire()
    server.api_faults([{"kind": "hold_refusals", "name": "all"}])
    batch = mode.start(settings(sdk, mode, service, manager, via, max_retries=0), [sdk.one(n) for n in range(CROWD)])
    server.wait("api_call_held", CROWD)
    server.release("all")
    assert batch.result(BOUND) == [str(number) for number in range(CROWD)]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected, stats.refused) == (1, 0, CROWD)
    assert len(service.heard) == 2 * CROWD


def test_the_key_of_the_sdk_is_replaced(manager: TokenManager, service: Listener, sdk: Sdk, mode: Mode) -> None:
    """The service sees our token once and the SDK's own key nowhere; the SDK's other headers stay."""
    mode.one(settings(sdk, mode, service, manager, "auth"), sdk.one(1))
    (heard,) = service.heard
    assert heard.token == manager.token().access_token
    assert PLACEHOLDER not in str(heard.headers)
    assert heard.all("x-stainless-lang") == ["python"]
    assert heard.all("x-api-key") == []


@pytest.mark.parametrize("refusals", [0, 1])
@pytest.mark.parametrize("via", ["auth", "transport"])
def test_streams(
    server: ServerHandle,
    manager: TokenManager,
    service: Listener,
    *,
    sdk: Sdk,
    mode: Mode,
    via: Via,
    refusals: int,
) -> None:
    """The pieces of a stream come one by one as they are sent; one that was refused is opened anew before."""
    if refusals:
        server.expire()

    async def read(api: Api) -> str:
        sent = sdk.ask(api.client, stream=True, extra_query={"n": "abc", "stream": "1"})
        stream, text = sent if api.blocks else await sent, ""
        pieces = stream if api.blocks else stream.__aiter__()
        while True:
            try:
                event = next(pieces) if api.blocks else await anext(pieces)
            except (StopIteration, StopAsyncIteration):
                return text
            if piece := sdk.piece(event):
                text += piece
                TAKEN.release()

    assert mode.one(settings(sdk, mode, service, manager, via), read) == "abc"
    assert (server.stats().token_posts, len(service.heard)) == (refusals, 1 + refusals)


def test_retries_do_not_multiply(server: ServerHandle, manager: TokenManager, service: Listener, sdk: Sdk) -> None:
    """An API that refuses a fresh token is asked twice and no more: the SDK's own retries are for other answers."""
    server.api_faults([{"kind": "refuse"}])
    mode = Mode("threads", Library(SimpleNamespace(Client=sdk.sync), None))
    (refused,) = mode.run(settings(sdk, mode, service, manager, "auth", max_retries=5), [sdk.one(1)])
    assert type(refused).__name__ == "AuthenticationError"
    assert (server.stats().token_posts, len(service.heard)) == (1, 2)


def test_openai_tells_our_errors(server: ServerHandle, manager: TokenManager, service: Listener) -> None:
    """The OpenAI SDK hands on LoginRequired and TemporarilyUnavailable as they are, without a retry of its own."""
    mode = Mode("threads", Library(SimpleNamespace(Client=openai.OpenAI), None))
    server.revoke_family()
    found = mode.run(settings(OPENAI, mode, service, manager, "auth"), [OPENAI.one(1), OPENAI.one(2)])
    assert kinds(found) == {LoginRequired.__name__}
    impatient = manager_for(server, patience=0.0)
    server.expire()
    server.faults([{"kind": "503", "retry_after": 60, "times": 9}])
    found = mode.run(settings(OPENAI, mode, service, impatient, "transport"), [OPENAI.one(1), OPENAI.one(2)])
    assert kinds(found) == {TemporarilyUnavailable.__name__}
    assert server.stats().token_posts == 2


def own_errors(request: Any, call_next: Callable[[Any], Any]) -> Any:
    """Middleware of the Anthropic SDK that hands on our errors, which the SDK has taken for a lost connection."""
    try:
        return call_next(request)
    except anthropic.APIConnectionError as error:
        if isinstance(error.__cause__, UnexpiredError):
            raise error.__cause__ from None
        raise


def test_anthropic_wraps_our_errors(server: ServerHandle, manager: TokenManager, service: Listener) -> None:
    """The Anthropic SDK makes a connection error of LoginRequired, and keeps it as the cause; nobody else is asked."""
    mode = Mode("threads", Library(SimpleNamespace(Client=anthropic.Anthropic), None))
    server.revoke_family()
    for more in ({"max_retries": 0}, {"max_retries": 1}):
        (wrapped,) = mode.run(settings(ANTHROPIC, mode, service, manager, "auth", **more), [ANTHROPIC.one(1)])
        assert isinstance(wrapped, anthropic.APIConnectionError)
        assert isinstance(wrapped.__cause__, LoginRequired)
    assert (server.stats().token_posts, len(service.heard)) == (1, 1)


async def own_errors_of_tasks(request: Any, call_next: Callable[[Any], Any]) -> Any:
    """The same for tasks."""
    try:
        return await call_next(request)
    except anthropic.APIConnectionError as error:
        if isinstance(error.__cause__, UnexpiredError):
            raise error.__cause__ from None
        raise


@pytest.mark.parametrize("kind", ["threads", "asyncio"])
def test_anthropic_middleware_tells_our_errors(
    server: ServerHandle, manager: TokenManager, service: Listener, kind: str
) -> None:
    """A middleware of the SDK's own kind brings LoginRequired back, at once and once."""
    mode = Mode(kind, Library(SimpleNamespace(Client=anthropic.Anthropic, AsyncClient=anthropic.AsyncAnthropic), None))
    over = own_errors if mode.blocking else own_errors_of_tasks
    options: dict[str, Any] = {"middleware": [over], "max_retries": 5}
    assert mode.one(settings(ANTHROPIC, mode, service, manager, "auth", **options), ANTHROPIC.one(1)) == "1"
    server.revoke_family()
    found = mode.run(settings(ANTHROPIC, mode, service, manager, "auth", **options), [ANTHROPIC.one(n) for n in (2, 3)])
    assert kinds(found) == {LoginRequired.__name__}
    assert server.stats().token_posts == 1


def test_uploads(server: ServerHandle, manager: TokenManager, service: Listener, tmp_path: Path) -> None:
    """A file that the OpenAI SDK uploads in a form is sent again byte for byte."""
    mode = Mode("threads", Library(SimpleNamespace(Client=openai.OpenAI), None))
    path = tmp_path / "batch.jsonl"
    path.write_bytes(bytes(range(256)) * 800)
    server.expire()

    async def upload(api: Api) -> int:
        with path.open("rb") as file:
            return int(api.client.files.create(file=file, purpose="batch").bytes)

    assert mode.one(settings(OPENAI, mode, service, manager, "auth"), upload) > 256 * 800
    first, second = service.heard
    assert (first.sha256, first.length) == (second.sha256, second.length)
    assert first.token != second.token


def test_openai_over_httpx(server: ServerHandle, manager: TokenManager, service: Listener) -> None:
    """Where a program gives the OpenAI SDK a client of httpx, the adapter for httpx serves it."""
    mode = Mode("threads", Library(SimpleNamespace(Client=openai.OpenAI), None))
    server.expire()
    options = settings(OPENAI, mode, service, manager, "auth")
    options["http_client"] = httpx.Client(auth=unexpired.clients.httpx.TokenAuth(manager))
    assert mode.run(options, [OPENAI.one(n) for n in range(4)]) == list("0123")
    assert server.stats().token_posts == 1


def test_openai_over_aiohttp(server: ServerHandle, manager: TokenManager, service: Listener) -> None:
    """The OpenAI SDK's client over aiohttp is one of httpx2 by its class, and takes our auth."""
    mode = Mode("asyncio", Library(SimpleNamespace(AsyncClient=openai.AsyncOpenAI), None))
    server.expire()
    options = settings(OPENAI, mode, service, manager, "auth")
    options["http_client"] = openai.DefaultAioHttpClient(auth=TokenAuth(manager))
    assert mode.run(options, [OPENAI.one(n) for n in range(CROWD)]) == [str(n) for n in range(CROWD)]
    assert (server.stats().token_posts, len(service.heard)) == (1, 2 * CROWD)
