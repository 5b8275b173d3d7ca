from __future__ import annotations

import json
from collections.abc import Callable
from typing import TypeVar

import pytest

from tests.core.harness import EPOCH, World, answer, session
from unexpired._core.record import decode, encode
from unexpired.grants.answer import HTTPAnswer, read_token

R = TypeVar("R")


def _deeper(frames: int, work: Callable[[], R]) -> R:
    """Do *work* on a stack that is deeper by so many frames."""
    return work() if frames == 0 else _deeper(frames - 1, work)


@pytest.mark.parametrize("levels", [50, 200, 500, 850, 950, 985, 1_400, *range(1_470, 1_502, 2), 5_000, 9_990])
def test_a_nested_extra_field_does_not_cost_the_session(levels: int) -> None:
    """P5: a rotated token is stored however deep the answer's other fields go, and is read from any stack."""
    body = json.dumps(answer(2))[:-1].encode() + b', "x": ' + b"[" * levels + b"]" * levels + b"}"
    try:
        said: object = read_token(HTTPAnswer(200, {}, body), endpoint="e", now=EPOCH)
    except Exception as error:  # noqa: BLE001 - what the grant raises is what the flight gets
        said = error
    world = World(session(), [said])
    world.fly()
    data = encode(world.stored)
    assert _deeper(300, lambda: decode(data, "alice", "here")).refresh_token == "RT-2"
