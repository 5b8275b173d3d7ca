"""The programs to copy run as they are, as processes of their own, against the server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from unexpired.testing import ServerHandle, server_process

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def server() -> Iterator[ServerHandle]:
    """Give a server in a process of its own."""
    with server_process() as handle:
        yield handle


def run(home: Path, name: str, *arguments: str, **environment: str) -> tuple[int, str, str]:
    """The exit code, output and complaints of one example."""
    kept = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    done = subprocess.run(
        [sys.executable, "-W", "error", str(EXAMPLES / name), *arguments],
        env=kept | {"UNEXPIRED_HOME": str(home)} | environment,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stdout, done.stderr


def test_dialect_headers(server: ServerHandle, tmp_path: Path) -> None:
    """A start, a restart with an expired token, and the end of the login: served twice, then sent to log in."""
    answer = server.login()
    seed = {f"UNEXPIRED_{name.upper()}": answer[name] for name in ("access_token", "refresh_token")}
    served = (0, f"order 7 sent {len('id=7&name=a+b')} bytes\n", "")
    assert run(tmp_path, "dialect_headers.py", f"{server.url}/a", **seed) == served
    server.expire()
    assert run(tmp_path, "dialect_headers.py", f"{server.url}/a", **seed) == served
    assert (server.stats().token_posts, server.stats().reuse_detected) == (1, 0)
    server.revoke_family()
    assert run(tmp_path, "dialect_headers.py", f"{server.url}/a", **seed)[:2] == (1, "log in at /\n")
    assert server.stats().token_posts == 1


def test_dialect_query(server: ServerHandle, tmp_path: Path) -> None:
    """A login, a restart with an expired token and one refresh for 8 calls, then the end, told once."""
    call = (tmp_path, "dialect_query.py", f"{server.url}/b/api", "alice")
    served = (0, "panels 0 1 2 3 4 5 6 7\n", "")
    assert run(*call, CRM_PASSWORD="wonderland") == served
    server.expire()
    assert run(*call, CRM_PASSWORD="not asked for") == served
    assert (server.stats().token_posts, server.stats().logins) == (1, 1)
    server.revoke_family()
    assert run(*call)[:2] == (1, "log in at /login?redirect=%2Flist%3Fa%3D1&code=C1\n")
    assert run(*call, CRM_PASSWORD="wonderland") == served


def test_what_the_api_says(server: ServerHandle, tmp_path: Path) -> None:
    """An error of the API ends the programs with its words."""
    code, _, said = run(tmp_path, "dialect_query.py", f"{server.url}/b/api", "alice", CRM_PASSWORD="wrong")
    assert (code, said) == (1, "the API says: wrong user or password (1001)\n")
    answer = server.login()
    seed = {f"UNEXPIRED_{name.upper()}": answer[name] for name in ("access_token", "refresh_token")}
    server.api_faults([{"kind": "status", "code": 7}])
    code, _, said = run(tmp_path, "dialect_headers.py", f"{server.url}/a", **seed)
    assert (code, said) == (1, "the API says: status (7)\n")
