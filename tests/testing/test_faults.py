"""Each fault of the token endpoint, as it looks on the wire and in the server's state."""

from __future__ import annotations

import base64
import json
import time
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from tests.testing.wire import Answer, bearer, open_socket, read_to_end, refresh, refresh_request, send
from unexpired.testing import FAULT_KINDS, ServerHandle, running_server
from unexpired.testing.faults import FaultScript


def meet(server: ServerHandle, fault: dict[str, Any]) -> tuple[Answer, dict[str, Any]]:
    """Let a refresh meet *fault*; gives its answer and the login it was for."""
    login = server.login()
    server.faults([fault])
    return refresh(server, login["refresh_token"]), login


def redeemed(server: ServerHandle) -> bool:
    """Tell whether the server has rotated."""
    return server.stats().refreshes == 1


def test_the_script_is_followed_and_ends(server: ServerHandle) -> None:
    """Each token request takes the next step, a step with `times` lasts, and afterwards all is well."""
    token = server.login()["refresh_token"]
    server.faults([{"kind": "503", "times": 2}, {"kind": "html"}])
    answers = [refresh(server, token) for _ in range(4)]
    assert [answer.status for answer in answers] == [503, 503, 200, 200]
    assert [b"<html>" in answer.body for answer in answers] == [False, False, True, False]
    assert [row.outcome for row in server.stats().redemptions] == ["fault:503"] * 2 + [
        "fault:html",
        "rotated",
    ]


@pytest.mark.parametrize(
    ("steps", "statuses"),
    [
        ("503", [503, 200]),
        (["503", "empty_400"], [503, 400, 200]),
        (("503", {"kind": "429", "times": 2}), [503, 429, 429, 200]),
        ({"kind": "status", "code": 418}, [418, 200]),
        (iter(["429"]), [429, 200]),
        ([], [200]),
    ],
    ids=["kind", "kinds", "mixed", "mapping", "iterator", "none"],
)
def test_steps_can_be_written_short(server: ServerHandle, steps: Any, statuses: list[int]) -> None:
    """A kind stands for a step without settings, and one step for a list of one."""
    token = server.login()["refresh_token"]
    server.faults(steps)
    assert [refresh(server, token).status for _ in statuses] == statuses


def test_status(server: ServerHandle) -> None:
    """`status` answers the given code, headers and body without redeeming."""
    step = {"kind": "status", "code": 418, "headers": {"X-Odd": "yes"}, "body": "teapot"}
    answer, _ = meet(server, step)
    assert (answer.status, answer.headers["x-odd"], answer.body) == (418, "yes", b"teapot")
    assert not redeemed(server)


def test_commit_can_be_asked_for(server: ServerHandle) -> None:
    """With `commit` a fault that usually decides nothing loses the answer of a real rotation."""
    answer, _ = meet(server, {"kind": "status", "code": 502, "commit": True})
    assert answer.status == 502
    assert redeemed(server)


def test_commit_can_be_denied(server: ServerHandle) -> None:
    """Without `commit` a fault that usually rotates leaves the refresh token as it was."""
    answer, login = meet(server, {"kind": "truncated_json", "commit": False})
    assert not redeemed(server)
    assert 0 < len(answer.body) < int(answer.headers["content-length"])
    assert refresh(server, login["refresh_token"]).status == 200


def test_html(server: ServerHandle) -> None:
    """`html` answers a page, with 200 or as a firewall's 403."""
    answer, _ = meet(server, {"kind": "html"})
    assert (answer.status, answer.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert answer.body.startswith(b"<!doctype html>")
    assert meet(server, {"kind": "html", "code": 403})[0].status == 403
    assert not redeemed(server)


def test_truncated_json(server: ServerHandle) -> None:
    """`truncated_json` rotates, promises the whole answer, sends half and closes in good order."""
    answer, login = meet(server, {"kind": "truncated_json"})
    assert answer.status == 200
    assert not answer.reset
    assert len(answer.body) == int(answer.headers["content-length"]) // 2
    with pytest.raises(json.JSONDecodeError):
        json.loads(answer.body)
    assert redeemed(server)
    assert refresh(server, login["refresh_token"]).json["error"] == "invalid_grant"


def test_no_access_token(server: ServerHandle) -> None:
    """`no_access_token` rotates and answers everything but the access token."""
    answer, _ = meet(server, {"kind": "no_access_token"})
    assert answer.status == 200
    assert answer.json.keys() == {"token_type", "expires_in", "refresh_token", "scope"}
    assert refresh(server, answer.json["refresh_token"]).status == 200


def test_error_in_200(server: ServerHandle) -> None:
    """`error_in_200` answers an OAuth error with status 200 and redeems nothing."""
    answer, _ = meet(server, {"kind": "error_in_200", "error": "invalid_grant"})
    assert (answer.status, answer.json) == (200, {"error": "invalid_grant"})
    assert not redeemed(server)


def test_empty_400(server: ServerHandle) -> None:
    """`empty_400` answers 400 without a word."""
    answer, _ = meet(server, {"kind": "empty_400"})
    assert (answer.status, answer.body, answer.headers["content-length"]) == (400, b"", "0")
    assert not redeemed(server)


def test_redirect(server: ServerHandle) -> None:
    """`redirect` points elsewhere with the given status, 307 by default."""
    answer, _ = meet(server, {"kind": "redirect", "to": "http://127.0.0.1:9/x"})
    assert (answer.status, answer.headers["location"]) == (307, "http://127.0.0.1:9/x")
    assert meet(server, {"kind": "redirect", "to": "/y", "code": 308})[0].status == 308
    assert not redeemed(server)


def test_redirect_to_another_server(server: ServerHandle) -> None:
    """What follows a redirect to another server is seen in that server's counts."""
    with running_server() as other:
        answer, login = meet(server, {"kind": "redirect", "to": other.token_url})
        assert answer.headers["location"] == other.token_url
        assert other.stats().token_posts == 0
        refresh(other, login["refresh_token"])
        assert other.stats().token_posts == 1


def test_dribble(server: ServerHandle) -> None:
    """`dribble` rotates and sends the body one byte at a time, each in a packet of its own."""
    answer, _ = meet(server, {"kind": "dribble", "bytes_per_second": 500})
    assert answer.json["token_type"] == "Bearer"
    assert answer.chunks >= 8
    (row,) = server.stats().redemptions
    assert row.answered is not None
    assert row.committed is not None
    assert row.answered - row.committed >= len(answer.body) / 500


def test_dribble_ends_with_its_client(server: ServerHandle) -> None:
    """A dribble for which nobody listens any more is over soon, not after its last byte."""
    server.faults([{"kind": "dribble", "bytes_per_second": 5}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(server.login()["refresh_token"]))
        assert wire.recv(1)
    server.wait("token_request_answered", timeout=15)


def test_expired_token(server: ServerHandle) -> None:
    """`expired_token` says `expires_in` -1, and the API agrees; the refresh token is good."""
    answer, _ = meet(server, {"kind": "expired_token"})
    assert answer.json["expires_in"] == -1
    assert send(server, "GET", "/api/x", headers=bearer(answer.json)).status == 401
    assert refresh(server, answer.json["refresh_token"]).status == 200


def test_other_sub(server: ServerHandle) -> None:
    """`other_sub` answers a good token with another person's id token."""
    server.configure(id_token=True)
    answer, login = meet(server, {"kind": "other_sub"})
    assert _subject(login) == "alice"
    assert _subject(answer.json) == "mallory"


def _subject(answer: dict[str, Any]) -> str:
    part = answer["id_token"].split(".")[1]
    subject: str = json.loads(base64.urlsafe_b64decode(part + "=="))["sub"]
    return subject


@pytest.mark.parametrize("when", ["before", "after"])
def test_reset(server: ServerHandle, when: str) -> None:
    """A reset is a real TCP RST with not a byte before it; only after the commit the token is rotated."""
    answer, login = meet(server, {"kind": f"reset_{when}_commit"})
    assert answer.reset
    assert answer.raw == b""
    assert redeemed(server) == (when == "after")
    assert refresh(server, login["refresh_token"]).status == (400 if when == "after" else 200)


def test_timeout_before(server: ServerHandle) -> None:
    """`timeout_before` is silent for its seconds, then gives up without having redeemed."""
    answer, _ = meet(server, {"kind": "timeout_before", "seconds": 0.05})
    assert answer.status == 504
    (row,) = server.stats().redemptions
    assert row.committed is None
    assert row.answered is not None
    assert row.answered - row.received >= 0.049


def test_timeout_after(server: ServerHandle) -> None:
    """`timeout_after` rotates at once and is silent for its seconds before the answer."""
    answer, _ = meet(server, {"kind": "timeout_after", "seconds": 0.05})
    assert answer.status == 200
    (row,) = server.stats().redemptions
    assert row.committed is not None
    assert row.answered is not None
    assert row.answered - row.committed >= 0.049


def test_invalid_grant(server: ServerHandle) -> None:
    """`invalid_grant` is said for a token that is good, and stays so."""
    answer, login = meet(server, {"kind": "invalid_grant"})
    assert (answer.status, answer.json["error"]) == (400, "invalid_grant")
    assert refresh(server, login["refresh_token"]).status == 200


@pytest.mark.parametrize("code", [429, 503])
def test_too_busy(server: ServerHandle, code: int) -> None:
    """429 and 503 say when to come again: seconds, a date, nonsense or nothing (RFC 9110 §10.2.3)."""
    answer, _ = meet(server, {"kind": code, "retry_after": 7})
    assert (answer.status, answer.headers["retry-after"]) == (code, "7")
    dated = meet(server, {"kind": code, "retry_after": 60, "date": True})[0].headers["retry-after"]
    assert 55 <= parsedate_to_datetime(dated).timestamp() - time.time() <= 62
    assert meet(server, {"kind": code, "retry_after": "soon"})[0].headers["retry-after"] == "soon"
    assert "retry-after" not in meet(server, {"kind": code})[0].headers
    assert not redeemed(server)


def test_hold(server: ServerHandle) -> None:
    """A held request is neither decided nor answered until its name is released."""
    server.faults([{"kind": "hold", "name": "gate"}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(server.login()["refresh_token"]))
        server.wait("token_request_held")
        assert not redeemed(server)
        server.release("gate")
        assert read_to_end(wire).status == 200


def test_hold_after(server: ServerHandle) -> None:
    """With `hold_after` the server has rotated while the answer, here a reset, waits for its release."""
    server.faults([{"kind": "reset_after_commit", "hold_after": "gate"}])
    with open_socket(server) as wire:
        wire.sendall(refresh_request(server.login()["refresh_token"]))
        server.wait("token_request_held")
        assert redeemed(server)
        server.release("gate")
        assert read_to_end(wire).reset


def test_every_kind_leaves_the_server_well(server: ServerHandle) -> None:
    """After any fault the next login and refresh work."""
    for kind in sorted(FAULT_KINDS):
        server.release("x")
        meet(server, {"kind": kind, "to": "/", "name": "x", "bytes_per_second": 1e5})
        assert refresh(server, server.login()["refresh_token"]).status == 200


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ({"kind": "no-such"}, "unknown fault 'no-such'; the faults are: 429, 503,"),
        ("reset", "unknown fault 'reset'; the faults are: .*reset_after_commit, reset_before_commit"),
        ("hold", 'a hold needs a "name"'),
        ({"kind": "redirect"}, 'a redirect needs "to", the URL'),
        ({"kind": "html", "colour": "red"}, "a fault has no colour"),
        ({"kind": "html", "times": 0}, "must be positive"),
        ({"kind": "dribble", "bytes_per_second": 0}, "must be positive"),
        ({"kind": "timeout_after", "seconds": -1}, "not negative"),
        ({}, r'a step needs a "kind", as in \["503", {"kind": "429", "retry_after": 2}\]'),
        ({"type": "503"}, 'a step needs a "kind"'),
        (503, r'a step is a kind alone or with its settings, as in \["503", .*\], not int'),
        (["503"], "not list"),
    ],
    ids=str,
)
def test_nonsense(step: Any, why: str) -> None:
    """A step that makes no sense is refused with what it lacks, and the script before it stands."""
    script = FaultScript()
    script.load("html")
    with pytest.raises(ValueError, match=why):
        script.load(["503", step])
    left = script.next()
    assert left is not None
    assert left.kind == "html"
    assert script.next() is None


@pytest.mark.parametrize("wrong", [503, None, b"503"], ids=str)
def test_what_is_no_step(server: ServerHandle, wrong: Any) -> None:
    """A handle says what a step or a rule looks like, and sends nothing."""
    with pytest.raises(ValueError, match=r"a step is a kind .*, as in \[\"503\""):
        server.faults(wrong)
    with pytest.raises(ValueError, match=r"a rule is a kind .*, as in \[\"refuse\""):
        server.api_faults(wrong)
    assert refresh(server, server.login()["refresh_token"]).status == 200
