"""Where the sealing keys come from."""

from __future__ import annotations

import base64
import binascii
import os
import stat
from collections.abc import Callable, Iterable

from unexpired.errors import ConfigurationError
from unexpired.stores import _private

__all__ = [
    "KEY_LENGTH",
    "MARK",
    "KeySource",
    "key_from_environ",
    "key_from_file",
    "key_from_keyring",
    "keys_in",
    "new_key",
]

KEY_LENGTH = 32
MARK = "sealed:1:"
"""What a sealed record begins with, in the place of its refresh token."""

_ADVICE = "put 32 random bytes there as base64, as `openssl rand -base64 32` makes"

KeySource = Callable[[], "bytes | Iterable[bytes]"]
"""Gives the key, or the keys: the first one seals, all of them open."""


def new_key() -> bytes:
    """A new key: 32 random bytes."""
    return os.urandom(KEY_LENGTH)


def key_from_environ(name: str = "UNEXPIRED_SEAL_KEY") -> KeySource:
    """The keys in the environment variable *name*: 32 bytes each as base64, separated by blanks, the newest first."""

    def read() -> Iterable[bytes]:
        text = os.environ.get(name)
        if text is None:
            raise ConfigurationError(f"the environment variable {name} is not set: {_ADVICE}")
        return keys_in(text, f"the environment variable {name}")

    return read


def key_from_file(path: str | os.PathLike[str]) -> KeySource:
    """The keys in a file, as in `key_from_environ`. Keep it apart from what it opens.

    A file of this user that others may read is refused (StoreError), and one of another user. One of root, as
    containers and services are given their secrets, may be readable for others, not writable.
    """
    where = os.path.abspath(os.path.expanduser(os.fsdecode(path)))

    def read() -> Iterable[bytes]:
        try:
            with open(where, encoding="ascii") as file:
                _check(os.fstat(file.fileno()), where)
                return keys_in(file.read(), where)
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ConfigurationError(f"cannot read the sealing key in {where}: {why}") from None

    return read


def key_from_keyring(service: str = "unexpired", name: str = "sealing key") -> KeySource:
    """The key that the system's key ring keeps under *service* and *name*; made there when there is none yet.

    Several, separated by blanks, are as in `key_from_environ`. All processes of this user that find none agree on
    one. Never asks on standard input, and keeps no key in a plain file unless such a key ring was chosen by name.
    Where there is no key ring, sealing and opening raise StoreError, saying what to do.
    """
    from unexpired.stores._keyring import key_in  # noqa: PLC0415 - needs the extra

    return lambda: key_in(service, name)


def _check(found: os.stat_result, path: str) -> None:
    is_given = found.st_uid == 0 and hasattr(os, "geteuid") and os.geteuid() != 0
    if not (is_given and stat.S_ISREG(found.st_mode) and not found.st_mode & 0o022):
        _private.check(found, path, None)


def keys_in(text: str, where: str) -> list[bytes]:
    """The keys in *text*, as in `key_from_environ`. Raises ConfigurationError, naming *where* it was found."""
    try:
        keys = [base64.b64decode(one, validate=True) for one in text.split()]
    except (ValueError, binascii.Error):
        keys = []
    if not keys or any(len(key) != KEY_LENGTH for key in keys):
        raise ConfigurationError(f"{where} holds no sealing key: {_ADVICE}")
    return keys
