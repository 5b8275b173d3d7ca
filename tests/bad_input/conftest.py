"""Bad input comes through the clients that `tests/clients` knows how to run."""

from __future__ import annotations

from tests.clients.conftest import _no_proxy, _one_server, mode, server

__all__ = ["_no_proxy", "_one_server", "mode", "server"]
