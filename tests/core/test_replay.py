from __future__ import annotations

from typing import Any

import pytest

from tests.core.harness import KEY, token
from unexpired._core.replay import Accepted, End, Newer, Replace, Send, replay
from unexpired._core.scheme import Judgement, Verdict
from unexpired._core.token import Token
from unexpired.errors import LoginRequired

T1, T2, T3 = (token(f"AT-{number}", minted=number) for number in (1, 2, 3))
ORIGIN = "https://api.example.com"
OK, EXPIRED, OVER = Judgement(Verdict.ACCEPTED), Judgement(Verdict.EXPIRED), Judgement(Verdict.LOGIN_REQUIRED)
SAME, STRONGER = (
    Judgement(Verdict.RETRY_SAME),
    Judgement(Verdict.STEP_UP, challenge={"acr_values": "mfa", "max_age": "5"}),
)


class Api:
    """Answers the effects of a replay from scripts, and keeps what was done."""

    def __init__(self, *verdicts: Judgement, newer: Token | None = None, replacement: Token | None = T2) -> None:
        self.done: list[Any] = []
        self.ends = False
        self._verdicts = list(verdicts)
        self._newer = newer
        self._replacement = replacement

    def run(self, first: Judgement) -> int:
        """Drive the replay of a request that carried T1."""
        flow = replay(KEY, T1, first, ORIGIN)
        try:
            effect: Any = next(flow)
            while True:
                self.done.append(effect)
                effect = flow.send(self._answer(effect))
        except StopIteration as stop:
            return int(stop.value)

    def _answer(self, effect: Any) -> Any:
        if isinstance(effect, Send):
            return self._verdicts.pop(0)
        if isinstance(effect, Replace):
            return self._replacement
        if isinstance(effect, Newer):
            return self._newer
        return self.ends if isinstance(effect, End) else None


def test_an_expired_token_is_replaced_and_the_request_replayed_once() -> None:
    """After one replay that is accepted the place is told which token it took (scenario 36)."""
    api = Api(OK)
    assert api.run(EXPIRED) == 1
    assert api.done == [Replace(T1, ORIGIN), Send(T2), Accepted(T2, ORIGIN)]


def test_a_second_refusal_is_the_callers() -> None:
    """A replay that is refused is not repeated, and starts no refresh: the last answer stands (scenario 36)."""
    api = Api(EXPIRED)
    assert api.run(EXPIRED) == 1
    assert api.done == [Replace(T1, ORIGIN), Send(T2), Newer(T2)]


def test_a_second_replay_needs_a_newer_token_that_already_exists() -> None:
    """One that somebody else has brought meanwhile is worth a second replay, never a third."""
    api = Api(EXPIRED, EXPIRED, newer=T3)
    assert api.run(EXPIRED) == 2
    assert api.done == [Replace(T1, ORIGIN), Send(T2), Newer(T2), Send(T3)]


def test_without_a_newer_token_nothing_is_replayed() -> None:
    """A place under suspicion gets no replay: the refusal is the caller's answer."""
    api = Api(replacement=None)
    assert api.run(EXPIRED) == 0
    assert api.done == [Replace(T1, ORIGIN)]


def test_a_login_that_is_over_ends_with_the_current_token() -> None:
    """LOGIN_REQUIRED about the current token ends the session and raises (scenario 37)."""
    api = Api()
    api.ends = True
    with pytest.raises(LoginRequired) as caught:
        api.run(OVER)
    assert (caught.value.reason, caught.value.key) == ("login_required", KEY)
    assert api.done == [End(T1)]


def test_a_late_word_about_an_older_token_counts_as_expired() -> None:
    """LOGIN_REQUIRED about a token that is no longer current is replayed with the current one (scenario 9)."""
    api = Api(OK)
    assert api.run(OVER) == 1
    assert api.done == [End(T1), Replace(T1, ORIGIN), Send(T2), Accepted(T2, ORIGIN)]


def test_a_replay_may_end_the_login_too() -> None:
    """LOGIN_REQUIRED about the replay's token is said about that token."""
    api = Api(OVER)
    assert api.run(EXPIRED) == 1
    assert api.done == [Replace(T1, ORIGIN), Send(T2), End(T2), Newer(T2)]


def test_a_step_up_asks_for_a_stronger_login_and_refreshes_nothing() -> None:
    """What is asked for is in the error; the session lives on (RFC 9470, scenario 39)."""
    api = Api()
    with pytest.raises(LoginRequired, match="acr_values, max_age") as caught:
        api.run(STRONGER)
    assert caught.value.reason == "step_up"
    assert caught.value.challenge == {"acr_values": "mfa", "max_age": "5"}
    assert api.done == []


def test_a_step_up_without_particulars_says_its_reason() -> None:
    """A challenge without parameters names what was said instead."""
    with pytest.raises(LoginRequired, match=r"\(insufficient_user_authentication\)"):
        Api().run(Judgement(Verdict.STEP_UP, reason="insufficient_user_authentication"))


def test_the_same_token_is_sent_again_once() -> None:
    """RETRY_SAME repeats the request with the token it carried, once, and that is no replay (scenario 73)."""
    api = Api(OK)
    assert api.run(SAME) == 0
    assert api.done == [Send(T1), Accepted(T1, ORIGIN)]
    api = Api(SAME)
    assert api.run(SAME) == 0
    assert api.done == [Send(T1)]


def test_a_nonce_does_not_use_up_the_replay() -> None:
    """A request sent again with the same token and then refused as expired is still replayed."""
    api = Api(EXPIRED, OK)
    assert api.run(SAME) == 1
    assert api.done == [Send(T1), Replace(T1, ORIGIN), Send(T2), Accepted(T2, ORIGIN)]


def test_an_accepted_request_is_only_reported() -> None:
    """Nothing is sent again when the first answer was fine."""
    api = Api()
    assert api.run(OK) == 0
    assert api.done == [Accepted(T1, ORIGIN)]
