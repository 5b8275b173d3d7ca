"""The sealing key in the operating system's key ring."""

from __future__ import annotations

import base64
import os
from collections.abc import Iterable
from typing import Any

from unexpired.errors import ConfigurationError, UnexpiredError, place_of
from unexpired.stores import _private
from unexpired.stores._lockfile import exclusive
from unexpired.stores._sealing_keys import keys_in, new_key

try:
    import keyring
    from keyring import core
    from keyring.backend import KeyringBackend
    from keyring.backends import chainer, fail, null
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a key in the system's key ring needs keyring, which is not installed: pip install 'unexpired[keyring]'",
        name=error.name,
    ) from None

__all__ = ["key_in"]

_ADVICE = (
    "on a machine without a desktop start a Secret Service (gnome-keyring) first, or seal with a key from elsewhere: "
    "Sealed(FileStore(), key_from_environ())"
)
_WAIT = 30.0


def key_in(service: str, name: str) -> Iterable[bytes]:
    """What `key_from_keyring` gives."""
    try:
        ring = _ring()
        found = ring.get_password(service, name) or _made(ring, service, name)
    except UnexpiredError:
        raise
    except Exception as error:  # noqa: BLE001 - a key ring raises what its own parts raise
        raise ConfigurationError(f"the key ring is not to be had ({place_of(error)}): {_ADVICE}") from None
    return keys_in(found, f"the key ring, under {service!r}, {name!r},")


def _made(ring: Any, service: str, name: str) -> str:
    """The key that is there now, made by this process or by another one at the same time."""
    from platformdirs import user_data_dir  # noqa: PLC0415 - needed once in a key's life

    directory = user_data_dir("unexpired", appauthor=False)
    _private.lock_down(directory, "", create=True)
    lock = os.path.join(directory, f"{_private.file_name(f'{service}/{name}')}.key-ring")
    with exclusive(lock, "", _WAIT):
        found: str | None = ring.get_password(service, name)
        if not found:
            ring.set_password(service, name, base64.b64encode(new_key()).decode())
            found = ring.get_password(service, name)
    if not found:
        raise ConfigurationError(f"this system's key ring did not keep the key: {_ADVICE}")
    return found


def _ring() -> KeyringBackend:
    """The key ring to use. One that stands in for a missing one, in plain files or by asking, is not."""
    chosen = keyring.get_keyring()
    several = isinstance(chosen, chainer.ChainerBackend)
    rings: list[KeyringBackend] = chosen.backends if isinstance(chosen, chainer.ChainerBackend) else [chosen]
    for ring in rings:
        kind = type(ring)
        if isinstance(ring, fail.Keyring | null.Keyring | chainer.ChainerBackend):
            continue
        if kind.__module__.startswith("keyrings."):
            asks = hasattr(kind, "_get_new_password") and "keyring_key" not in vars(ring)
            if several or asks or not _is_named():
                continue
        return ring
    raise ConfigurationError(f"this system has no key ring that keeps a key: {_ADVICE}")


def _is_named() -> bool:
    """Whether somebody chose the key ring by its name, in the environment or in keyring's own settings."""
    return bool(os.environ.get("PYTHON_KEYRING_BACKEND")) or core.load_config() is not None
