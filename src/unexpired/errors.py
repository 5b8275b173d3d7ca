"""What can go wrong, sorted by what the caller should do about it.

::

    UnexpiredError
      + LoginRequired           ask the person to log in again
      + TemporarilyUnavailable  try again later (`retry_after` seconds)
      + ReplayRefused           send the request again yourself: the token is fresh, the body could not be repeated
      + ApiError                see its `code`: the API refused the call itself (`ApiClient` only)
      + StoreError              fix the environment: the place where the session is kept refuses
      + ConfigurationError      fix the code, the settings or the client registration
      + GrantError              raised *by* grants to say how a token request ended; callers of a manager never see it
        + NotSent               surely not processed by the server
        + Refused               the server said no (RFC 6749 §5.2)
        + AnswerLost            the server may or may not have processed it

No message, attribute or cause of these errors holds a token, a secret or an authorization server's error text; what an
API says to the program's own calls is in `ApiError`. All can be pickled.
"""

from __future__ import annotations

import os.path
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AnswerLost",
    "ApiError",
    "ConfigurationError",
    "GrantError",
    "LoginRequired",
    "NotSent",
    "Refused",
    "ReplayRefused",
    "StoreError",
    "TemporarilyUnavailable",
    "UnexpiredError",
    "place_of",
]


class UnexpiredError(Exception):
    """Every error of this library. `key` names the session it is about, if it is about one."""

    def __init__(self, message: str, *, key: str | None = None) -> None:
        super().__init__(message)
        self.key = key

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args, self.__dict__.copy())


def _rebuild(kind: type[UnexpiredError], args: tuple[Any, ...], state: Mapping[str, Any]) -> UnexpiredError:
    """Restore a pickled error without calling its constructor, whose arguments are keywords."""
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(state)
    return error


def place_of(error: BaseException) -> str:
    """An error's type and where it was raised, for messages: its own text could hold a secret."""
    frame = error.__traceback__
    while frame is not None and frame.tb_next is not None:
        frame = frame.tb_next
    if frame is None:
        return type(error).__name__
    return f"{type(error).__name__} at {os.path.basename(frame.tb_frame.f_code.co_filename)}:{frame.tb_lineno}"


class LoginRequired(UnexpiredError):
    """The login is over, or there never was one: the person has to log in.

    *reason* is one word for programs: ``no_session``, ``logout``, ``refused`` (the server no longer accepts the
    refresh token), ``answer_lost`` (interrupted while rotating), ``login_required`` (the API said so),
    ``step_up`` (RFC 9470: the API wants a stronger login; the session lives on), ``moved`` (to another store: the
    program needs that store, and nobody has to log in), or a reason of your grant's own.
    *login_url* is where to log in, with the way back, when the manager was given a template. *challenge* holds what
    a step-up asks for (``acr_values``, ``max_age``, ``claims``). *fields* holds what is in the address, ``return_to``
    and the manager's own *login_fields*, for programs that build theirs themselves.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        reason: str = "login_required",
        login_url: str | None = None,
        challenge: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message, key=key)
        self.reason = reason
        self.login_url = login_url
        self.challenge: Mapping[str, str] = dict(challenge or {})
        self.fields: Mapping[str, str] = {}


class TemporarilyUnavailable(UnexpiredError):
    """No token can be had right now, and the login is not over. Try again after *retry_after* seconds."""

    def __init__(self, message: str, *, key: str | None = None, retry_after: float | None = None) -> None:
        super().__init__(message, key=key)
        self.retry_after = retry_after


class ReplayRefused(UnexpiredError):
    """The API refused the token, and the request cannot be sent again because its body can be read only once.

    The token has been refreshed meanwhile, so sending the request again yourself, with a new body, works.
    """


class ApiError(UnexpiredError):
    """The API answered with an error, or not at all. Raised by `ApiClient`; nothing is wrong with the login.

    *code* is the API's business code as it was sent, the HTTP status of a failure, or -1 when no answer came, only
    half of one, or one that cannot be read. *message* is what the API says about it, or the status's reason; *body* is
    the whole answer and *response* the client's response object, None without an answer. They are the API's words to
    you, and may hold what it chose to put there; `repr` and `str` show code and message only.
    """

    def __init__(
        self, code: float | str, message: str, body: Any = None, response: Any = None, *, key: str | None = None
    ) -> None:
        super().__init__(f"{message} ({code})", key=key)
        self.code = code
        self.message = message
        self.body = body
        self.response = response


class StoreError(UnexpiredError):
    """The store cannot be read or written, or holds something that is not a session. Nothing was overwritten."""


class ConfigurationError(UnexpiredError):
    """Something is set up in a way that cannot work. Logging in again does not help; nothing stored was changed."""


class GrantError(UnexpiredError):
    """How a token request failed. Raised by grants, turned into one of the other errors for callers."""


class NotSent(GrantError):
    """The token request was surely not processed: connection refused, or HTTP 429, or 503 with ``Retry-After``.

    *retry_after* (seconds) is what the server asked for, if it did. *connecting* is true when no connection came
    about, which is worth another quick attempt.
    """

    def __init__(
        self,
        message: str,
        *,
        key: str | None = None,
        retry_after: float | None = None,
        connecting: bool = False,
    ) -> None:
        super().__init__(message, key=key)
        self.retry_after = retry_after
        self.connecting = connecting


class Refused(GrantError):
    """The server answered with an OAuth error (RFC 6749 §5.2), or with 400/401 and nothing readable.

    *error* is the code, ``invalid_grant`` for a login that is over, which is what a function of your own means by
    it without further words, or None when the server gave none.
    """

    def __init__(
        self,
        message: str,
        *,
        error: str | None = "invalid_grant",
        key: str | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(message, key=key)
        self.error = error
        self.status = status


class AnswerLost(GrantError):
    """The request may have been processed and its answer is not usable: the refresh token may be spent.

    *refresh_token* is a new refresh token that could be read out of a broken answer, to be saved.
    """

    def __init__(self, message: str, *, key: str | None = None, refresh_token: str | None = None) -> None:
        super().__init__(message, key=key)
        self._refresh_token = refresh_token

    @property
    def refresh_token(self) -> str | None:
        """A refresh token read out of a broken answer. Secret."""
        return self._refresh_token
