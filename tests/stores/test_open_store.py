from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unexpired.stores
from unexpired.errors import ConfigurationError, StoreError
from unexpired.stores import FileStore, MemoryStore, Sealed, SQLiteStore, open_store

SECRET = "very-secret"

# As pip leaves it: a module, and beside it what `importlib.metadata` reads.
MODULE = """
from unexpired.errors import StoreError
from unexpired.stores import MemoryStore

class Elsewhere(MemoryStore):
    def __init__(self, url):
        super().__init__()
        self.url = url

def not_a_store(url):
    return url

def breaks(url):
    raise ValueError(url)

def refuses(url):
    raise StoreError("this store refuses")
"""
ENTRIES = """[unexpired.stores]
elsewhere = elsewhere_store:Elsewhere
nothing = elsewhere_store:not_a_store
breaking = elsewhere_store:breaks
refusing = elsewhere_store:refuses
missing = elsewhere_store:nobody
absent = no_such_package_of_stores:Store
memory = elsewhere_store:breaks
"""


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package of stores, installed into a directory of its own."""
    place = tmp_path / "site"
    about = place / "elsewhere_store-1.0.dist-info"
    about.mkdir(parents=True)
    (place / "elsewhere_store.py").write_text(MODULE)
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: elsewhere-store\nVersion: 1.0\n")
    (about / "entry_points.txt").write_text(ENTRIES)
    monkeypatch.syspath_prepend(str(place))
    yield place
    sys.modules.pop("elsewhere_store", None)


def complaint(url: Any) -> str:
    """What the error of opening *url* says, which holds nothing of a password."""
    with pytest.raises(ConfigurationError) as caught:
        open_store(url)
    error = caught.value
    assert SECRET not in f"{error!r} {error} {error.__dict__!r} {error.__cause__!r}"
    assert error.__suppress_context__ or error.__context__ is None
    return str(error)


@pytest.mark.parametrize("slashes", ["", "//"])
def test_each_store_has_a_url(tmp_path: Path, slashes: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A scheme, in any case, and a path as it is, blanks and percent signs too; nothing is read or written yet."""
    monkeypatch.setenv("UNEXPIRED_HOME", str(tmp_path / "home"))
    place = tmp_path / "a b%20c?d#e"
    assert open_store(f"file:{slashes}{place}").identity == FileStore(place).identity
    assert open_store(f"FILE:{slashes}{place}").identity == FileStore(place).identity
    assert open_store("file:").identity == FileStore(tmp_path / "home").identity
    assert open_store(f"sqlite:{slashes}{place}").identity == SQLiteStore(place).identity
    assert open_store(f"keyring:{slashes}{place}").identity == ("sealed", FileStore(place).identity)
    assert open_store("keyring:").identity == ("sealed", FileStore(tmp_path / "home").identity)
    assert open_store("file:localhost/x").identity == FileStore("localhost/x").identity
    assert "host:6379/3" in repr(open_store(f"redis://user:{SECRET}@host:6379/3"))
    assert isinstance(open_store("memory:"), MemoryStore)
    assert isinstance(open_store(f"memory:{slashes}"), MemoryStore)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "this is no URL of a store: use one of 'file:'"),
        (SECRET, "this is no URL"),
        (f"/var/lib/{SECRET}", "this is no URL"),
        (f"user:{SECRET}@host", "no store is called 'user'"),
        (f"user name:{SECRET}@host", "this is no URL"),
        (f"made-up://user:{SECRET}@host/0", "this is no URL"),
        (f"oracle://user:{SECRET}@[host/0", "no store is called 'oracle'"),
        (f"memory://user:{SECRET}@host", "'memory:' takes nothing after it"),
        ("sqlite:", "write 'sqlite:<path>'"),
        ("sqlite://", "write 'sqlite:<path>'"),
        (f"file:/var/{SECRET}\0", "holds a NUL character"),
        (f"keyring:/var/{SECRET}\0", "holds a NUL character"),
        (f"file://localhost/var/{SECRET}", "no machine before it: file:/var/lib/crm"),
        (f"SQLITE://LocalHost/var/{SECRET}", "no machine before it: sqlite:/var/lib/crm"),
        (f"redis://user:{SECRET}@host:6379/{SECRET}", "'redis:' takes the number of a database after the host"),
        (f"rediss://:x/{SECRET}@host/0", "'rediss:' takes the number of a database after the host"),
        (Path("/var/lib"), "takes a URL, such as 'file:/var/lib/crm', not PosixPath"),
        (None, "not NoneType"),
    ],
)
def test_another_url_is_told_without_what_is_in_it(url: Any, why: str) -> None:
    """What names no store is a ConfigurationError that shows what there is, and no password."""
    assert why in complaint(url)


def test_installed_packages_add_stores(package: Path) -> None:
    """An entry point named like the scheme opens its URLs, and gets them whole; ours come first."""
    assert package.is_dir()
    store = open_store(f"Elsewhere://user:{SECRET}@host/0?a=b")
    assert type(store).__name__ == "Elsewhere"
    assert vars(store)["url"] == f"Elsewhere://user:{SECRET}@host/0?a=b"
    assert isinstance(open_store("memory:"), MemoryStore)


def test_a_scheme_of_two_packages_is_told(package: Path) -> None:
    """Which of them would open it, and write logins where, is not left to the order of a path."""
    shutil.copytree(package / "elsewhere_store-1.0.dist-info", package / "another_store-1.0.dist-info")
    assert type(open_store("elsewhere://host")).__name__ == "Elsewhere", "the same one, found twice"
    (package / "another_store-1.0.dist-info" / "entry_points.txt").write_text(
        "[unexpired.stores]\nelsewhere = x:Store\n"
    )
    importlib.invalidate_caches()
    why = complaint(f"elsewhere://user:{SECRET}@host")
    assert why == "several packages add 'elsewhere' (elsewhere_store:Elsewhere, x:Store): uninstall all but one"


@pytest.mark.parametrize(
    ("scheme", "why"),
    [
        ("nothing", "'elsewhere_store:not_a_store' of unexpired.stores gave no store"),
        ("breaking", "raised ValueError at elsewhere_store.py:"),
        ("missing", "raised AttributeError"),
    ],
)
def test_an_entry_point_that_breaks_is_told(package: Path, scheme: str, why: str) -> None:
    """Whatever an installed package does wrong, the error names it, and holds no password."""
    assert package.is_dir()
    assert why in complaint(f"{scheme}://user:{SECRET}@host")


def test_errors_that_say_what_to_do_pass_through(package: Path) -> None:
    """A store's own error, and a missing package, are what the caller sees."""
    assert package.is_dir()
    with pytest.raises(StoreError, match="this store refuses"):
        open_store("refusing:")
    with pytest.raises(ModuleNotFoundError, match="no_such_package_of_stores"):
        open_store("absent:")


def test_a_package_that_was_really_installed_is_found(package: Path) -> None:
    """Another process finds the store by its entry point, with nothing imported for it."""
    program = "from unexpired.stores import open_store; print(type(open_store('elsewhere:x')).__name__)"
    path = os.pathsep.join([str(package), *(place for place in sys.path if place)])
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["Elsewhere"]


def test_stores_are_loaded_when_they_are_asked_for() -> None:
    """Importing the package loads neither SQLite nor cryptography; its names are there all the same."""
    program = """
import sys
import unexpired.stores as stores
early = {"unexpired.stores.sqlite", "unexpired.stores.sealed", "cryptography", "keyring"} & set(sys.modules)
assert not early, early
assert {stores.SQLiteStore.__name__, stores.Sealed.__name__, stores.migrate.__name__} == {
    "SQLiteStore", "Sealed", "migrate"
}
"""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert unexpired.stores.Sealed is Sealed
    with pytest.raises(AttributeError, match="NoSuchStore"):
        _ = unexpired.stores.NoSuchStore


@pytest.mark.parametrize(
    ("module", "missing", "extra"), [("sealed", "cryptography", "sealed"), ("_keyring", "keyring", "keyring")]
)
def test_a_missing_package_is_named_with_its_extra(module: str, missing: str, extra: str) -> None:
    """Without what a store needs, the error says which extra to install."""
    program = f"import sys; sys.modules['{missing}'] = None; import unexpired.stores.{module}"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert f"which is not installed: pip install 'unexpired[{extra}]'" in done.stderr


@pytest.mark.parametrize("missing", ["cryptography", "keyring"])
def test_a_key_ring_names_the_extra_that_brings_all(missing: str) -> None:
    """Whichever of its packages is missing, `keyring:` says which extra brings both."""
    program = (
        f"import sys; sys.modules['{missing}'] = None\nfrom unexpired.stores import open_store\nopen_store('keyring:')"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(place for place in sys.path if place)}
    done = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "unexpired[keyring]" in done.stderr
