"""The embedded authorization server and API on an address of one's own: `python -m tests.fleet.issuer <address>`.

Says its URL on one line, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

from unexpired.testing import ServerConfig
from unexpired.testing._connection import Listener
from unexpired.testing.app import ServerApp


async def main(host: str) -> None:
    """Serve until who started it is gone."""
    # So that those who come a little later still meet a redemption under way.
    listener = Listener(ServerApp(ServerConfig(refresh_latency=0.02)), None)
    port = await listener.start(host, 0)
    print(json.dumps({"url": f"http://{host}:{port}", "pid": os.getpid()}), flush=True)  # noqa: T201 - how it speaks
    await asyncio.to_thread(sys.stdin.read)
    await listener.stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
