from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unexpired._core.challenge import (
    ACCEPTED,
    Answer,
    InCookie,
    InHeader,
    InQuery,
    Judgement,
    Place,
    Verdict,
    judge_challenges,
    parse_challenges,
)
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError

TOKEN = Token("AT-1", refresh_token="RT-1", id_token="ID-1")


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (InHeader("Authorization", "Bearer {access_token}"), "Bearer AT-1"),
        (
            InHeader("X-Both", "{token_type}/{access_token}/{refresh_token}/{id_token}"),
            "Bearer/AT-1/RT-1/ID-1",
        ),
        (InHeader("X-Braces", "{{{access_token}}}"), "{AT-1}"),
    ],
)
def test_a_template_is_filled(place: Place, value: str) -> None:
    """A template may use the access, refresh and id token and the token type, and literal text."""
    assert place.fill(TOKEN) == value


@pytest.mark.parametrize("make", [InHeader, InCookie, InQuery])
@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("", "{access_token}"),
        ("a b", "{access_token}"),
        ("a\r\nb", "{access_token}"),
        ("x", "access_token"),
        ("x", ""),
        ("x", "{"),
        ("x", "{}"),
        ("x", "{password}"),
        ("x", "{access_token.__class__}"),
        ("x", "{access_token!r}"),
        ("x", "{access_token:>9}"),
    ],
)
def test_a_place_that_cannot_work_is_refused(make: type[Place], name: str, template: str) -> None:
    """A bad name or template is refused when the place is made, with an error that names the place."""
    with pytest.raises(ConfigurationError) as caught:
        make(name, template)
    assert str(caught.value).startswith(f"{make.__name__}({name!r})")


@pytest.mark.parametrize("make", [InHeader, InCookie])
@pytest.mark.parametrize("name", ["a:b", "a=b", "ä", "a;b"])
def test_header_and_cookie_names_are_tokens(make: type[Place], name: str) -> None:
    """Names of headers and cookies are tokens (RFC 9110 §5.6.2); a query parameter is freer."""
    with pytest.raises(ConfigurationError):
        make(name)
    assert InQuery(name).name == name


def _read(header: str) -> list[tuple[str, str | None, dict[str, str]]]:
    return [(c.scheme, c.token68, dict(c.params)) for c in parse_challenges(header)]


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", []),
        (" , ,\t", []),
        ("Bearer", [("bearer", None, {})]),
        ("Negotiate, Basic realm=x", [("negotiate", None, {}), ("basic", None, {"realm": "x"})]),
        ("NTLM TlRMTVNTUAAB==, Bearer", [("ntlm", "TlRMTVNTUAAB==", {}), ("bearer", None, {})]),
        ("Negotiate abc= ", [("negotiate", "abc=", {})]),
        ('Bearer Realm = "a, b" , error=x', [("bearer", None, {"realm": "a, b", "error": "x"})]),
        (r'Bearer realm="say \"hi\", \\ you"', [("bearer", None, {"realm": r'say "hi", \ you'})]),
        (
            'Bearer realm="a", error="invalid_token", DPoP algs="ES256 PS256"',
            [
                ("bearer", None, {"realm": "a", "error": "invalid_token"}),
                ("dpop", None, {"algs": "ES256 PS256"}),
            ],
        ),
        ('Bearer realm="a" error="b"', [("bearer", None, {"realm": "a", "error": "b"})]),
        ("Bearer error=a, error=b", [("bearer", None, {"error": "a"})]),
    ],
)
def test_reads_challenges(header: str, expected: object) -> None:
    """Several challenges, quoted commas, escapes, token68, missing commas are read (RFC 9110 §11.6.1)."""
    assert _read(header) == expected


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ('error="invalid_token"', []),
        ('Bearer error="invalid_token', [("bearer", None, {})]),
        ('Bearer realm="x, Bearer error=invalid_token', [("bearer", None, {})]),
        ('Bearer "loose, Bearer error=a"', [("bearer", None, {})]),
        ('Bearer "open, Bearer error=a', [("bearer", None, {})]),
        ("Bearer a=b, error=, realm=c", [("bearer", None, {"a": "b", "realm": "c"})]),
        ("Bearer @@ error=a", [("bearer", None, {"error": "a"})]),
        ("=", []),
    ],
)
def test_malformed_challenges_are_skipped(header: str, expected: object) -> None:
    """What cannot be read is skipped; text inside a string, closed or not, never passes for a challenge."""
    assert _read(header) == expected


@given(st.text())
def test_any_text_can_be_parsed(header: str) -> None:
    """A header never raises, whatever it holds, and every scheme found is lower case."""
    assert all(c.scheme == c.scheme.lower() for c in parse_challenges(header))


@given(st.text(alphabet='Bearer DPoP,="\\ \terror_tkn\x00', max_size=60))
def test_any_challenge_like_text_can_be_judged(header: str) -> None:
    """Text made of the grammar's own pieces never raises either, and is parsed the same each time."""
    assert parse_challenges(header) == parse_challenges(header)
    judgement = judge_challenges(parse_challenges(header))
    assert judgement is None or judgement.verdict in Verdict


_NAMES = st.text(alphabet="abcdefgh_", min_size=1, max_size=8)


@given(
    st.lists(
        st.tuples(_NAMES, st.dictionaries(_NAMES, st.text(alphabet='xyz ,="\\é', max_size=12), min_size=1)),
        max_size=5,
    )
)
def test_written_challenges_are_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """Challenges written with quoted strings are read back exactly, each parameter with its own challenge."""

    def quoted(value: str) -> str:
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in params.items())
        for scheme, params in challenges
    )
    assert [(c.scheme, dict(c.params)) for c in parse_challenges(header)] == challenges


@pytest.mark.parametrize(
    "piece", ["a ", 'a="', '"', '\\"', "a,", "a=a,", " ", "=", "a" * 50 + ";", '"\\', "a" + " " * 50 + ";"]
)
def test_hostile_headers_take_linear_time(piece: str) -> None:
    """Eight times the header takes nowhere near the sixty-four times of a quadratic parser."""

    def cost(length: int) -> float:
        header = "Bearer " + piece * (length // len(piece))
        best = float("inf")
        for _ in range(5):
            started = time.process_time()
            parse_challenges(header)
            best = min(best, time.process_time() - started)
        return best

    assert cost(80_000) < 30 * cost(10_000) + 0.005


@pytest.mark.parametrize(
    ("header", "verdict", "reason"),
    [
        ('Bearer error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        ('DPoP algs="ES256", error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        ('DPoP error="use_dpop_nonce"', Verdict.RETRY_SAME, "use_dpop_nonce"),
        ('Basic realm="x", Bearer error="invalid_token"', Verdict.EXPIRED, "invalid_token"),
        ('Bearer, DPoP error="use_dpop_nonce"', Verdict.RETRY_SAME, "use_dpop_nonce"),
    ],
)
def test_token_errors_are_recognised(header: str, verdict: Verdict, reason: str) -> None:
    """invalid_token is expired (RFC 6750 §3.1), a wanted nonce is one more try (RFC 9449 §9)."""
    assert judge_challenges(parse_challenges(header)) == Judgement(verdict, reason)


def test_a_scope_too_narrow_is_accepted() -> None:
    """insufficient_scope is accepted: a refresh gives no wider scope (RFC 6750 §3.1, scenario 38)."""
    header = 'Bearer error="insufficient_scope", scope="admin"'
    assert judge_challenges(parse_challenges(header)) is ACCEPTED


def test_a_stronger_login_is_asked_for() -> None:
    """insufficient_user_authentication is a step-up with what is asked for (RFC 9470 §3, scenario 39)."""
    header = (
        'Bearer error="insufficient_user_authentication", error_description="secret words", '
        'acr_values="gold silver", max_age="5"'
    )
    judgement = judge_challenges(parse_challenges(header))
    assert judgement is not None
    assert (judgement.verdict, judgement.reason) == (Verdict.STEP_UP, "insufficient_user_authentication")
    assert judgement.challenge == {
        "error": "insufficient_user_authentication",
        "acr_values": "gold silver",
        "max_age": "5",
    }


def test_missing_claims_are_asked_for() -> None:
    """insufficient_claims is a step-up when the API says which claims it wants (scenario 39)."""
    judgement = judge_challenges(parse_challenges('Bearer error="insufficient_claims", claims="eyJ4IjoxfQ=="'))
    assert judgement is not None
    assert (judgement.verdict, judgement.reason) == (Verdict.STEP_UP, "insufficient_claims")
    assert judgement.challenge == {"error": "insufficient_claims", "claims": "eyJ4IjoxfQ=="}


@pytest.mark.parametrize(
    "header",
    [
        "",
        "Bearer",
        'Bearer realm="x"',
        'Bearer error="invalid_request"',
        'Bearer error="insufficient_claims"',
        'Basic error="invalid_token"',
        'Bearer realm="error=invalid_token"',
    ],
)
def test_other_challenges_settle_nothing(header: str) -> None:
    """Without a known error of Bearer or DPoP the header leaves the judgement to the status."""
    assert judge_challenges(parse_challenges(header)) is None


def test_nothing_a_server_wrote_is_in_a_repr() -> None:
    """Challenges, judgements and answers show no header value and no body."""
    header = 'Bearer error="insufficient_claims", claims="S3CRET"'
    challenges = parse_challenges(header)
    answer = Answer(401, {"www-authenticate": header}, b"S3CRET")
    assert "S3CRET" not in repr((challenges, parse_challenges("NTLM S3CRET"), judge_challenges(challenges), answer))


@pytest.mark.parametrize(
    ("body", "document"),
    [
        (b'{"a": [1]}', {"a": [1]}),
        (None, None),
        (b"", None),
        (b"<html>", None),
        (b"[" * 100_000, None),
        (b"9" * 5000, None),
        (b"\xff", None),
    ],
)
def test_an_answer_gives_its_json(body: bytes | None, document: object) -> None:
    """A judge of the user's own gets the parsed body, or None for what is not JSON."""
    assert Answer(200, {}, body).json() == document
