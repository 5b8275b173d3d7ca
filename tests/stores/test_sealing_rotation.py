from __future__ import annotations

import base64
import hashlib
import os
import subprocess
import sys
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import pytest

from tests.stores.test_sealed import FIRST, KEY, NEW, OLD, OTHER, SECOND
from tests.stores.test_sealing_keys import Source
from tests.waiting import until
from unexpired import TokenManager
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.errors import StoreError
from unexpired.stores import FileStore, MemoryStore, Store, _sealing_ring
from unexpired.stores.sealed import Sealed, key_from_file

# Logs in under its own key, then stores version after version, and reads what the others stored.
PROGRAM = """
import sys, threading
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.stores import FileStore, _sealing_ring
from unexpired.stores.sealed import Sealed, key_from_file
directory, key_file, me, *all_of_us = sys.argv[1:]
_sealing_ring._ASK_BEFORE_SEALING = 0.05
store = Sealed(FileStore(directory), key_from_file(key_file))
enough = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), enough.set()), daemon=True).start()
session = Session.begin(me, "login", "refresh")
assert store.swap(me, None, session)
while not enough.is_set():
    after = session.minted(Token("access"))
    while not store.swap(me, session, after):
        assert session.same_version(store.load(me))
    session = after
    for name in all_of_us:
        store.load(name)
print(session.version)
"""


def opened_with(key: bytes, inner: Store, *names: str) -> list[str]:
    """Those of the sessions that this key opens."""
    good = []
    for name in names:
        try:
            assert Sealed(inner, key).load(name) is not None
        except StoreError:
            continue
        good.append(name)
    return good


def test_a_program_that_only_stores_learns_which_key_seals(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that knows the old key seals with the new one, once it stands in front, after the 30 seconds."""
    inner, source = MemoryStore(), Source(OLD)
    store = Sealed(inner, source)
    assert store.swap("alice", None, Session.begin("alice", "login", "refresh"))
    source.keys = [NEW, OLD]
    for number in range(20):
        assert store.swap(f"early {number}", None, Session.begin(f"early {number}", "login", "refresh"))
    assert source.asked == 1, "asked again within the 30 seconds"
    monkeypatch.setattr(_sealing_ring, "_ASK_BEFORE_SEALING", 0.0)
    assert store.swap("bob", None, Session.begin("bob", "login", "refresh"))
    assert opened_with(NEW, inner, "alice", "bob") == ["bob"]
    assert source.asked == 2


@pytest.mark.parametrize("trouble", [[], OSError("the KMS is away"), StoreError("locked")], ids=repr)
def test_a_source_that_fails_later_keeps_nothing_from_being_stored(
    trouble: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who has keys stores on while their source fails: what is to be stored could be a rotated token."""
    inner, source = MemoryStore(), Source(OLD)
    store = Sealed(inner, source)
    assert store.swap(KEY, None, FIRST)
    source.keys = trouble
    monkeypatch.setattr(_sealing_ring, "_ASK_BEFORE_SEALING", 0.0)
    assert store.swap(KEY, FIRST, SECOND)
    assert source.asked == 2
    assert SECOND.same_version(store.load(KEY))


def test_a_key_that_was_known_goes_on_opening() -> None:
    """A source that lost the old key, by mistake too, closes no record to a program that knew it; new ones use new."""
    inner, source = MemoryStore(), Source(OLD)
    store, other = Sealed(inner, source), Sealed(inner, NEW)
    assert store.swap(KEY, None, FIRST)
    source.keys = [NEW]
    assert other.swap("bob", None, Session.begin("bob", "login", "refresh"))
    assert store.load("bob") is not None
    assert FIRST.same_version(store.load(KEY))
    assert store.swap(KEY, FIRST, SECOND)
    assert opened_with(NEW, inner, KEY, "bob") == [KEY, "bob"]


def test_a_manager_follows_the_source_of_its_store() -> None:
    """Keys are rotated through the source: another object around the same store counts as the first one."""
    inner, source = MemoryStore(), Source(OLD)
    store = Sealed(inner, source)
    manager = TokenManager(lambda _: {"access_token": "2", "refresh_token": "3"}, store=store, key=KEY)
    manager.login({"access_token": "1", "refresh_token": "2"})
    assert Sealed(inner, NEW).identity == store.identity
    source.keys = [NEW, OLD]
    assert store.reseal() == 1
    assert manager.refresh().access_token == "2"
    assert opened_with(NEW, inner, KEY) == [KEY]


def test_resealing_goes_on_behind_a_record_that_cannot_be_opened() -> None:
    """One bad record keeps no other from the new key; then the error says how many there are, and why the first."""
    inner = MemoryStore()
    for name in ("a", "b", "c", "d"):
        key = OTHER if name in ("b", "c") else OLD
        assert Sealed(inner, key).swap(name, None, Session.begin(name, "login", "refresh"))
    with pytest.raises(
        StoreError, match=r"2 of 4 sessions could not be sealed anew.*cannot open the session 'b'"
    ) as told:
        Sealed(inner, [NEW, OLD].copy).reseal()
    assert told.value.key == "b"
    assert opened_with(NEW, inner, "a", "b", "c", "d") == ["a", "d"]


def test_three_programs_store_on_while_keys_are_rotated(tmp_path: Path) -> None:
    """Keys are rotated three times by the steps of the guide beside three processes: every record can be read."""
    key_file, names, kept = tmp_path / "key", ["a", "b", "c"], FileStore(tmp_path / "s")

    def put(*keys: bytes) -> None:
        beside = tmp_path / "next"
        beside.touch(mode=0o600)
        beside.write_text(" ".join(base64.b64encode(key).decode() for key in keys))
        beside.replace(key_file)

    def mark(name: str) -> str:
        found = kept.load(name)
        return "" if found is None else (found.refresh_token or "").split(":")[2]

    def all_use(keys: Sequence[bytes]) -> bool:
        wanted = {hashlib.sha256(b"unexpired" + key).hexdigest()[:8] for key in keys}
        return {mark(name) for name in names} <= wanted

    keys = [bytes([number]) * 32 for number in range(1, 5)]
    put(keys[0])
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    programs = [
        subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(tmp_path / "s"), str(key_file), name, *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        for name in names
    ]
    try:
        until(lambda: all(kept.load(name) is not None for name in names), "the programs did not begin")
        store = Sealed(FileStore(tmp_path / "s"), key_from_file(key_file))
        for old, new in pairwise(keys):
            put(old, new)
            put(new, old)
            until(lambda key=new: all_use([key]), "a program does not seal with the new key")  # type: ignore[misc]
            assert store.reseal(names) == 3
            put(new)
        last = [program.communicate("", timeout=60) for program in programs]
    finally:
        for program in programs:
            program.kill()
            program.communicate(timeout=10)
    assert [errors for _, errors in last] == ["", "", ""]
    assert all(int(version) > 4 for version, _ in last)
    assert opened_with(keys[-1], kept, *names) == names


def test_a_token_of_a_swap_under_way_is_opened_by_who_resealed() -> None:
    """A record that another process sealed with the old key, overtaken by resealing, can still be read and resealed."""
    inner, source = MemoryStore(), Source(NEW, OLD)
    late, store = Sealed(inner, OLD), Sealed(inner, source)
    assert late.swap(KEY, None, FIRST)
    assert store.reseal() == 1
    assert late.swap(KEY, FIRST, FIRST.minted(Token("late")))
    source.keys = [NEW]
    assert store.load(KEY) is not None
    assert store.reseal() == 1
    assert opened_with(NEW, inner, KEY) == [KEY]
