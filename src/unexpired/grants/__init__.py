"""How a new token is obtained. `Grant` is what they all have in common; any function can be one."""

from __future__ import annotations

from typing import cast

from unexpired._core.ports import Grant, GrantFunction
from unexpired.errors import ConfigurationError
from unexpired.grants.function import FunctionGrant
from unexpired.grants.refresh_token import RefreshTokenGrant

__all__ = ["FunctionGrant", "Grant", "GrantFunction", "RefreshTokenGrant", "as_grant"]

_PARTS = ("redeem", "revoke", "reuse_grace", "spends_refresh_token")


def as_grant(grant: Grant | GrantFunction) -> Grant:
    """*grant* itself if it has what a `Grant` has, a `FunctionGrant` around it if it is a function.

    Raises ConfigurationError for anything else, and for an object that has only some parts of a `Grant`.
    """
    if isinstance(grant, type):
        raise ConfigurationError(f"{grant.__name__} is a class: give an instance of it")
    missing = [part for part in _PARTS if not hasattr(grant, part)]
    if not missing:
        return cast("Grant", grant)
    if hasattr(grant, "redeem"):
        raise ConfigurationError(f"a grant needs {', '.join(missing)} too: see unexpired.grants.Grant")
    if callable(grant):
        return FunctionGrant(grant)
    raise ConfigurationError(f"a grant is a function or an object with redeem(), not {type(grant).__name__}")
