"""The adapters that the suite runs over in this environment: all but niquests, or niquests and what shares urllib3."""

from __future__ import annotations

import importlib.util

from tests.clients.contract.fitting import Fitting, Row

FITTINGS: tuple[Fitting, ...]
"""Those that speak plain HTTP: all tests of the suite are theirs, unless a test names another row."""
ROWS: tuple[Row, ...]
"""All rows of the matrix."""
ELSEWHERE: str
"""What is printed below the matrix of those that are not in it."""

LEFT_OUT: tuple[str, ...] = ()
"""The files with tests of rows that are not in it."""

BESIDE_NIQUESTS = importlib.util.find_spec("niquests") is not None
"""niquests puts urllib3-future in the place of urllib3: it has an environment of its own (`make test-niquests`)."""

if BESIDE_NIQUESTS:
    from tests.clients.contract.niquests_like import Niquests
    from tests.clients.contract.requests_like import Requests
    from tests.clients.contract.urllib3_like import Urllib3

    FITTINGS = (Niquests(), Requests(), Urllib3())
    ROWS = FITTINGS
    LEFT_OUT = ("test_grpc*", "test_websockets*")
    ELSEWHERE = "niquests, and requests and urllib3 over its urllib3-future: the other clients have the run without it"
else:
    from tests.clients.contract import fittings

    FITTINGS, ROWS = fittings.FITTINGS, fittings.ROWS
    ELSEWHERE = "niquests takes the place of urllib3 in its environment: its rows are in `make test-niquests`"
