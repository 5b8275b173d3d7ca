"""Where sessions are kept. `Store` is what they all have in common; write your own by having its methods."""

from __future__ import annotations

from unexpired._core.ports import HeldLease, Store
from unexpired.errors import ConfigurationError
from unexpired.stores.file import FileStore
from unexpired.stores.memory import MemoryStore

__all__ = ["FileStore", "HeldLease", "MemoryStore", "Store", "open_store"]


def open_store(url: str) -> Store:
    """The store that *url* names: ``file:<directory>``, ``file:`` (this user's data directory) or ``memory:``.

    Raises ConfigurationError for any other URL. Nothing is read or written yet.
    """
    scheme, colon, rest = url.partition(":")
    if colon and scheme == "memory" and not rest:
        return MemoryStore()
    if colon and scheme == "file":
        return FileStore(rest.removeprefix("//") or None)
    raise ConfigurationError(f"no store is called {url!r}: use 'file:<directory>', 'file:' or 'memory:'")
