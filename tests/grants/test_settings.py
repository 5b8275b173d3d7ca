from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest

from unexpired._core import token
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError
from unexpired.grants import FunctionGrant, RefreshTokenGrant
from unexpired.grants._settings import ANSWER_FIELDS

SECRET = "rt-9f8e7d6c"
SESSION = Session.begin("alice", "login", Token("a0", refresh_token=SECRET))

Make = Callable[..., Any]


def function_grant(**settings: Any) -> FunctionGrant:
    """A grant of a function."""
    return FunctionGrant(lambda _: {"access_token": "a1"}, **settings)


def refresh_token_grant(**settings: Any) -> RefreshTokenGrant:
    """A grant of an address."""
    return RefreshTokenGrant("https://id.example.com/token", client_id="crm", **settings)


@pytest.fixture(params=[function_grant, refresh_token_grant], ids=["function", "refresh_token"])
def made(request: pytest.FixtureRequest) -> Make:
    """Make each kind of grant."""
    make: Make = request.param
    return make


def refused(make: Callable[[], object]) -> str:
    """What the error says, which is no word of a secret."""
    with pytest.raises(ConfigurationError) as caught:
        make()
    assert SECRET not in str(caught.value)
    return str(caught.value)


def test_the_known_fields_are_those_of_a_token() -> None:
    """What a token is made of can be mapped, and nothing that nobody would read."""
    assert set(ANSWER_FIELDS) == token._KNOWN


def test_every_field_of_a_token_can_be_mapped(made: Make) -> None:
    """Each name of a token answer is taken, with a path of one step or several."""
    made(response_fields={name: f"data.{name}" for name in ANSWER_FIELDS})
    made(response_fields={"access_token": "Token"})
    made(response_fields={})


def test_an_error_code_can_be_mapped_where_one_is_read() -> None:
    """The token endpoint's error may stand elsewhere; a function says itself how it failed."""
    refresh_token_grant(response_fields={"error": "fault.code"})
    assert "response_fields has no 'error'" in refused(lambda: function_grant(response_fields={"error": "e"}))


@pytest.mark.parametrize("name", ["token", "accessToken", "", "access_token "])
def test_an_unknown_field_is_refused_with_the_known_ones(made: Make, name: str) -> None:
    """A name that nobody would read is a slip, and the message lists the names there are."""
    assert refused(lambda: made(response_fields={name: "data.Token"})).startswith(
        f"response_fields has no {name!r}: the names are access_token, refresh_token, expires_in, expires_at, "
        "token_type, scope, id_token"
    )


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ([("access_token", "a")], "response_fields must be a mapping of names to dotted paths, not list"),
        ("access_token", "response_fields must be a mapping of names to dotted paths, not str"),
        (None, "response_fields must be a mapping of names to dotted paths, not NoneType"),
        ({7: "a"}, "response_fields has no int: the names are"),
        ({"access_token": ""}, "maps access_token to a dotted path such as 'data.Token', not ''"),
        ({"access_token": "a..b"}, "maps access_token to a dotted path such as 'data.Token', not 'a..b'"),
        ({"access_token": ["a", "b"]}, "maps access_token to a dotted path such as 'data.Token', not list"),
    ],
    ids=str,
)
def test_wrong_response_fields(made: Make, wrong: object, why: str) -> None:
    """A path that leads nowhere, or what is no mapping at all, is an error of configuration."""
    assert why in refused(lambda: made(response_fields=wrong))


@pytest.mark.parametrize("seconds", [0, 3, 0.5])
def test_a_grace_is_a_number_of_seconds(made: Make, seconds: float) -> None:
    """Whole and broken numbers from 0 on."""
    assert made(reuse_grace=seconds).reuse_grace == seconds


@pytest.mark.parametrize("wrong", [-1, math.inf, math.nan, True, SECRET, "3", None], ids=repr)
def test_a_wrong_grace_is_refused(made: Make, wrong: object) -> None:
    """Anything else says what is wanted."""
    assert refused(lambda: made(reuse_grace=wrong)) == "reuse_grace must be a number of seconds, 0 for none"


@pytest.mark.parametrize("wrong", [None, SECRET, 7, {"access_token": SECRET}], ids=lambda it: type(it).__name__)
def test_what_is_no_function(wrong: Any) -> None:
    """Something that cannot be called is refused at construction and named by its type."""
    assert refused(lambda: FunctionGrant(wrong)) == f"function must be a function of the session, not {_type(wrong)}"
    if wrong is not None:
        assert refused(lambda: function_grant(revoke=wrong)) == (
            f"revoke must be a function of the session, not {_type(wrong)}"
        )


def _type(value: object) -> str:
    return type(value).__name__


def refresh() -> dict[str, str]:
    """Has no place for the session."""
    return {}


def refresh_with(session: Session, client: object) -> dict[str, str]:
    """Wants more than the session."""
    return {"access_token": f"{session}{client}"}


def refresh_for(session: Session, *, resource: str, secret: str = SECRET) -> dict[str, str]:
    """Wants a resource always."""
    return {"access_token": f"{session}{resource}{secret}"}


class Client:
    """Something with a method."""

    def refresh(self, session: Session) -> dict[str, str]:
        """Refresh."""
        return {"access_token": session.key}


@pytest.mark.parametrize(
    ("wrong", "name", "trouble"),
    [
        (refresh, "refresh", "too many positional arguments"),
        (refresh_with, "refresh_with", "missing a required argument: 'client'"),
        (refresh_for, "refresh_for", "'resource'"),
        (Client.refresh, "Client.refresh", "missing a required argument: 'session'"),
        (functools.partial(refresh_with, SESSION, 2), "partial", "too many positional arguments"),
    ],
    ids=["none", "two", "resource", "unbound", "partial"],
)
def test_a_function_that_does_not_take_the_session(wrong: Any, name: str, trouble: str) -> None:
    """It is named at construction, with what does not fit, long before the first token expires."""
    text = refused(lambda: FunctionGrant(wrong))
    assert text.startswith(f"{name}() cannot be called with the session alone, as function is: ")
    assert trouble in text
    assert f"{name}() cannot be called with the session alone, as revoke is" in refused(
        lambda: function_grant(revoke=wrong)
    )


@pytest.mark.parametrize(
    "function",
    [
        Client().refresh,
        functools.partial(refresh_with, client=None),
        lambda *_: {},
        lambda _, more=None: {"x": more},
        dict,
        print,
    ],
    ids=["method", "partial", "star", "default", "no signature", "builtin"],
)
def test_what_takes_the_session_is_a_grant(function: Any) -> None:
    """Methods, partials, defaults, and functions in C that do not tell their arguments."""
    FunctionGrant(function, revoke=function)
