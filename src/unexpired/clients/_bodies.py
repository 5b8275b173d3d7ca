"""Request bodies that are made anew for each sending, for all adapters."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from threading import Lock
from typing import Any, BinaryIO, cast

import anyio.to_thread

from unexpired.clients._exchange import kind_of
from unexpired.errors import ConfigurationError

__all__ = ["AsyncFactory", "Factory", "SyncFactory"]

_BLOCK = 65536


class Factory:
    """What both kinds of body factories are."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        if not callable(factory):
            raise ConfigurationError(
                f"a BodyFactory takes a function that makes the body anew, not {kind_of(factory)}: "
                'BodyFactory(lambda: open(path, "rb"))'
            )
        self._factory = factory


def _is_file(body: object) -> bool:
    return hasattr(body, "read") and hasattr(body, "__exit__")


class SyncFactory(Factory):
    """A body that is made anew for each sending, in a blocking client."""

    def __init__(self, factory: Callable[[], Iterable[bytes]]) -> None:
        super().__init__(factory)

    def __iter__(self) -> Iterator[bytes]:
        body = self._factory()
        if not isinstance(body, Iterable):
            raise ConfigurationError("the factory of a BodyFactory must return an iterable of bytes")
        if not _is_file(cast("object", body)):
            yield from cast("Iterable[bytes]", body)
            return
        # By blocks and not by lines, and closed: it was opened for this sending.
        with cast("BinaryIO", body) as file:
            while block := file.read(_BLOCK):
                yield block


class _Elsewhere:
    """A file that is read in threads, because a disk may be slow and the loop serves others.

    Closing waits for nothing, so that it also works where a client drops the body: whoever reads then closes it.
    """

    def __init__(self, file: BinaryIO) -> None:
        self._file: BinaryIO | None = file
        self._reading = Lock()
        self._over = False

    def block(self) -> bytes:
        """The next block, read on this thread."""
        with self._reading:
            block = b"" if self._file is None else self._file.read(_BLOCK)
        if self._over:
            self.close()
        return block

    def close(self) -> None:
        """Close the file: at once, or when the read under way is over."""
        self._over = True
        if self._reading.acquire(blocking=False):
            file, self._file = self._file, None
            self._reading.release()
            if file is not None:
                file.__exit__(None, None, None)


class AsyncFactory(Factory):
    """The same in an asynchronous client."""

    def __init__(self, factory: Callable[[], Iterable[bytes] | AsyncIterable[bytes]]) -> None:
        super().__init__(factory)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._factory()
        if isinstance(body, AsyncIterable):
            async for chunk in cast("AsyncIterable[bytes]", body):
                yield chunk
        elif _is_file(body):
            file = _Elsewhere(cast("BinaryIO", body))
            try:
                while block := await anyio.to_thread.run_sync(file.block, abandon_on_cancel=True):
                    yield block
            finally:
                file.close()
        elif isinstance(body, Iterable):
            for chunk in cast("Iterable[bytes]", body):
                yield chunk
        else:
            raise ConfigurationError("the factory of an AsyncBodyFactory must return an iterable of bytes")
