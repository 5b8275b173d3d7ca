"""The plain API: bearer tokens in the header, a cookie or the query; bodies of every kind."""

from __future__ import annotations

import asyncio
import hashlib
import math

from unexpired.testing._admission import Ruling, admit, count_credentials
from unexpired.testing._exchange import Exchange, Reply, json_reply
from unexpired.testing._site import Site

__all__ = ["call", "describe", "fault_reply", "open_call"]

_STREAM = {"chunks": 8.0, "size": 1024.0, "gap": 0.0}
_MOST_SECONDS = 300.0
_LIMITS = {"chunks": 1e5, "size": 1e7}


async def call(site: Site, exchange: Exchange) -> None:
    """Serve one call under `/api`."""
    path = exchange.path
    ruling = await admit(site, exchange, _credentials(exchange))
    if ruling.verdict != "ok":
        await exchange.answer(_refusal(site, ruling))
    elif path == "/api/stream":
        await _stream(exchange)
    elif path == "/api/events":
        await _events(site, exchange)
    else:
        if path == "/api/slow":
            await asyncio.sleep(_number(exchange, "seconds", 1.0))
        await exchange.answer(await _reply(exchange, path))
    site.ledger.note("api_call_answered")


async def open_call(site: Site, exchange: Exchange) -> None:
    """Serve one call under `/open`: anybody's, with a word on the places where credentials came along."""
    seen = count_credentials(site, exchange)
    await exchange.answer(json_reply({**await describe(exchange), "credentials": seen}))


async def describe(exchange: Exchange) -> dict[str, object]:
    """Say what was received, so that a caller can tell its own answer from another's; never a token."""
    body = await exchange.body() if exchange.method not in ("GET", "HEAD") else b""
    return {
        "ok": True,
        "n": exchange.asked("n") or None,
        "method": exchange.method,
        "body_sha256": hashlib.sha256(body).hexdigest(),
        "body_length": len(body),
    }


def fault_reply(ruling: Ruling) -> Reply | None:
    """Give the answer of the API fault that *ruling* met, if it met one."""
    fault = ruling.fault
    if fault is None:
        return None
    if fault.kind == "status":
        return Reply(fault.code, fault.body.encode(), tuple(fault.headers.items()))
    status = 401 if fault.kind == "insufficient_user_authentication" else 403
    challenge = fault.challenge()
    return json_reply({"error": fault.kind}, status, [] if challenge is None else [("www-authenticate", challenge)])


async def _reply(exchange: Exchange, path: str) -> Reply:
    if path == "/api/echo":
        kind = exchange.header(b"content-type") or "application/octet-stream"
        return Reply(200, await exchange.body(), (("content-type", kind),))
    if path == "/api/redirect":
        status = exchange.asked("status", "307")
        return Reply(int(status) if status.isdecimal() else 307, headers=(("location", exchange.asked("to", "/api")),))
    return json_reply(await describe(exchange))


async def _stream(exchange: Exchange) -> None:
    chunks, size, gap = (_number(exchange, name, default) for name, default in _STREAM.items())
    await exchange.start(200, [("content-type", exchange.asked("type", "application/octet-stream"))])
    for index in range(int(chunks)):
        if exchange.connection.gone:
            return
        await exchange.chunk(bytes([index % 256]) * int(size))
        if gap:
            await asyncio.sleep(gap)
    await exchange.chunk(b"", last=True)


async def _events(site: Site, exchange: Exchange) -> None:
    await exchange.start(200, [("content-type", "text/event-stream"), ("cache-control", "no-store")])
    await exchange.chunk(b"data: first\n\n")
    site.ledger.note("api_call_held")
    await site.gate(exchange.asked("name", "events")).wait()
    await exchange.chunk(b"data: second\n\n", last=True)


def _credentials(exchange: Exchange) -> list[str]:
    found: list[str] = []
    header = exchange.header(b"authorization")
    if header is not None:
        kind, _, token = header.partition(" ")
        # a header of another kind is a credential we do not know, not a missing one
        found.append(token if kind.lower() == "bearer" else "")
    if exchange.path == "/api/query":
        found.extend(value for key, value in exchange.query if key == "access_token")
    elif exchange.path == "/api/cookie" and (cookie := exchange.cookie("access_token")) is not None:
        found.append(cookie)
    return found


def _refusal(site: Site, ruling: Ruling) -> Reply:
    reply = fault_reply(ruling)
    if reply is not None:
        return reply
    if ruling.verdict == "repeated":
        return json_reply({"error": "invalid_request"}, 400, [("www-authenticate", 'Bearer error="invalid_request"')])
    config = site.config
    # no error code when the request carried no token at all, RFC 6750 §3.1
    challenge = 'Bearer realm="api"' + ("" if ruling.verdict == "missing" else ', error="invalid_token"')
    headers = [("www-authenticate", challenge)] if config.refusal_challenge else []
    return json_reply({"ok": False}, config.refusal_status, headers)


def _number(exchange: Exchange, name: str, default: float) -> float:
    try:
        number = float(exchange.asked(name, str(default)))
    except ValueError:
        return default
    return number if math.isfinite(number) and 0 <= number <= _LIMITS.get(name, _MOST_SECONDS) else default
