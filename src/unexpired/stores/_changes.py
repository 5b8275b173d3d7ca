"""A small file of random numbers that tells all processes, without a lock, whether a record may have changed.

Each record has a place with two numbers. Who is about to commit a change writes a new number into the first; when the
commit is over, the same into the second. Two equal numbers are therefore a stamp; two different ones say "ask the
database": a commit is under way, or its writer died in the middle. In no order of events, crashes included, do two
equal numbers stay what they were although something was committed.
"""

from __future__ import annotations

import os
import zlib
from contextlib import suppress

from unexpired.errors import StoreError
from unexpired.stores import _private

__all__ = ["Changes", "place_of_key"]

_PLACES = 4096
_NUMBER = 8
_FLAGS = os.O_RDWR | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)


def place_of_key(name: bytes) -> int:
    """Where the numbers of a record are. Records that share a place cost each other a look at the database."""
    return zlib.crc32(name) % _PLACES * 2 * _NUMBER


class Changes:
    """The file as one process has it open; closed when nobody uses it any more."""

    def __init__(self, path: str, key: str) -> None:
        self.descriptor = -1
        try:
            self.descriptor = os.open(path, _FLAGS)
            found = os.fstat(self.descriptor)
        except OSError as error:
            raise _private.trouble("open", path, error, key) from error
        _private.check(found, path, key)
        self.inode = found.st_ino
        self._path = path

    def __del__(self) -> None:
        if self.descriptor >= 0:
            with suppress(OSError):
                os.close(self.descriptor)

    @staticmethod
    def make(path: str, key: str) -> None:
        """Put a new file at *path*, with other numbers than any before it. Only one caller at a time may."""
        numbers = (os.urandom(_NUMBER) for _ in range(_PLACES))
        _private.replace(path, b"".join(number + number for number in numbers), key)

    def begin(self, place: int, key: str) -> bytes:
        """Say that the record at *place* is about to change; the number is for `end`. Raises StoreError."""
        number = os.urandom(_NUMBER)
        try:
            written = os.pwrite(self.descriptor, number, place)
        except OSError as error:
            raise _private.trouble("write", self._path, error, key) from error
        if written != _NUMBER:
            raise StoreError(f"cannot write {self._path}: no space is left; free some there", key=key)
        return number

    def end(self, place: int, number: bytes) -> None:
        """Say that the change is committed. If that fails, everybody goes on asking the database."""
        with suppress(OSError):
            os.pwrite(self.descriptor, number, place + _NUMBER)
