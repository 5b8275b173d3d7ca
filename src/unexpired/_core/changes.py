"""Login, logout and the end of a session: changes that never take the lease and are fenced by login and version."""

from __future__ import annotations

from unexpired._core.effects import Flow, Load, Now, Revoke, SetAside, Swap
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError

__all__ = ["end", "login", "logout"]

_TRIES = 100


def login(key: str, login_id: str, token: Token | str, seed: str = "", *, once: bool = False) -> Flow[Session]:
    """Store a new login, whatever was there before. A record that cannot be read is set aside, not destroyed.

    *seed* is the fingerprint of *token*. With *once*, whatever has come after the same seed is left as it is now.
    """
    refused: StoreError | None = None
    for _ in range(_TRIES):
        try:
            current = yield from Load()
        except StoreError as error:
            if refused is not None and str(error) == str(refused):
                raise  # the store keeps it where it is, and has said what to do
            refused = error
            yield from SetAside()
            continue
        if once and current is not None and seed in current.seeds:
            return current
        begun = Session.begin(key, login_id, token).grown_from(seed, current)
        if (yield from Swap(current, begun)):
            return begun
    raise StoreError(f"the login of {key!r} could not be stored: its record kept changing", key=key)


def logout(key: str) -> Flow[tuple[Session, bool] | None]:
    """End the login with an ended record, then revoke it at the server. None when nobody was logged in."""
    for _ in range(_TRIES):
        current = yield from Load()
        if current is None or current.ended is not None:
            return None
        instant = yield from Now()
        over = current.over("logout", instant.wall)
        if (yield from Swap(current, over)):
            return over, (yield from Revoke(current))
    raise StoreError(f"the logout of {key!r} could not be stored: its record kept changing", key=key)


def end(key: str, carried: Token, reason: str) -> Flow[tuple[Session | None, bool]]:
    """End the session if *carried* is its current token: the session as it is now, and whether this ended it."""
    for _ in range(_TRIES):
        current = yield from Load()
        if current is None or current.ended is not None or current.login != carried.login:
            return current, False
        token = current.tokens.get(carried.resource)
        if token is None or token.minted != carried.minted:
            return current, False
        instant = yield from Now()
        over = current.over(reason, instant.wall)
        if (yield from Swap(current, over)):
            return over, True
    raise StoreError(f"the end of the login {key!r} could not be stored: its record kept changing", key=key)
