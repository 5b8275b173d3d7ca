from __future__ import annotations

import os
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from unexpired import TokenManager
from unexpired._core.ports import HeldLease, Store
from unexpired._core.session import Session
from unexpired._core.token import Token
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import open_store
from unexpired.testing import ServerConfig, running_server
from unexpired.testing._process_contract import OF_PROCESSES
from unexpired.testing.contract import StoreContract

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "your-own-store.md"
PROGRAM = """
import sys
from unexpired import TokenManager
from unexpired.grants import RefreshTokenGrant
from unexpired.stores import open_store

store = open_store(sys.argv[2])
manager = TokenManager(RefreshTokenGrant(sys.argv[1], client_id="public"), key="alice@crm", store=store)
token = manager.token()
print("ready", flush=True)
sys.stdin.readline()
print(manager.refresh(rejected=token).minted)
"""
SESSION = Session.begin("alice@crm", "login", Token("access 1", refresh_token="refresh 1"))


def block(kind: str, word: str) -> str:
    """The one block of the page that is of that kind and holds *word*."""
    found = re.findall(rf"^```{kind}\n(.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    (one,) = [each for each in found if word in each]
    return str(one)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The package of the page, as installed: its store, and its entry point."""
    place = tmp_path / "package"
    about = place / "your_package-1.0.dist-info"
    about.mkdir(parents=True)
    opener = block("python", "def open_directory").partition("\n\n\n")[0]
    (place / "your_package.py").write_text(f"{block('python', 'class DirectoryStore')}\n\n{opener}\n")
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: your-package\nVersion: 1.0\n")
    entry = block("toml", "entry-points").replace('project.entry-points."unexpired.stores"', "unexpired.stores")
    (about / "entry_points.txt").write_text(re.sub(r'"| +#.*', "", entry))
    monkeypatch.syspath_prepend(str(place))
    monkeypatch.delitem(sys.modules, "your_package", raising=False)
    return place


def test_the_store_of_the_page_keeps_every_promise(package: Path) -> None:
    """The store passes the tests as the page has them, those against a child process too, without a warning."""
    tests = package / "test_your_package.py"
    tests.write_text(block("py", "StoreContract"))
    run = [sys.executable, "-m", "pytest", "-q", "-rA", "-W", "error", "-p", "no:cacheprovider", "-p", "no:randomly"]
    environment = os.environ | {"PYTHONPATH": str(package)}
    done = subprocess.run([*run, str(tests)], capture_output=True, text=True, env=environment, cwd=package, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    passed = set(re.findall(r"^PASSED .*::(\w+)$", done.stdout, re.MULTILINE))
    every = {name for name in vars(StoreContract) if name.startswith("test_")} | set(OF_PROCESSES)
    assert every - passed == {"test_it_is_for_this_process_only"}
    assert "skipped" not in done.stdout


def test_the_store_of_the_page_has_a_url(package: Path) -> None:
    """Its entry point makes a URL of it for `open_store`."""
    store = open_store(f"directory:{package / 'sessions'}")
    assert store.identity == ("directory", package / "sessions")


def test_the_store_of_the_page_shows_nothing_to_others(package: Path) -> None:
    """Its files are 0600 and its directory 0700, from the first one on; a record that cannot be read is kept aside."""
    place = package / "sessions"
    store = open_store(f"directory:{place}")
    assert store.swap(SESSION.key, None, SESSION)
    assert place.stat().st_mode & 0o777 == 0o700
    (record,) = place.glob("*.session")
    assert record.stat().st_mode & 0o777 == 0o600
    record.write_bytes(b'{"unexpired":1')
    store.set_aside(SESSION.key)
    assert store.load(SESSION.key) is None
    assert [path.read_bytes() for path in place.iterdir() if path.stat().st_size] == [b'{"unexpired":1']


def test_a_fleet_with_the_store_of_the_page_refreshes_once(package: Path) -> None:
    """Four processes whose token was refused at once share one refresh through it (scenario 16)."""
    with running_server(ServerConfig(refresh_latency=0.2)) as server, ExitStack() as stack:
        url = f"directory:{package / 'sessions'}"
        grant = RefreshTokenGrant(server.token_url, client_id="public")
        TokenManager(grant, key="alice@crm", store=open_store(url)).login(server.login())
        command = [sys.executable, "-c", PROGRAM, server.token_url, url]
        environment = os.environ | {"PYTHONPATH": str(package)}
        fleet = [
            stack.enter_context(
                subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment)
            )
            for _ in range(4)
        ]
        for one in fleet:
            assert one.stdout is not None
            assert one.stdout.readline() == "ready\n"
        for one in fleet:
            assert one.stdin is not None
            one.stdin.write("\n")
            one.stdin.flush()
        assert [one.communicate(timeout=50)[0] for one in fleet] == ["2\n"] * 4
        stats = server.stats()
        assert (stats.refreshes, stats.reuse_detected) == (1, 0)


def test_the_table_of_the_page_has_every_member() -> None:
    """The page lists the members of the protocol, and those that are optional."""
    rows = re.findall(r"^\| `(\w+)[^|]*\| ", PAGE.read_text(), re.MULTILINE)
    members: dict[str, Any] = {**vars(Store)}
    assert set(rows) == {name for name in members if not name.startswith("_")} | {"keys", "remote"}
    text = PAGE.read_text()
    leases = {*HeldLease.__annotations__, *(name for name in vars(HeldLease) if not name.startswith("_"))}
    assert [name for name in leases if f"`{name}" not in text] == []
