from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

KEYS = """
import sys
from unexpired.stores.sealed import key_from_keyring
print("ready", flush=True)
sys.stdin.readline()
print(*(key.hex() for key in key_from_keyring()()), flush=True)
"""
STORE = """
import pathlib, sys
from unexpired._core.session import Session
from unexpired.errors import StoreError
from unexpired.stores import open_store
store = open_store(f"keyring:{sys.argv[1]}")
session = Session.begin("alice", "login", "very-secret refresh token")
try:
    if sys.argv[2] == "write":
        print(store.swap("alice", None, session))
    else:
        print(store.load("alice").refresh_token)
except StoreError as error:
    print("StoreError:", error)
"""
# Several processes in one session of D-Bus, whose Secret Service is unlocked with a password.
IN_A_SESSION = """
set -eu
printf 'password\\n' | gnome-keyring-daemon --unlock --components=secrets >/dev/null 2>&1
for _ in $(seq 500); do
    "$PYTHON" -c 'import secretstorage as s; s.get_default_collection(s.dbus_init())' 2>/dev/null && break
    sleep 0.02
done
exec "$PYTHON" -c "$1" "${@:2}"
"""
FOUR_AT_ONCE = f"""
import subprocess, sys
programs = [
    subprocess.Popen([sys.executable, "-c", {KEYS!r}], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    for _ in range(4)
]
for program in programs:
    assert program.stdout.readline() == "ready\\n"
for program in programs:
    program.stdin.write("go\\n")
    program.stdin.flush()
print(*(program.communicate(timeout=50)[0].strip() for program in programs))
"""
TWICE = f"""
import subprocess, sys
for task in ("write", "read"):
    subprocess.run([sys.executable, "-c", {STORE!r}, sys.argv[1], task], check=True)
"""
LOCKED = f"""
import subprocess, sys
import secretstorage
subprocess.run([sys.executable, "-c", {STORE!r}, sys.argv[1], "write"], check=True)
secretstorage.get_default_collection(secretstorage.dbus_init()).lock()
subprocess.run([sys.executable, "-c", {STORE!r}, sys.argv[1], "read"], check=True)
"""
BACKEND = '''
import json, os, pathlib, time
from keyring.backend import KeyringBackend

class Slow(KeyringBackend):
    """Keeps passwords in a file, and takes its time between looking and writing, as some do."""

    priority = 1
    path = pathlib.Path(os.environ["HOME"]) / "slow.json"

    def get_password(self, service, username):
        found = json.loads(self.path.read_text()).get(service + username) if self.path.exists() else None
        time.sleep(0.3)
        return found

    def set_password(self, service, username, password):
        self.path.write_text(json.dumps({service + username: password}))

class Broken(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        raise RuntimeError("very-secret words of the key ring")

    set_password = get_password

class Forgetful(KeyringBackend):
    priority = 1

    def get_password(self, service, username):
        return None

    def set_password(self, service, username, password):
        pass

class Nonsense(Forgetful):
    def get_password(self, service, username):
        return "very-secret nonsense"
'''
ASKING = """
import getpass
from keyring.backend import KeyringBackend

class Asking(KeyringBackend):
    priority = 0.6

    def _get_new_password(self):
        return getpass.getpass()

    def get_password(self, service, username):
        return self._get_new_password()

    set_password = get_password
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A home directory without a desktop."""
    home = tmp_path / "home"
    (home / "run").mkdir(mode=0o700, parents=True)
    home.chmod(0o700)
    (home / "made_up_rings.py").write_text(BACKEND)
    (home / "keyrings").mkdir()
    (home / "keyrings" / "made_up.py").write_text(ASKING)
    return home


def environment(home: Path, **more: str) -> dict[str, str]:
    """Nothing of this machine's desktop, if it has one."""
    path = os.pathsep.join([str(home), *(place for place in sys.path if place)])
    desktop = ("DBUS", "XDG", "DISPLAY", "PYTHON_KEYRING")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(desktop)}
    return {
        **kept, "HOME": str(home), "XDG_RUNTIME_DIR": str(home / "run"), "PYTHONPATH": path, "PYTHON": sys.executable,
        **more,
    }  # fmt: skip


def run(home: Path, command: list[str], **more: str) -> str:
    """What a program prints that has nobody to ask: a prompt would end or hang it."""
    done = subprocess.run(
        command, env=environment(home, **more), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=50,
        check=False, start_new_session=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout


def in_a_session(home: Path, program: str, *arguments: str) -> str:
    """The same in a session with a Secret Service, as a desktop or a prepared server has it."""
    for name in ("dbus-run-session", "gnome-keyring-daemon"):
        assert shutil.which(name), f"{name} is missing: make system-packages installs it (gnome-keyring, dbus-daemon)"
    session = ["dbus-run-session", "--", "bash", "-c", IN_A_SESSION, "bash", program, *arguments]
    return run(home, session)


def test_sessions_are_sealed_with_a_key_from_the_secret_service(home: Path, tmp_path: Path) -> None:
    """`open_store("keyring:…")` makes a key in a real key ring, and other processes find it there (scenario 63)."""
    place = tmp_path / "sessions"
    assert in_a_session(home, TWICE, str(place)).splitlines() == ["True", "very-secret refresh token"]
    assert [path for path in place.iterdir() if b"very-secret" in path.read_bytes()] == []


def test_a_locked_secret_service_is_told(home: Path, tmp_path: Path) -> None:
    """A key ring that is locked, with nobody to ask, is an error at once; the session stays."""
    first, second = in_a_session(home, LOCKED, str(tmp_path / "sessions")).splitlines()
    assert first == "True"
    assert second.startswith("StoreError: no sealing key: the key ring is not to be had (KeyringLocked")
    assert len([*(tmp_path / "sessions").glob("*.json")]) == 1


def test_processes_that_make_the_key_together_agree(home: Path) -> None:
    """Four processes that find no key in the Secret Service at the same time have one and the same after."""
    keys = in_a_session(home, FOUR_AT_ONCE).split()
    assert len(keys) == 4
    assert len(set(keys)) == 1
    assert len(bytes.fromhex(keys[0])) == 32


def test_processes_agree_on_a_key_however_slow_the_key_ring_is(home: Path) -> None:
    """A key ring that takes its time between looking and writing gets one key all the same."""
    keys = run(home, [sys.executable, "-c", FOUR_AT_ONCE], PYTHON_KEYRING_BACKEND="made_up_rings.Slow").split()
    assert len(keys) == 4
    assert len(set(keys)) == 1


@pytest.mark.parametrize(
    "ring",
    [
        None,
        "",
        "no.such.Ring",
        "keyring.backends.fail.Keyring",
        "keyring.backends.null.Keyring",
        "keyring.backends.chainer.ChainerBackend",
        "keyrings.alt.file.EncryptedKeyring",
        "keyrings.made_up.Asking",
        "made_up_rings.Broken",
        "made_up_rings.Forgetful",
    ],
)
def test_without_a_key_ring_it_says_what_to_do(home: Path, tmp_path: Path, ring: str | None) -> None:
    """Where no key ring keeps a key, or only one that would ask or use a plain file: an error, no prompt, no file."""
    place = tmp_path / "sessions"
    chosen = {} if ring is None else {"PYTHON_KEYRING_BACKEND": ring}
    said = run(home, [sys.executable, "-c", STORE, str(place), "write"], **chosen)
    assert said.startswith("StoreError: no sealing key: ")
    assert "start a Secret Service (gnome-keyring) first, or seal with a key from elsewhere" in said
    assert "very-secret" not in said
    assert [path.name for path in tmp_path.rglob("*.json*")] == []
    assert [path.name for path in home.rglob("*keyring*.cfg") if path.is_file()] == []


def test_a_plain_file_is_used_where_it_was_chosen_by_name(home: Path, tmp_path: Path) -> None:
    """Who names a key ring in a plain file gets it."""
    place, ring = tmp_path / "sessions", "keyrings.alt.file.PlaintextKeyring"
    for task, answer in (("write", "True"), ("read", "very-secret refresh token")):
        said = run(home, [sys.executable, "-c", STORE, str(place), task], PYTHON_KEYRING_BACKEND=ring)
        assert said.strip() == answer


def test_what_is_no_key_is_told(home: Path, tmp_path: Path) -> None:
    """Something else under the key's name is an error that says where, not what; it is not overwritten."""
    command = [sys.executable, "-c", STORE, str(tmp_path / "sessions"), "write"]
    said = run(home, command, PYTHON_KEYRING_BACKEND="made_up_rings.Nonsense")
    assert "the key ring, under 'unexpired', 'sealing key', holds no sealing key" in said
    assert "very-secret" not in said
