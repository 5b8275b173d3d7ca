from __future__ import annotations

from urllib.parse import parse_qs, urljoin, urlsplit

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from unexpired._core.login_page import check_template, fill_template, local_path
from unexpired.errors import ConfigurationError

SITE = "https://app.example.com/orders"


@pytest.mark.parametrize("path", ["/", "/orders", "/orders?id=7&b=/x#top", "/a//b", "/ü", "/%2F%2Fevil", "/@evil.com"])
def test_a_path_of_this_site_is_kept(path: str) -> None:
    """Where the person was is where they come back to, query and fragment included."""
    assert local_path(path) == path
    assert urlsplit(urljoin(SITE, path)).netloc == "app.example.com"


@pytest.mark.parametrize(
    "path",
    [
        "//evil.com", "///evil.com", "/\\evil.com", "\\\\evil.com", "\\/evil.com", "http://evil.com", "https:evil.com",
        "javascript:alert(1)", "JaVaScRiPt:alert(1)", "data:text/html,x", "evil.com", "", " //evil.com", "/\t/evil.com",
        "\t//evil.com", "/\n/evil.com", "/\r\nSet-Cookie: a=b", "/x\r\nLocation: //evil.com", "/\x00/evil.com",
        "/\u2028/evil.com", "/\ud800", "/\x7f", "/\u200b/evil.com", "%2F%2Fevil.com", "?redirect=//evil.com",
    ],
)  # fmt: skip
def test_any_other_way_back_becomes_the_root(path: str) -> None:
    """What a browser could take for another site, a script or a header line is not a way back (scenario 70)."""
    assert local_path(path) == "/"


@given(st.text())
def test_no_text_leads_elsewhere(text: str) -> None:
    """Whatever the way back is, a browser that resolves it stays on this site."""
    path = local_path(text)
    assert path.startswith("/")
    assert path.isprintable()
    assert path[1:2] not in ("/", "\\")
    assert urlsplit(urljoin(SITE, path)).netloc == "app.example.com"


def test_the_template_is_filled_and_every_field_encoded() -> None:
    """Fields of the caller's own and ours come out of the query as they went in."""
    fields = {"return_to": "/orders?id=7&x=ü", "code": "a b&c=d/é", "reason": "refused", "key": "alice@crm"}
    url = fill_template("/login?redirect={return_to}&code={code}&why={reason}&who={key}", fields)
    assert parse_qs(urlsplit(url).query) == {
        "redirect": ["/orders?id=7&x=ü"],
        "code": ["a b&c=d/é"],
        "why": ["refused"],
        "who": ["alice@crm"],
    }


def test_without_a_way_back_the_root_is_filled_in() -> None:
    """A template that asks for it gets `/` when nobody named one."""
    assert fill_template("/login?redirect={return_to}", {}) == "/login?redirect=%2F"
    assert fill_template("/login?redirect={return_to}", {"return_to": "//evil.com"}) == "/login?redirect=%2F"


@given(st.text())
@example("\ud800")
@example("a&b=c#d\r\nLocation: //evil.com")
def test_no_field_can_break_out_of_its_place(value: str) -> None:
    """No value of a field adds a parameter, a host or a header line, or makes filling fail (scenario 70)."""
    url = fill_template("/login?code={code}&redirect={return_to}", {"code": value, "return_to": value})
    assert url.isascii()
    assert url.isprintable()
    assert " " not in url
    parts = urlsplit(url)
    assert (parts.netloc, parts.path, parts.fragment) == ("", "/login", "")
    assert parts.query.count("&") == 1


@pytest.mark.parametrize(
    "template", ["/", "/login", "/login?r={return_to}", "https://id.example/{key}?{code}", "/{{}}"]
)
def test_a_template_with_known_fields_is_taken(template: str) -> None:
    """Our fields, and those that the program supplies, may stand anywhere in it."""
    check_template(template, {"code"})


@pytest.mark.parametrize(
    ("template", "words"),
    [
        ("/login?r={return_too}", "return_too"), ("/login?r={}", "nobody supplies"),
        ("/login?r={0}", "nobody supplies"),
        ("/login?r={key.__class__}", "nobody supplies"), ("/login?r={key[0]}", "nobody supplies"),
        ("/login?r={return_to", "braces"), ("/login?r=}", "braces"), ("/login?r={key!r}", "plain ones"),
        ("/login?r={key:>99}", "plain ones"), ("/login?r={key:{code}}", "plain ones"),
        ("/login\r\nSet-Cookie: a=b", "control character"), ("/login\t", "control character"),
    ],
)  # fmt: skip
def test_a_template_that_cannot_be_filled_safely_is_refused(template: str, words: str) -> None:
    """The error comes when the manager is made, and says which field or character is wrong."""
    with pytest.raises(ConfigurationError, match=words):
        check_template(template, {"code"})
