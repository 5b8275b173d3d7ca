"""Whether an API call is served: its credentials, the token's state, and the rules in force for its path."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unexpired.testing._api_faults import ApiFault
from unexpired.testing._exchange import Exchange
from unexpired.testing._site import Site, clock

__all__ = ["Ruling", "admit", "count_credentials"]

_QUERY_NAMES = frozenset({"access_token", "token"})
Verdict = Literal["ok", "missing", "repeated", "unknown", "expired", "fault"]


@dataclass(frozen=True, slots=True)
class Ruling:
    """What became of a call: served (`ok`), or why not.

    `unknown` covers tokens that were never minted and those of a login that has ended; `fault` carries the
    rule.
    """

    verdict: Verdict
    fault: ApiFault | None = None


_OK = Ruling("ok")


def count_credentials(site: Site, exchange: Exchange) -> list[str]:
    """Name, and count, the places of *exchange* that hold a credential, taken by the endpoint or not."""
    places: list[str] = []
    if exchange.header(b"authorization") is not None:
        places.append("header")
    if exchange.header(b"access_token") is not None or exchange.header(b"refresh_token") is not None:
        places.append("custom")
    if any(name in _QUERY_NAMES for name, _ in exchange.query):
        places.append("query")
    if exchange.cookie("access_token") is not None:
        places.append("cookie")
    site.ledger.credentials.update(places)
    return places


async def admit(site: Site, exchange: Exchange, tokens: Sequence[str]) -> Ruling:
    """Rule on a call that presents *tokens*, on its arrival, and return when its answer may go out.

    Several credentials in one request are refused whatever they are (RFC 6750 §2).
    """
    site.ledger.note("api_call_received")
    count_credentials(site, exchange)
    rules = site.api_faults.for_call(exchange.path)
    ruling = _rule(site, tokens, rules)
    served = ruling.verdict == "ok"
    if served:
        site.server.used(tokens[0])
    else:
        site.ledger.note("api_call_refused")
    for rule in rules:
        if rule.kind == "hold" or (rule.kind == "hold_refusals" and not served):
            site.ledger.note("api_call_held")
            await site.gate(rule.name).wait()
        elif rule.kind == "delay_refusals" and not served:
            await asyncio.sleep(site.random.uniform(0, rule.seconds))
    return ruling


def _rule(site: Site, tokens: Sequence[str], rules: Sequence[ApiFault]) -> Ruling:
    if len(tokens) != 1:
        return Ruling("repeated" if tokens else "missing")
    record = site.server.find(tokens[0])
    if record is None or not record.login.alive:
        return Ruling("unknown")
    if not site.server.is_good(record):
        return Ruling("expired")
    for rule in rules:
        if rule.kind == "refuse" or (rule.kind == "lag" and clock() - record.issued < rule.seconds):
            return Ruling("expired")
        if rule.kind in ("forbid", "insufficient_scope", "insufficient_user_authentication", "status"):
            return Ruling("fault", rule)
    return _OK
