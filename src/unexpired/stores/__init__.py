"""Where sessions are kept. `Store` is what they all have in common; write your own by having its methods."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from urllib.parse import urlsplit

from unexpired._core.ports import HeldLease, Store
from unexpired.errors import ConfigurationError
from unexpired.stores.file import FileStore
from unexpired.stores.memory import MemoryStore

__all__ = ["FileStore", "HeldLease", "MemoryStore", "Store", "open_store"]

ENTRY_POINTS = "unexpired.stores"
"""The group of entry points in which other packages name their stores."""


def open_store(url: str) -> Store:
    """The store that *url* names. Nothing is read or written yet.

    ``file:<directory>`` or ``file:`` (this user's data directory), ``sqlite:<path>``, ``keyring:<directory>`` (files,
    sealed with a key from the system's key ring) and ``memory:``. Installed packages add others by an entry point in
    the group ``unexpired.stores``: its name is the scheme, its object a function from the URL to a store.

    Raises ConfigurationError for any other URL, and ModuleNotFoundError, naming the extra, where one is missing.
    """
    scheme, colon, rest = url.partition(":")
    rest = rest.removeprefix("//")
    if colon and scheme in _OPENERS:
        return _OPENERS[scheme](url, rest)
    for entry in entry_points(group=ENTRY_POINTS, name=scheme) if colon else ():
        store: object = entry.load()(url)
        if isinstance(store, Store):
            return store
        raise ConfigurationError(f"the entry point {entry.value!r} of {ENTRY_POINTS} gave no store for {scheme!r} URLs")
    # A URL may hold a password: only its scheme is shown.
    known = ", ".join(f"'{name}:'" for name in _OPENERS)
    raise ConfigurationError(f"no store is called {(urlsplit(url).scheme or url[:20])!r}: use one of {known}")


def _memory(url: str, rest: str) -> Store:
    if rest:
        raise ConfigurationError(f"{url!r} names no store: 'memory:' takes nothing after it")
    return MemoryStore()


def _file(_: str, rest: str) -> Store:
    return FileStore(rest or None)


def _sqlite(url: str, rest: str) -> Store:
    from unexpired.stores.sqlite import SQLiteStore  # noqa: PLC0415 - not needed by who keeps sessions elsewhere

    if not rest:
        raise ConfigurationError(f"{url!r} names no store: write 'sqlite:<path>'")
    return SQLiteStore(rest)


def _keyring(_: str, rest: str) -> Store:
    from unexpired.stores._keyring import key_from_keyring  # noqa: PLC0415 - needs the extra
    from unexpired.stores.sealed import Sealed  # noqa: PLC0415 - as above

    return Sealed(FileStore(rest or None), key_from_keyring())


_OPENERS: dict[str, Callable[[str, str], Store]] = {
    "file": _file,
    "keyring": _keyring,
    "memory": _memory,
    "sqlite": _sqlite,
}
