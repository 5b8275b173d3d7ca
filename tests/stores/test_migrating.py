from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from unexpired import LoginRequired, TokenManager
from unexpired._core.record import encode
from unexpired._core.session import Failure, Intent, Session
from unexpired._core.token import Token
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import FileStore, MemoryStore, Store, migrate
from unexpired.stores.migrating import Migration
from unexpired.stores.sealed import Sealed
from unexpired.stores.sqlite import SQLiteStore
from unexpired.testing import ServerConfig, running_server

KEY = "alice@example"
SEALING = bytes(32)
FIRST = Session.begin(KEY, "login", Token("access 1", refresh_token="refresh 1")).grown_from("seed 1", None)
LIVE = FIRST.minted(Token("access 2", refresh_token="refresh 2"), "https://api.example")

MAKERS: dict[str, Callable[[Path], Store]] = {
    "file": lambda place: FileStore(place / "files"),
    "memory": lambda _: MemoryStore(),
    "sealed": lambda place: Sealed(FileStore(place / "sealed"), SEALING),
    "sqlite": lambda place: SQLiteStore(place / "sqlite" / "s.db"),
}


@pytest.fixture(params=["file-sqlite", "sqlite-sealed", "sealed-file", "memory-memory"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Store, Store]]:
    """A source with one live session, and an empty target."""
    names: str = request.param
    source, target = (MAKERS[name](tmp_path) for name in names.split("-"))
    assert source.swap(KEY, None, LIVE)
    yield source, target
    source.close()
    target.close()


def loaded(store: Store, key: str = KEY) -> Session:
    """What is stored, which there must be."""
    found = store.load(key)
    assert found is not None
    return found


def reason(store: Store, key: str = KEY) -> str:
    """Why the stored session has ended; empty if it has not."""
    ended = loaded(store, key).ended
    return ended.reason if ended is not None else ""


def redeemable(*stores: Store) -> int:
    """In how many of the stores the session can be refreshed."""
    found = [store.load(KEY) for store in stores]
    return sum(1 for session in found if session is not None and session.ended is None)


def outcome(report: Migration) -> tuple[int, int, int]:
    """How many were moved, skipped and failed."""
    return len(report.moved), len(report.skipped), len(report.failed)


def test_a_session_moves_whole(stores: tuple[Store, Store]) -> None:
    """Everything of a session arrives; the source keeps an end that says where to look, and no token."""
    source, target = stores
    report = migrate(source, target)
    assert (report.moved, dict(report.skipped), dict(report.failed)) == ((KEY,), {}, {})
    arrived = loaded(target)
    tokens = {name: token.access_token for name, token in arrived.tokens.items()}
    assert tokens == {None: "access 1", "https://api.example": "access 2"}
    assert {token.login for token in arrived.tokens.values()} == {arrived.login} != {LIVE.login}
    assert (arrived.refresh_token, arrived.seeds, arrived.ended) == ("refresh 2", LIVE.seeds, None)
    left = loaded(source)
    assert (reason(source), left.refresh_token, dict(left.tokens), left.seeds) == ("moved", None, {}, LIVE.seeds)


def test_doing_it_again_changes_nothing(stores: tuple[Store, Store]) -> None:
    """A second run skips what was moved, also when the target has refreshed, ended or replaced it since."""
    source, target = stores
    migrate(source, target)
    arrived = loaded(target)
    for after in (arrived.minted(Token("newer")), arrived.over("logout", 1.0), Session.begin(KEY, "next", "refresh 3")):
        before = loaded(target)
        assert target.swap(KEY, before, replace(after, version=before.version + 1))
        kept = encode(loaded(target))
        report = migrate(source, target)
        assert dict(report.skipped) == {KEY: "it was moved before"}
        assert encode(loaded(target)) == kept


def test_programs_on_the_source_are_told(stores: tuple[Store, Store]) -> None:
    """Who still uses the source gets LoginRequired that says what to do; the same first token does not revive it."""
    source, target = stores
    calls: list[str] = []

    def grant(session: Session) -> dict[str, Any]:
        calls.append(session.refresh_token or "")
        return {"access_token": "access 3", "refresh_token": "refresh 3", "expires_in": 3600}

    old, new = (TokenManager(grant, store=store, key=KEY) for store in (source, target))
    answer = {"access_token": "access 1", "refresh_token": "refresh 1", "expires_in": 3600}
    old.login(answer)
    assert old.token().access_token == "access 1"
    assert migrate(source, target).moved == (KEY,)
    for _ in range(2):
        for ask in (old.token, old.refresh):
            with pytest.raises(LoginRequired, match="moved to another store") as over:
                ask()
            assert over.value.reason == "moved"
        old.seed(answer)
        old.logout()
    assert new.seed(answer).ended is None
    assert new.token().access_token == "access 1"
    assert new.refresh().access_token == "access 3"
    assert calls == ["refresh 1"]


def test_it_moves_back(stores: tuple[Store, Store]) -> None:
    """Moved there, refreshed, and moved back, a session lives on where it was, for running managers too."""
    source, target = stores
    manager = TokenManager(lambda _: {"access_token": "newest", "refresh_token": "r"}, store=source, key=KEY)
    for turn in range(3):
        assert manager.token() is not None
        assert migrate(source, target).moved == (KEY,)
        with pytest.raises(LoginRequired):
            manager.token()
        answers = [{"access_token": f"there {turn}"}]
        TokenManager(lambda _: answers.pop(), store=target, key=KEY).refresh()  # noqa: B023 - it is called at once
        assert migrate(target, source).moved == (KEY,)
        assert manager.token().access_token == f"there {turn}"
    assert manager.refresh().access_token == "newest"


def test_an_ended_session_moves_too(stores: tuple[Store, Store]) -> None:
    """Its end and its seeds arrive, so that a spent first token stays spent in the new store."""
    source, target = stores
    assert source.swap(KEY, LIVE, LIVE.over("refused", 5.0))
    assert migrate(source, target).moved == (KEY,)
    assert (reason(source), reason(target)) == ("moved", "refused")
    assert loaded(target).seeds == LIVE.seeds


def test_notes_of_an_interrupted_refresh_move_too(stores: tuple[Store, Store]) -> None:
    """An intent and the memory of a failure arrive: the new store knows that the server may have rotated."""
    source, target = stores
    intent = Intent(LIVE.login, LIVE.version, "gone", 2, 1.0)
    failure = Failure("lost", "why", 1.0, 2.0)
    assert source.swap(KEY, LIVE, LIVE.noted(intent=intent, failure=failure))
    assert migrate(source, target).moved == (KEY,)
    arrived = loaded(target)
    assert arrived.failure == failure
    assert arrived.intent == Intent(arrived.login, arrived.version, "gone", 2, 1.0)


def with_login(store: Store, session: Session, *, version: int = 1, over: bool = False) -> None:
    """Put *session* into *store* as a program would have it there."""
    stored = replace(session, version=version)
    assert store.swap(KEY, None, stored.over("logout", 1.0) if over else stored)


@pytest.mark.parametrize("over", [False, True])
def test_a_newer_login_in_the_target_is_kept(stores: tuple[Store, Store], over: bool) -> None:
    """A login that came after the source's stays, ended or not; the source's ends, so that there is one."""
    source, target = stores
    with_login(target, Session.begin(KEY, "later", "refresh 9").grown_from("seed 9", LIVE), over=over)
    kept = encode(loaded(target))
    report = migrate(source, target)
    assert dict(report.skipped) == {KEY: "the target has a newer login"}
    assert encode(loaded(target)) == kept
    assert reason(source) == "moved"


def test_an_older_login_in_the_target_is_replaced(stores: tuple[Store, Store]) -> None:
    """A login that the source's came after gives way to it, and so does a seed that was never refreshed."""
    source, target = stores
    with_login(target, FIRST)
    assert migrate(source, target).moved == (KEY,)
    assert loaded(target).refresh_token == "refresh 2"
    source.swap(KEY, loaded(source), Session.begin(KEY, "later", "refresh 9").grown_from("seed 9", LIVE))
    assert migrate(source, target).moved == (KEY,)
    assert loaded(target).refresh_token == "refresh 9"


@pytest.mark.parametrize("version", [1, 7])
def test_when_nobody_can_tell_nothing_is_changed(stores: tuple[Store, Store], version: int) -> None:
    """Another login, or the same seed with a life of its own, in the target: reported, and both stay as they are."""
    source, target = stores
    seed = "another seed" if version == 1 else "seed 1"
    with_login(target, Session.begin(KEY, "other", "refresh 9").grown_from(seed, None), version=version)
    before = [encode(loaded(store)) for store in stores]
    report = migrate(source, target)
    assert "nothing tells which is newer" in report.failed[KEY]
    assert [encode(loaded(store)) for store in stores] == before


class Trouble(MemoryStore):
    """Does what a test tells it to before a swap."""

    def __init__(self) -> None:
        super().__init__()
        self.before: list[Callable[[], None]] = []

    def swap(self, key: str, expected: Session | None, new: Session) -> bool:
        """As ever, after what was asked for."""
        if self.before:
            self.before.pop(0)()
        return super().swap(key, expected, new)


def fails() -> None:
    """What a store does whose disk is full."""
    raise StoreError("no space is left")


@pytest.mark.parametrize("step", range(3))
def test_a_store_that_fails_at_any_step_leaves_one_copy_at_most(step: int) -> None:
    """Whichever of the three writes fails, at most one copy can be redeemed, and the next run brings it home."""
    source, target = Trouble(), Trouble()
    assert MemoryStore.swap(source, KEY, None, LIVE)
    (source.before if step != 1 else target.before).extend([lambda: None] * (step == 2) + [fails])
    report = migrate(source, target)
    assert "no space is left" in report.failed[KEY]
    assert redeemable(source, target) == (0 if step == 1 else 1)
    assert outcome(migrate(source, target)) == (1, 0, 0)
    assert (redeemable(target), reason(source), loaded(source).refresh_token) == (1, "moved", None)


@pytest.mark.parametrize("step", range(3))
def test_a_login_in_the_middle_is_not_overwritten(step: int) -> None:
    """A login or logout between two steps is moved in its turn; the last login wins (scenario 61)."""
    source, target = Trouble(), Trouble()
    assert MemoryStore.swap(source, KEY, None, LIVE)

    def login() -> None:
        before = source.load(KEY)
        later = Session.begin(KEY, "later", "refresh 9").grown_from("seed 9", before)
        assert MemoryStore.swap(source, KEY, before, later)

    (source.before if step != 1 else target.before).extend([lambda: None] * (step == 2) + [login])
    assert outcome(migrate(source, target)) == (1, 0, 0)
    assert loaded(target).refresh_token == "refresh 9"
    assert (redeemable(target), reason(source)) == (1, "moved")


def test_records_that_keep_changing_are_reported() -> None:
    """Where somebody always comes first, the attempt ends, and nothing is lost."""
    source, target = Trouble(), MemoryStore()
    assert MemoryStore.swap(source, KEY, None, LIVE)

    def note() -> None:
        before = loaded(source)
        assert MemoryStore.swap(source, KEY, before, before.minted(Token("access")))

    source.before = [note] * 100
    assert "kept changing" in migrate(source, target).failed[KEY]
    assert (redeemable(source), target.load(KEY)) == (1, None)


def test_a_refresh_under_way_is_waited_for(stores: tuple[Store, Store]) -> None:
    """A flight on the source ends first, its token moves; one that does not end in time is reported."""
    source, target = stores
    answer, asked = threading.Event(), threading.Event()

    def grant(_: Session) -> dict[str, Any]:
        asked.set()
        assert answer.wait(30)
        return {"access_token": "access 3", "refresh_token": "refresh 3"}

    manager = TokenManager(grant, store=source, key=KEY)
    with ThreadPoolExecutor(2) as pool:
        refreshed = pool.submit(manager.refresh)
        assert asked.wait(30)
        late = migrate(source, target, wait=0.05)
        assert "a refresh has been under way" in late.failed[KEY]
        moving = pool.submit(migrate, source, target)
        answer.set()
        assert refreshed.result(30).access_token == "access 3"
        assert moving.result(30).moved == (KEY,)
    assert loaded(target).refresh_token == "refresh 3"


class Timed(MemoryStore):
    """Its leases end by themselves."""

    def lease(self, key: str, **how: Any) -> Any:
        """As ever, but timed, at the time 1000."""
        lease = super().lease(key, **how)
        assert lease is not None
        lease.timed, lease.granted_at = True, 1000.0
        return lease


@pytest.mark.parametrize(("since", "owner", "moved"), [(990.0, "gone", 0), (900.0, "gone", 1), (990.0, "", 1)])
def test_where_leases_are_timed_an_interrupted_refresh_gets_time(since: float, owner: str, moved: int) -> None:
    """A timed lease can end before its holder's request does: such a session is moved a minute later."""
    source, target = Timed(), MemoryStore()
    noted = LIVE.noted(intent=Intent(LIVE.login, LIVE.version, owner, 1, since), failure=None)
    assert source.swap(KEY, None, noted)
    report = migrate(source, target)
    assert outcome(report) == (moved, 0, 1 - moved)
    assert redeemable(target) == moved
    assert redeemable(source) == 1 - moved


def test_one_session_s_trouble_does_not_keep_the_others(tmp_path: Path) -> None:
    """Damaged records are reported, by key where it is known; what is named but not there is skipped."""
    source, target = FileStore(tmp_path / "s"), MemoryStore()
    for key in ("a", "b", "c"):
        assert source.swap(key, None, Session.begin(key, "login", f"refresh {key}"))
    Path(source._path("b")).write_bytes(b"damaged")
    report = migrate(source, target)
    assert set(report.moved) == {"a", "c"}
    assert list(report.failed.values()) == [
        f"1 session files in {tmp_path / 's'} cannot be read: loading the session of each says why"
    ]
    named = migrate(source, target, ["b", "d"])
    assert "not JSON" in named.failed["b"]
    assert dict(named.skipped) == {"d": "it is not there"}


def test_what_cannot_be_moved_is_told(tmp_path: Path) -> None:
    """A store into itself, and a source that cannot list its sessions, are mistakes of the program."""
    with pytest.raises(ConfigurationError, match="the same store"):
        migrate(FileStore(tmp_path), FileStore(tmp_path))
    bare = MemoryStore()
    bare.keys = None  # type: ignore[method-assign, assignment]
    with pytest.raises(ConfigurationError, match="name the sessions with keys="):
        migrate(bare, MemoryStore())
    assert bare.swap(KEY, None, LIVE)
    assert migrate(bare, MemoryStore(), [KEY]).moved == (KEY,)


def test_sealing_in_place_is_refused_and_loses_nothing(tmp_path: Path) -> None:
    """A directory cannot be sealed into itself: reported, and the session stays as it is."""
    source = FileStore(tmp_path)
    assert source.swap(KEY, None, LIVE)
    report = migrate(source, Sealed(FileStore(tmp_path), SEALING))
    assert "it is not sealed" in report.failed[KEY]
    assert MappingProxyType({}) == report.skipped
    assert encode(loaded(source)) == encode(LIVE)


PROGRAM = """
import sys
from unexpired import LoginRequired, TokenManager
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import open_store
url, source, target = sys.argv[1:]
grant = RefreshTokenGrant(f"{url}/oauth/token", client_id="crm", client_secret="crm-secret")
manager = TokenManager(grant, store=open_store(source), key="alice@example")
manager.token()
print("ready", flush=True)
try:
    while True:
        manager.refresh(manager.token())
except LoginRequired as error:
    print(error.reason, flush=True)
sys.stdin.readline()
manager = TokenManager(grant, store=open_store(target), key="alice@example")
for _ in range(5):
    manager.refresh(manager.token())
print("done", flush=True)
"""


def test_processes_refresh_without_a_pause_and_nobody_is_logged_out(tmp_path: Path) -> None:
    """Three processes that refresh all the time are moved in the middle of it; the server sees no token twice."""
    places = [f"file:{tmp_path / 'files'}", f"sqlite:{tmp_path / 'sqlite' / 's.db'}"]
    source, target = FileStore(tmp_path / "files"), SQLiteStore(tmp_path / "sqlite" / "s.db")
    with running_server(ServerConfig()) as server, target:
        TokenManager(lambda _: {}, store=source, key=KEY).login(server.login())
        command = [sys.executable, "-W", "error", "-c", PROGRAM, server.url, *places]
        programs = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(3)
        ]
        said: list[list[str]] = [[], [], []]
        for number, program in enumerate(programs):
            assert program.stdout is not None
            said[number].append(program.stdout.readline().strip())
        assert migrate(source, target).moved == (KEY,)
        for number, program in enumerate(programs):
            said[number] += program.communicate("start again\n", timeout=50)[0].split()
        assert said == [["ready", "moved", "done"]] * 3
        assert server.stats().reuse_detected == 0
        assert server.stats().refreshes >= 5
