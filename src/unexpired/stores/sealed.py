"""Encryption at rest, around any store: what the store keeps cannot be read, changed or exchanged without the key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import inspect
import os
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass
from typing import Self, cast

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError, UnexpiredError, place_of
from unexpired.stores._closing import Closing
from unexpired.stores._sealing_keys import (
    KEY_LENGTH,
    KeySource,
    key_from_environ,
    key_from_file,
    key_from_keyring,
    new_key,
)

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "unexpired.stores.sealed needs cryptography, which is not installed: pip install 'unexpired[sealed]'",
        name=error.name,
    ) from None

__all__ = ["KeySource", "Sealed", "key_from_environ", "key_from_file", "key_from_keyring", "new_key"]

_MARK = "sealed:1:"
_NONCE = 12
_PAST_LOGINS = 8
_REMEMBERED = 200_000
"""Sessions whose newest version is remembered; beyond that the one that was met first is forgotten."""
_ASK_AGAIN = 1.0
"""Seconds after which the source is asked once more for a key that it did not give."""
_UNKNOWN = 64


@dataclass(frozen=True, slots=True)
class _Seen:
    """The newest version of a session that was seen here, and the logins before it."""

    login: str
    place: tuple[int, int]
    past: tuple[str, ...]

    @classmethod
    def of(cls, session: Session, before: _Seen | None) -> Self:
        past = () if before is None else before.past
        if before is not None and before.login != session.login:
            past = (before.login, *past)[:_PAST_LOGINS]
        return cls(session.login, (session.version, session.notes), past)

    def is_newer_than(self, session: Session) -> bool:
        if session.login == self.login:
            return self.place > (session.version, session.notes)
        return session.login in self.past


class Sealed(Closing):
    """Keeps sessions in *store*, encrypted (AES-256-GCM). ``Sealed(FileStore(), key_from_environ())``.

    *key* is 32 bytes, or a function that gives them (from a file, a key ring, a KMS); it may give several, of which
    the first seals and all open: to rotate, put the new one in front, call `reseal`, and drop the old one. The
    function is asked at first use, by one thread for all, and again when a record was sealed with a key that is not
    known yet.

    * In the clear stay a session's key (its name), its random login id, its version, and whether it has ended. They
      are bound to what is sealed: a record that was changed, or put in another's place, is refused.
    * A record that is older than one this object has seen is refused: nobody can bring back what was rotated away,
      short of a new process.
    * A wrong key or a changed record is a StoreError. Nothing is ever stored or read in the clear, and nothing is
      deleted. Records that are not sealed are refused: `unexpired.stores.migrate` moves them into a sealed store.

    As safe for threads and processes as *store* is; all that *store* promises holds.
    """

    def __init__(self, store: Store, key: bytes | KeySource) -> None:
        if not isinstance(cast("object", store), Store):
            raise ConfigurationError(f"Sealed takes a store, not {type(store).__name__}")
        self._store = store
        self._source = key if callable(key) else (lambda: key)
        self._ciphers: dict[str, AESGCM] = {} if callable(key) else _ciphers(key)
        self._unknown: dict[str, float] = {}
        self._seen: dict[str, _Seen] = {}
        self.start_anew()
        _sealed.add(self)

    def start_anew(self) -> None:
        """In a forked child: no thread of the parent will ever free its locks here."""
        self._lock = threading.RLock()
        self._asking = threading.RLock()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    @property
    def identity(self) -> Hashable:
        """That of what is sealed, and of sealing."""
        return ("sealed", self._store.identity)

    def load(self, key: str) -> Session | None:
        """The stored session, None when there is none."""
        before = self._seen.get(key)
        found = self._store.load(key)
        if found is None:
            return None
        session = self._open(found, key)
        if before is not None and before.is_newer_than(session):
            raise self._tampered(key, "an older one was put back in its place")
        self._see(session, before)
        return session

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new*, sealed, if what is stored is *expected*."""
        before = self._seen.get(key)
        if not self._store.swap(key, expected, self._seal(new)):
            return False
        self._see(new, before)
        return True

    def stamp(self, key: str) -> Callable[[], object]:
        """That of *store*."""
        return self._store.stamp(key)

    def lease(self, key: str, *, owner: str, seconds: float, wait: float, stop: Callable[[], bool]) -> HeldLease | None:
        """That of *store*."""
        return self._store.lease(key, owner=owner, seconds=seconds, wait=wait, stop=stop)

    def set_aside(self, key: str) -> None:
        """Refuse to: what this key cannot open, another may. Lets *store* set aside what it cannot read itself."""
        self._store.set_aside(key)

    def keys(self) -> Iterator[str]:
        """Those of *store*. Raises ConfigurationError for a store that cannot list them."""
        listing = getattr(self._store, "keys", None)
        if listing is None:
            raise ConfigurationError(f"{self._store!r} has no keys(): name the sessions yourself")
        return cast("Iterator[str]", listing())

    def reseal(self, keys: Iterable[str] | None = None) -> int:
        """Store all sessions (or those of *keys*) anew, sealed with the newest key, while processes run: how many.

        After it, when all processes know the newest key, no record needs an older one. Raises StoreError for a record
        that cannot be opened.
        """
        with self._asking:
            self._learn()
        done = 0
        for key in self.keys() if keys is None else keys:
            while (session := self.load(key)) is not None:
                if self.swap(key, session, session):
                    done += 1
                    break
        return done

    def close(self) -> None:
        """Close *store*."""
        self._store.close()

    def _seal(self, session: Session) -> Session:
        if not self._ciphers:
            with self._asking:
                if not self._ciphers:
                    self._learn()
        name, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(_NONCE)
        sealed = cipher.encrypt(nonce, encode(session), _bound(session, session.key))
        text = f"{_MARK}{name}:{base64.b64encode(nonce + sealed).decode()}"
        return Session(session.key, session.login, session.version, text, ended=session.ended, notes=session.notes)

    def _open(self, found: Session, key: str) -> Session:
        text = found.refresh_token or ""
        name, _, sealed = text.removeprefix(_MARK).partition(":")
        if not text.startswith(_MARK):
            raise StoreError(
                f"refused to read the session {key!r} in {self._store!r}: it is not sealed, and anybody could have "
                "written it. If it is yours, move it into another, sealed store with unexpired.stores.migrate",
                key=key,
            )
        cipher = self._cipher(name)
        if cipher is None:
            raise StoreError(
                f"cannot open the session {key!r} in {self._store!r}: it was sealed with another key than those that "
                f"are known here ({', '.join(self._ciphers)}); give that one as well, behind the newest",
                key=key,
            )
        try:
            packed = base64.b64decode(sealed, validate=True)
            data = cipher.decrypt(packed[:_NONCE], packed[_NONCE:], _bound(found, key))
        except (InvalidTag, ValueError, binascii.Error):
            raise self._tampered(key, "it was changed, or put in the place of another one") from None
        session = decode(data, key, repr(self._store))
        if session.ended != found.ended or found.tokens or found.seeds or found.intent or found.failure:
            raise self._tampered(key, "it was changed")
        return session

    def _tampered(self, key: str, how: str) -> StoreError:
        return StoreError(
            f"refused to read the session {key!r} in {self._store!r}: {how} since it was sealed. It was left as it "
            "is; find out who did, then remove it and log in again",
            key=key,
        )

    def _see(self, session: Session, before: _Seen | None) -> None:
        """Remember the newest version. *before* is what was remembered when the store was asked.

        Of what two threads met at the same time nobody knows which login came first: then neither counts as past.
        """
        with self._lock:
            seen = self._seen.get(session.key)
            if seen is None or seen is before or (seen.login == session.login and not seen.is_newer_than(session)):
                self._seen[session.key] = _Seen.of(session, seen)
                if len(self._seen) > _REMEMBERED:
                    del self._seen[next(iter(self._seen))]

    def _cipher(self, name: str) -> AESGCM | None:
        """The one that opens what was sealed under *name*. Asks for the keys once, not again within a second."""
        if name not in self._ciphers:
            with self._asking:
                if name not in self._ciphers and time.monotonic() >= self._unknown.get(name, 0.0):
                    self._learn()
                    if name not in self._ciphers:
                        # Who writes records can make up names: only so many are kept.
                        if len(self._unknown) >= _UNKNOWN:
                            self._unknown.clear()
                        self._unknown[name] = time.monotonic() + _ASK_AGAIN
        return self._ciphers.get(name)

    def _learn(self) -> None:
        """Ask for the keys. Raises StoreError when there are none."""
        try:
            self._ciphers = _ciphers(self._source())
        except UnexpiredError as error:
            raise StoreError(f"no sealing key: {error}") from None
        except Exception as error:  # noqa: BLE001 - it may be anybody's code, and a store raises StoreError only
            raise StoreError(f"no sealing key: its source raised {place_of(error)}") from None


def _ciphers(given: object) -> dict[str, AESGCM]:
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
    return {hashlib.sha256(b"unexpired" + one).hexdigest()[:8]: AESGCM(one) for one in found}


def _bound(session: Session, key: str) -> bytes:
    """What cannot be changed without the key, though it stands in the clear."""
    parts = (key, session.login, str(session.version), str(session.notes))
    return b"\x00".join(base64.b64encode(part.encode("utf-8", "surrogatepass")) for part in parts)


_sealed: weakref.WeakSet[Sealed] = weakref.WeakSet()


def _after_fork() -> None:
    for store in list(_sealed):
        store.start_anew()


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows has no fork
    os.register_at_fork(after_in_child=_after_fork)
