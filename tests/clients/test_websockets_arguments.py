"""What the three kinds of `connect` say when they are used in a way that cannot work."""

from __future__ import annotations

import asyncio
import importlib
import sys
from typing import Any

import pytest
import websockets.asyncio.client
from websockets.exceptions import InvalidURI

from tests.clients.contract.fitting import Cell
from tests.clients.scripted import counting_manager
from tests.clients.sockets import WEBSOCKETS, dialling
from unexpired import ConfigurationError
from unexpired.clients.websockets import EXPIRED_CLOSE, connect, sync_connect


@pytest.fixture(params=["threads", "asyncio", "trio"])
def cell(request: pytest.FixtureRequest) -> Cell:
    """Give each kind of `connect`."""
    return Cell(WEBSOCKETS, "connect", request.param)


@pytest.mark.parametrize(
    ("arguments", "options", "words"),
    [
        (("wss://crm.test", counting_manager()), {}, "manager must be a TokenManager, not str"),
        ((None, "wss://crm.test"), {}, "manager must be a TokenManager, not None"),
        ((counting_manager(), "wss://crm.test", "Bearer"), {}, "scheme must be a Scheme"),
        ((counting_manager(), "wss://crm.test"), {"expired_close": 4401}, "must be a list of close codes"),
        ((counting_manager(), "wss://crm.test"), {"expired_close": "4401"}, "must be a list of close codes"),
        ((counting_manager(), "wss://crm.test"), {"expired_close": (401,)}, "from 1000 to 4999"),
        ((counting_manager(), "wss://crm.test"), {"expired_close": ("4401",)}, "from 1000 to 4999"),
    ],
)
def test_misuse(cell: Cell, arguments: tuple[Any, ...], options: dict[str, Any], words: str) -> None:
    """What cannot work is refused at once, with what to do, and without a word of what was given."""
    with dialling(cell, counting_manager()) as callers, pytest.raises(ConfigurationError, match=words):
        callers.caller.client.kind(*arguments, **options)


def test_wrong_address(cell: Cell) -> None:
    """An address that is none of a websocket is the client's own error."""
    with dialling(cell, counting_manager()) as callers, pytest.raises(InvalidURI):
        callers.caller.client.dial("https://crm.test")


def test_wrong_kind() -> None:
    """Blocking code is sent to `sync_connect`, tasks to `connect`."""
    with pytest.raises(ConfigurationError, match="sync_connect"), connect(counting_manager(), "ws://crm.test"):
        raise AssertionError("entered")

    async def main() -> None:
        async with sync_connect(counting_manager(), "ws://crm.test"):
            raise AssertionError("entered")

    with pytest.raises(ConfigurationError, match="connect"):
        asyncio.run(main())


def test_names() -> None:
    """The module has three names for three kinds, and says of others that it has them not."""
    module: Any = importlib.import_module("unexpired.clients.websockets")
    assert {name for name in module.__all__ if getattr(module, name)} == {
        "EXPIRED_CLOSE", "connect", "sync_connect", "trio_connect",
    }  # fmt: skip
    assert EXPIRED_CLOSE == (3000, 4401)
    assert issubclass(connect, websockets.asyncio.client.connect)
    with pytest.raises(AttributeError, match="anything"):
        _ = module.anything


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the client, the import says in one sentence what to install."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "websockets"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "unexpired.clients.websockets")
    monkeypatch.setattr(sys, "meta_path", [Without("websockets"), *sys.meta_path])
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'unexpired\[websockets\]'"):
        importlib.import_module("unexpired.clients.websockets")


class Without:
    """Finds nothing for one name, as when it is not installed."""

    def __init__(self, name: str) -> None:
        self.name = name

    def find_spec(self, name: str, *_: object) -> None:
        """No such module."""
        if name == self.name:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
