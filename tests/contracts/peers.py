"""How a child process opens a store that takes more than texts."""

from __future__ import annotations

from importlib import import_module

from unexpired.stores import PostgresStore, RedisStore, Sealed, Store


def sealed(key: str, opener: str, *arguments: str) -> Store:
    """What *opener* opens, sealed with *key* in hexadecimal."""
    module, _, function = opener.partition(":")
    store: Store = getattr(import_module(module), function)(*arguments)
    return Sealed(store, bytes.fromhex(key))


def redis_store(url: str, prefix: str) -> Store:
    """Redis under a prefix."""
    return RedisStore(url, prefix=prefix)


def postgres_store(url: str, schema: str) -> Store:
    """PostgreSQL in a schema."""
    return PostgresStore(url, schema=schema)
