"""An embedded authorization server and API with the faults of real ones, for programs that refresh tokens.

    with running_server(ServerConfig(refresh_latency=0.1)) as server:
        answer = server.login()
        ...
        assert server.stats().refreshes == 1

Needs the extra `testing`: `pip install 'unexpired[testing]'`.
"""

from __future__ import annotations

from unexpired.testing._api_faults import API_FAULT_KINDS
from unexpired.testing._config import ServerConfig
from unexpired.testing._handle import ServerHandle
from unexpired.testing._ledger import LoggedRedemption, ServerEvent, Stats
from unexpired.testing.faults import FAULT_KINDS
from unexpired.testing.running import running_server, server_process
from unexpired.testing.server import AuthorizationServer

__all__ = [
    "API_FAULT_KINDS",
    "FAULT_KINDS",
    "AuthorizationServer",
    "LoggedRedemption",
    "ServerConfig",
    "ServerEvent",
    "ServerHandle",
    "Stats",
    "running_server",
    "server_process",
]
