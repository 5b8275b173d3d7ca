"""Bad days of an API: rules that stand for all calls under a path until they are taken back."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from unexpired.testing._steps import as_steps

__all__ = ["API_FAULT_KINDS", "ApiFault", "ApiFaults"]

API_FAULT_KINDS: frozenset[str] = frozenset(
    {
        "delay_refusals",
        "forbid",
        "hold",
        "hold_refusals",
        "insufficient_scope",
        "insufficient_user_authentication",
        "lag",
        "refuse",
        "status",
    }
)
"""
The kinds an API fault may have.

- `refuse`: no token is good here
- `lag`: tokens younger than `seconds` are refused, as by a replica that has not heard of them
- `forbid`: 403 without a challenge
- `insufficient_scope`: 403 with that challenge and `scope` (RFC 6750 §3.1)
- `insufficient_user_authentication`: 401 with that challenge, `acr_values` and `max_age` (RFC 9470 §3)
- `status`: status `code` with `headers` and `body`
- `delay_refusals`: each refusal is on its way for a random time up to `seconds`
- `hold`, `hold_refusals`: every call, or every refusal, is decided and then waits until `name` is released

Every rule takes `prefix` (the paths it is for, `/`) and `times` (how many calls it lasts, without end).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class ApiFault:
    """One rule; see `API_FAULT_KINDS` for what each field means to which kind."""

    kind: str
    prefix: str = "/"
    times: int | None = None
    seconds: float = 0.0
    name: str = ""
    code: int = 500
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    scope: str = "admin"
    acr_values: str | None = None
    max_age: int | None = None

    def __post_init__(self) -> None:
        if self.kind not in API_FAULT_KINDS:
            raise ValueError(f"unknown API fault {self.kind!r}; they are: {', '.join(sorted(API_FAULT_KINDS))}")
        if self.kind in ("hold", "hold_refusals") and not self.name:
            raise ValueError('a hold needs a "name" to be released by')
        if self.seconds < 0 or (self.times is not None and self.times < 1):
            raise ValueError("times must be positive, seconds not negative")

    def challenge(self) -> str | None:
        """Give the `WWW-Authenticate` that this rule answers with, if it has one."""
        if self.kind == "insufficient_scope":
            return f'Bearer error="insufficient_scope", scope="{self.scope}"'
        if self.kind != "insufficient_user_authentication":
            return None
        parts = ['Bearer error="insufficient_user_authentication"']
        if self.acr_values is not None:
            parts.append(f'acr_values="{self.acr_values}"')
        if self.max_age is not None:
            parts.append(f"max_age={self.max_age}")
        return ", ".join(parts)


class ApiFaults:
    """The rules in force. For the server's event loop only; not thread-safe."""

    def __init__(self) -> None:
        self._rules: list[tuple[ApiFault, list[int]]] = []

    def load(self, rules: object) -> None:
        """Replace all rules by one or several; `ValueError` (and no change) when one makes no sense."""
        known = {each.name for each in dataclasses.fields(ApiFault)}
        found: list[ApiFault] = []
        for rule in as_steps(rules, "rule"):
            if unknown := rule.keys() - known:
                raise ValueError(f"an API fault has no {', '.join(sorted(unknown))}")
            found.append(ApiFault(**rule))
        self._rules = [(rule, [0]) for rule in found]

    def for_call(self, path: str) -> list[ApiFault]:
        """Give the rules for one call of *path*, in their order, and count it against their `times`."""
        if not self._rules:
            return []
        found: list[ApiFault] = []
        for rule, used in self._rules:
            if path.startswith(rule.prefix) and (rule.times is None or used[0] < rule.times):
                used[0] += 1
                found.append(rule)
        return found
