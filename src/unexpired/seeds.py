"""A first token for a session, out of a JSON file or the environment, for `TokenManager.login`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping
from typing import Any, cast

from unexpired._core.token import Token, is_credential
from unexpired.errors import ConfigurationError

__all__ = ["fingerprint", "first_token", "seed_from_environ", "seed_from_file"]


def fingerprint(token: Token | str) -> str:
    """What tells one seed from another, and nothing of what is in it."""
    import hashlib  # noqa: PLC0415 - `import unexpired` is quicker without it

    parts = (token,) if isinstance(token, str) else (token.access_token, token.refresh_token or "")
    return hashlib.sha256("\n".join(parts).encode(errors="surrogatepass")).hexdigest()[:32]


def first_token(seed: Token | Mapping[str, Any], lifetime: float | None = None) -> Token | str:
    """What a login brings: a token, or only a refresh token (a string).

    *lifetime* (seconds) is assumed where none is named. Raises ConfigurationError when there is no token in it.
    """
    if isinstance(seed, Token):
        if not seed.is_sound():
            raise ConfigurationError("the fields of this Token are not what they should be: texts without outer spaces")
        return seed.with_lifetime(lifetime, time.time())
    try:
        return Token.from_response(seed).with_lifetime(lifetime, time.time())
    except ValueError:
        refresh_token = seed.get("refresh_token")
        if is_credential(refresh_token):
            return refresh_token
        raise ConfigurationError(
            "a login needs an access_token or a refresh_token (RFC 6749 §5.1), without outer spaces"
        ) from None


def seed_from_file(path: str | os.PathLike[str]) -> Mapping[str, Any]:
    """The token answer in the JSON file *path* (RFC 6749 §5.1: ``access_token``, ``refresh_token``, …).

    Raises ConfigurationError when the file cannot be read, is not a JSON object, or has neither of the two tokens.
    """
    try:
        with open(path, "rb") as file:
            answer: Any = json.loads(file.read())
    except OSError as error:
        raise ConfigurationError(f"cannot read a token from {os.fspath(path)!r}: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ConfigurationError(f"{os.fspath(path)!r} is not JSON") from None
    seed = cast("dict[str, Any]", answer) if isinstance(answer, dict) else {}
    if not (seed.get("access_token") or seed.get("refresh_token")):
        raise ConfigurationError(f"{os.fspath(path)!r} is not a JSON object with an access_token or refresh_token")
    return seed


def seed_from_environ(prefix: str = "UNEXPIRED_") -> Mapping[str, Any]:
    """The token answer in the environment: ``<prefix>ACCESS_TOKEN``, ``<prefix>REFRESH_TOKEN``, ``<prefix>EXPIRES_AT``.

    Raises ConfigurationError when neither token is set.
    """
    names = ("access_token", "refresh_token", "id_token", "token_type", "scope", "expires_in", "expires_at")
    answer = {name: value for name in names if (value := os.environ.get(prefix + name.upper(), "").strip())}
    if "access_token" not in answer and "refresh_token" not in answer:
        raise ConfigurationError(f"neither {prefix}ACCESS_TOKEN nor {prefix}REFRESH_TOKEN is set in the environment")
    return answer
