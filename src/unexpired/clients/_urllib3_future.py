"""What urllib3-future, which niquests puts in the place of urllib3, has of an answer before anybody reads it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

__all__ = ["comes"]


def comes(source: Any, until: float, wait_for_read: Callable[[Any, float], bool]) -> bool:
    """Whether there is something to read before *until*, be it the end. Nothing is taken from the answer for it."""
    connection = getattr(source, "_connection", None)
    protocol, sock = getattr(connection, "_protocol", None), getattr(connection, "sock", None)
    if protocol is None or sock is None or protocol.has_pending_event(stream_id=source._fp._stream_id):
        return True
    pending = getattr(sock, "pending", None)
    return (pending is not None and pending() > 0) or wait_for_read(sock, max(0.0, until - time.monotonic()))
