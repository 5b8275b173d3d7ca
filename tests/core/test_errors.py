from __future__ import annotations

import copy
import pickle
from dataclasses import FrozenInstanceError, fields

import pytest

from unexpired import errors, events
from unexpired.errors import (
    AnswerLost,
    ApiError,
    ConfigurationError,
    GrantError,
    LoginRequired,
    NotSent,
    Refused,
    ReplayRefused,
    StoreError,
    TemporarilyUnavailable,
    UnexpiredError,
    place_of,
)

EACH = [
    UnexpiredError("text", key="alice"),
    LoginRequired("text", key="alice", reason="step_up", login_url="/login?r=%2F", challenge={"acr_values": "mfa"}),
    TemporarilyUnavailable("text", key="alice", retry_after=1.5),
    ReplayRefused("text", key="alice"),
    ApiError(7, "text", {"secret": "RT-secret"}, key="alice"),
    StoreError("text", key="alice"),
    ConfigurationError("text", key="alice"),
    GrantError("text", key="alice"),
    NotSent("text", key="alice", retry_after=2.5, connecting=True),
    Refused("text", key="alice", error="invalid_grant", status=400),
    AnswerLost("text", key="alice", refresh_token="RT-secret"),
]


@pytest.mark.parametrize("error", EACH, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize("again", [lambda error: pickle.loads(pickle.dumps(error)), copy.copy, copy.deepcopy])
def test_every_error_survives_pickling_with_all_it_carries(error: UnexpiredError, again: object) -> None:
    """Errors cross process borders, as from a worker pool, without losing type, message or attributes."""
    assert callable(again)
    twin = again(error)
    assert type(twin) is type(error)
    assert str(twin) == str(error)
    assert str(twin).startswith("text")
    assert twin.key == "alice"
    assert vars(twin) == vars(error)


def test_every_error_of_the_module_is_tried_here() -> None:
    """No error class is without a test of its pickling."""
    assert {type(error).__name__ for error in EACH} == set(errors.__all__) - {"place_of"}


@pytest.mark.parametrize("error", EACH, ids=lambda error: type(error).__name__)
def test_no_error_shows_a_secret(error: UnexpiredError) -> None:
    """A refresh token that an error carries for the flight is neither in its repr nor in its text."""
    assert "RT-secret" not in repr(error) + str(error)


def test_the_tree_is_cut_by_what_the_caller_should_do() -> None:
    """One except clause catches everything of this library; errors of grants have a branch of their own."""
    assert all(issubclass(type(error), UnexpiredError) for error in EACH)
    assert {type(error) for error in EACH if isinstance(error, GrantError)} == {
        GrantError,
        NotSent,
        Refused,
        AnswerLost,
    }


def test_attributes_have_defaults_that_say_nothing() -> None:
    """Errors raised by a user's own grant need no more than a message."""
    required = LoginRequired("text")
    assert (required.key, required.reason, required.login_url) == (None, "login_required", None)
    assert required.challenge == {}
    assert TemporarilyUnavailable("text").retry_after is None
    assert (NotSent("text").retry_after, NotSent("text").connecting) == (None, False)
    assert (Refused("text").error, Refused("text").status) == ("invalid_grant", None)
    assert Refused("text", error=None).error is None
    assert AnswerLost("text").refresh_token is None
    assert AnswerLost("text", refresh_token="RT").refresh_token == "RT"


def test_the_place_of_an_error_is_told_without_its_text() -> None:
    """Type, file and line of where it was raised: a foreign error's text could hold a secret."""

    def deep() -> None:
        raise ValueError("AT-secret")

    with pytest.raises(ValueError, match="AT-secret") as caught:
        deep()
    assert place_of(caught.value) == f"ValueError at test_errors.py:{deep.__code__.co_firstlineno + 1}"
    assert place_of(ValueError("AT-secret")) == "ValueError"


@pytest.mark.parametrize("name", [name for name in events.__all__ if name != "Event"])
def test_every_event_is_a_frozen_record_about_one_key(name: str) -> None:
    """Events are values with plain fields, the key first, and nothing in them can be changed."""
    kind = getattr(events, name)
    plain = {"str": "x", "int": 1, "float": 1.0, "bool": True, "str | None": None, "float | None": None}
    event = kind(**{one.name: plain[str(one.type)] for one in fields(kind)})
    assert isinstance(event, events.Event)
    assert fields(kind)[0].name == "key"
    assert event == copy.copy(event)
    assert pickle.loads(pickle.dumps(event)) == event
    with pytest.raises((FrozenInstanceError, TypeError)):
        event.key = "bob"  # type: ignore[misc]
