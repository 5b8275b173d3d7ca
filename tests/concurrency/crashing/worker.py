"""One process of the sweep: `python -m tests.concurrency.crashing.worker <url> <directory> <mode> <grace> <callers>`.

Its callers make API calls all the time. Each says one JSON line whenever what comes of them changes: that it is
served with another access token (by its fingerprint), or what it gets instead.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from pathlib import Path

import anyio
import httpx2

from tests.clients.modes import Api, Job, Mode, grant_for
from tests.concurrency.crashing.points import Trap
from unexpired import LoginRequired, TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle
from unexpired.testing._ledger import fingerprint

PAUSE = 0.02
"""Seconds between two calls of one caller: they share two processors with the server and with each other."""


def caller(number: int) -> Job:
    """A caller that never stops."""

    async def calls(api: Api) -> None:
        said: tuple[str, str] | None = None
        while True:
            outcome = await _one_call(api, number)
            if outcome != said:
                said = outcome
                os.write(1, (json.dumps([number, *outcome]) + "\n").encode())
            if isinstance(api.client, httpx2.Client):
                time.sleep(PAUSE)  # noqa: ASYNC251 - this client's callers are threads
            else:
                await anyio.sleep(PAUSE)

    return calls


async def _one_call(api: Api, number: int) -> tuple[str, str]:
    try:
        response = await api.get(f"/api/x?n={number}")
    except LoginRequired as error:
        return "told", error.reason
    except Exception as error:  # noqa: BLE001 - an outcome too
        return "failed", type(error).__name__
    if response.status_code != 200 or response.json()["n"] != str(number):
        return "failed", str(response.status_code)
    return "served", fingerprint(response.request.headers["Authorization"].removeprefix("Bearer "))


def main(url: str, directory: Path, mode: Mode, grace: float, callers: int) -> None:
    """Call until killed."""
    logging.getLogger("unexpired").addHandler(logging.NullHandler())  # a login that ends is expected here
    server = ServerHandle(url, 0)
    Trap(directory, server).set()
    manager = TokenManager(grant_for(server, reuse_grace=grace), store=FileStore(directory / "sessions"), key="alice")
    options = mode.options(manager, "auth", base_url=url, timeout=30.0)
    mode.start(options, [caller(number) for number in range(callers)]).result()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Mode(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
