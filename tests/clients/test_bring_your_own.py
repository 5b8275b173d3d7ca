"""The loop of docs/how-to/bring-your-own-client.md, with clients that have no adapter, on real sockets."""

from __future__ import annotations

import ast
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlencode

import pytest

from tests.clients.contract.crew import BOUND, CROWD
from tests.clients.contract.listener import OK, REFUSED, Answer, Heard, Listener
from tests.clients.modes import manager_for
from tests.clients.scripted import counting_manager
from tests.docs.test_documentation import ROOT, blocks
from unexpired import LoginRequired, Scheme, TokenManager
from unexpired.testing import ServerHandle

PAGE = ROOT / "docs/how-to/bring-your-own-client.md"
JSON = {"content-type": "application/json"}
CODES = Scheme.bearer(code="code", expired=[40009], ok=[0])


def functions() -> dict[str, Any]:
    """What the page defines, without what it does with it."""
    names: dict[str, Any] = {}
    for block in blocks(PAGE):
        kinds = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef)
        body: list[ast.stmt] = [
            node
            for node in ast.parse(block).body
            if isinstance(node, kinds) or (isinstance(node, ast.Assign) and "opener" in ast.unparse(node))
        ]
        exec(compile(ast.Module(body, []), PAGE.name, "exec"), names)
    return names


PAGES = functions()
Through = Callable[..., Any]


@pytest.fixture(params=["through_urllib", "through_curl"])
def through(request: pytest.FixtureRequest) -> Through:
    """Give each client."""
    found: Through = PAGES[request.param]
    return found


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told."""
    with Listener() as listening:
        yield listening


def crowd(manager: TokenManager, scheme: Scheme, sends: list[Any]) -> list[Any]:
    """What each of as many threads as there are *sends* gets, all begun at once."""
    gate = threading.Barrier(len(sends))

    def caller(send: Any) -> Any:
        gate.wait(BOUND)
        return PAGES["call"](send, manager, scheme)

    with ThreadPoolExecutor(len(sends)) as pool:
        return list(pool.map(caller, sends))


def test_fifty_threads_at_an_expiry(server: ServerHandle, manager: TokenManager, through: Through) -> None:
    """Scenarios 1 and 2: 50 threads are refused at once; one refresh, and each gets the answer to its own request."""
    server.expire()
    found = crowd(manager, Scheme.bearer(), [through(f"{server.url}/api/x?n={number}") for number in range(CROWD)])
    assert [answer.json()["n"] for answer in found] == [str(number) for number in range(CROWD)]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


def test_codes(listener: Listener, through: Through) -> None:
    """Scenario 37: 50 threads whose 200 says "expired" cost one refresh."""

    def respond(heard: Heard, _: int) -> Answer:
        return 200, JSON, b'{"code": 40009}' if heard.token == "t1" else b'{"code": 0}'

    listener.respond = respond
    manager = counting_manager()
    found = crowd(manager, CODES, [through(f"{listener.url}/x")] * CROWD)
    assert {answer.body for answer in found} == {b'{"code": 0}'}
    assert {*listener.tokens} == {"t1", "t2"}


def test_the_same_body_again(listener: Listener, through: Through) -> None:
    """Scenario 40: a replay sends the same bytes."""
    listener.respond = lambda _, before: OK if before else REFUSED
    answer = PAGES["call"](through(f"{listener.url}/x", b"a=1"), counting_manager(), Scheme.bearer())
    assert answer.status == 200
    first, second = listener.heard
    assert (first.method, first.length, first.sha256) == (second.method, second.length, second.sha256) == (
        "POST", 3, first.sha256,
    )  # fmt: skip


def test_a_redirect_is_the_answer(server: ServerHandle, listener: Listener, through: Through) -> None:
    """Scenario 45: a redirect to another origin is handed on, and nothing goes there."""
    manager = manager_for(server)
    url = f"{server.url}/api/redirect?{urlencode({'to': f'{listener.url}/y'})}"
    answer = PAGES["call"](through(url), manager, Scheme.bearer())
    assert (answer.status, answer.headers.get("location")) == (307, f"{listener.url}/y")
    assert listener.heard == []


def test_what_is_refused_for_good(listener: Listener, through: Through) -> None:
    """A refused fresh token is the answer, after one replay; a login that is over is raised, and nothing is sent."""
    listener.respond = lambda _heard, _before: REFUSED
    manager = counting_manager()
    assert PAGES["call"](through(f"{listener.url}/x"), manager, Scheme.bearer()).status == 401
    assert listener.tokens == ["t1", "t2"]
    manager.logout()
    with pytest.raises(LoginRequired):
        PAGES["call"](through(f"{listener.url}/x"), manager, Scheme.bearer())
    assert len(listener.heard) == 2


def test_the_loop_is_eight_lines() -> None:
    """The page says eight."""
    (loop,) = (node for node in ast.parse(blocks(PAGE)[0]).body if isinstance(node, ast.FunctionDef))
    assert loop.end_lineno is not None
    assert loop.end_lineno - loop.lineno + 1 <= 8
