"""Bad days of a token endpoint, as a script: each token request takes the next step, then all is well.

A step is a kind alone, or a mapping with a `kind` and that kind's own settings, as in
`["reset_after_commit", {"kind": "429", "retry_after": 2}]`.
"""

from __future__ import annotations

import dataclasses
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.utils import formatdate

from unexpired.testing._client_auth import oauth_error
from unexpired.testing._exchange import Reply, html_reply, json_reply
from unexpired.testing._steps import as_steps

__all__ = ["FAULT_KINDS", "Fault", "FaultScript"]

_UNDECIDED = (
    "429",
    "503",
    "empty_400",
    "error_in_200",
    "html",
    "invalid_grant",
    "redirect",
    "reset_before_commit",
    "status",
    "timeout_before",
)
_DECIDED = (
    "dribble",
    "expired_token",
    "hold",
    "no_access_token",
    "other_sub",
    "reset_after_commit",
    "timeout_after",
    "truncated_json",
)

FAULT_KINDS: frozenset[str] = frozenset(_UNDECIDED + _DECIDED)
"""
The kinds a step may have. Decided kinds let the server rotate first, the others don't, unless `commit` says
otherwise.

- `429`, `503`: too busy, with `retry_after` (seconds or verbatim text; with `date` true, as an HTTP date)
- `dribble`: the answer at `bytes_per_second`
- `empty_400`: a 400 without a body
- `error_in_200`: an OAuth `error` in a 200
- `expired_token`: `expires_in` -1, and the token is as dead as it says
- `hold`: nothing wrong, but it waits until `name` is released
- `html`: a page with status `code`
- `invalid_grant`: refused without a reason
- `no_access_token`: the answer lacks it
- `other_sub`: the id token is another person's
- `redirect`: with status `code` to the URL `to`
- `reset_before_commit`, `reset_after_commit`: a TCP RST
- `status`: status `code` with `headers` and `body`
- `timeout_before`: `seconds` of silence, then a 504; `timeout_after`: `seconds` of silence, then the answer
- `truncated_json`: half of the answer, then the end

Every step takes `times` (how many requests it lasts, 1), `hold` and `hold_after` (wait for the release of
that name before, or after, the decision).
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One step of a script; see `FAULT_KINDS` for what each field means to which kind."""

    kind: str
    times: int = 1
    commit: bool | None = None
    hold: str | None = None
    hold_after: str | None = None
    name: str | None = None
    code: int | None = None
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: str = ""
    to: str = ""
    error: str = "invalid_request"
    retry_after: float | str | None = None
    date: bool = False
    seconds: float = 0.0
    bytes_per_second: float = 10.0

    def __post_init__(self) -> None:
        if self.kind not in FAULT_KINDS:
            raise ValueError(f"unknown fault {self.kind!r}; the faults are: {', '.join(sorted(FAULT_KINDS))}")
        if self.kind == "hold":
            if not (self.name or self.hold):
                raise ValueError('a hold needs a "name" to be released by')
            object.__setattr__(self, "hold", self.hold or self.name)
        if self.kind == "redirect" and not self.to:
            raise ValueError('a redirect needs "to", the URL it goes to')
        if self.times < 1 or self.seconds < 0 or self.bytes_per_second <= 0:
            raise ValueError("times and bytes_per_second must be positive, seconds not negative")

    @property
    def decides(self) -> bool:
        """Whether the server redeems the refresh token although the answer goes wrong."""
        return self.kind in _DECIDED if self.commit is None else self.commit

    def stand_in(self, now: float) -> Reply | None:
        """Give what is answered in place of a token answer; `None` when that goes out, altered."""
        code = self.code
        match self.kind:
            case "429" | "503":
                return json_reply({"error": "temporarily_unavailable"}, int(self.kind), self._retry_after(now))
            case "empty_400":
                return Reply(400)
            case "error_in_200":
                return json_reply({"error": self.error})
            case "html":
                return html_reply("Access denied", code or 200)
            case "invalid_grant":
                return oauth_error("invalid_grant")
            case "redirect":
                return Reply(code or 307, headers=(("location", self.to),))
            case "status":
                return Reply(code or 500, self.body.encode(), tuple(self.headers.items()))
            case "timeout_before":
                return html_reply("Gateway timeout", code or 504)
            case _:
                return None

    def _retry_after(self, now: float) -> list[tuple[str, str]]:
        if self.retry_after is None:
            return []
        if self.date:
            return [("retry-after", formatdate(now + float(self.retry_after), usegmt=True))]
        return [("retry-after", f"{self.retry_after}")]


class FaultScript:
    """The steps still to come. For the server's event loop only; not thread-safe."""

    def __init__(self) -> None:
        self._steps: deque[Fault] = deque()

    def load(self, steps: object) -> None:
        """Replace what is left of the script by one step or several.

        Raises `ValueError` (and changes nothing) when one makes no sense.
        """
        known = {each.name for each in dataclasses.fields(Fault)}
        faults: list[Fault] = []
        for step in as_steps(steps, "step"):
            if unknown := step.keys() - known:
                raise ValueError(f"a fault has no {', '.join(sorted(unknown))}")
            fault = Fault(**step)
            faults.extend([fault] * fault.times)
        self._steps = deque(faults)

    def next(self) -> Fault | None:
        """Take the next step; `None` when the script is over."""
        return self._steps.popleft() if self._steps else None
