"""What every store promises, as tests to run against your own.

::

    class TestMyStore(StoreContract):
        def make_store(self) -> Store:
            return MyStore(...)     # empty

        def make_peer(self, store: Store) -> Store:
            return MyStore(...)     # on the same sessions

        def peer_process(self, store: Store) -> tuple[str, ...]:
            return "my_package:MyStore", "/the/same/place"      # in a child process

Pytest collects the subclass; nothing here needs pytest itself. Without `peer_process` the store is held to what it
promises within one process only, and ``test_it_is_for_this_process_only`` stands for the rest. What only a store's
own kind can promise (that it survives a crash of the machine) is not part of it.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from types import MappingProxyType
from typing import Any, ClassVar

from unexpired._core.record import encode
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.testing._lease_contract import KEY, LONG, check, held, is_store
from unexpired.testing._process_contract import OF_PROCESSES, ProcessContract, settle

__all__ = ["StoreContract"]

_ALONE = "test_it_is_for_this_process_only"
_LONG_KEY = "a" * 499
_KEYS = (
    "a", "A", "a/b", "a:b", "../a", ".", "a b", "ä\u0301😀", "%61", "*", "a\nb", "'\"\\", "a.json", "a.lease",
    f"{_LONG_KEY}a", f"{_LONG_KEY}b",
)  # fmt: skip


def _begin(key: str = KEY, login: str = "first login") -> Session:
    token = Token("access 1", expires_at=1_900_000_000.5, lifetime=60.0, refresh_token="refresh 1", scope="a b")
    return Session.begin(key, login, token)


def _intent(session: Session, owner: str) -> Intent:
    return Intent(session.login, session.version, owner, 1, 1_700_000_000.0)


def _whole() -> Session:
    """A session with something in every field."""
    extra = MappingProxyType({"account": {"id": 7, "names": ["ü", None, True]}})
    session = _begin().minted(Token("access 2", id_token="id", extra=extra), "https://api.example")
    return replace(
        session,
        intent=Intent(session.login, session.version, "owner", 2, 1_700_000_000.25),
        failure=Failure("lost", "why", 1_700_000_000.5, 1_700_000_001.5, 3, 1, 1_700_000_000.0),
    )


class StoreContract(ProcessContract):
    """Subclass it under a name that starts with ``Test``; give it `make_store`, and `make_peer` if there can be one.

    A store that other processes can open gives `peer_process` too; without it the tests against a child process are
    not there. *with_processes* is False in a class that leaves them to another one for the same store.
    """

    with_processes: ClassVar[bool] = True

    def __init_subclass__(cls, **how: Any) -> None:
        super().__init_subclass__(**how)
        can = cls.peer_process is not ProcessContract.peer_process
        for name in (*OF_PROCESSES, _ALONE):
            wanted = cls.with_processes and can == (name != _ALONE)
            if not wanted:
                setattr(cls, name, None)  # which pytest takes for no test
            elif getattr(cls, name) is None:
                setattr(cls, name, getattr(StoreContract, name))

    def test_it_is_for_this_process_only(self) -> None:
        """A store for which no `peer_process` is given is one that nobody can open again, here or elsewhere."""
        store = self.make_store()
        alone = self.make_peer(store) is store and not getattr(store, "remote", False)
        check(alone, "it can be opened again: say by peer_process() how a child process opens the same sessions")

    def test_it_has_the_methods_of_a_store(self) -> None:
        """The object is a `Store` as far as its attributes tell."""
        check(is_store(self.make_store()), "attributes of the Store protocol are missing")

    def test_nothing_is_stored_at_first(self) -> None:
        """Loading a key under which nothing was stored gives None."""
        check(self.make_store().load(KEY) is None, "load() of an unknown key is not None")

    def test_what_is_swapped_in_is_loaded_whole(self) -> None:
        """Every field of a session comes back, by any object that keeps the same sessions."""
        store, session = self.make_store(), _whole()
        check(store.swap(KEY, None, session), "the first swap was refused")
        _same(store.load(KEY), session)
        _same(self.make_peer(store).load(KEY), session)

    def test_an_ended_session_stays_ended(self) -> None:
        """The end of a session is stored like any other version."""
        store, session = self.make_store(), _begin()
        store.swap(KEY, None, session)
        check(store.swap(KEY, session, session.over("logout", 1_700_000_000.0)), "the end was refused")
        _same(store.load(KEY), session.over("logout", 1_700_000_000.0))

    def test_a_swap_compares_login_and_version(self) -> None:
        """A swap that expects another version, another login, nothing or something is refused."""
        store, old = self.make_store(), _begin()
        new = old.minted(Token("access 2"))
        check(not store.swap(KEY, old, new), "a swap was let through that expected what was never stored")
        check(store.load(KEY) is None, "a refused swap stored something")
        store.swap(KEY, None, old)
        check(store.swap(KEY, old, new), "a swap was refused that expected what is stored")
        for expected in (None, old, _begin(login="second login").minted(Token("access 2"))):
            check(not store.swap(KEY, expected, old), f"a swap was let through that expected {expected!r}")
            _same(store.load(KEY), new)

    def test_a_note_needs_no_new_version(self) -> None:
        """Intent and failure are replaced under an unchanged version."""
        store, session = self.make_store(), _begin()
        store.swap(KEY, None, session)
        noted = session.noted(intent=_intent(session, "owner"), failure=None)
        check(store.swap(KEY, session, noted), "a swap under the same version was refused")
        _same(store.load(KEY), noted)
        cleared = noted.noted(intent=None, failure=None)
        check(store.swap(KEY, noted, cleared), "a swap under the same version was refused")
        _same(store.load(KEY), cleared)

    def test_a_note_does_not_overwrite_another_one(self) -> None:
        """Of two owners who both write an intent on the same version, the second one is refused; a new version is not.

        `Session.replaces` says what to compare.
        """
        store, session = self.make_store(), _begin()
        store.swap(KEY, None, session)
        first, second = (session.noted(intent=_intent(session, owner), failure=None) for owner in ("first", "second"))
        check(store.swap(KEY, session, first), "a swap under the same version was refused")
        check(not store.swap(KEY, session, second), "a note was let through that did not know of the other one")
        _same(store.load(KEY), first)
        new = second.minted(Token("access 2"))
        check(store.swap(KEY, second, new), "a new version was refused because of a note on the old one")
        _same(store.load(KEY), new)

    def test_keys_are_independent(self) -> None:
        """Any string is a key, and no two of them are the same: case, length, separators, any script."""
        store = self.make_store()
        for key in _KEYS:
            check(store.load(key) is None, f"{key!r} is taken for another key")
            check(store.swap(key, None, _begin(key)), f"{key!r} is not taken as a key")
        for key in _KEYS:
            _same(store.load(key), _begin(key))

    def test_of_many_swaps_one_wins(self) -> None:
        """Of eight threads that all swap the same version, exactly one is told that it did."""
        store, session = self.make_store(), _begin()
        stores = [store, self.make_peer(store)]
        store.swap(KEY, None, session)
        barrier = threading.Barrier(8)

        def contend(number: int) -> list[bool]:
            won: list[bool] = []
            for round_ in range(5):
                barrier.wait(LONG)
                before = stores[number % 2].load(KEY)
                barrier.wait(LONG)
                token = Token(f"access {round_}.{number}")
                won.append(before is not None and stores[number % 2].swap(KEY, before, before.minted(token)))
            return won

        with ThreadPoolExecutor(8) as pool:
            rounds = list(zip(*pool.map(contend, range(8)), strict=True))
        check([sum(wins) for wins in rounds] == [1] * 5, f"not exactly one winner per version: {rounds}")
        stored = store.load(KEY)
        check(stored is not None and stored.version == session.version + 5, "a version was lost")
        winner = rounds[-1].index(True)
        check(
            stored is not None and stored.tokens[None].access_token == f"access 4.{winner}",
            "what is stored is not what the winner stored",
        )

    def test_a_change_shows_in_the_stamp(self) -> None:
        """The stamp differs after each swap, by whomever and however quick; else it stays, once it is settled."""
        store = self.make_store()
        peer = self.make_peer(store)
        stamp = store.stamp(KEY)
        settle(stamp)
        before, session = stamp(), _begin()
        check(stamp() == before, "the stamp of nothing changes by itself")
        store.swap(KEY, None, session)
        for number in range(50):
            check(stamp() != before, f"change {number} does not show in the stamp")
            before = stamp()
            check(stamp() == before, "the stamp changes by itself")
            following = session.minted(Token(f"access {number:02}"))
            (store, peer)[number % 2].swap(KEY, session, following)
            session = following
        before = stamp()
        store.swap(KEY, None, session)
        store.load(KEY)
        check(stamp() == before, "a refused swap, or a load, changes the stamp")

    def test_a_swap_needs_no_lease(self) -> None:
        """Login and logout go through while somebody else holds the lease."""
        store, session = self.make_store(), _begin()
        mine = held(store)
        peer = self.make_peer(store)
        check(peer.swap(KEY, None, session), "a swap was refused under somebody else's lease")
        check(peer.swap(KEY, session, session.over("logout", 1.0)), "a swap was refused under a lease")
        mine.release()

    def test_a_good_record_is_not_set_aside(self) -> None:
        """Only what cannot be read is set aside: a readable record stays, and so does nothing."""
        store = self.make_store()
        store.set_aside(KEY)
        check(store.load(KEY) is None, "something came out of nothing")
        store.swap(KEY, None, _whole())
        store.set_aside(KEY)
        _same(store.load(KEY), _whole())

    def test_it_opens_again_after_close(self) -> None:
        """Closing lets go, twice if need be; what was stored is there at the next use."""
        store = self.make_store()
        store.swap(KEY, None, _begin())
        store.close()
        store.close()
        _same(store.load(KEY), _begin())
        held(store).release()
        store.close()

    def test_identity_tells_stores_apart(self) -> None:
        """Objects that keep the same sessions have equal identities; others have not. It never changes."""
        store, other = self.make_store(), self.make_store()
        before = hash(store.identity)
        store.swap(KEY, None, _begin())
        check(store.identity == self.make_peer(store).identity, "two identities for the same sessions")
        check(hash(store.identity) == before, "the identity changes with use")
        check(other.load(KEY) is None, "make_store() gives stores that share their sessions")
        check(store.identity != other.identity, "one identity for different sessions")


def _same(found: Session | None, expected: Session) -> None:
    check(found is not None and encode(found) == encode(expected), f"{found!r} is not {expected!r}")
