"""Encryption at rest, around any store: what the store keeps cannot be read, changed or exchanged without the key."""

from __future__ import annotations

import base64
import binascii
import os
import threading
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Self, cast

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode, encode
from unexpired._core.session import Failure, Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores._closing import Closing
from unexpired.stores._sealing_keys import (
    MARK,
    KeySource,
    key_from_environ,
    key_from_file,
    key_from_keyring,
    new_key,
)
from unexpired.stores._sealing_ring import Ring

try:
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM
except ModuleNotFoundError as error:
    raise ModuleNotFoundError(
        "sealed sessions need cryptography, which is not installed: pip install 'unexpired[sealed]', or "
        "'unexpired[keyring]' for a key in the system's key ring",
        name=error.name,
    ) from None

__all__ = ["KeySource", "Sealed", "key_from_environ", "key_from_file", "key_from_keyring", "new_key"]

_NONCE = 12
_PAST_LOGINS = 8
_REMEMBERED = 200_000
"""Sessions whose newest version is remembered; beyond that the one that was met first is forgotten."""
_FOR_THE_UNSEALED = Failure(
    "configuration", "the session is sealed: give this program Sealed(store, key), not the store alone", 0.0, 1e15
)
"""On each sealed record, for ever: a program that does not unseal it sends nothing to the server, and says why."""


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
    the first seals and all open; ``docs/how-to/choose-a-store.md`` rotates them step by step. The function is asked at
    first use, by one thread for all, again when a record was sealed with a key that is not known yet, and before
    something is stored if 30 seconds have passed. A key that it gave once goes on opening in this object.

    * In the clear stay a session's key (its name), its random login id, its version, and whether it has ended. They
      are bound to what is sealed: a record that was changed, or put in another's place, is refused.
    * A record that is older than one this object has seen of the same login is refused, and so is one of a login
      that this object met before another one: nobody can bring back what was rotated away, short of a new process.
      A login that it never met is taken, whatever came after it.
    * Records are not bound to *store*: where two stores have one key, a record of one is good in the other.
    * Two of these around one store count as one store: the managers of a process use the key of the first. New keys
      come through its source.
    * A program that uses *store* unsealed gets ConfigurationError and sends nothing to the server.
    * A wrong key or a changed record is a StoreError. Nothing is ever stored or read in the clear, and nothing is
      deleted. Records that are not sealed are refused: `unexpired.stores.migrate` moves them into a sealed store.

    As safe for threads and processes as *store* is; all that *store* promises holds.
    """

    def __init__(self, store: Store, key: bytes | KeySource) -> None:
        if not isinstance(cast("object", store), Store):
            raise ConfigurationError(f"Sealed takes a store, not {type(store).__name__}")
        self._store = store
        self._ring = Ring(key)
        self._seen: dict[str, _Seen] = {}
        self.start_anew()
        _sealed.add(self)

    def start_anew(self) -> None:
        """In a forked child: no thread of the parent will ever free its locks here."""
        self._lock = threading.RLock()
        self._ring.start_anew()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._store!r})"

    @property
    def remote(self) -> bool:
        """Whether *store* is on another machine."""
        return bool(getattr(self._store, "remote", False))

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
        before, sealed = self._seen.get(key), self._seal(new)
        if expected is not None and expected.failure == new.failure:
            # *store* tells others of a failure that was not there before: by this it sees that there is none.
            expected = replace(expected, failure=sealed.failure)
        if not self._store.swap(key, expected, sealed):
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

        After it no record needs an older one, if all processes have sealed with the newest for a while. Raises
        StoreError, after all others are done, when some could not be opened or stored.
        """
        self._ring.ask()
        done, failed = 0, list[StoreError]()
        for key in self.keys() if keys is None else keys:
            try:
                done += self._reseal(key)
            except StoreError as error:
                failed.append(error)
        if failed:
            message = f"{len(failed)} of {len(failed) + done} sessions could not be sealed anew, the first because: "
            raise StoreError(message + str(failed[0]), key=failed[0].key) from None
        return done

    def _reseal(self, key: str) -> bool:
        while (session := self.load(key)) is not None:
            if self.swap(key, session, session):
                return True
        return False

    def close(self) -> None:
        """Close *store*."""
        self._store.close()

    def _seal(self, session: Session) -> Session:
        name, key = self._ring.sealing()
        nonce = os.urandom(_NONCE)
        sealed = AESGCM(key).encrypt(nonce, encode(session), _bound(session, session.key))
        return Session(
            session.key,
            session.login,
            session.version,
            f"{MARK}{name}:{base64.b64encode(nonce + sealed).decode()}",
            failure=_FOR_THE_UNSEALED if session.ended is None else None,
            ended=session.ended,
            notes=session.notes,
        )

    def _open(self, found: Session, key: str) -> Session:
        text = found.refresh_token or ""
        name, _, sealed = text.removeprefix(MARK).partition(":")
        if not text.startswith(MARK):
            raise StoreError(
                f"refused to read the session {key!r} in {self._store!r}: it is not sealed, and anybody could have "
                "written it. If it is yours, move it into another, sealed store with unexpired.stores.migrate",
                key=key,
            )
        known = self._ring.opening(name)
        if known is None:
            raise StoreError(
                f"cannot open the session {key!r} in {self._store!r}: it was sealed with another key than those that "
                f"are known here ({self._ring.names}); give that one as well, behind the newest",
                key=key,
            )
        try:
            packed = base64.b64decode(sealed, validate=True)
            data = AESGCM(known).decrypt(packed[:_NONCE], packed[_NONCE:], _bound(found, key))
        except (InvalidTag, ValueError, binascii.Error):
            raise self._tampered(key, "it was changed, or put in the place of another one") from None
        session = decode(data, key, repr(self._store))
        foreign = found.failure not in (None, _FOR_THE_UNSEALED)
        if session.ended != found.ended or found.tokens or found.seeds or found.intent or foreign:
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
