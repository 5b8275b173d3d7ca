"""Every adapter that the suite runs over. A new one is added here."""

from __future__ import annotations

import httpx
import httpx2

import unexpired.clients.httpx
import unexpired.clients.httpx2
from tests.clients.contract.fitting import Fitting, Row
from tests.clients.contract.httpx_like import HttpxLike
from tests.clients.contract.requests_like import Requests

FITTINGS: tuple[Fitting, ...] = (
    HttpxLike(httpx2, unexpired.clients.httpx2),
    HttpxLike(httpx, unexpired.clients.httpx),
    Requests(),
)
"""Those that speak plain HTTP: all tests of the suite are theirs, unless a test names another row."""
ROWS: tuple[Row, ...] = (*FITTINGS,)
"""All rows of the matrix."""
