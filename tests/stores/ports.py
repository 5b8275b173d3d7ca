"""Ports for the servers of tests."""

from __future__ import annotations

import errno
import random
import socket

__all__ = ["free_port"]

_PORTS = range(10240, 22000)
"""Below those that the system gives to connections and to whoever asks for any, as is a cluster's bus: port + 10000."""
_BUS = 10000
_CHANCE = random.SystemRandom()
"""Of its own: pytest-randomly seeds the other one for each test, with the same seed in all processes."""


def free_port() -> int:
    """A port that nobody uses, of which that of a cluster's bus is free, too."""
    while True:
        port = _CHANCE.choice(_PORTS)
        if _is_free(port) and _is_free(port + _BUS):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as one:
        try:
            one.bind(("", port))
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            return False
    return True
