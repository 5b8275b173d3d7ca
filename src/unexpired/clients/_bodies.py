"""Request bodies that are made anew for each sending, for all adapters."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from typing import Any, BinaryIO, cast

from unexpired.errors import ConfigurationError

__all__ = ["AsyncFactory", "Factory", "SyncFactory"]

_BLOCK = 65536


class Factory:
    """What both kinds of body factories are."""

    def __init__(self, factory: Callable[[], Any]) -> None:
        self._factory = factory


def _pieces(body: Iterable[bytes]) -> Iterator[bytes]:
    """*body* piece by piece; a file, which was opened for this sending, by blocks and not by lines, and closed."""
    if not (hasattr(body, "read") and hasattr(body, "__exit__")):
        yield from body
        return
    with cast("BinaryIO", body) as file:
        while block := file.read(_BLOCK):
            yield block


class SyncFactory(Factory):
    """A body that is made anew for each sending, in a blocking client."""

    def __init__(self, factory: Callable[[], Iterable[bytes]]) -> None:
        super().__init__(factory)

    def __iter__(self) -> Iterator[bytes]:
        body = self._factory()
        if not isinstance(body, Iterable):
            raise ConfigurationError("the factory of a BodyFactory must return an iterable of bytes")
        yield from _pieces(cast("Iterable[bytes]", body))


class AsyncFactory(Factory):
    """The same in an asynchronous client."""

    def __init__(self, factory: Callable[[], Iterable[bytes] | AsyncIterable[bytes]]) -> None:
        super().__init__(factory)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        body = self._factory()
        if isinstance(body, AsyncIterable):
            async for chunk in cast("AsyncIterable[bytes]", body):
                yield chunk
        elif isinstance(body, Iterable):
            for chunk in _pieces(cast("Iterable[bytes]", body)):
                yield chunk
        else:
            raise ConfigurationError("the factory of an AsyncBodyFactory must return an iterable of bytes")
