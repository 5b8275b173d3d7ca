"""requests: `TokenAuth`, and `TokenAdapter`, which sends copies."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import requests
from requests.adapters import BaseAdapter, HTTPAdapter
from requests.auth import AuthBase

from benchmarks.rig import CONNECTIONS, HEADER, NOWHERE, Adapter, Opened, Tokens
from unexpired import TokenManager
from unexpired.clients.requests import TokenAdapter, TokenAuth

__all__ = ["ADAPTERS"]


class _ConstantAuth(AuthBase):
    def __call__(self, r: requests.PreparedRequest) -> requests.PreparedRequest:
        r.headers["Authorization"] = HEADER
        return r


class _ConstantAdapter(BaseAdapter):
    def __init__(self, inner: BaseAdapter) -> None:
        super().__init__()
        self._inner = inner

    def send(self, request: requests.PreparedRequest, *args: Any, **settings: Any) -> requests.Response:
        dressed = request.copy()
        dressed.headers["Authorization"] = HEADER
        response = self._inner.send(dressed, *args, **settings)
        response.request = request
        return response

    def close(self) -> None:
        self._inner.close()


class _Answering(BaseAdapter):
    """Answers at once."""

    def send(self, request: requests.PreparedRequest, *_: Any, **__: Any) -> requests.Response:
        response = requests.Response()
        response.status_code, response._content = 200, b"{}"
        response.request, response.url = request, str(request.url)
        return response

    def close(self) -> None:
        """Nothing is open."""


def _open(idiom: str, tokens: Tokens, address: str | None) -> Opened:
    def call(manager: TokenManager | None) -> Callable[[], int]:
        session, adapter = requests.Session(), wire
        session.trust_env = False
        if idiom == "auth":
            session.auth = TokenAuth(manager) if manager else _ConstantAuth()
        else:
            adapter = TokenAdapter(manager, None, wire) if manager else _ConstantAdapter(wire)
        session.mount("http://", adapter)
        return lambda: session.get(address or NOWHERE, timeout=30).status_code

    wire: BaseAdapter = HTTPAdapter(pool_maxsize=CONNECTIONS) if address else _Answering()
    return Opened({name: call(manager) for name, manager in tokens.items()}, wire.close)


ADAPTERS = [
    Adapter("requests auth", True, partial(_open, "auth"), "an auth object"),
    Adapter("requests adapter", True, partial(_open, "adapter"), "an adapter that sends copies"),
]
