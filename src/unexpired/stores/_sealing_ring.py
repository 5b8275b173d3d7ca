"""The sealing keys that one `Sealed` knows, and when their source is asked again."""

from __future__ import annotations

import hashlib
import inspect
import threading
import time
from collections.abc import Iterable
from typing import cast

from unexpired.errors import ConfigurationError, StoreError, UnexpiredError, place_of
from unexpired.stores._sealing_keys import KEY_LENGTH, KeySource

__all__ = ["Ring"]

_ASK_AGAIN = 1.0
"""Seconds after which the source is asked once more for a key that it did not give."""
_ASK_BEFORE_SEALING = 30.0
"""Seconds after which the source is asked again which key seals. Longer than a flight: its first write asks."""
_UNKNOWN = 64


class Ring:
    """The keys by the names under which their records are marked: the first one seals, all open. Thread-safe.

    A key that the source does not give any more goes on opening here: what it sealed may come back for a while, and
    the source may have lost it by mistake.
    """

    def __init__(self, given: bytes | KeySource) -> None:
        self._source = given if callable(given) else (lambda: given)
        self._keys: dict[str, bytes] = {} if callable(given) else _named(given)
        self._asked = float("-inf") if callable(given) else float("inf")
        self._unknown: dict[str, float] = {}
        self.start_anew()

    def start_anew(self) -> None:
        """In a forked child: no thread of the parent will ever free its lock here."""
        self._lock = threading.RLock()

    @property
    def names(self) -> str:
        """Those of all keys, to be shown."""
        return ", ".join(self._keys)

    def sealing(self) -> tuple[str, bytes]:
        """The key that seals, after its name. Raises StoreError when there is none.

        A source that fails when it is asked again changes nothing: what is to be stored could be a new token.
        """
        if self._is_due():
            with self._lock:
                if self._is_due():
                    try:
                        self._ask()
                    except StoreError:
                        if not self._keys:
                            raise
                        self._asked = time.monotonic()
        return next(iter(self._keys.items()))

    def opening(self, name: str) -> bytes | None:
        """The key of that name. Asks for it once, not again within a second. Raises StoreError."""
        if name not in self._keys:
            with self._lock:
                if name not in self._keys and time.monotonic() >= self._unknown.get(name, 0.0):
                    self._ask()
                    if name not in self._keys:
                        # Who writes records can make up names: only so many are kept.
                        if len(self._unknown) >= _UNKNOWN:
                            self._unknown.clear()
                        self._unknown[name] = time.monotonic() + _ASK_AGAIN
        return self._keys.get(name)

    def ask(self) -> None:
        """Ask for the keys now. Raises StoreError when there are none."""
        with self._lock:
            self._ask()

    def _is_due(self) -> bool:
        return time.monotonic() >= self._asked + _ASK_BEFORE_SEALING

    def _ask(self) -> None:
        try:
            found = _named(self._source())
        except UnexpiredError as error:
            raise StoreError(f"no sealing key: {error}") from None
        except Exception as error:  # noqa: BLE001 - it may be anybody's code, and a store raises StoreError only
            raise StoreError(f"no sealing key: its source raised {place_of(error)}") from None
        self._keys = {**found, **{name: key for name, key in self._keys.items() if name not in found}}
        self._asked = time.monotonic()


def _named(given: object) -> dict[str, bytes]:
    """The keys by the name under which their records are marked."""
    if inspect.iscoroutine(given):
        given.close()
        raise ConfigurationError("the source of a sealing key must be a plain function, not an async one")
    keys: list[object] = list(cast("Iterable[object]", given)) if isinstance(given, Iterable) else [given]
    if isinstance(given, bytes):
        keys = [given]
    found = [key for key in keys if isinstance(key, bytes) and len(key) == KEY_LENGTH]
    if not found or len(found) < len(keys):
        raise ConfigurationError("a sealing key is 32 bytes, such as unexpired.stores.sealed.new_key() makes")
    return {hashlib.sha256(b"unexpired" + key).hexdigest()[:8]: key for key in found}
