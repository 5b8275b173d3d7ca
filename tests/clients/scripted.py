"""An API in memory whose answers come in the very pieces that a test wants."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

from tests.clients.modes import Mode
from unexpired import Session, TokenManager
from unexpired.grants import FunctionGrant
from unexpired.stores import MemoryStore

JSON = {"content-type": "application/json"}
# trio tells of generators that httpx2 and httpx leave behind, without us too, whenever a download is given up
left_behind = pytest.mark.filterwarnings(
    "ignore:.*async_generator object (PoolByteStream|(Async)?HTTP11Connection|AsyncResponseStream|Pieces)"
    ":pytest.PytestUnraisableExceptionWarning"
)


class Pieces(httpx2.SyncByteStream, httpx2.AsyncByteStream, httpx.SyncByteStream, httpx.AsyncByteStream):
    """A body in pieces, for either library; it knows whether it was closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces
        self.closed = False

    def __iter__(self) -> Iterator[bytes]:
        yield from self.pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self.pieces:
            yield piece

    def close(self) -> None:
        """Closed by a blocking client."""
        self.closed = True

    async def aclose(self) -> None:
        """Closed by an asynchronous client."""
        self.closed = True


class Steps:
    """An async iterator that is no generator."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = iter(pieces)

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        for piece in self.pieces:
            return piece
        raise StopAsyncIteration


class Stepwise(httpx2.AsyncByteStream, httpx.AsyncByteStream):
    """A body for tasks whose iterator cannot be closed."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self.pieces = pieces

    def __aiter__(self) -> AsyncIterator[bytes]:
        return Steps(self.pieces)


class Script:
    """Answers each request with the next of *answers*: status, headers, pieces. Remembers what it was asked."""

    def __init__(self, *answers: tuple[int, dict[str, str], Any]) -> None:
        self.answers = [
            (status, headers, body if isinstance(body, httpx2.AsyncByteStream) else Pieces(body))
            for status, headers, body in answers
        ]
        self.requests: list[Any] = []
        self.meanwhile: Callable[[int], object] = lambda _: None

    def __call__(self, request: Any) -> Any:
        """The next answer, before which something may happen `meanwhile`: it is told how many were asked for."""
        self.requests.append(request)
        self.meanwhile(len(self.requests))
        status, headers, body = self.answers[len(self.requests) - 1]
        library = httpx2 if isinstance(request, httpx2.Request) else httpx
        response: Any = library.Response(status, headers=headers, stream=body)
        return response

    def transport(self, mode: Mode) -> Any:
        """A transport of *mode*'s library that is answered by this script."""
        return mode.library.client.MockTransport(self)

    @property
    def closed(self) -> list[bool]:
        """Whether each answer's body was closed."""
        return [isinstance(body, Pieces) and body.closed for _, _, body in self.answers]

    @property
    def tokens(self) -> list[str | None]:
        """What each request carried in its Authorization header."""
        return [request.headers.get("authorization") for request in self.requests]


def counting_manager(**options: Any) -> TokenManager:
    """A manager whose tokens are called t1, t2 and so on."""

    def refresh(session: Session) -> dict[str, Any]:
        return {"access_token": f"t{session.version + 1}", "refresh_token": f"r{session.version + 1}"}

    settings: dict[str, Any] = {"store": MemoryStore(), "key": "alice"} | options
    manager = TokenManager(FunctionGrant(refresh), **settings)
    manager.login({"access_token": "t1", "refresh_token": "r1"})
    return manager


def cut(body: bytes, size: int) -> list[bytes]:
    """*body* in pieces of *size*."""
    return [body[at : at + size] for at in range(0, len(body), size)]


def until(told: Callable[[], bool], first: bytes, second: bytes) -> Iterator[bytes]:
    """Two pieces, the second of which must not be asked for before the first was handed on."""
    yield first
    assert told(), "the first piece was held back"
    yield second
