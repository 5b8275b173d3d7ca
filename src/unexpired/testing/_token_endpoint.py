"""Where refresh tokens are redeemed, OAuth's way and the dialects', with the script's faults."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

from unexpired.testing._client_auth import authenticate, oauth_error
from unexpired.testing._exchange import Exchange, Malformed, Reply, json_reply
from unexpired.testing._ledger import LoggedRedemption
from unexpired.testing._site import Site, clock
from unexpired.testing.faults import Fault
from unexpired.testing.server import Minted

__all__ = ["redeem", "revoke", "token"]

Wording = Callable[[Minted], dict[str, object]]
_TOKEN_NAMES = frozenset({"access_token", "Token"})


async def token(site: Site, exchange: Exchange, wording: Wording) -> None:
    """Answer a token request (RFC 6749 §6), worded by *wording*."""
    refresh_token = ""
    client: str | Reply
    try:
        parameters = await exchange.parameters()
    except Malformed:
        client = oauth_error("invalid_request")
    else:
        refresh_token = parameters.get("refresh_token", "")
        client = _client(site, exchange, parameters)

    def decide(row: LoggedRedemption) -> Minted | Reply:
        if isinstance(client, Reply):
            row.outcome = "refused"
            return client
        redemption = site.server.redeem(refresh_token, client)
        row.outcome = redemption.outcome
        return redemption.minted or oauth_error("invalid_grant")

    await redeem(site, exchange, refresh_token, decide, wording)


async def redeem(
    site: Site,
    exchange: Exchange,
    refresh_token: str,
    decide: Callable[[LoggedRedemption], Minted | Reply],
    wording: Wording,
) -> None:
    """Carry one redemption from its arrival to its answer, through latency and the script's next fault."""
    ledger, fault = site.ledger, site.faults.next()
    row = ledger.take_off(refresh_token, clock())
    ledger.note("token_request_received")
    try:
        await _before(site, fault)
        decided = None
        if fault is None or fault.decides:
            decided = decide(row)
            row.committed = clock()
            ledger.note("token_request_committed")
        else:
            row.outcome = f"fault:{fault.kind}"
        await _after(site, fault)
        await _answer(site, exchange, fault, decided, wording)
    finally:
        ledger.land(row, clock())
        ledger.note("token_request_answered")


async def revoke(site: Site, exchange: Exchange) -> None:
    """Answer a revocation request (RFC 7009 §2): the login ends; an unknown token is no error."""
    site.ledger.note("revocation_received")
    try:
        parameters = await exchange.parameters()
    except Malformed:
        await exchange.answer(oauth_error("invalid_request"))
        return
    proven = authenticate(site.config, exchange.header(b"authorization"), parameters)
    if isinstance(proven, Reply):
        await exchange.answer(proven)
    elif "token" not in parameters:
        await exchange.answer(oauth_error("invalid_request"))
    else:
        site.revocations += site.server.revoke(parameters["token"])
        await exchange.answer(Reply(200))


def _client(site: Site, exchange: Exchange, parameters: Mapping[str, str]) -> str | Reply:
    client = authenticate(site.config, exchange.header(b"authorization"), parameters)
    if isinstance(client, Reply):
        return client
    if parameters.get("grant_type", "refresh_token") != "refresh_token":
        return oauth_error("unsupported_grant_type")
    if "grant_type" not in parameters or not parameters.get("refresh_token"):
        return oauth_error("invalid_request")
    return client


async def _before(site: Site, fault: Fault | None) -> None:
    if fault is not None and fault.hold is not None:
        site.ledger.note("token_request_held")
        await site.gate(fault.hold).wait()
    if site.config.refresh_latency:
        await asyncio.sleep(site.config.refresh_latency)
    if fault is not None and fault.kind == "timeout_before":
        await asyncio.sleep(fault.seconds)


async def _after(site: Site, fault: Fault | None) -> None:
    if fault is not None and fault.hold_after is not None:
        site.ledger.note("token_request_held")
        await site.gate(fault.hold_after).wait()
    if site.config.answer_latency:
        await asyncio.sleep(site.config.answer_latency)
    if fault is not None and fault.kind == "timeout_after":
        await asyncio.sleep(fault.seconds)


async def _answer(
    site: Site, exchange: Exchange, fault: Fault | None, decided: Minted | Reply | None, wording: Wording
) -> None:
    kind = None if fault is None else fault.kind
    if kind in ("reset_before_commit", "reset_after_commit"):
        await exchange.reset()
        return
    stand_in = None if fault is None else fault.stand_in(clock() + site.config.clock_offset)
    if stand_in is not None:
        reply = stand_in
    elif isinstance(decided, Minted):
        reply = json_reply(_altered(site, kind, decided, wording(decided)))
    else:
        # a fault told not to decide answers as if the server had lost its memory
        reply = decided or json_reply({"error": "server_error"}, 500)
    if kind == "truncated_json":
        await exchange.answer_truncated(reply)
    elif fault is not None and kind == "dribble":
        await exchange.answer_slowly(reply, fault.bytes_per_second)
    else:
        await exchange.answer(reply)


def _altered(site: Site, kind: str | None, minted: Minted, answer: dict[str, object]) -> dict[str, object]:
    if kind == "no_access_token":
        return {key: value for key, value in answer.items() if key not in _TOKEN_NAMES}
    if kind == "other_sub":
        return answer | {"id_token": site.server.id_token("mallory", minted.login.client_id)}
    if kind == "expired_token":
        site.server.expire_one(minted.access_token)
        return answer | {"expires_in": -1}
    return answer
