"""The sealing key in the operating system's key ring."""

from __future__ import annotations

import base64
import binascii

from unexpired.errors import ConfigurationError

try:
    import keyring
    from keyring.backends import fail
    from keyring.errors import KeyringError
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "a key in the system's key ring needs keyring, which is not installed: pip install 'unexpired[keyring]'",
        name=error.name,
    ) from None

from unexpired.stores.sealed import KeySource, new_key

__all__ = ["key_from_keyring"]

_ADVICE = (
    "on a machine without a desktop start a Secret Service (gnome-keyring) first, or seal with a key from elsewhere: "
    "Sealed(FileStore(), key_from_environ())"
)


def key_from_keyring(service: str = "unexpired", name: str = "sealing key") -> KeySource:
    """The key that the system's key ring keeps under *service* and *name*; made there when there is none yet.

    Never asks on standard input. Raises ConfigurationError, saying what to do, where there is no key ring.
    """

    def find() -> bytes:
        backend = keyring.get_keyring()
        if isinstance(backend, fail.Keyring) or backend.priority <= 0:
            raise ConfigurationError(f"this system has no key ring that keeps a key: {_ADVICE}")
        try:
            found = keyring.get_password(service, name)
            if found is None:
                keyring.set_password(service, name, base64.b64encode(new_key()).decode())
                # Another process may have done so at the same time: the last one's is everybody's.
                found = keyring.get_password(service, name) or ""
        except KeyringError as error:
            raise ConfigurationError(f"the key ring is not to be had ({type(error).__name__}): {_ADVICE}") from None
        try:
            return base64.b64decode(found, validate=True)
        except (ValueError, binascii.Error):
            raise ConfigurationError(f"what the key ring has under {service!r}, {name!r} is no sealing key") from None

    return find
