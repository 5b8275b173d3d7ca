"""Moves sessions from one store to another while programs use both. `unexpired.stores.migrate`.

Per session, under the source's lease:

1. the source's record becomes an ended one (reason ``moved``) that carries the session, sealed in if the source seals:
   from here on nobody can redeem it;
2. the session is stored in the target, under a login id that follows from the old one;
3. what was carried is removed from the source.

A crash between two steps leaves the session in no place or in one place where it can be redeemed, never in two, and
the next run goes on from there: a record that still carries its session is put into the target unless that has it.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import Literal, cast

from unexpired._core.ports import HeldLease, Store
from unexpired._core.record import decode, encode
from unexpired._core.session import Session
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores._sealing_keys import MARK

__all__ = ["Migration", "migrate"]

_MOVED = "moved"
_CARRIES = "moving:1:"
_TRIES = 20
_LEASE = 60.0
_LISTING = "(the list of sessions)"
_MOVED_BEFORE = "it was moved before"
_ELSEWHERE = "it was moved to another store than this one before: move it from there"
_NEWER = "the target has a newer login"


@dataclass(frozen=True, slots=True)
class Migration:
    """What became of the sessions, by key: *moved*, *skipped* and *failed*, the last two with the reason."""

    moved: tuple[str, ...]
    skipped: Mapping[str, str]
    failed: Mapping[str, str]


def migrate(source: Store, target: Store, keys: Iterable[str] | None = None, *, wait: float = 30.0) -> Migration:
    """Move the sessions of *source* (all, or those of *keys*) to *target*, while programs use both.

    A refresh under way is waited for, up to *wait* seconds. From then on a program that still uses *source* gets
    `LoginRequired` with the reason ``moved``; nothing is refreshed there any more, so that no refresh token is used
    in two places. A session that has ended is moved as well: its seed stays spent. A newer login in *target* is kept.

    To be called again after a crash, or to move what failed or was added meanwhile: what is done stays done. One
    session's trouble does not keep the others: see `Migration`. Without *keys* the source must have a method
    ``keys()``. Raises ConfigurationError when it has none, and when both stores are the same.
    """
    if source.identity == target.identity:
        raise ConfigurationError(f"{source!r} and {target!r} are the same store: name another target")
    listing = getattr(source, "keys", None) if keys is None else None
    if keys is None and listing is None:
        raise ConfigurationError(f"{source!r} has no keys(): name the sessions with keys=")
    moved: list[str] = []
    skipped: dict[str, str] = {}
    failed: dict[str, str] = {}
    names = iter(keys if keys is not None else cast("Iterator[str]", listing()))  # type: ignore[misc]
    while True:
        key = _LISTING
        try:
            key = next(names)
            reason = _move(source, target, key, wait)
        except StopIteration:
            return Migration(tuple(moved), MappingProxyType(skipped), MappingProxyType(failed))
        except StoreError as error:
            failed[key] = str(error)
            if key == _LISTING:
                return Migration(tuple(moved), MappingProxyType(skipped), MappingProxyType(failed))
            continue
        if reason:
            skipped[key] = reason
        else:
            moved.append(key)


def _move(source: Store, target: Store, key: str, wait: float) -> str:
    """Move one: an empty string, or why there was nothing to move. Raises StoreError."""
    owner = f"migrate:{os.getpid()}:{os.urandom(8).hex()}"
    lease = source.lease(key, owner=owner, seconds=_LEASE, wait=wait, stop=lambda: False)
    if lease is None:
        raise StoreError(f"the session {key!r} was not moved: a refresh has been under way for {wait:g} s", key=key)
    try:
        for _ in range(_TRIES):
            reason = _try(source, target, key, lease)
            if reason is not None:
                return reason
    finally:
        with suppress(StoreError):
            lease.release()
    raise StoreError(f"the session {key!r} was not moved: its records kept changing", key=key)


def _try(source: Store, target: Store, key: str, lease: HeldLease) -> str | None:
    """As `_move`; None when somebody changed a record meanwhile."""
    found = source.load(key)
    if found is None:
        return "it is not there"
    carried = _carried(found, source)
    if carried is None and found.ended is not None and found.ended.reason == _MOVED:
        if target.load(key) is None:
            raise StoreError(f"the session {key!r} was not moved: {_ELSEWHERE}", key=key)
        return _MOVED_BEFORE
    session = carried or found
    if (session.refresh_token or "").startswith(MARK):
        raise StoreError(f"the session {key!r} was not moved: it is sealed; move it from Sealed(store, key)", key=key)
    arrived = _arrived(session)
    there = target.load(key)
    found_there = _compare(there, session, arrived)
    if carried is None and session.ended is None and found_there != "newer":
        _check_quiet(session, lease)
        carrying = _carrying(session)
        if not source.swap(key, found, carrying):
            return None
        found = carrying
    if found_there == "older" and not target.swap(key, there, arrived):
        return None
    if not source.swap(key, found, found.over(_MOVED, time.time())):
        return None
    return _NEWER if found_there == "newer" else ""


def _check_quiet(session: Session, lease: HeldLease) -> None:
    """Raise StoreError while another owner's request may be in the air: a timed lease can end before it does."""
    intent = session.intent
    if lease.timed and intent is not None and intent.owner and lease.granted_at - intent.since < _LEASE:
        raise StoreError(
            f"the session {session.key!r} was not moved: a refresh was interrupted less than {_LEASE:g} s ago; "
            "move it again later",
            key=session.key,
        )


def _compare(there: Session | None, session: Session, arrived: Session) -> Literal["older", "same", "newer"]:
    """What the target has, beside what is to be moved there. Raises StoreError when nobody can tell."""
    if there is None:
        return "older"
    if there.login == arrived.login:
        return "same"
    ended = there.ended.reason if there.ended is not None else ""
    if ended == _MOVED and there.refresh_token is None:
        return "older"
    first, origin = there.seeds[:1], session.seeds[:1]
    if ended != _MOVED and first != origin:
        if origin and origin[0] in there.seeds:
            return "newer"
        if first and first[0] in session.seeds:
            return "older"
    if first and first == origin and there.version == 1 and there.intent is None and not ended:
        return "older"
    raise StoreError(
        f"the session {session.key!r} was not moved: the target has another login under this key, and nothing tells "
        "which is newer; log out of one of them, or move one of them elsewhere",
        key=session.key,
    )


def _carrying(session: Session) -> Session:
    """The ended record that carries *session*: no token in it can be used."""
    text = _CARRIES + encode(session).decode("ascii")
    return replace(session.over(_MOVED, time.time()), refresh_token=text)


def _carried(found: Session, source: Store) -> Session | None:
    text = found.refresh_token
    if found.ended is None or text is None or not text.startswith(_CARRIES):
        return None
    return decode(text.removeprefix(_CARRIES), found.key, repr(source))


def _arrived(session: Session) -> Session:
    """*session* as the target keeps it. It follows from what was there, so that a second run knows it again."""
    place = f"{_MOVED}\0{session.login}\0{session.version}"
    login = hashlib.sha256(place.encode("utf-8", "surrogatepass")).hexdigest()[:32]
    version, intent = session.version + 1, session.intent
    return replace(
        session,
        login=login,
        version=version,
        tokens=MappingProxyType({name: replace(token, login=login) for name, token in session.tokens.items()}),
        intent=None if intent is None else replace(intent, login=login, version=version),
    )
