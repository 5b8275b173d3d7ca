from __future__ import annotations

import asyncio
import functools
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    LoginRequired,
    NotSent,
    Refused,
    ReplayRefused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.grants import FunctionGrant, RefreshTokenGrant, as_grant
from unexpired.grants.function import _takes_resource

SECRET = "rt-9f8e7d6c"
SESSION = Session.begin("alice", "login", Token("a0", refresh_token=SECRET))


def redeem(function: Callable[..., Any], *, timeout: float = 5.0, **settings: Any) -> Any:
    """Redeem `SESSION` by *function*."""
    return FunctionGrant(function, **settings).redeem(SESSION, resource=None, timeout=timeout)


def as_async(function: Callable[[Session], Any]) -> Callable[[Session], Any]:
    """The async twin of *function*."""

    async def twin(session: Session) -> Any:
        await asyncio.sleep(0)
        return function(session)

    return twin


@pytest.fixture(params=[lambda function: function, as_async], ids=["sync", "async"])
def made(request: pytest.FixtureRequest) -> Callable[[Callable[[Session], Any]], Callable[[Session], Any]]:
    """Make a function sync or async."""
    return request.param  # type: ignore[no-any-return]


Made = Callable[[Callable[[Session], Any]], Callable[[Session], Any]]


def test_a_function_is_given_the_session(made: Made) -> None:
    """The function gets the stored session, and the token it returns is handed on as it is."""
    token = Token("a1")
    seen: list[Session] = []

    def function(session: Session) -> Token:
        seen.append(session)
        return token

    assert redeem(made(function)) is token
    assert seen == [SESSION]


def test_a_mapping_is_handed_on_with_our_names(made: Made) -> None:
    """Fields of a returned mapping are found where `response_fields` says."""
    result = redeem(made(lambda _: {"Token": {"t": "a1"}}), response_fields={"access_token": "Token.t"})
    assert result["access_token"] == "a1"


@pytest.mark.parametrize(
    "error",
    [
        NotSent("x", retry_after=3),
        Refused("x", error="invalid_grant"),
        AnswerLost("x", refresh_token="r1"),
        LoginRequired("x", reason="mine"),
        ConfigurationError("x"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_what_a_function_may_raise_passes_through(made: Made, error: UnexpiredError) -> None:
    """An error that says how the request ended reaches the flight unchanged."""

    def function(_: Session) -> Token:
        raise error

    with pytest.raises(type(error)) as caught:
        redeem(made(function))
    assert caught.value is error


def test_unavailable_means_not_sent(made: Made) -> None:
    """A TemporarilyUnavailable, such as that of another manager, is an unsent request with its pause."""

    def function(_: Session) -> Token:
        raise TemporarilyUnavailable("later", retry_after=7)

    with pytest.raises(NotSent, match="later") as caught:
        redeem(made(function))
    assert caught.value.retry_after == 7


@pytest.mark.parametrize("kind", [ValueError, KeyError, TimeoutError, ReplayRefused, StoreError, asyncio.TimeoutError])
def test_any_other_error_is_a_lost_answer_without_its_text(made: Made, kind: type[Exception]) -> None:
    """An unforeseen exception counts as a lost answer and is told by type and place only (scenario 68)."""

    def function(_: Session) -> Token:
        raise kind(f"server said {SECRET}")

    with pytest.raises(AnswerLost, match=rf"{kind.__name__} at .*{Path(__file__).name}:\d+$") as caught:
        redeem(made(function))
    assert SECRET not in repr(caught.value)
    assert "server said" not in "".join(traceback.format_exception(caught.value))
    assert caught.value.__context__ is None


@pytest.mark.parametrize("wrong", [None, SECRET, 7, [("access_token", "a1")]], ids=lambda it: type(it).__name__)
def test_a_wrong_answer_is_named_by_its_type(made: Made, wrong: object) -> None:
    """What is neither a Token nor a mapping is a lost answer named by its type, never by its value."""
    with pytest.raises(AnswerLost, match=rf"returned {type(wrong).__name__}, not") as caught:
        redeem(made(lambda _: wrong))
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        ({"code": 40005, "msg": "log in"}, ", but code, msg"),
        ({"access_token": "", "expires_in": 60}, ", but access_token, expires_in"),
        ({"access_token": 7}, ", but access_token"),
        (dict.fromkeys("abcdefg", 1), ", but a, b, c, d, e"),
        ({7: SECRET, "a\nb": 1, "x" * 41: 1, "code": 1, SECRET + "0" * 20: 1}, ", but code"),
        ({"x" * 40: 1}, f", but {'x' * 40}"),
        ({SECRET * 2: ""}, ""),
        ({}, ""),
    ],
    ids=["code", "empty", "number", "many", "odd", "long", "key", "none"],
)
def test_an_answer_without_a_token_is_told_by_its_names(made: Made, answer: dict[Any, Any], told: str) -> None:
    """A lost answer, with a few field names, never a value, and how to say that the login is over."""
    with pytest.raises(AnswerLost) as caught:
        redeem(made(lambda _: answer))
    assert SECRET not in str(caught.value)
    assert str(caught.value).endswith(
        f" returned no usable access_token{told}: raise LoginRequired or Refused if it means that the login is over"
    )
    assert caught.value.refresh_token is None


def test_a_refresh_token_without_an_access_token_is_kept(made: Made) -> None:
    """The names are those that came; a refresh token that came with them is handed on to be saved."""
    with pytest.raises(AnswerLost, match="access_token, but data: raise") as caught:
        redeem(made(lambda _: {"data": {"r": "r1"}}), response_fields={"refresh_token": "data.r"})
    assert caught.value.refresh_token == "r1"
    with pytest.raises(AnswerLost) as caught:
        redeem(made(lambda _: {"refresh_token": "r1\n"}))
    assert caught.value.refresh_token is None


def test_an_async_function_is_cancelled_when_its_time_is_over() -> None:
    """An async function that never answers is cancelled at the deadline: a lost answer (scenario 55)."""
    ended: list[str] = []

    async def function(_: Session) -> Token:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("cancelled")
        raise AssertionError

    with pytest.raises(AnswerLost, match=r"did not answer within 0\.05 s"):
        redeem(function, timeout=0.05)
    assert ended == ["cancelled"]


def test_an_async_function_that_cancels_itself_is_lost() -> None:
    """A CancelledError out of an async function is a lost answer, not the end of the flight's thread."""

    async def function(_: Session) -> Token:
        raise asyncio.CancelledError

    with pytest.raises(AnswerLost, match="was cancelled"):
        redeem(function)


def test_an_async_function_never_runs_on_a_loop_of_others() -> None:
    """On a thread that runs an event loop an async function is refused at once, without a deadlock."""

    async def function(_: Session) -> Token:
        raise AssertionError

    async def main() -> None:
        with pytest.raises(ConfigurationError, match="event loop"):
            redeem(function)
        with pytest.raises(ConfigurationError, match="event loop"):
            redeem(lambda _: asyncio.get_running_loop().create_future())

    asyncio.run(main())


@pytest.mark.parametrize("wrap", [lambda function: function, functools.partial])
def test_the_resource_is_given_to_functions_that_take_it(wrap: Callable[[Any], Any]) -> None:
    """A function with an argument for it gets the resource, and its default when there is none."""

    def function(_: Session, *, resource: str = "default") -> dict[str, str]:
        return {"access_token": resource}

    grant = FunctionGrant(wrap(function))
    assert grant.redeem(SESSION, resource="https://b", timeout=1) == {"access_token": "https://b"}
    assert grant.redeem(SESSION, resource=None, timeout=1) == {"access_token": "default"}


def test_any_keywords_take_a_resource_too() -> None:
    """A function that takes any keyword gets the resource."""

    def function(_: Session, **named: str) -> dict[str, str]:
        return {"access_token": named["resource"]}

    assert FunctionGrant(function).redeem(SESSION, resource="b", timeout=1) == {"access_token": "b"}


def test_a_resource_is_refused_where_nobody_takes_it() -> None:
    """Asking a function without that argument for a resource is an error of configuration, and calls nothing."""
    called: list[Session] = []
    with pytest.raises(ConfigurationError, match="resource"):
        FunctionGrant(called.append).redeem(SESSION, resource="https://b", timeout=1)
    assert called == []


def test_a_function_without_a_signature_takes_no_resource() -> None:
    """A callable that does not tell its arguments is called with the session alone."""

    class Opaque:
        __signature__ = "none"

        def __call__(self, _: Session) -> dict[str, str]:
            return {"access_token": "a1"}

    opaque = Opaque()
    assert not _takes_resource(opaque)
    assert redeem(opaque) == {"access_token": "a1"}


def test_a_function_can_revoke(made: Made) -> None:
    """Logout calls the revoking function; its failure is no error, and without one nothing is revoked."""
    seen: list[Session] = []

    def fail(_: Session) -> None:
        raise ValueError(SECRET)

    def grant(revoke: Callable[[Session], object] | None) -> FunctionGrant:
        return FunctionGrant(lambda _: {}, revoke=revoke)

    assert grant(made(seen.append)).revoke(SESSION) is True
    assert seen == [SESSION]
    assert grant(made(lambda _: False)).revoke(SESSION) is False
    assert grant(made(fail)).revoke(SESSION) is False
    assert grant(None).revoke(SESSION) is False


def test_as_grant_wraps_functions_and_keeps_grants() -> None:
    """A function becomes a grant; a grant stays itself."""
    wrapped = as_grant(lambda _: {"access_token": "a1"})
    assert isinstance(wrapped, FunctionGrant)
    assert (wrapped.reuse_grace, wrapped.spends_refresh_token) == (0, True)
    grant = RefreshTokenGrant("https://id.example.com/token", client_id="crm")
    assert as_grant(grant) is grant
    assert as_grant(wrapped) is wrapped


@pytest.mark.parametrize("wrong", [None, "https://id.example.com", 7, RefreshTokenGrant, {"access_token": "a"}])
def test_as_grant_refuses_what_is_none(wrong: Any) -> None:
    """What can neither redeem nor be called is refused when the manager is made, and so is a class."""
    with pytest.raises(ConfigurationError):
        as_grant(wrong)


def test_as_grant_names_what_an_incomplete_grant_lacks() -> None:
    """An object with redeem but without the rest of a grant is told what is missing."""

    class Half:
        reuse_grace = 0.0

        def redeem(self) -> None:
            """Half a grant."""

    half: Any = Half()
    with pytest.raises(ConfigurationError, match="revoke, spends_refresh_token"):
        as_grant(half)


def test_the_name_of_the_function_is_shown() -> None:
    """`repr` names the function, or the type of an object that can be called."""
    assert repr(FunctionGrant(print)) == "FunctionGrant(print)"
    assert repr(FunctionGrant(functools.partial(print))) == "FunctionGrant(partial)"
