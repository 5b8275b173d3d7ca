"""The control endpoints under `/_control`: what a test tells the server and asks it."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from unexpired.testing._exchange import Exchange, Malformed, Reply, json_reply, read_object
from unexpired.testing._site import Site

__all__ = ["control"]

_DONE = {"done": True}


async def control(site: Site, exchange: Exchange, reset: Callable[[], None]) -> None:
    """Serve one control call; *reset* puts a new site in this one's place."""
    name = exchange.path.removeprefix("/_control/")
    try:
        if exchange.method == "GET":
            reply = await _asked(site, exchange, name)
        elif name == "reset":
            reset()
            reply = json_reply(_DONE)
        else:
            body = await exchange.body()
            reply = _told(site, name, read_object(body) if body else {})
    except (Malformed, TypeError, ValueError) as error:
        reply = json_reply({"error": str(error)}, 400)
    await exchange.answer(reply)


async def _asked(site: Site, exchange: Exchange, name: str) -> Reply:
    if name == "stats":
        return json_reply(dataclasses.asdict(site.stats()))
    if name != "wait":
        return json_reply({"error": "no such control"}, 404)
    event, count = exchange.asked("event"), int(exchange.asked("count", "1"))
    try:
        async with asyncio.timeout(float(exchange.asked("timeout", "10"))):
            await site.ledger.reach(event, count)
    except TimeoutError:
        return json_reply({"error": f"{event} happened {site.ledger.counts[event]} times, not {count}"}, 408)
    return json_reply(_DONE)


def _told(site: Site, name: str, document: Mapping[str, Any]) -> Reply:
    match name:
        case "login":
            minted = site.server.login(**document)
            site.ledger.note("login")
            return json_reply(site.server.answer(minted))
        case "expire" | "revoke-family":
            return _ended(site, name, document.get("token"))
        case "config":
            site.configure(site.config.changed(document))
        case "faults":
            site.faults.load(document.get("steps"))
        case "api-faults":
            site.api_faults.load(document.get("rules"))
        case "release":
            site.gate(_named(document)).set()
        case _:
            return json_reply({"error": "no such control"}, 404)
    return json_reply(_DONE)


def _ended(site: Site, name: str, token: str | None) -> Reply:
    server = site.server
    if token is None:
        (server.expire_all if name == "expire" else server.revoke_all)()
    elif not (server.expire if name == "expire" else server.revoke)(token):
        return json_reply({"error": "no living login has that token"}, 400)
    return json_reply(_DONE)


def _named(document: Mapping[str, Any]) -> str:
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise ValueError("a release needs the name under which somebody is held")
    return name
