"""Calls a grant, which may be anybody's code: whatever it raises, the flight goes on to its end."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from unexpired.errors import AnswerLost, UnexpiredError, place_of

if TYPE_CHECKING:
    from unexpired._core.effects import Redeem
    from unexpired._core.ports import Grant
    from unexpired._core.session import Session
    from unexpired._core.token import Token

__all__ = ["redeem", "revoke"]


def redeem(grant: Grant, effect: Redeem, key: str) -> Token | Mapping[str, Any] | UnexpiredError:
    """The grant's answer, or the error that says what went wrong; a foreign exception's text is never shown.

    Raises only what ends a program that runs the flight on its main thread, such as Ctrl-C.
    """
    try:
        return grant.redeem(effect.session, resource=effect.resource, timeout=effect.timeout)
    except UnexpiredError as error:
        return error
    except BaseException as error:
        # Only the main thread is ever told to stop by an exception; on any other one it is part of the answer.
        if threading.current_thread() is threading.main_thread() and not isinstance(error, Exception):
            raise
        return AnswerLost(f"the grant raised {place_of(error)}", key=key)


def revoke(grant: Grant, session: Session) -> bool:
    """Whether the server took the revocation. Best effort: what the grant raises counts as no."""
    try:
        return grant.revoke(session)
    except Exception:  # noqa: BLE001 - the login is over here, whatever becomes of it there
        return False
