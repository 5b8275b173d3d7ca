"""Request bodies that are made anew for each sending, for all adapters."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

import anyio.to_thread

from unexpired.clients._exchange import kind_of
from unexpired.errors import ConfigurationError

__all__ = ["AsyncFactory", "Factory", "SyncFactory"]

_BLOCK = 65536
_BLOCK_OF_TASKS = 4 * _BLOCK


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
        if not _is_file(body):
            yield from cast("Iterable[bytes]", body)
            return
        # By blocks and not by lines, and closed: it was opened for this sending.
        with cast("BinaryIO", body) as file:
            while block := file.read(_BLOCK):
                yield block


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
            # In a thread, because a disk may be slow and the loop serves others.
            with cast("BinaryIO", body) as file:
                while block := await anyio.to_thread.run_sync(file.read, _BLOCK_OF_TASKS):
                    yield block
        elif isinstance(body, Iterable):
            for chunk in cast("Iterable[bytes]", body):
                yield chunk
        else:
            raise ConfigurationError("the factory of an AsyncBodyFactory must return an iterable of bytes")
