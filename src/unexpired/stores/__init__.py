"""Where sessions are kept. `Store` is what they all have in common; write your own by having its methods."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import partial
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import urlsplit

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode_session, encode_session
from unexpired.errors import ConfigurationError, UnexpiredError, place_of
from unexpired.stores.file import FileStore
from unexpired.stores.memory import MemoryStore

if TYPE_CHECKING:
    from unexpired.stores.migrating import migrate
    from unexpired.stores.postgres import PostgresStore
    from unexpired.stores.redis import RedisStore
    from unexpired.stores.sealed import Sealed
    from unexpired.stores.sqlite import SQLiteStore

__all__ = [
    "FileStore",
    "HeldLease",
    "MemoryStore",
    "PostgresStore",
    "RedisStore",
    "SQLiteStore",
    "Sealed",
    "Store",
    "decode_session",
    "encode_session",
    "migrate",
    "open_store",
]

_ENTRY_POINTS = "unexpired.stores"
"""The group of entry points in which other packages name their stores."""

# Loaded when they are first asked for: some need packages that not everybody has.
_LATER = {
    "PostgresStore": "postgres",
    "RedisStore": "redis",
    "SQLiteStore": "sqlite",
    "Sealed": "sealed",
    "migrate": "migrating",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
    return found


def open_store(url: str) -> Store:
    """The store that *url* names. Nothing is read or written yet.

    ``file:<directory>`` or ``file:`` (this user's data directory), ``sqlite:<path>``, ``keyring:<directory>`` or
    ``keyring:`` (files, sealed with a key from the system's key ring) and ``memory:``. What follows is a path as it
    is, with or without ``//`` before it. ``redis://<host>:<port>/<database>``, with ``rediss:`` for TLS, is passed to
    redis-py as it is, and ``postgresql://<user>@<host>/<database>`` to psycopg. Installed packages add others by an
    entry point in the group ``unexpired.stores``: its name is the scheme in small letters, its object a function from
    the URL to a store.

    Raises ConfigurationError for any other URL, and for one that several packages would open; ModuleNotFoundError,
    naming the extra, where one is missing.
    """
    if not isinstance(cast("object", url), str):
        raise ConfigurationError(f"open_store takes a URL, such as 'file:/var/lib/crm', not {type(url).__name__}")
    # A URL may hold a password: no more than its scheme is ever shown.
    scheme, colon, rest = url.partition(":")
    scheme = scheme.lower() if colon else ""
    if "\0" in url:
        raise ConfigurationError("the URL of a store holds a NUL character")
    if scheme in ("file", "sqlite", "keyring") and rest.lower().startswith("//localhost/"):
        raise ConfigurationError(f"'{scheme}:' takes a path as it is, and no machine before it: {scheme}:/var/lib/crm")
    if scheme in _OPENERS:
        return _OPENERS[scheme](rest.removeprefix("//"))
    # The same package may be found twice on the path.
    entries = {entry.value: entry.load for entry in entry_points(group=_ENTRY_POINTS, name=scheme)} if scheme else {}
    if len(entries) == 1:
        return _entered(*entries.popitem(), url)
    if entries:
        raise ConfigurationError(
            f"several packages add {scheme!r} ({', '.join(sorted(entries))}): uninstall all but one"
        )
    known = ", ".join(f"'{name}:'" for name in _OPENERS)
    what = f"no store is called {scheme!r}" if scheme.isidentifier() else "this is no URL of a store"
    raise ConfigurationError(f"{what}: use one of {known}, or install a package that adds it")


def _entered(name: str, load: Callable[[], Any], url: str) -> Store:
    try:
        store: object = load()(url)
    except (UnexpiredError, ModuleNotFoundError):
        raise
    except Exception as error:  # noqa: BLE001 - it is anybody's code, whose words could hold the URL
        raise ConfigurationError(f"the entry point {name!r} of {_ENTRY_POINTS} raised {place_of(error)}") from None
    if isinstance(store, Store):
        return store
    raise ConfigurationError(f"the entry point {name!r} of {_ENTRY_POINTS} gave no store")


def _memory(rest: str) -> Store:
    if rest:
        raise ConfigurationError("'memory:' takes nothing after it")
    return MemoryStore()


def _file(rest: str) -> Store:
    return FileStore(rest or None)


def _sqlite(rest: str) -> Store:
    from unexpired.stores.sqlite import SQLiteStore  # noqa: PLC0415 - not needed by who keeps sessions elsewhere

    if not rest:
        raise ConfigurationError("'sqlite:' names no file: write 'sqlite:<path>'")
    return SQLiteStore(rest)


def _keyring(rest: str) -> Store:
    from unexpired.stores.sealed import Sealed, key_from_keyring  # noqa: PLC0415 - needs the extra

    return Sealed(FileStore(rest or None), key_from_keyring())


def _redis(scheme: str, rest: str) -> Store:
    from unexpired.stores.redis import RedisStore  # noqa: PLC0415 - needs the extra

    database = ""
    with suppress(ValueError):  # what is no URL at all, redis-py tells
        database = urlsplit(f"//{rest}").path.strip("/")
    if database and not database.isdecimal():  # redis-py would take database 0
        raise ConfigurationError(f"'{scheme}:' takes the number of a database after the host, such as '/0'")
    return RedisStore(f"{scheme}://{rest}")


def _postgres(scheme: str, rest: str) -> Store:
    from unexpired.stores.postgres import PostgresStore  # noqa: PLC0415 - needs the extra

    return PostgresStore(f"{scheme}://{rest}")


_OPENERS: dict[str, Callable[[str], Store]] = {
    "file": _file,
    "keyring": _keyring,
    "memory": _memory,
    "postgres": partial(_postgres, "postgres"),
    "postgresql": partial(_postgres, "postgresql"),
    "redis": partial(_redis, "redis"),
    "rediss": partial(_redis, "rediss"),
    "sqlite": _sqlite,
}
