"""Two ways of speaking that come from real front ends.

Dialect A, under `/a`: bare tokens in the headers `access_token` and `refresh_token`, forms in, always HTTP
200 with a `code` out. Dialect B, under `/b/api`: the token in the query parameter `token`, JSON in, an
envelope with a `code` out.
"""

from __future__ import annotations

import hmac
from typing import cast

from unexpired.testing._admission import Ruling, admit
from unexpired.testing._api import describe
from unexpired.testing._exchange import Exchange, Malformed, Reply, json_reply, read_object
from unexpired.testing._ledger import LoggedRedemption
from unexpired.testing._site import Site
from unexpired.testing._token_endpoint import redeem
from unexpired.testing.server import Minted

__all__ = ["a_wording", "call_a", "call_b"]

_FORM = "application/x-www-form-urlencoded"


def a_wording(minted: Minted) -> dict[str, object]:
    """Word a token answer as dialect A does: two tokens and nothing else."""
    answer: dict[str, object] = {"access_token": minted.access_token}
    return answer if minted.refresh_token is None else answer | {"refresh_token": minted.refresh_token}


async def call_a(site: Site, exchange: Exchange) -> None:
    """Serve one call of dialect A."""
    access_token = exchange.header(b"access_token")
    ruling = await admit(site, exchange, [] if access_token is None else [access_token])
    kind = (exchange.header(b"content-type") or _FORM).partition(";")[0].strip()
    if ruling.verdict == "ok" and exchange.header(b"refresh_token") is None:
        # this dialect's calls carry both headers; one without is no login to its server
        document: dict[str, object] = {"code": site.config.login_code, "msg": "invalid login"}
    elif ruling.verdict != "ok":
        document = _refusal_a(site, ruling)
    elif exchange.method == "POST" and kind != _FORM:
        document = {"code": 40000, "msg": "a form is expected"}
    else:
        document = {"code": 0, "data": await describe(exchange)}
    await exchange.answer(json_reply(document))
    site.ledger.note("api_call_answered")


async def call_b(site: Site, exchange: Exchange) -> None:
    """Serve one call of dialect B, its login and its refresh."""
    if exchange.path == "/b/api/login":
        await exchange.answer(await _login_b(site, exchange))
    elif exchange.path == "/b/api/refresh":
        await _refresh_b(site, exchange)
    else:
        await exchange.answer(await _call_b(site, exchange))
        site.ledger.note("api_call_answered")


def _refusal_a(site: Site, ruling: Ruling) -> dict[str, object]:
    if ruling.fault is not None:
        return {"code": ruling.fault.code, "msg": ruling.fault.kind}
    if ruling.verdict == "expired":
        return {"code": site.config.expired_code, "msg": "token expired"}
    return {"code": site.config.login_code, "msg": "invalid login"}


async def _call_b(site: Site, exchange: Exchange) -> Reply:
    ruling = await admit(site, exchange, [value for key, value in exchange.query if key == "token"])
    if ruling.fault is not None:
        return json_reply({"code": ruling.fault.code, "msg": ruling.fault.kind})
    if ruling.verdict == "repeated":
        return json_reply({"code": 400, "msg": "token given twice"})
    if ruling.verdict != "ok":
        return json_reply({"code": 401, "msg": "token expired"})
    if exchange.path == "/b/api/fail":
        return json_reply({"code": 500, "msg": "the operation failed", "detail": {"code": 401}})
    return json_reply({"code": 0, "data": await describe(exchange)})


async def _login_b(site: Site, exchange: Exchange) -> Reply:
    try:
        document = read_object(await exchange.body())
    except Malformed:
        return json_reply({"code": 400, "msg": "JSON is expected"})
    user, password = document.get("user"), document.get("password")
    known = site.config.users.get(user) if isinstance(user, str) else None
    if known is None or not isinstance(password, str) or not hmac.compare_digest(known.encode(), password.encode()):
        return json_reply({"code": 1001, "msg": "wrong user or password"})
    minted = site.server.login(subject=cast("str", user), single=True)
    site.ledger.note("login")
    return json_reply({"code": 0, "data": {"Token": minted.access_token, "user": user}})


async def _refresh_b(site: Site, exchange: Exchange) -> None:
    try:
        document = read_object(await exchange.body())
    except Malformed:
        document = {}
    presented = document.get("refresh", document.get("Token"))
    refresh_token = presented if isinstance(presented, str) else ""

    def decide(row: LoggedRedemption) -> Minted | Reply:
        redemption = site.server.redeem(refresh_token)
        row.outcome = redemption.outcome
        return redemption.minted or json_reply({"code": 401, "msg": "log in again"})

    await redeem(site, exchange, refresh_token, decide, _b_wording)


def _b_wording(minted: Minted) -> dict[str, object]:
    answer: dict[str, object] = {"code": 0, "Token": minted.access_token}
    if minted.login.single or minted.refresh_token is None:
        return answer
    return answer | {"refresh": minted.refresh_token}
