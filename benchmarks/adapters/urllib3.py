"""urllib3: `TokenPool`, in the place of a pool manager."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import urllib3

from benchmarks.rig import CONNECTIONS, HEADER, NOWHERE, Adapter, Opened, Tokens
from unexpired import TokenManager
from unexpired.clients.urllib3 import TokenPool

__all__ = ["ADAPTERS"]


class _Constant(urllib3.PoolManager):
    """Sends on by another one, with the header."""

    def __init__(self, inner: urllib3.PoolManager) -> None:
        super().__init__()
        self._inner = inner

    def urlopen(  # type: ignore[override]  # as that of PoolManager itself
        self, method: str, url: str, redirect: bool = True, **kw: Any
    ) -> urllib3.BaseHTTPResponse:
        kw["headers"] = {**(kw.get("headers") or self.headers), "Authorization": HEADER}
        return self._inner.urlopen(method, url, redirect, **kw)


class _Connections(urllib3.HTTPConnectionPool):
    """Answers at once."""

    def urlopen(self, *_: Any, **__: Any) -> urllib3.BaseHTTPResponse:
        return urllib3.HTTPResponse(b"{}", status=200)


class _Answering(urllib3.PoolManager):
    """Has connections to nowhere."""

    def __init__(self) -> None:
        super().__init__()
        self._only = _Connections("api.test")

    def connection_from_host(self, *_: Any, **__: Any) -> urllib3.HTTPConnectionPool:
        return self._only


def _open(tokens: Tokens, address: str | None) -> Opened:
    def call(manager: TokenManager | None) -> Callable[[], int]:
        pool = TokenPool(manager, None, wire) if manager else _Constant(wire)
        return lambda: pool.request("GET", address or NOWHERE).status

    wire = urllib3.PoolManager(maxsize=CONNECTIONS, timeout=30) if address else _Answering()
    return Opened({name: call(manager) for name, manager in tokens.items()}, wire.clear)


ADAPTERS = [Adapter("urllib3 pool", True, _open, "a pool manager around another one")]
