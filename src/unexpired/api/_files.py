"""Files on their way up and down, counted."""

from __future__ import annotations

import os
import secrets
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from unexpired.api._showing import Progress

__all__ = ["Counted", "opened", "sink", "total_of"]


class Counted:
    """A file that tells how much of it has been read. Going back to its start, for a replay, starts the count anew.

    It has no descriptor, because that tells a wrong length of pipes and of files that decompress: what can be sought in
    is measured by that, what can not is sent in chunks.
    """

    def __init__(self, file: IO[bytes], progress: Progress | None) -> None:
        self._file = file
        self._progress = progress
        self._done = 0
        self._total = _size(file)

    def read(self, size: int = -1) -> bytes:
        """Read on, and tell."""
        chunk = self._file.read(size)
        self._done += len(chunk)
        if chunk and self._progress is not None:
            self._progress(self._done, self._total)
        return chunk

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a position, from where the count goes on."""
        at = self._file.seek(offset, whence)
        self._done = at
        return at

    def seekable(self) -> bool:
        """Whether it can be sent again."""
        return self._file.seekable()

    def tell(self) -> int:
        """Where it is."""
        return self._file.tell()


def _size(file: IO[bytes]) -> int | None:
    try:
        here = file.tell()
        size = file.seek(0, os.SEEK_END)
        file.seek(here)
    except (OSError, AttributeError):
        return None
    return size


@contextmanager
def opened(file: str | os.PathLike[str] | IO[bytes]) -> Generator[tuple[str, IO[bytes]]]:
    """A file by its path, closed afterwards, or one that is open already; and its name."""
    if isinstance(file, str | os.PathLike):
        with Path(file).open("rb") as mine:
            yield Path(file).name, mine
    else:
        name = getattr(file, "name", "")
        yield Path(name).name if isinstance(name, str) and name else "file", file


@contextmanager
def sink(target: str | os.PathLike[str] | IO[bytes]) -> Generator[IO[bytes]]:
    """Where a download goes. A path gets the file when it is whole; what broke off leaves nothing behind."""
    if not isinstance(target, str | os.PathLike):
        yield target
        return
    path = Path(target)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        with part.open("wb") as file:
            yield file
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def total_of(headers: Any) -> int | None:
    """The length that an answer states, if it is the length of what arrives."""
    length = headers.get("content-length", "")
    return int(length) if length.isascii() and length.isdigit() and "content-encoding" not in headers else None
