"""Looking at answers, for all adapters: how much of a body a judgement takes, and what of a refused one is read."""

from __future__ import annotations

import time
from typing import Any

from unexpired._core.scheme import Scheme
from unexpired._core.sniff import Sniffer

__all__ = ["WORTH_WAITING", "Intake", "is_encoded", "sniffer_for"]

WORTH_WAITING = 1.0
"""Seconds that the rest of a refused answer is waited for, so that its connection is used again."""
_WORTH_READING = 65536


def sniffer_for(scheme: Scheme, status: int, headers: Any, method: str, *, decoded: bool = False) -> Sniffer | None:
    """What judges the body of this answer; None when status and headers say all. *decoded*: its pieces come unpacked.

    *headers* has a ``get`` that ignores case.
    """
    length = headers.get("content-length") or ""
    # Of more digits than any body has, Python would refuse to make a number.
    size = int(length[:18]) if length.isascii() and length.isdigit() else None
    if not scheme.wants_body(status, headers.get("content-type"), size, method):
        return None
    return Sniffer(scheme, status, headers, encoded=not decoded and is_encoded(headers))


def is_encoded(headers: Any) -> bool:
    """Whether the body is packed (RFC 9110 §8.4)."""
    return (headers.get("content-encoding") or "identity").strip().lower() != "identity"


class Intake:
    """How much of a refused answer is worth reading, so that its connection is used again: 64 KiB, in a second."""

    __slots__ = ("_size", "_until")

    def __init__(self) -> None:
        self._size = 0
        self._until = time.monotonic() + WORTH_WAITING

    def enough(self, chunk: bytes) -> bool:
        """Whether to stop after *chunk*."""
        self._size += len(chunk)
        return self._size > _WORTH_READING or time.monotonic() > self._until
