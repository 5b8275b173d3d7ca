"""Sixty-four callers through a real nginx, with a fresh token, beside the same client with a constant header."""

from __future__ import annotations

import tempfile
from contextlib import closing
from functools import partial
from pathlib import Path

from benchmarks.adapters import ADAPTERS
from benchmarks.clients import manager_with
from benchmarks.measure import Row, interleave, median
from benchmarks.rig import Adapter, Rig
from tests.clients.contract.nginx import nginx
from unexpired.stores import MemoryStore

CALLERS = 64
ROUNDS = 21
ROUND_SECONDS = 0.1
ANSWERS = """
        location / {
            default_type application/json;
            if ($http_authorization = "") { return 401; }
            return 200 "{}";
        }"""


def rows() -> list[Row]:
    """Throughput for every adapter, over HTTP/1.1."""
    with tempfile.TemporaryDirectory() as directory, nginx(Path(directory) / "nginx", places=ANSWERS) as running:
        return [_row(adapter, running.url) for adapter in ADAPTERS if adapter.speaks == "http"]


def _row(adapter: Adapter, url: str) -> Row:
    tokens = {"floor": None, "token": manager_with(MemoryStore())}
    with closing(Rig(adapter, tokens, url)) as rig:
        seconds = [rig.together(name, CALLERS) for name in (*tokens, *tokens)]
        each = max(1, round(ROUND_SECONDS / min(seconds)))
        results = interleave({name: partial(rig.together, name, CALLERS, each) for name in tokens}, ROUNDS)
    ratio = median([floor / token for floor, token in zip(results["floor"], results["token"], strict=True)])
    rates = {name: CALLERS * each / median(values) for name, values in results.items()}
    note = f"{rates['token']:.0f} calls/s beside {rates['floor']:.0f} with {adapter.floor}"
    least = adapter.throughput
    title = f"throughput through nginx, {CALLERS} callers, {adapter}"
    return Row(title, ratio, "x floor", rates["floor"], f"≥ {least:.2f}", ratio >= least, note)
