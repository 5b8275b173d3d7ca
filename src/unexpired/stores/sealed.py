"""Encryption at rest, around any store: what the store keeps cannot be read, changed or exchanged without the key."""

from __future__ import annotations

import base64
import binascii
import hashlib
import os
import threading
from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from typing import Self, cast

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError, UnexpiredError, place_of
from unexpired.stores._closing import Closing

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "unexpired.stores.sealed needs cryptography, which is not installed: pip install 'unexpired[sealed]'",
        name=error.name,
    ) from None

__all__ = ["KeySource", "Sealed", "key_from_environ", "key_from_file", "new_key"]

KeySource = Callable[[], "bytes | Iterable[bytes]"]
"""Gives the key, or the keys: the first one seals, all of them open."""

_MARK = "sealed:1:"
_NONCE = 12
_PAST_LOGINS = 8


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


def new_key() -> bytes:
    """A new key: 32 random bytes."""
    return AESGCM.generate_key(256)


def key_from_environ(name: str = "UNEXPIRED_SEAL_KEY") -> KeySource:
    """The keys in the environment variable *name*: 32 bytes each as base64, separated by blanks, the newest first."""
    return lambda: _written(os.environ.get(name, ""), f"the environment variable {name}")


def key_from_file(path: str | os.PathLike[str]) -> KeySource:
    """The keys in a file, as in `key_from_environ`. Keep it 0600, and apart from what it opens."""

    def read() -> Iterable[bytes]:
        try:
            with open(path, encoding="ascii") as file:
                return _written(file.read(), os.fspath(path))
        except (OSError, UnicodeDecodeError) as error:
            why = getattr(error, "strerror", None) or "it is not text"
            raise ConfigurationError(f"cannot read the sealing key in {os.fspath(path)}: {why}") from None

    return read


class Sealed(Closing):
    """Keeps sessions in *store*, encrypted (AES-256-GCM). ``Sealed(FileStore(), key_from_environ())``.

    *key* is 32 bytes, or a function that gives them (from a file, a key ring, a KMS); it may give several, of which
    the first seals and all open: to rotate, put the new one in front, and drop the old one when every session was
    stored anew. It is asked at first use, and again when a record was sealed with a key that is not known yet.

    * In the clear stay a session's key (its name), its random login id, its version, and whether it has ended. They
      are bound to what is sealed: a record that was changed, or put in another's place, is refused.
    * A record that is older than one this object has seen is refused: nobody can bring back what was rotated away,
      short of a new process.
    * A wrong key or a changed record is a StoreError. Nothing is ever stored or read in the clear, and nothing is
      deleted. A store that holds unsealed records is read only after `unexpired.stores.migrate`.

    As safe for threads and processes as *store* is; all that *store* promises holds.
    """

    def __init__(self, store: Store, key: bytes | KeySource) -> None:
        if not isinstance(cast("object", store), Store):
            raise ConfigurationError(f"Sealed takes a store, not {type(store).__name__}")
        self._store = store
        self._source = key if callable(key) else (lambda: key)
        self._ciphers: dict[str, AESGCM] = {} if callable(key) else _ciphers(key)
        self._lock = threading.Lock()
        self._seen: dict[str, _Seen] = {}

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
        self._see(session)
        return session

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """Store *new*, sealed, if what is stored is *expected*."""
        if not self._store.swap(key, expected, self._seal(new)):
            return False
        self._see(new)
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

    def close(self) -> None:
        """Close *store*."""
        self._store.close()

    def _seal(self, session: Session) -> Session:
        if not self._ciphers:
            self._learn()
        name, cipher = next(iter(self._ciphers.items()))
        nonce = os.urandom(_NONCE)
        sealed = cipher.encrypt(nonce, encode(session), _bound(session))
        text = f"{_MARK}{name}:{base64.b64encode(nonce + sealed).decode()}"
        return Session(session.key, session.login, session.version, text, ended=session.ended, notes=session.notes)

    def _open(self, found: Session, key: str) -> Session:
        text = found.refresh_token or ""
        name, _, sealed = text.removeprefix(_MARK).partition(":")
        if not text.startswith(_MARK):
            raise StoreError(
                f"refused to read the session {key!r} in {self._store!r}: it is not sealed, and anybody could have "
                "written it. If it is yours, move it with unexpired.stores.migrate",
                key=key,
            )
        if name not in self._ciphers:
            self._learn()
        cipher = self._ciphers.get(name)
        if cipher is None:
            raise StoreError(
                f"cannot open the session {key!r} in {self._store!r}: it was sealed with another key ({name}); give "
                f"that one as well, behind the newest (known here: {', '.join(self._ciphers)})",
                key=key,
            )
        try:
            packed = base64.b64decode(sealed, validate=True)
            data = cipher.decrypt(packed[:_NONCE], packed[_NONCE:], _bound(found))
        except (InvalidTag, ValueError, binascii.Error):
            raise self._tampered(key, "it was changed, or put in the place of another one") from None
        session = decode(data, key, repr(self._store))
        if session.ended != found.ended:
            raise self._tampered(key, "it was changed")
        return session

    def _tampered(self, key: str, how: str) -> StoreError:
        return StoreError(
            f"refused to read the session {key!r} in {self._store!r}: {how} since it was sealed. It was left as it "
            "is; find out who did, then remove it and log in again",
            key=key,
        )

    def _see(self, session: Session) -> None:
        """Remember the newest version."""
        with self._lock:
            seen = self._seen.get(session.key)
            if seen is None or not seen.is_newer_than(session):
                self._seen[session.key] = _Seen.of(session, seen)

    def _learn(self) -> None:
        """Ask for the keys. Raises StoreError when there are none."""
        try:
            self._ciphers = _ciphers(self._source())
        except UnexpiredError as error:
            raise StoreError(f"no sealing key: {error}") from None
        except Exception as error:  # noqa: BLE001 - it may be anybody's code, and a store raises StoreError only
            raise StoreError(f"no sealing key: its source raised {place_of(error)}") from None


def _ciphers(given: bytes | Iterable[bytes]) -> dict[str, AESGCM]:
    """The keys by the name under which their records are marked."""
    keys = [given] if isinstance(given, bytes) else list(given)
    if not keys or any(not isinstance(cast("object", one), bytes) or len(one) != 32 for one in keys):
        raise ConfigurationError("a sealing key is 32 bytes, such as unexpired.stores.sealed.new_key() makes")
    return {hashlib.sha256(b"unexpired" + one).hexdigest()[:8]: AESGCM(one) for one in keys}


def _bound(session: Session) -> bytes:
    """What cannot be changed without the key, though it stands in the clear."""
    parts = (session.key, session.login, str(session.version), str(session.notes))
    return b"\x00".join(base64.b64encode(part.encode("utf-8", "surrogatepass")) for part in parts)


def _written(text: str, where: str) -> list[bytes]:
    try:
        keys = [base64.b64decode(one, validate=True) for one in text.split()]
    except (ValueError, binascii.Error):
        keys = []
    if not keys:
        raise ConfigurationError(
            f"{where} holds no sealing key: put 32 random bytes there as base64, as `openssl rand -base64 32` makes"
        )
    return keys
