from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.stores.test_sealed import FIRST, KEY, NEW, OLD, SECRET, complaint, inner
from unexpired import ConfigurationError, StoreError, TokenManager
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import Refused
from unexpired.stores import FileStore, MemoryStore, migrate
from unexpired.stores._watching import NOTED, STORED, UNTOLD, kind_of
from unexpired.stores.sealed import Sealed
from unexpired.stores.sqlite import SQLiteStore

__all__ = ["inner"]

ANSWER = {"access_token": "access 2", "refresh_token": "refresh 2", "expires_in": 300}
INTENT = Intent("login", 1, "owner", 1, 1.0)
FAILED = Failure("lost", "why", 1.0, 2.0)


class Grant:
    """Knows one refresh token, and notes what it is sent."""

    reuse_grace = 0.0
    spends_refresh_token = True

    def __init__(self) -> None:
        self.sent: list[str | None] = []

    def redeem(self, session: Session, *, resource: str | None, timeout: float) -> Any:
        """A token for the good one; any other ends the login."""
        del resource, timeout
        self.sent.append(session.refresh_token)
        if session.refresh_token != f"refresh {SECRET}":
            raise Refused("no", error="invalid_grant")
        return ANSWER

    def revoke(self, session: Session) -> bool:
        """It cannot."""
        del session
        return False


def test_a_program_without_the_seal_spends_nothing(inner: FileStore | SQLiteStore) -> None:
    """A program that was given the store alone sends no token request, and says what is wrong; the login lives on."""
    grant, store = Grant(), Sealed(inner, OLD)
    assert store.swap(KEY, None, FIRST)
    unsealed = TokenManager(grant, store=inner, key=KEY, patience=0)
    for _ in range(2):
        with pytest.raises(ConfigurationError, match=r"the session is sealed: give this program Sealed\(store, key\)"):
            unsealed.token()
        with pytest.raises(ConfigurationError, match="the session is sealed"):
            unsealed.refresh()
    assert grant.sent == []
    assert TokenManager(grant, store=store, key=KEY).refresh().access_token == "access 2"
    assert grant.sent == [f"refresh {SECRET}"]
    with pytest.raises(ConfigurationError, match="the session is sealed"):
        TokenManager(grant, store=inner, key=KEY, patience=0).token()
    assert len(grant.sent) == 1


def test_what_is_for_the_unsealed_is_seen_by_nobody_else(inner: FileStore | SQLiteStore) -> None:
    """Who unseals finds the session as it was stored, its failure too; an ended one has no note for anybody."""
    store = Sealed(inner, OLD)
    noted = FIRST.noted(intent=INTENT, failure=FAILED)
    assert store.swap(KEY, None, FIRST)
    found = store.load(KEY)
    assert found is not None
    assert found.failure is None
    assert store.swap(KEY, FIRST, noted)
    found = store.load(KEY)
    assert found is not None
    assert (found.failure, found.intent) == (FAILED, INTENT)
    assert store.swap(KEY, noted, noted.over("logout", 1.0))
    kept = inner.load(KEY)
    assert kept is not None
    assert kept.failure is None
    found = store.load(KEY)
    assert found is not None
    assert found.ended == kept.ended


class Telling(MemoryStore):
    """Notes what a store on a server would tell others of each swap."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str] = []

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """As ever."""
        self.told.append(kind_of(expected, new))
        return super().swap(key, expected, new)


def test_others_are_told_the_same_sealed_or_not() -> None:
    """Of an intent nobody is told, of a failure everybody, and of a new version: with the seal as without it."""
    sealed_in, plain = Telling(), Telling()
    marked = FIRST.noted(intent=INTENT, failure=None)
    failed = marked.noted(intent=None, failure=FAILED)
    again = failed.noted(intent=INTENT, failure=FAILED)
    mended = again.noted(intent=None, failure=None)
    history = [
        FIRST,
        marked,
        failed,
        again,
        mended,
        mended.minted(Token("2")),
        mended.minted(Token("2")).over("x", 1.0),
    ]
    for store in (Sealed(sealed_in, OLD), plain):
        before = None
        for session in history:
            assert store.swap(KEY, before, session)
            before = session
    assert plain.told == [STORED, UNTOLD, NOTED, UNTOLD, NOTED, STORED, STORED]
    assert sealed_in.told == plain.told


def test_sealed_records_are_not_moved_without_their_seal(inner: FileStore | SQLiteStore) -> None:
    """Moving a sealed store by its inner one would bind its records to other logins: refused, and all stays."""
    store = Sealed(inner, OLD)
    assert store.swap(KEY, None, FIRST)
    assert store.swap("over", None, Session.begin("over", "login", "refresh").over("logout", 1.0))
    target = MemoryStore()
    report = migrate(inner, target)
    assert (report.moved, dict(report.skipped)) == ((), {})
    assert set(report.failed) == {KEY, "over"}
    assert all("move it from Sealed(store, key)" in why for why in report.failed.values())
    assert list(target.keys()) == []
    assert FIRST.same_version(Sealed(inner, OLD).load(KEY))
    assert set(migrate(store, Sealed(target, NEW)).moved) == {KEY, "over"}
    assert Sealed(target, NEW).load(KEY) is not None


def damaged(store: MemoryStore) -> None:
    """Change what is sealed."""
    kept = store._sessions[KEY]
    store._sessions[KEY] = Session(KEY, kept.login, kept.version, f"{kept.refresh_token}AAAA")


def unsealed(store: MemoryStore) -> None:
    """Put a record in the clear in its place."""
    store._sessions[KEY] = FIRST


def removed(store: MemoryStore) -> None:
    """What a person does."""
    del store._sessions[KEY]


@pytest.mark.parametrize("harm", [damaged, unsealed])
def test_a_login_over_a_refused_record_says_why(harm: Callable[[MemoryStore], None]) -> None:
    """A login cannot replace what is refused, and says what the store says; once it is removed, it can."""
    kept = MemoryStore()
    store = Sealed(kept, OLD)
    manager = TokenManager(Grant(), store=store, key=KEY)
    manager.login(ANSWER)
    harm(kept)
    why = complaint(store)
    with pytest.raises(StoreError) as caught:
        manager.login(ANSWER)
    assert str(caught.value) == why
    assert "remove it and log in again" in why or "it is not sealed" in why
    removed(kept)
    manager.login(ANSWER)
    assert manager.token().access_token == "access 2"
