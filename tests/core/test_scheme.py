from __future__ import annotations

import threading
from http import HTTPStatus
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unexpired._core.scheme import (
    ACCEPTED,
    Answer,
    InCookie,
    InHeader,
    InQuery,
    Judgement,
    Place,
    Rendered,
    Scheme,
    Verdict,
    origin_of,
)
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError

TOKEN = Token("AT-1", refresh_token="RT-1", id_token="ID-1")
OK, GONE, OVER = 0, 40009, 40005


def _coded(**more: Any) -> Scheme:
    return Scheme(InQuery("token"), code="code", expired=[GONE], login_required=[OVER], ok=[OK], **more)


def test_a_token_goes_to_each_kind_of_place() -> None:
    """Headers, query parameters and cookies are rendered side by side, in the order given."""
    scheme = Scheme(
        InHeader("access_token"),
        InQuery("token"),
        InHeader("refresh_token", "{refresh_token}"),
        InCookie("sid"),
    )
    assert scheme.render(TOKEN) == Rendered(
        (("access_token", "AT-1"), ("refresh_token", "RT-1")), (("token", "AT-1"),), (("sid", "AT-1"),)
    )


def test_bearer_is_the_authorization_header() -> None:
    """Scheme.bearer puts the token where RFC 6750 §2.1 wants it, and takes the options of a scheme."""
    scheme = Scheme.bearer(expired_status=(401, 403))
    assert scheme.render(TOKEN).headers == (("Authorization", "Bearer AT-1"),)
    assert 403 in scheme.suspicious_status
    assert scheme.plain


def test_the_last_rendering_is_remembered_by_identity() -> None:
    """The same token gets the same object again; an equal but different one is rendered anew."""
    scheme = Scheme.bearer()
    first = scheme.render(TOKEN)
    assert scheme.render(TOKEN) is first
    assert scheme.render(Token("AT-1")) is not first
    assert scheme.render(Token("AT-2")).headers == (("Authorization", "Bearer AT-2"),)


def test_threads_with_different_tokens_never_get_each_others() -> None:
    """Threads that render different tokens with one scheme at once each get the values of their own."""
    scheme = Scheme.bearer()
    start = threading.Barrier(4)
    wrong: list[str] = []

    def render(name: str) -> None:
        token = Token(name)
        start.wait()
        wrong.extend(name for _ in range(3000) if scheme.render(token).headers[0][1] != f"Bearer {name}")

    threads = [threading.Thread(target=render, args=(f"AT-{n}",)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


@pytest.mark.parametrize("field", ["refresh_token", "id_token"])
def test_a_field_that_the_token_lacks_is_named(field: str) -> None:
    """A template that needs what the token lacks is refused, naming the place and the field."""
    scheme = Scheme(InHeader("x-more", f"{{{field}}}"))
    with pytest.raises(ConfigurationError, match=rf"InHeader\('x-more'\).*{field}"):
        scheme.render(Token("AT-1"))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (InHeader("a"), "S3CRET\r\nx: y"),
        (InHeader("a"), "S3CRET\u2028"),
        (InQuery("a"), "S3CRET\x00"),
        (InCookie("a"), "S3CRET; path=/"),
    ],
)
def test_a_value_that_would_break_out_is_refused_unseen(place: Place, value: str) -> None:
    """A token that would inject a header or cookie is refused; the error does not show it (scenario 68)."""
    with pytest.raises(ConfigurationError) as caught:
        Scheme(place).render(Token(value))
    assert "S3CRET" not in str(caught.value)


def test_a_query_value_may_be_any_printable_text() -> None:
    """A query value is encoded by the client, so only control characters are refused there."""
    assert Scheme(InQuery("t")).render(Token("ä;&=")).query == (("t", "ä;&="),)


def test_renderings_show_no_secret() -> None:
    """The repr of what goes on the wire shows no token."""
    assert "AT-1" not in repr(Scheme(InHeader("a"), InQuery("b"), InCookie("c")).render(TOKEN))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"expired": [1]}, "path"),
        ({"login_required": [1]}, "path"),
        ({"ok": [1]}, "path"),
        ({"code": "", "expired": [1]}, "path"),
        ({"code": "error..code", "expired": [1]}, "path"),
        ({"code": "code", "expired": [1], "ok": ["1"]}, "twice"),
        ({"code": "code", "expired": [1, 1.0]}, "twice"),
        ({"code": "code", "expired": "40009"}, "list"),
        ({"code": "code", "expired": 40009}, "list"),
        ({"code": "code", "expired": [True]}, "bool"),
        ({"code": "code", "ok": [None]}, "NoneType"),
        ({"expired_status": 401}, "list"),
        ({"expired_status": [4010]}, "statuses"),
        ({"expired_status": ["401"]}, "statuses"),
        ({"origins": "https://a.example"}, "list"),
        ({"origins": []}, "empty"),
    ],
)
def test_options_that_cannot_work_are_refused(options: dict[str, Any], words: str) -> None:
    """Codes without a path, a code in two sets and wrong kinds of values are refused at once."""
    with pytest.raises(ConfigurationError, match=words):
        Scheme.bearer(**options)


def test_a_scheme_needs_known_places() -> None:
    """No place, an unknown kind of place and a place given twice are refused, saying what to do."""
    with pytest.raises(ConfigurationError, match=r"Scheme\.bearer"):
        Scheme()
    for unknown in ("Authorization", Place("x")):
        with pytest.raises(ConfigurationError, match="InHeader, InQuery or InCookie"):
            Scheme(cast("Place", unknown))
    with pytest.raises(ConfigurationError, match="twice"):
        Scheme(InHeader("X-Token"), InHeader("x-token", "{id_token}"))
    assert Scheme(InQuery("t"), InQuery("T"), InCookie("t")).render(TOKEN).query == (
        ("t", "AT-1"),
        ("T", "AT-1"),
    )


@pytest.mark.parametrize(
    ("parts", "origin"),
    [
        (("https", "API.Example.com", 443), "https://api.example.com"),
        (("HTTPS", "api.example.com", None), "https://api.example.com"),
        (("http", "api.example.com", 80), "http://api.example.com"),
        (("https", "api.example.com", 80), "https://api.example.com:80"),
        (("https", "0:0:0:0:0:0:0:1", 8443), "https://[::1]:8443"),
        (("https", "[::1]", None), "https://[::1]"),
        (("https", "Not:An:Address", None), "https://[not:an:address]"),
        (("https", "BÜCHER.example", None), "https://xn--bcher-kva.example"),
        (("https", "straße.de", None), "https://xn--strae-oqa.de"),
        (("https", "u\u0308.de", None), "https://xn--tda.de"),
    ],
)
def test_an_origin_has_one_spelling(parts: tuple[str, str, int | None], origin: str) -> None:
    """Case, default ports, IPv6 forms and names beyond ASCII come to one spelling (RFC 6454 §6.2)."""
    assert origin_of(*parts) == origin


@pytest.mark.parametrize(
    "written", ["https://api.example.com", "HTTPS://API.example.com:443", "https://api.example.com/"]
)
def test_the_token_goes_to_listed_origins_only(written: str) -> None:
    """With origins= no other host, port or scheme gets the token, however it is spelled (scenario 45)."""
    scheme = Scheme.bearer(origins=[written, "http://[::1]:80", "https://straße.de"])
    assert scheme.origins == frozenset({"https://api.example.com", "http://[::1]", "https://xn--strae-oqa.de"})
    assert scheme.allows("https://api.example.com")
    for origin in (
        "https://api.example.com",
        "https://API.example.com:443/",
        "http://[0:0::1]",
        "https://Straße.de",
    ):
        assert scheme.allows(origin)
    for origin in (
        "http://api.example.com",
        "https://api.example.com:8443",
        "https://evil.example",
        "https://api.example.com.evil.example",
        "https://api.example.com@evil.example",
        "https://strasse.de",
        "https://api.exam\tple.com",
        "null",
        "",
    ):
        assert not scheme.allows(origin)


def test_without_a_list_every_origin_is_allowed() -> None:
    """A scheme without origins= leaves it to the adapter to stay with the origin that was asked for."""
    assert Scheme.bearer().origins is None
    assert Scheme.bearer().allows("https://anywhere.example")


@pytest.mark.parametrize(
    "written",
    [
        "api.example.com", "//api.example.com", "ftp://a.example", "https://", "https://a.example/path",
        "https://a.example?x", "https://a.example#x", "https://u@a.example", "https://*.a.example",
        "https://a.example:port", "https://[::1", "https://a b", "https://a\n.example",
        "https://[fe80::1%25eth0]",
    ],
)  # fmt: skip
def test_what_is_no_origin_is_refused(written: str) -> None:
    """A malformed origin, a wildcard, a path or user information is refused when the scheme is made."""
    with pytest.raises(ConfigurationError, match="not an origin"):
        Scheme.bearer(origins=[written])


@given(st.text())
def test_any_text_can_be_asked_for_as_an_origin(origin: str) -> None:
    """Asking for an origin never raises, and text that is no origin gets no token."""
    assert not Scheme.bearer(origins=["https://api.example.com"]).allows("x" + origin)


@pytest.mark.parametrize(
    ("status", "header", "verdict", "reason"),
    [
        (200, None, Verdict.ACCEPTED, ""),
        (200, 'Bearer error="invalid_token"', Verdict.ACCEPTED, ""),
        (400, 'Bearer error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        (401, 'Bearer error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        (403, 'Bearer error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        (401, None, Verdict.EXPIRED, "status 401"),
        (401, 'Basic realm="x"', Verdict.EXPIRED, "status 401"),
        (401, 'Bearer error="insufficient_scope"', Verdict.ACCEPTED, ""),
        (403, 'Bearer error="insufficient_scope"', Verdict.ACCEPTED, ""),
        (403, None, Verdict.ACCEPTED, ""),
        (401, 'DPoP error="use_dpop_nonce"', Verdict.RETRY_SAME, "use_dpop_nonce"),
        (429, None, Verdict.ACCEPTED, ""),
        (503, None, Verdict.ACCEPTED, ""),
    ],
)
def test_header_and_status_are_judged(status: int, header: str | None, verdict: Verdict, reason: str) -> None:
    """invalid_token and 401 are expired; scopes, plain 403, 429 and 5xx are not (RFC 6750, scenario 38)."""
    headers = {} if header is None else {"www-authenticate": header}
    judgement = Scheme.bearer().judge(Answer(status, headers))
    assert judgement == Judgement(verdict, reason)
    assert (judgement is ACCEPTED) == (verdict is Verdict.ACCEPTED)


def test_a_bare_403_is_expired_where_configured() -> None:
    """A 403 without a header means expired only when expired_status names it; narrow scopes stay accepted."""
    scheme = Scheme.bearer(expired_status=[HTTPStatus.FORBIDDEN])
    assert scheme.judge(Answer(403, {})) == Judgement(Verdict.EXPIRED, "status 403")
    assert scheme.judge(Answer(403, {"www-authenticate": "Bearer error=insufficient_scope"})) is ACCEPTED
    assert scheme.judge(Answer(401, {})) is ACCEPTED


@given(st.integers(100, 599), st.sampled_from([None, "Bearer error=invalid_token", "DPoP error=use_dpop_nonce"]))
def test_a_plain_scheme_accepts_every_other_status(status: int, header: str | None) -> None:
    """Outside suspicious_status a plain scheme accepts whatever the header says: a lookup is all it takes."""
    scheme = Scheme.bearer(expired_status=(401, 419))
    judgement = scheme.judge(Answer(status, {} if header is None else {"www-authenticate": header}))
    assert status in scheme.suspicious_status or judgement is ACCEPTED


@pytest.mark.parametrize(
    ("status", "body", "verdict"),
    [
        (200, b'{"code": 40009}', Verdict.EXPIRED),
        (200, b'{"x": [], "code": " 40009 "}', Verdict.EXPIRED),
        (500, b'{"code": 40009.0}', Verdict.EXPIRED),
        (200, b'{"code": 40005}', Verdict.LOGIN_REQUIRED),
        (401, b'{"code": "40005"}', Verdict.LOGIN_REQUIRED),
        (200, b'{"code": 0}', Verdict.ACCEPTED),
        (401, b'{"code": 0}', Verdict.EXPIRED),
        (200, b'{"code": 500}', Verdict.ACCEPTED),
        (401, b'{"code": 500}', Verdict.EXPIRED),
        (401, None, Verdict.EXPIRED),
    ],
)
def test_a_code_in_the_body_settles_it(status: int, body: bytes | None, verdict: Verdict) -> None:
    """A known code wins over the status; ok settles only a 2xx, others settle nothing (scenario 37)."""
    assert _coded().judge(Answer(status, {}, body)).verdict is verdict


def test_ok_settles_a_2xx_that_its_status_would_refuse() -> None:
    """Where a 2xx is itself in expired_status, an ok code in its body still accepts the answer."""
    scheme = _coded(expired_status=[203])
    assert scheme.judge(Answer(203, {}, b'{"code": 0}')) is ACCEPTED
    assert scheme.judge(Answer(203, {}, b'{"code": 7}')) == Judgement(Verdict.EXPIRED, "status 203")


def test_the_reason_names_the_configured_code() -> None:
    """The reason names the code as it was configured and nothing else of the body."""
    judgement = _coded().judge(Answer(200, {}, b'{"code": "40009", "msg": "S3CRET"}'))
    assert judgement == Judgement(Verdict.EXPIRED, "code 40009")


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (None, Judgement(Verdict.EXPIRED, "code 40009")),
        (Verdict.ACCEPTED, ACCEPTED),
        (Verdict.STEP_UP, Judgement(Verdict.STEP_UP, "judge")),
        (Judgement(Verdict.LOGIN_REQUIRED, "mine"), Judgement(Verdict.LOGIN_REQUIRED, "mine")),
    ],
)
def test_the_users_own_judge_is_asked_first(given: Verdict | Judgement | None, expected: Judgement) -> None:
    """A judge of the user's own sees the whole answer first; None leaves it to codes, header and status."""
    seen: list[Answer] = []

    def judge(answer: Answer) -> Verdict | Judgement | None:
        seen.append(answer)
        return given

    answer = Answer(200, {}, b'{"code": 40009}')
    assert _coded(judge=judge).judge(answer) == expected
    assert seen == [answer]


def test_a_judge_must_return_a_verdict() -> None:
    """A judge that returns something else, such as True, is a mistake that is named and not guessed at."""
    scheme = Scheme.bearer(judge=cast("Any", lambda _: True))
    with pytest.raises(ConfigurationError, match="bool"):
        scheme.judge(Answer(200, {}))


@pytest.mark.parametrize(
    ("status", "content_type", "length", "method", "wanted"),
    [
        (200, "application/json", None, "GET", True),
        (200, "Application/JSON; charset=utf-8", 65536, "POST", True),
        (401, "application/problem+json", 10, "GET", True),
        (200, "text/json", 1, "GET", True),
        (200, "text/plain", 1, "GET", True),
        (200, "text/html", 1, "GET", True),
        (200, "text/javascript", 1, "GET", True),
        (200, None, None, "GET", True),
        (200, "application/json", 65537, "GET", False),
        (200, "application/json", None, "HEAD", False),
        (204, "application/json", None, "GET", False),
        (304, "application/json", None, "GET", False),
        (101, "application/json", None, "GET", False),
        (200, "text/event-stream", None, "GET", False),
        (200, "application/x-ndjson", None, "GET", False),
        (200, "application/json-seq", None, "GET", False),
        (200, "application/stream+json", None, "GET", False),
        (200, "application/octet-stream", 10, "GET", False),
        (200, "image/png", 10, "GET", False),
        (200, "audio/ogg", 10, "GET", False),
        (200, "video/mp4", None, "GET", False),
        (200, "multipart/mixed", None, "GET", False),
    ],
)
def test_only_bodies_that_can_hold_a_code_are_sniffed(
    status: int, content_type: str | None, length: int | None, method: str, wanted: bool
) -> None:
    """JSON and text under the limit are sniffed; streams, media, downloads and bodiless answers never are."""
    assert _coded().wants_body(status, content_type, length, method) is wanted
    assert Scheme.bearer(judge=lambda _: None).wants_body(status, content_type, length, method) is wanted
    assert Scheme.bearer().wants_body(status, content_type, length, method) is False
