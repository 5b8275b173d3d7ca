"""A PostgreSQL for the tests of one file, and stores of a schema of one test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import pytest

from tests.stores.postgres_server import PostgresServer, postgres_server
from unexpired.stores.postgres import PostgresStore

__all__ = ["Make", "make", "schema", "server"]

Make = Callable[..., PostgresStore]
_SCHEMAS = itertools.count()


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """One server for a file; each test has a schema of its own.

    What is committed asynchronously stays off its disk for long, so that a test can tell.
    """
    with postgres_server(wal_writer_delay="10s") as one:
        yield one


@pytest.fixture
def schema() -> str:
    """A schema that does not exist yet."""
    return f"test_{next(_SCHEMAS)}"


@pytest.fixture
def make(server: PostgresServer, schema: str) -> Iterator[Make]:
    """Makes stores of one schema, closed at the end."""
    with ExitStack() as stack:
        yield lambda place=server.url, **how: stack.enter_context(PostgresStore(place, **{"schema": schema, **how}))
