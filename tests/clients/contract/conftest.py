"""The parameters of the suite: a test that asks for a `cell` runs in every one that its point has."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients.conftest import _no_proxy, _one_server, manager, server
from tests.clients.contract.fitting import MODES, Cell, cells
from tests.clients.contract.listener import Listener
from tests.clients.contract.nginx import Nginx, nginx
from tests.clients.contract.rows import FITTINGS, LEFT_OUT
from unexpired.testing import ServerHandle, running_server

collect_ignore_glob = [f"{pattern}.py" for pattern in LEFT_OUT]

__all__ = ["_no_proxy", "_one_server", "manager", "server"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give a test the cells of its point: ``@pytest.mark.contract(7, modes=("asyncio", "trio"))``.

    With ``row=`` it is that row's alone, otherwise all that speak HTTP share it. ``like="test_http2"`` leaves out those
    that are exempt from that test.
    """
    mark = metafunc.definition.get_closest_marker("contract")
    if mark is not None:
        rows = (mark.kwargs["row"],) if "row" in mark.kwargs else FITTINGS
        test = mark.kwargs.get("like", metafunc.function.__name__)
        found = cells(rows, mark.args[0], mark.kwargs.get("modes", MODES), test)
        metafunc.parametrize("cell", found, ids=str)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out a test that no row of this environment has a cell for: nothing was tested, so nothing is counted."""
    empty = [item for item in items if any("empty parameter set" in str(mark) for mark in item.iter_markers("skip"))]
    config.hook.pytest_deselected(items=empty)
    items[:] = [item for item in items if item not in empty]


@pytest.fixture(autouse=True)
def _counts(request: pytest.FixtureRequest) -> None:
    """Write down which square of the matrix a test stands for."""
    mark = request.node.get_closest_marker("contract")
    if mark is not None:
        cell: Cell = request.getfixturevalue("cell")
        square = [cell.row.name, cell.idiom, cell.mode, mark.args[0]]
        request.node.user_properties.append(("contract", square))


@pytest.fixture
def listener() -> Iterator[Listener]:
    """Give a server that answers as it is told, and tells what it heard."""
    with Listener() as listening:
        yield listening


@pytest.fixture
def proxy(server: ServerHandle, tmp_path: Path) -> Iterator[Nginx]:
    """Give an nginx before the server."""
    with nginx(tmp_path / "nginx", server.url) as running:
        yield running


@pytest.fixture(scope="module")
def other() -> Iterator[ServerHandle]:
    """Give a second server, which is another origin by its port."""
    with running_server() as handle:
        yield handle
