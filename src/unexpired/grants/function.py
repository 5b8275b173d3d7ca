"""Any function as a grant: for token endpoints that speak a language of their own."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, TypeGuard, cast

from unexpired._core.ports import GrantFunction
from unexpired._core.session import Session
from unexpired._core.token import Token, is_credential
from unexpired.errors import (
    AnswerLost,
    ConfigurationError,
    GrantError,
    LoginRequired,
    NotSent,
    TemporarilyUnavailable,
    UnexpiredError,
)
from unexpired.grants._settings import check_function, checked_fields, checked_grace
from unexpired.grants.answer import picked

__all__ = ["FunctionGrant"]

_REVOCATION_TIMEOUT = 5.0
_NO_FIELDS: Mapping[str, str] = {}
_NAMES_SHOWN, _LONGEST_NAME, _LONGEST_WORD = 5, 40, 16


class FunctionGrant:
    """Asks ``function(session)``, sync or async, for a `Token` or a mapping with the fields of RFC 6749 §5.1.

    * An async function runs under asyncio on a loop of its own, and is cancelled after the flight's time. A
      sync one must keep its own time: no thread can be stopped from outside.
    * A function with an argument *resource* gets the resource that a token is wanted for (RFC 8707).
    * Say how it failed by raising `NotSent` (or `TemporarilyUnavailable`), `Refused`, `AnswerLost`,
      `LoginRequired` or `ConfigurationError`. Any other exception counts as a lost answer, because the server
      may have rotated; it is named by its type and place, its text is never shown. So does a mapping without an
      access token, of which a few field names are told.
    * *response_fields* maps our names to dotted paths in a returned mapping: ``{"access_token":
      "data.Token"}``.
    * *revoke*, a function of the session too, is called at logout, for at most 5 seconds if it is async.
    * *reuse_grace* and *spends_refresh_token*: see `Grant`.

    It is as thread-safe as the functions are. Raises ConfigurationError for something that cannot be called with
    the session alone, and for settings that cannot work.
    """

    def __init__(
        self,
        function: GrantFunction | Callable[..., Any],
        *,
        response_fields: Mapping[str, str] = _NO_FIELDS,
        reuse_grace: float = 0,
        revoke: Callable[[Session], object] | None = None,
        spends_refresh_token: bool = True,
    ) -> None:
        check_function("function", function)
        if revoke is not None:
            check_function("revoke", revoke)
        self._function: Callable[..., Any] = function
        self._name: str = getattr(function, "__qualname__", type(function).__qualname__)
        self._revoke = revoke
        self._fields = checked_fields(response_fields)
        self._takes_resource = _takes_resource(function)
        self.reuse_grace: float = checked_grace(reuse_grace)
        self.spends_refresh_token: bool = spends_refresh_token

    def __repr__(self) -> str:
        return f"FunctionGrant({self._name})"

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Token | Mapping[str, Any]:
        """Call the function once; *timeout* (seconds) binds async ones.

        Raises what the function may raise (see the class), and AnswerLost for everything else that goes
        wrong.
        """
        if resource is not None and not self._takes_resource:
            raise ConfigurationError(
                f"{self._name} has no argument 'resource', so it cannot ask for a token for {resource!r}"
            )
        named = {} if resource is None else {"resource": resource}
        try:
            result = _settled(self._function(session, **named), timeout)
        except (GrantError, LoginRequired, ConfigurationError):
            raise
        except TemporarilyUnavailable as error:
            failure: UnexpiredError = NotSent(str(error), retry_after=error.retry_after)
        except _StoppedError as stopped:
            failure = AnswerLost(f"{self._name} {stopped}")
        except Exception as error:  # noqa: BLE001 - it may have rotated
            failure = AnswerLost(f"{self._name} raised {_described(error)}")
        else:
            if isinstance(result, Token):
                return result
            if isinstance(result, Mapping):
                return self._read(cast("Mapping[str, Any]", result))
            failure = AnswerLost(f"{self._name} returned {type(result).__name__}, not a Token or a mapping")
        raise failure from None

    def _read(self, answer: Mapping[str, Any]) -> Mapping[str, Any]:
        """*answer* with our names. Raises AnswerLost when it holds no access token, with the refresh token if any."""
        members = picked(answer, self._fields)
        if is_credential(members.get("access_token")):
            return members
        refresh_token = members.get("refresh_token")
        names = _field_names(answer)
        raise AnswerLost(
            f"{self._name} returned no usable access_token{f', but {names}' if names else ''}: raise LoginRequired or "
            "Refused if it means that the login is over",
            refresh_token=refresh_token if is_credential(refresh_token) else None,
        )

    def revoke(self, session: Session) -> bool:
        """Call the function for it, if there is one. Never raises; false when it failed or returned False."""
        if self._revoke is None:
            return False
        try:
            return _settled(self._revoke(session), _REVOCATION_TIMEOUT) is not False
        except Exception:  # noqa: BLE001 - best effort
            return False


class _StoppedError(Exception):
    """An async function was cancelled, by its time (not the `TimeoutError` it may raise) or by itself."""


def _settled(result: object, timeout: float) -> object:
    """*result*, or what it comes to if it is to be awaited."""
    if not inspect.isawaitable(result):
        return result
    import asyncio  # noqa: PLC0415 - costs time that sync grants need not spend

    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(result, timeout))
    if inspect.iscoroutine(result):
        result.close()
    raise ConfigurationError("an async grant cannot be run by a thread that runs an event loop already")


async def _awaited(result: Awaitable[object], timeout: float) -> object:
    import asyncio  # noqa: PLC0415 - as above

    scope = asyncio.timeout(timeout)
    try:
        async with scope:
            return await result
    except TimeoutError:
        if not scope.expired():
            raise
        raise _StoppedError(f"did not answer within {timeout:g} s") from None
    except asyncio.CancelledError:
        raise _StoppedError("was cancelled") from None


def _takes_resource(function: Callable[..., Any]) -> bool:
    try:
        parameters = inspect.signature(function).parameters
    except (ValueError, TypeError):  # some functions written in C do not tell
        return False
    named = parameters.get("resource")
    by_name = named is not None and named.kind in (named.POSITIONAL_OR_KEYWORD, named.KEYWORD_ONLY)
    return by_name or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _field_names(answer: Mapping[str, Any]) -> str:
    """The first few names of *answer* that are surely names."""
    names: list[str] = [name for name in cast("Mapping[object, Any]", answer) if _is_name(name)]
    return ", ".join(names[:_NAMES_SHOWN])


def _is_name(name: object) -> TypeGuard[str]:
    """Whether a key can be shown: a body that was read as the wrong kind of form has a token for a key."""
    if not isinstance(name, str) or not name.isprintable() or len(name) > _LONGEST_NAME:
        return False
    return len(name) <= _LONGEST_WORD or not any(character.isdigit() for character in name)


def _described(error: BaseException) -> str:
    """Type and place of *error*, without its text."""
    place, step = "", error.__traceback__
    while step is not None:
        place = f" at {step.tb_frame.f_code.co_filename}:{step.tb_lineno}"
        step = step.tb_next
    return f"{type(error).__name__}{place}"
