"""What the suite must know of an adapter: how to make a client that carries tokens, and how to send with it.

Everything here is asynchronous in form. In mode ``threads`` the client blocks, and its awaits never wait: `at_once`
runs such a coroutine to its end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Coroutine, Iterable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

from unexpired import Scheme, TokenManager

T = TypeVar("T")
MODES = ("threads", "asyncio", "trio")
POINTS = {
    1: "burst at known expiry",
    2: "burst at an expiry that only the server knows",
    3: "late refusals",
    4: "business code in a 200",
    5: "code for an invalid login",
    6: "the refresh fails, once and for good",
    7: "the leader is cancelled",
    8: "bodies of all kinds at a refusal",
    9: "downloads and event streams stay streams",
    10: "refused answers free their connections",
    11: "redirects",
    12: "opting out, and a resource per request",
    13: "the caller's own headers, query and cookies",
    14: "timeouts, proxies, retries and HTTP/2 of the client",
    15: "no token in the client's history, hooks and logs",
    16: "two managers on one client",
    17: "uploads bigger than memory",
}


@dataclass(frozen=True)
class Body:
    """What to send: *kind* says what *content* is."""

    kind: str
    """``json``, ``form``, ``multipart``, ``bytes``, ``file`` (a path) or ``generator`` (a function that makes one)."""
    content: Any


@dataclass(frozen=True)
class Ask:
    """One request in no client's words."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    params: Mapping[str, str] = field(default_factory=dict)
    cookies: Mapping[str, str] = field(default_factory=dict)
    body: Body | None = None
    authenticated: bool = True
    resource: str | None = None


@dataclass(frozen=True)
class Reply:
    """One response, read."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    url: str
    shown: tuple[Any, ...]
    """Every object that the client hands to its caller: the response, its history, their requests."""
    held: str
    """All that these objects hold, spelled out: addresses and headers."""


@dataclass(frozen=True)
class Streaming:
    """One response that is not read yet."""

    status: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True)
class Setup:
    """What a test wants of a client."""

    manager: TokenManager
    scheme: Scheme | None = None
    others: Mapping[str, TokenManager] = field(default_factory=dict)
    """Further managers, each for one origin."""
    follow_redirects: bool = False
    connections: int | None = None
    """The most connections at a time; who waits for one longer than 10 seconds gets an error."""
    timeout: float = 20.0
    retries: int = 0
    """How often the client itself tries again, in the way that it has for that."""
    proxy: str | None = None
    http2: bool = False
    """Speak HTTP/2, from the first byte where the address is not https."""
    noted: list[Any] | None = None
    """Takes whatever the client hands to the caller's hooks."""


class Row:
    """What the matrix must know of an adapter. Those that do not speak plain HTTP have tests of their own."""

    name: str
    idioms: tuple[str, ...] = ("auth", "transport")
    """The ways in which the client can be given tokens."""
    modes: tuple[str, ...] = MODES
    without: ClassVar[Mapping[str, str]] = {}
    """The modes that the client does not have, each with the reason."""
    exempt: ClassVar[Mapping[str, str]] = {}
    """Tests that cannot hold for this client, although others of their point do: their names, and its own limits."""

    one_at_a_time: ClassVar[Mapping[str, str]] = {}
    """The modes in which callers must not be on one HTTP/2 connection at a time, each with its client's limit."""

    def not_applicable(self, point: int, idiom: str, mode: str) -> str | None:  # noqa: ARG002 - for those that have some
        """Give the client's own limit because of which there is no such cell."""
        return None


class Fitting(Row, ABC):
    """One adapter as the suite uses it."""

    places: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "auth": ("header",),
        "transport": ("header", "custom", "query", "cookie"),
    }
    """Where a token may be put, for each idiom."""
    discreet: tuple[str, ...] = ("transport",)
    """The idioms that keep the token off the client's own objects; the others may hold one, and never show it."""
    timeout_error: type[BaseException]
    connect_error: type[BaseException]

    @abstractmethod
    def client(self, cell: Cell, setup: Setup) -> AbstractAsyncContextManager[Any]:
        """Make a client that carries tokens, and close it at the end."""

    @abstractmethod
    async def send(self, client: Any, ask: Ask) -> Reply:
        """Send one request and read its answer."""

    @abstractmethod
    def stream(self, client: Any, ask: Ask) -> AbstractAsyncContextManager[Streaming]:
        """Send one request whose answer is not read in advance."""


@dataclass(frozen=True)
class Cell:
    """One square of the matrix, but for its point."""

    row: Row
    idiom: str
    mode: str

    @property
    def fitting(self) -> Fitting:
        """How to use the adapter, if it speaks HTTP."""
        assert isinstance(self.row, Fitting)
        return self.row

    def at_once(self, callers: int) -> int:
        """How many of *callers* may be on one HTTP/2 connection at the same moment."""
        return 1 if self.mode in self.row.one_at_a_time else callers

    @property
    def blocking(self) -> bool:
        """Whether callers are threads."""
        return self.mode == "threads"

    def __str__(self) -> str:
        return f"{self.row.name}-{self.idiom}-{self.mode}"


def cells(rows: Iterable[Row], point: int, modes: tuple[str, ...] = MODES, test: str = "") -> list[Cell]:
    """All cells of a point that there can be, for one of its tests."""
    return [
        Cell(row, idiom, mode)
        for row in rows
        for idiom in row.idioms
        for mode in row.modes
        if mode in modes and test not in row.exempt and row.not_applicable(point, idiom, mode) is None
    ]


def at_once(work: Coroutine[Any, Any, T]) -> T:
    """What a coroutine that never waits returns."""
    try:
        work.send(None)
    except StopIteration as stop:
        result: T = stop.value
        return result
    work.close()
    raise AssertionError("a blocking client made its caller await something")
