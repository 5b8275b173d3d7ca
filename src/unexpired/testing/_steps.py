"""What people write for faults, as the mappings they are made of."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, cast

__all__ = ["Step", "as_steps"]

Step = str | Mapping[str, object]
"""A fault: its kind alone, or a mapping with a `kind` and that kind's own settings."""

_LOOKS = {
    "step": '["503", {"kind": "429", "retry_after": 2}]',
    "rule": '["refuse", {"kind": "lag", "seconds": 2}]',
}


def as_steps(given: object, what: Literal["step", "rule"]) -> list[dict[str, Any]]:
    """One `Step` or several as mappings with a `kind`. Raises `ValueError` that says what a *what* looks like."""
    alone = isinstance(given, str | bytes | Mapping) or not isinstance(given, Iterable)
    return [_as_step(step, what) for step in cast("Iterable[object]", [given] if alone else given)]


def _as_step(step: object, what: str) -> dict[str, Any]:
    if isinstance(step, str):
        return {"kind": step}
    if not isinstance(step, Mapping):
        text = f"a {what} is a kind alone or with its settings, as in {_LOOKS[what]}, not {type(step).__name__}"
        raise ValueError(text)  # noqa: TRY004 - whatever makes no sense to the server is this
    named = cast("Mapping[str, Any]", step)
    if "kind" not in named:
        raise ValueError(f'a {what} needs a "kind", as in {_LOOKS[what]}')
    return {**named, "kind": str(named["kind"])}
