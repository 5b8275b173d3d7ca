"""One server for all tests of a file, new before each; every way to run a caller, every way to carry a token."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import import_module
from importlib.util import find_spec

import httpx
import pytest

import unexpired.clients.httpx
from tests.clients.modes import HTTPX2, Library, Mode, Via, manager_for
from unexpired import TokenManager
from unexpired.clients import _peeking
from unexpired.testing import ServerHandle, running_server

# niquests is installed in an environment of its own only: `make test-niquests`.
collect_ignore_glob = [] if find_spec("niquests") else ["test_niquests_*.py"]


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower() in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
            monkeypatch.delenv(name)


_BODIES = {"aiohttp": "_aiohttp_bodies", "niquests": "_niquests_bodies", "urllib3": "_urllib3_bodies"}
_READING = [_peeking, *(import_module(f"unexpired.clients.{_BODIES[one]}") for one in _BODIES if find_spec(one))]
_OURS = _peeking.WORTH_WAITING


@pytest.fixture(autouse=True)
def _reads_refusals_to_their_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slowly this machine does: a refusal that is left behind would count as a connection of its own."""
    for module in _READING:
        monkeypatch.setattr(module, "WORTH_WAITING", 25.0)


@pytest.fixture
def reads_for_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a test of refusals that are not worth waiting for: they are read for as long as in the library."""
    for module in _READING:
        monkeypatch.setattr(module, "WORTH_WAITING", _OURS)


@pytest.fixture(scope="module")
def _one_server() -> Iterator[ServerHandle]:
    with running_server() as server:
        yield server


@pytest.fixture
def server(_one_server: ServerHandle) -> ServerHandle:
    """Give this file's server, reset."""
    _one_server.reset()
    return _one_server


@pytest.fixture
def manager(server: ServerHandle) -> TokenManager:
    """Give a manager in memory that is logged in."""
    return manager_for(server)


@pytest.fixture(params=[HTTPX2, Library(httpx, unexpired.clients.httpx)], ids=lambda one: one.client.__name__)
def library(request: pytest.FixtureRequest) -> Library:
    """Give each library of httpx's make."""
    found: Library = request.param
    return found


@pytest.fixture(params=["threads", "asyncio", "trio"])
def mode(request: pytest.FixtureRequest, library: Library) -> Mode:
    """Give each way to run callers."""
    return Mode(request.param, library)


@pytest.fixture(params=["auth", "transport"])
def via(request: pytest.FixtureRequest) -> Via:
    """Give each way to carry a bearer token."""
    found: Via = request.param
    return found
