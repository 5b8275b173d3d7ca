"""The loops of docs/how-to/event-streams.md at an expiry: what a page tells people to copy holds what it promises."""

from __future__ import annotations

import ast
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, closing
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.clients.contract.listener import REFUSED, Answer, Heard, Listener
from tests.clients.modes import Api, Job, Mode
from tests.clients.scripted import counting_manager
from tests.docs.test_documentation import ROOT, blocks
from unexpired import LoginRequired, TokenManager

PAGE: Path = ROOT / "docs/how-to/event-streams.md"
EVENTS = {"content-type": "text/event-stream"}
# trio tells of generators that httpx2 leaves behind, without us too, whenever a stream is given up halfway
pytestmark = pytest.mark.filterwarnings(
    r"ignore:.*async_generator object (PoolByteStream|EventSource|Response\.aiter)"
    ":pytest.PytestUnraisableExceptionWarning"
)


def loops() -> dict[str, Any]:
    """The functions of the page."""
    names: dict[str, Any] = {}
    for block in blocks(PAGE):
        wanted = (ast.Import, ast.FunctionDef, ast.AsyncFunctionDef)
        body: list[ast.stmt] = [node for node in ast.parse(block).body if isinstance(node, wanted)]
        exec(compile(ast.Module(body, []), PAGE.name, "exec"), names)
    return names


LOOPS = loops()


@pytest.fixture(params=["threads", "asyncio", "trio"])
def mode(request: pytest.FixtureRequest) -> Mode:
    """Give each way to run callers."""
    return Mode(request.param)


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


def read(url: str, wanted: int, pause: float = 0.01) -> Job:
    """The job to read that many events by the loop of the page."""

    async def job(api: Api) -> list[str]:
        found: list[str] = []
        if api.blocks:
            with closing(LOOPS["events"](api.client, url, pause=pause)) as stream:
                for event in stream:
                    found.append(event.data)
                    if len(found) == wanted:
                        break
        else:
            async with aclosing(LOOPS["aevents"](api.client, url, pause=pause)) as events:
                await _take(events, found, wanted)
        return found

    return job


async def _take(events: AsyncIterator[Any], found: list[str], wanted: int) -> None:
    async for event in events:
        found.append(event.data)
        if len(found) == wanted:
            break


def run(mode: Mode, manager: TokenManager, *jobs: Job) -> list[Any]:
    """What came of the jobs."""
    return mode.run(mode.options(manager, "auth"), jobs)


def ends_at_expiry(heard: Heard, _: int) -> Answer:
    """A stream that ends when its token expires, which it does after two events."""
    if heard.token == "t1" and heard.all("last-event-id"):
        return REFUSED
    last = int((heard.all("last-event-id") or ["0"])[0])
    return 200, EVENTS, b"".join(b"id: %d\ndata: e%d\n\n" % (n, n) for n in (last + 1, last + 2))


def test_an_end_at_expiry(listener: Listener, mode: Mode) -> None:
    """A stream that the server ends at expiry goes on where it was, with a fresh token, asked for once."""
    listener.respond = ends_at_expiry
    assert run(mode, counting_manager(), read(f"{listener.url}/x", 4)) == [["e1", "e2", "e3", "e4"]]
    assert listener.tokens == ["t1", "t1", "t2"]
    assert [heard.all("last-event-id") for heard in listener.heard] == [[], ["2"], ["2"]]
    assert listener.heard[0].all("accept") == ["text/event-stream"]


def test_many_ends_cost_one_refresh(listener: Listener, mode: Mode) -> None:
    """Scenario 1: 20 streams that end together are 20 streams again after one refresh."""
    listener.respond = ends_at_expiry
    manager = counting_manager()
    found = run(mode, manager, *[read(f"{listener.url}/x", 4)] * 20)
    assert found == [["e1", "e2", "e3", "e4"]] * 20
    assert manager.token().access_token == "t2"


def test_the_pace_is_the_servers(listener: Listener, mode: Mode) -> None:
    """The loop waits as long as `retry:` says before it asks again."""
    listener.respond = lambda _heard, _before: (200, EVENTS, b"retry: 300\ndata: x\n\n")
    began = time.monotonic()
    assert run(mode, counting_manager(), read(f"{listener.url}/x", 3)) == [["x"] * 3]
    assert time.monotonic() - began >= 0.6


def test_places_are_kept(listener: Listener, mode: Mode) -> None:
    """Blocks without data are no events, but an `id:` in one counts, in any script; an empty one forgets nothing."""
    streams = ["data: e1\n\nid: \u00fc1\n\n", "retry: 1\n\n", "id: 2\ndata: e2\n\nid\ndata: e3\n\n", "data: e4\n\n"]
    listener.respond = lambda _, before: (200, EVENTS, streams[before].encode())
    assert run(mode, counting_manager(), read(f"{listener.url}/x", 4)) == [["e1", "e2", "e3", "e4"]]
    last = [heard.all("last-event-id") for heard in listener.heard]
    assert last == [[], ["\u00fc1".encode().decode("latin-1")], ["\u00fc1".encode().decode("latin-1")], ["2"]]


def test_a_cut_is_an_end(listener: Listener, mode: Mode) -> None:
    """A stream that breaks off in the middle of an event goes on after the last whole one."""

    def respond(heard: Heard, _: int) -> Answer:
        if heard.all("last-event-id"):
            return 200, EVENTS, b"id: 2\ndata: e2\n\n"
        return 200, {**EVENTS, "content-length": "9999", "connection": "close"}, b"id: 1\ndata: e1\n\ndata: half"

    listener.respond = respond
    assert run(mode, counting_manager(), read(f"{listener.url}/x", 2)) == [["e1", "e2"]]


def test_what_ends_the_loop(listener: Listener, mode: Mode) -> None:
    """A 204 ends it; a refused fresh token, something that is no event stream, and a login that is over are raised."""
    manager = counting_manager()
    answers: dict[str, Answer] = {"/204": (204, {}, b""), "/html": (200, {"content-type": "text/html"}, b"<p>")}
    listener.respond = lambda heard, _: answers.get(heard.target, REFUSED)
    found = run(mode, manager, *[read(f"{listener.url}/{path}", 1) for path in ("204", "html", "401")])
    assert found[0] == []
    assert type(found[1]) is httpx2.SSEError
    assert type(found[2]) is httpx2.HTTPStatusError
    assert [heard.target for heard in listener.heard].count("/401") == 2
    manager.logout()
    assert [type(error) for error in run(mode, manager, read(f"{listener.url}/x", 1))] == [LoginRequired]
