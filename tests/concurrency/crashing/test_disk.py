"""A store that cannot be written or is gone, on real file systems: while idle, and while a request is at the server."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from tests.clients.modes import grant_for
from tests.concurrency.crashing.conftest import Start, Started
from unexpired import TokenManager
from unexpired.stores import FileStore
from unexpired.testing import ServerHandle

TROUBLE = ("full", "limit", "read-only")
_OWN_DISK = ("unshare", "--map-root-user", "--mount", "sh", "-c")
_MOUNT = 'mount -t tmpfs -o size=64k,mode=700 tmpfs "$0"'


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """An empty directory."""
    directory = tmp_path / "disk"
    directory.mkdir(0o700)
    return directory


def _small_disk(place: Path) -> tuple[str, ...]:
    """What to put before a command to give it a disk of 64 KiB there, nothing where that is not permitted."""
    try:
        tried = subprocess.run([*_OWN_DISK, _MOUNT, str(place)], capture_output=True, check=False, timeout=30)
    except FileNotFoundError:
        return ()
    return (*_OWN_DISK, f'{_MOUNT} && exec "$@"', str(place)) if tried.returncode == 0 else ()


def _begin(start: Start, place: Path, how: str) -> tuple[Started, str]:
    """A program that is logged in there, and the trouble it can have: a limit stands in for a small disk."""
    prefix = _small_disk(place) if how == "full" else ()
    program = start(prefix=prefix, directory=place, respects_modes=how == "read-only")
    assert program.ask("log_in", -1) == ["logged in", 1]
    return program, "limit" if how == "full" and not prefix else how


@pytest.mark.parametrize("how", TROUBLE)
def test_a_token_that_cannot_be_stored_is_served_and_stored_later(
    how: str, server: ServerHandle, place: Path, start: Start
) -> None:
    """The disk refuses when the server has rotated: served from memory, told loudly, stored when it can be.

    Scenario 26.
    """
    program, how = _begin(start, place, how)
    server.faults({"kind": "hold", "name": "gate"})
    assert program.ask("begin") == ["begun"]
    server.wait("token_request_held")
    assert program.ask("break_disk", how) == ["broken"]
    server.release("gate")
    program.hear_all(["Unsaved", 2], ["token", 2])
    assert program.ask("token") == ["token", 2]
    assert program.ask("call", 3) == [200, 200, 200]
    assert program.ask("stored") == [1, True]
    program.order("mend_disk", how)
    program.hear_all(["mended"], ["stored", 2])
    assert program.ask("stored") == [2, False]
    assert program.ask("token") == ["token", 2]
    stats = server.stats()
    assert (stats.token_posts, stats.reuse_detected) == (1, 0)


@pytest.mark.parametrize("how", TROUBLE)
def test_nothing_is_sent_while_nothing_can_be_stored(how: str, server: ServerHandle, place: Path, start: Start) -> None:
    """Where no intent can be written no refresh token is spent: an error says what to do, then all goes on."""
    program, how = _begin(start, place, how)
    program.order("token")
    program.hear_all(["token", 2], ["stored", 2])  # so that the lock files are there
    program.ask("log_in", -1)
    assert program.ask("break_disk", how) == ["broken"]
    for _ in range(3):
        kind, message, _ = program.ask("token")
        assert kind == "StoreError"
        assert ("let this user write there" if how == "read-only" else "free some space there") in message
    assert server.stats().token_posts == 1
    assert program.ask("mend_disk", how) == ["mended"]
    program.order("token")
    program.hear_all(["token", 2], ["stored", 2])
    assert program.ask("stored") == [2, False]
    assert server.stats().token_posts == 2


@pytest.mark.parametrize("how", TROUBLE)
def test_a_good_token_is_served_while_nothing_can_be_stored(
    how: str, server: ServerHandle, place: Path, start: Start
) -> None:
    """A disk that refuses takes nothing from a token that is still good."""
    program, how = _begin(start, place, how)
    program.ask("log_in", 3600)
    assert program.ask("break_disk", how) == ["broken"]
    assert program.ask("token") == ["token", 1]
    assert program.ask("call", 3) == [200, 200, 200]
    assert server.stats().token_posts == 0


def test_a_store_deleted_at_rest_is_a_login_that_is_gone(server: ServerHandle, place: Path, start: Start) -> None:
    """With its directory deleted a program is told that nobody is logged in; the next login makes it anew."""
    directory = place / "sessions"
    program, _ = _begin(start, directory, "deleted")
    assert program.ask("delete_store") == ["deleted"]
    for _ in range(2):
        assert program.ask("token")[:2] == ["LoginRequired", "no_session"]
    assert server.stats().token_posts == 0
    assert program.ask("log_in", 3600) == ["logged in", 1]
    assert directory.stat().st_mode & 0o777 == 0o700
    assert TokenManager(grant_for(server), store=FileStore(directory), key="alice").token().minted == 1
    assert program.ask("call", 2) == [200, 200]


def test_a_store_that_is_deleted_in_mid_flight_stays_deleted(server: ServerHandle, place: Path, start: Start) -> None:
    """Whoever deletes the record has ended the login here: an answer that comes after that does not bring it back."""
    program, _ = _begin(start, place / "sessions", "deleted")
    server.faults({"kind": "hold", "name": "gate"})
    assert program.ask("begin") == ["begun"]
    server.wait("token_request_held")
    assert program.ask("delete_store") == ["deleted"]
    server.release("gate")
    assert program.hear()[:2] == ["LoginRequired", "no_session"]
    assert program.ask("stored") == ["nothing"]
    assert server.stats().token_posts == 1
