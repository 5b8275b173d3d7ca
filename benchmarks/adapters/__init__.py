"""Every adapter as the benchmarks use it: a client with tokens, the same with a constant header, and how to call it.

A new one is a file here and a name in `ADAPTERS`.
"""

from __future__ import annotations

from benchmarks.adapters import aiohttp, grpc, httpx_like, pyreqwest, requests, urllib3
from benchmarks.rig import Adapter

__all__ = ["ADAPTERS"]

ADAPTERS: tuple[Adapter, ...] = (
    *httpx_like.ADAPTERS,
    *requests.ADAPTERS,
    *urllib3.ADAPTERS,
    *aiohttp.ADAPTERS,
    *pyreqwest.ADAPTERS,
    *grpc.ADAPTERS,
)
