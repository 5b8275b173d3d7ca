from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.engine.script import run
from tests.engine.staging import EXPIRED, Attempt, Crowd, Server, manager_for
from unexpired import LoginRequired, Session, TokenManager
from unexpired._engine import circles
from unexpired._engine.flying import Flying
from unexpired.stores import FileStore

# Python 3.12 warns of a fork beside threads, which is what is tested here.
pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

PROMPT = 8.0
"""Seconds; far less than any of the bounds that an exit could wait for by mistake."""


def test_a_process_that_exits_mid_flight_saves_the_rotated_token(tmp_path: Path) -> None:
    """The main thread ends while the answer is on its way: it is awaited, stored, and the exit is prompt.

    Scenario 59.
    """
    done = run(
        tmp_path / "s",
        """
        def grant(session):
            sent.set()
            main_is_over()
            return answer(session)

        sent = threading.Event()
        manager = TokenManager(grant, store=store)
        manager.login(EXPIRED)
        threading.Thread(target=manager.token, daemon=True).start()
        sent.wait(20)
        """,
    )
    assert (done.status, done.calls) == (0, ["refresh 0"])
    assert done.session.refresh_token == "refresh 1"
    assert done.seconds < PROMPT


@pytest.mark.parametrize("form", ["asyncio", "trio", "daemon thread"])
def test_what_was_not_sent_is_not_sent_at_exit(form: str, tmp_path: Path) -> None:
    """A flight still waiting for another holder's lease is given up when the process ends (scenario 59)."""
    store = FileStore(tmp_path / "s")
    manager_for(Server(), store=store)
    held = store.lease("default", owner="other", seconds=60, wait=1, stop=lambda: False)
    assert held is not None
    start = {
        "asyncio": "asyncio.run(leave(asyncio.sleep))",
        "trio": "import trio; trio.run(leave, trio.sleep)",
        "daemon thread": "threading.Thread(target=wait, daemon=True).start()",
    }[form]
    done = run(
        tmp_path / "s",
        f"""
        async def leave(sleep):
            try:
                await manager.atoken(wait=0.05)
            except Exception as error:
                print(type(error).__name__)

        def wait():
            with contextlib.suppress(Exception):
                manager.token()

        manager = TokenManager(answer, store=store)
        {start}
        until(lambda: manager._cell.flying is not None)
        """,
    )
    held.release()
    assert (done.status, done.calls) == (0, [])
    assert done.seconds < PROMPT
    assert form == "daemon thread" or "TemporarilyUnavailable" in done.output
    session = store.load("default")
    assert session is not None
    assert (session.intent, session.failure) == (None, None)


def test_nothing_is_sent_after_the_main_thread_has_ended(tmp_path: Path) -> None:
    """A flight of nobody's that is about to send when the process ends does not, and takes its intent back."""
    done = run(
        tmp_path / "s",
        """
        class Slow(FileStore):
            def swap(self, key, expected, new):
                if new.intent is not None:
                    about_to_send.set()
                    main_is_over()
                return super().swap(key, expected, new)

        def wait():
            with contextlib.suppress(Exception):
                manager.token()

        about_to_send = threading.Event()
        manager = TokenManager(answer, store=Slow(sys.argv[1]))
        manager.login(EXPIRED)
        threading.Thread(target=wait, daemon=True).start()
        about_to_send.wait(20)
        """,
    )
    assert (done.status, done.calls) == (0, [])
    assert done.session.intent is None
    assert done.seconds < PROMPT


def test_a_loop_closed_with_waiters_does_not_delay_the_exit(tmp_path: Path) -> None:
    """Tasks abandoned in a closed event loop do not count as waiting when the process ends (scenario 59)."""
    store = FileStore(tmp_path / "s")
    manager_for(Server(), store=store)
    held = store.lease("default", owner="other", seconds=60, wait=1, stop=lambda: False)
    assert held is not None
    done = run(
        tmp_path / "s",
        """
        manager = TokenManager(answer, store=store, lease_wait=60)
        loop = asyncio.new_event_loop()
        task = loop.create_task(manager.atoken())
        task._log_destroy_pending = False
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        """,
    )
    held.release()
    assert (done.status, done.calls) == (0, [])
    assert done.seconds < PROMPT


@pytest.mark.parametrize("store", ["store", "MemoryStore()"], ids=["file", "memory"])
def test_threads_that_outlive_the_main_one_get_their_tokens(store: str, tmp_path: Path) -> None:
    """While non-daemon threads work on after the main thread's end, they are served as before."""
    done = run(
        tmp_path / "s",
        f"""
        def work():
            main_is_over()
            for _ in range(20):
                print(manager.refresh().access_token)

        manager = TokenManager(answer, store={store}, patience=0)
        manager.login(EXPIRED)
        threading.Thread(target=work).start()
        """,
    )
    assert done.output.split("\n")[:-1] == [f"access {number}" for number in range(1, 21)]
    assert done.status == 0


def test_an_exit_handler_gets_a_token(tmp_path: Path) -> None:
    """A function that runs at exit can still refresh."""
    done = run(
        tmp_path / "s",
        """
        manager = TokenManager(answer, store=store, patience=0)
        manager.login(EXPIRED)
        atexit.register(lambda: print(manager.token().access_token))
        """,
    )
    assert done.output == "access 1\n"
    assert done.session.refresh_token == "refresh 1"


def test_an_unsaved_token_does_not_keep_the_process(tmp_path: Path) -> None:
    """A store that refuses is tried while the process lives, its callers are served, and the exit is prompt."""
    done = run(
        tmp_path / "s",
        """
        from unexpired.errors import StoreError

        class Full(FileStore):
            def swap(self, key, expected, new):
                if new.version > 1:
                    raise StoreError("the disk is full")
                return super().swap(key, expected, new)

        manager = TokenManager(answer, store=Full(sys.argv[1]), deadline=2)
        manager.login(EXPIRED)
        manager.on(Event, lambda event: print(type(event).__name__))
        print(manager.token().access_token)
        """,
    )
    assert done.output.count("access 1") == 1
    assert "Unsaved" in done.output
    assert done.session.intent is not None
    assert done.seconds < PROMPT


def _in_child(work: Callable[[], object]) -> int:
    """The exit status of a forked child that does *work*: 0, or 1 if it raises, or 3 if it takes over 20 s."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            guard = threading.Timer(20, os._exit, (3,))
            guard.daemon = True
            guard.start()
            work()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_child_forked_during_a_flight_flies_itself(tmp_path: Path) -> None:
    """After `fork` in mid-flight the child has no flight, waits for the parent's lease, and gets its result.

    Scenario 60.
    """
    server = Server(gated=True)
    manager = manager_for(server, store=FileStore(tmp_path))
    waiting = Attempt(manager.token)
    assert server.arrived.wait(20)
    sent, answered = os.pipe()

    def work() -> None:
        assert manager._cell.flying is None
        assert Flying.in_air == []
        os.write(answered, b"forked")
        assert manager.token().access_token == "access 1"
        server.gate.set()
        server.calls = 1
        assert manager.refresh().access_token == "access 2"

    def open_gate() -> None:
        os.read(sent, 6)
        server.gate.set()

    opener = Attempt(open_gate)
    assert _in_child(work) == 0
    opener.result()
    assert waiting.result().access_token == "access 1"
    assert manager.token().access_token == "access 2", "what the child stored is seen"
    os.close(sent)
    os.close(answered)


def test_a_child_forked_while_locks_are_held_does_not_hang(tmp_path: Path) -> None:
    """Whatever lock another thread of the parent held at the `fork`, the child can refresh (scenario 60)."""
    inner = manager_for(Server(), store=FileStore(tmp_path), key="inner")

    def asking(session: object) -> dict[str, object]:
        inner.token()
        return {"access_token": str(type(session).__name__), "expires_in": 60}

    outer = manager_for(asking, store=FileStore(tmp_path), key="outer")
    held = [inner._cell._lock, outer._cell._lock, circles._lock]

    def work() -> None:
        assert outer.token().access_token == "Session"

    for lock in held:
        lock.acquire()
    try:
        status = _in_child(work)
    finally:
        for lock in held:
            lock.release()
    assert status == 0


def test_a_forked_child_is_another_owner(tmp_path: Path) -> None:
    """What the child is redeeming is not taken for what its parent is (scenario 60)."""

    def grant(session: Session) -> dict[str, object]:
        assert session.intent is not None
        with (tmp_path / "owners").open("a") as owners:
            owners.write(session.intent.owner + "\n")
        return {"access_token": "access", "expires_in": 60}

    manager = manager_for(grant, store=FileStore(tmp_path / "s"))
    manager.token()
    assert _in_child(manager.refresh) == 0
    assert len(set((tmp_path / "owners").read_text().split())) == 2


def test_a_child_can_make_managers_while_the_parent_was_making_one(tmp_path: Path) -> None:
    """The lock of the registry is new in a child, too (scenario 60)."""
    from unexpired._engine import cell

    manager_for(Server(), EXPIRED, store=FileStore(tmp_path))
    with cell._cells_lock:
        status = _in_child(lambda: TokenManager(Server(), store=FileStore(tmp_path)).token())
    assert status == 0


def test_another_process_sees_a_logout_before_its_next_request(tmp_path: Path) -> None:
    """With one look at the file, a logout or a login elsewhere is seen by the very next call (scenario 62, P8)."""
    server = Server()
    manager = manager_for(server, {"access_token": "mine", "expires_in": 3600}, store=FileStore(tmp_path))
    assert manager.token().access_token == "mine"

    def elsewhere() -> TokenManager:
        return TokenManager(server, store=FileStore(tmp_path))

    assert _in_child(lambda: elsewhere().logout()) == 0
    with pytest.raises(LoginRequired) as ended:
        manager.token()
    assert ended.value.reason == "logout"
    assert _in_child(lambda: elsewhere().login({"access_token": "new", "expires_in": 3600})) == 0
    assert Crowd("threads", 5, manager).tokens() == ["new"] * 5
    assert server.calls == 0
