"""Every adapter that the suite runs over. A new one is added here."""

from __future__ import annotations

import httpx
import httpx2

import unexpired.clients.httpx
import unexpired.clients.httpx2
from tests.clients.contract.aiohttp_like import Aiohttp
from tests.clients.contract.fitting import Fitting, Row
from tests.clients.contract.grpc_like import GRPC
from tests.clients.contract.httpx_like import HttpxLike
from tests.clients.contract.pyreqwest_like import Pyreqwest
from tests.clients.contract.requests_like import Requests
from tests.clients.contract.urllib3_like import Urllib3
from tests.clients.sockets import WEBSOCKETS

FITTINGS: tuple[Fitting, ...] = (
    HttpxLike(httpx2, unexpired.clients.httpx2),
    HttpxLike(httpx, unexpired.clients.httpx),
    Requests(),
    Aiohttp(),
    Urllib3(),
    Pyreqwest(),
)
"""Those that speak plain HTTP: all tests of the suite are theirs, unless a test names another row."""
ROWS: tuple[Row, ...] = (*FITTINGS, WEBSOCKETS, GRPC)
"""All rows of the matrix."""
