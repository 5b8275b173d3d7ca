from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from unexpired import Token
from unexpired._engine import arguments
from unexpired._engine.arguments import (
    check_callable,
    check_durations,
    check_key,
    check_listener,
    check_login_fields,
    check_resource,
    check_store,
    check_token,
)
from unexpired.errors import ConfigurationError
from unexpired.events import Event, LoggedIn, RefreshSucceeded
from unexpired.stores import FileStore, MemoryStore, Store

SECRET = "rt-9f8e7d6c"


async def async_function(_: object = None) -> str:
    """What nobody would await."""
    return "late"


def refused(check: Callable[[], object]) -> str:
    """What *check* says when it refuses; never a word of a secret."""
    with pytest.raises(ConfigurationError) as caught:
        check()
    assert SECRET not in str(caught.value)
    assert caught.value.__context__ is None
    return str(caught.value)


def test_a_store_is_anything_with_the_methods_of_one(tmp_path: Path) -> None:
    """Ours pass, and so does an object of a class of one's own, whatever it inherits from."""

    class Own:
        identity = 7
        load = swap = stamp = lease = set_aside = close = print

    for store in (MemoryStore(), FileStore(tmp_path), Own()):
        check_store(store)


def test_the_parts_of_a_store_are_those_of_the_protocol() -> None:
    """A method that is added to the protocol is asked for."""
    assert set(arguments.STORE_PARTS) == {name for name in vars(Store) if not name.startswith("_")}


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (SECRET, "store must be an object .* of type str: did you mean FileStore"),
        (Path(SECRET), "did you mean FileStore"),
        (FileStore, r"store must be an object, not the class: FileStore\(…\)"),
        ({SECRET: 1}, r"type dict has no identity, load, swap, stamp, lease, set_aside, close$"),
        (None, "type NoneType has no"),
    ],
)
def test_what_is_no_store(wrong: object, why: str) -> None:
    """A path, a class or some other object is told what a store is, and which methods it lacks."""
    with pytest.raises(ConfigurationError, match=why):
        check_store(wrong)
    refused(lambda: check_store(wrong))


@pytest.mark.parametrize("seconds", [0, 0.0, 30, 0.5, 86400 * 365, True + 0])
def test_durations_are_numbers_of_seconds(seconds: float) -> None:
    """Whole and broken numbers from 0 on are durations."""
    check_durations(leeway=seconds, wait=seconds, deadline=seconds + 1, default_lifetime=seconds)


def test_only_a_lifetime_may_be_unknown() -> None:
    """None means "unknown" for the default lifetime and nothing for any other duration."""
    check_durations(default_lifetime=None)
    assert refused(lambda: check_durations(patience=None)) == (
        "patience must be a number of seconds, 0 or more, 100 years at most, not None"
    )


@pytest.mark.parametrize("wrong", [-1, -0.001, math.inf, -math.inf, math.nan, 1e300, 10**18, True, False])
def test_a_number_that_is_no_duration_is_named(wrong: float) -> None:
    """The argument and its value stand in the message, whichever of several it is."""
    text = refused(lambda: check_durations(leeway=30.0, refresh_ahead=wrong, wait=-5))
    assert text.startswith("refresh_ahead must be a number of seconds, 0 or more")
    assert text.endswith(f"not {wrong!r}")


@pytest.mark.parametrize(
    "wrong",
    [SECRET, "30", b"30", timedelta(seconds=30), Fraction(1, 3), 10**5000, [30]],
    ids=lambda wrong: type(wrong).__name__,
)
def test_what_is_no_number_is_named_by_its_type(wrong: object) -> None:
    """Text, a timedelta or a number beyond all bounds is no duration; it is not repeated."""
    text = refused(lambda: check_durations(default_lifetime=wrong))
    assert text.endswith(f", or None, not an object of type {type(wrong).__name__}")


@pytest.mark.parametrize("wrong", [0, 0.0, -0.0])
def test_a_deadline_of_nothing_is_none(wrong: float) -> None:
    """With a deadline of 0 no request could ever be sent."""
    assert "deadline must be a number of seconds, above 0" in refused(lambda: check_durations(deadline=wrong))


@pytest.mark.parametrize(("wrong", "shown"), [("", "''"), (None, "None"), (7, "7"), (b"a", "an object of type bytes")])
def test_a_key_is_text(wrong: object, shown: str) -> None:
    """A key is a string and not empty."""
    check_key("alice@crm")
    assert refused(lambda: check_key(wrong)) == (
        f"key must be a string that names the session, such as 'alice@crm', not {shown}"
    )


def test_a_function_is_a_function() -> None:
    """What can be called passes; anything else is told so under its argument's name, and so is an async function."""
    check_callable("on_login_page", lambda: True)
    check_callable("on_login_page", print)
    assert refused(lambda: check_callable("on_login_page", SECRET)) == (
        "on_login_page must be a function, not an object of type str"
    )
    assert "not True" in refused(lambda: check_callable("on_login_page", value=True))
    for late in (async_function, partial(async_function, 1)):
        assert "on_login_page must be a plain function, not an async one" in refused(
            partial(check_callable, "on_login_page", late)
        )


@pytest.mark.parametrize("fields", [None, {}, {"code": "c-7", "return_to": lambda: "/here"}])
def test_login_fields_are_strings_or_functions(fields: Mapping[str, Any] | None) -> None:
    """Every field is text or a function that returns it."""
    check_login_fields(fields)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        (SECRET, "login_fields must be a mapping of names to strings or functions, not an object of type str"),
        ([SECRET], "login_fields must be a mapping of names to strings or functions, not an object of type list"),
        ({7: SECRET}, "login_fields must have strings as names, not 7"),
        ({"code": 7}, "login_fields['code'] must be a string, or a function that returns one, not 7"),
        ({"code": [SECRET]}, "login_fields['code'] must be a string, or a function that returns one, not an object"),
        ({"a": "b", "code": async_function}, "login_fields['code'] must be a plain function, not an async one"),
    ],
)
def test_wrong_login_fields_are_named(wrong: object, why: str) -> None:
    """The field that is wrong is named, and its value is not."""
    assert refused(lambda: check_login_fields(wrong)).startswith(why)


def test_a_resource_is_text_or_none() -> None:
    """A number in its place was meant to be a time to wait, and the message says how that is given."""
    check_resource(None)
    check_resource("https://api.example.com")
    text = "resource must be a string (RFC 8707), or None for the default one, not "
    assert refused(lambda: check_resource(5)) == f"{text}5; a time to wait is given as wait="
    assert refused(lambda: check_resource(0.5)) == f"{text}0.5; a time to wait is given as wait="
    assert refused(lambda: check_resource("")) == f"{text}''"
    assert refused(lambda: check_resource(resource=True)) == f"{text}True"
    token = Token("at", refresh_token=SECRET)
    assert refused(lambda: check_resource(token)) == f"{text}an object of type Token"


def test_a_listener_hears_a_class_of_events() -> None:
    """An event type comes first, a function second."""
    check_listener(Event, print)
    check_listener(RefreshSucceeded, lambda _: None)


@pytest.mark.parametrize(
    ("wrong", "shown"),
    [
        ("RefreshSucceeded", "an object of type str"),
        (LoggedIn("alice"), "an object of type LoggedIn"),
        (int, "the class int"),
        (print, "an object of type builtin_function_or_method"),
        (None, "None"),
    ],
)
def test_what_is_no_class_of_events(wrong: object, shown: str) -> None:
    """A name, an event or a function in the place of the type is told how `on` is called."""
    text = refused(lambda: check_listener(wrong, print))
    assert text.endswith(f"manager.on(RefreshSucceeded, callback), not {shown}")


def test_a_callback_is_called_and_not_awaited() -> None:
    """An async callback would never run, so it is refused like something that cannot be called."""
    assert "callback must be a function" in refused(lambda: check_listener(Event, SECRET))
    assert "callback must be a plain function" in refused(lambda: check_listener(Event, async_function))


def test_a_login_is_a_token_or_a_mapping() -> None:
    """What is in the mapping is for others to look at."""
    check_token(Token("at"))
    check_token({})


def test_what_is_no_login_is_told_what_one_is() -> None:
    """A bare token and a response say what to give instead; no value is repeated."""

    class Response:
        def json(self) -> dict[str, str]:
            """The body."""
            return {"access_token": SECRET}

    text = "token must be a Token or a mapping such as the token endpoint's answer, not "
    assert refused(lambda: check_token(None)) == f"{text}None"
    assert refused(lambda: check_token(Response())) == (
        f"{text}an object of type Response; what a response holds is its .json()"
    )
    assert refused(lambda: check_token(SECRET)) == (
        f'{text}an object of type str; for a token alone: {{"access_token": …}} or {{"refresh_token": …}}'
    )
