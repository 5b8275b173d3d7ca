"""Who may import whom, what the core may not touch, how long anything may get: read from the source."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
SRC = ROOT / "src"
SOURCES = sorted((SRC / "unexpired").rglob("*.py"))
TESTS = sorted(path for path in (ROOT / "tests").rglob("*.py") if "node_modules" not in path.parts)

SOURCE_LINES, TEST_LINES, FUNCTION_LINES = 300, 400, 60

# A longer file ("stores/file.py") or function ("stores/file.py::FileStore.swap") stands here with its reason.
WAIVERS: dict[str, str] = {}

DATA = ("_core.token", "_core.session", "_core.record", "_core.ports", "errors", "events")
BELOW_CLIENTS = ("_core", "_engine", "manager", "errors", "events")
EVERYTHING = ("",)

# What each part of the package may import of the others. `""` is the root, with all its public names.
MAY_IMPORT: dict[str, tuple[str, ...]] = {
    "errors": (),
    "events": (),
    "_core": ("errors", "events"),
    "seeds": ("_core.token", "errors"),
    "stores": DATA,
    "grants": DATA,
    "observe": ("errors", "events"),
    "_engine": ("_core", "errors", "events"),
    "managers": ("_core", "_engine", "manager", "errors", "events"),
    "manager": ("_core", "_engine", "stores", "grants", "seeds", "errors", "events"),
    "clients": BELOW_CLIENTS,
    "api": ("clients", "grants", *BELOW_CLIENTS),
    "profiles": ("api", "clients", "grants", "stores", *BELOW_CLIENTS),
    "testing": ("stores", "grants", *BELOW_CLIENTS),
    "cli": EVERYTHING,
    "__main__": ("cli",),
    "__init__": ("api", "clients", "managers", "seeds", *BELOW_CLIENTS),
}

# A list of what is allowed, because the list of what is not could never be complete.
CORE_MAY_IMPORT = {
    "__future__",
    "abc",
    "base64",
    "binascii",
    "collections",
    "copy",
    "dataclasses",
    "datetime",
    "email.utils",
    "enum",
    "functools",
    "ipaddress",
    "itertools",
    "json",
    "math",
    "operator",
    "re",
    "string",
    "types",
    "typing",
    "unicodedata",
    "urllib.parse",
}
# What a file of the core may import all the same, and why.
CORE_WAIVERS = {
    "_core/token.py": {"time": "the default of Token.from_response(now=) for people; the library always passes it"},
}
CORE_MAY_NOT_CALL = {
    "open",
    "print",
    "input",
    "exec",
    "eval",
    "now",
    "utcnow",
    "today",
    "localtime",
    "formatdate",
}

# Which files may load which package: its client module, or the part that is there for it.
MAY_LOAD: dict[str, str] = {
    **{
        client: rf"clients/_?{client}(_\w+)?\.py"
        for client in ("aiohttp", "grpc", "httpx", "niquests", "pyreqwest", "requests", "websockets")
    },
    # requests hands its caller the answers of urllib3.
    "urllib3": r"clients/_?(urllib3|requests)(_\w+)?\.py",
    # The token endpoint is called with httpx2 too, from one place.
    "httpx2": r"clients/_?httpx2(_\w+)?\.py|grants/_http\.py|api/.*|cli/.*",
    # Logging in and out from a task writes the store on a worker thread.
    "anyio": r"clients/.*|_engine/driving\.py",
    "click": r"cli/.*",
    "cryptography": r"stores/sealed\.py",
    "filelock": r"stores/.*",
    "keyring": r"stores/.*",
    "platformdirs": r"stores/.*|profiles\.py|cli/.*",
    "psycopg": r"stores/_?postgres(_\w+)?\.py",
    "redis": r"stores/_?redis(_\w+)?\.py",
    "msgspec": r"api/.*",
    "opentelemetry": r"observe/opentelemetry\.py",
    "prometheus_client": r"observe/prometheus\.py",
    "pydantic": r"api/.*",
    "rich": r"cli/.*|api/_showing\.py",
    "sniffio": r"clients/.*|_engine/.*|manager\.py",
    "trio": r"clients/.*|_engine/.*|manager\.py|cli/.*",
    "uvicorn": r"testing/.*",
}


@dataclass(frozen=True)
class Import:
    """One imported module: its full name, its line, and whether it is for type checkers only."""

    name: str
    line: int
    for_types: bool


def imports(tree: ast.Module, package: str) -> Iterator[Import]:
    """Every module that *tree* imports, anywhere; `from a import b` is module `a.b` if there is one."""
    for_types = {
        id(node)
        for test in ast.walk(tree)
        if isinstance(test, ast.If) and ast.unparse(test.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")
        for statement in test.body
        for node in ast.walk(statement)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(alias.name, node.lineno, id(node) in for_types)
        elif isinstance(node, ast.ImportFrom):
            parents = package.split(".")[: 1 - node.level or None] if node.level else []
            base = ".".join([*parents, *([node.module] if node.module else [])])
            for alias in node.names:
                name = f"{base}.{alias.name}"
                yield Import(name if is_module(name) else base, node.lineno, id(node) in for_types)
        elif isinstance(node, ast.Call) and re.search(r"\b(import_module|__import__)$", ast.unparse(node.func)):
            for argument in node.args[:1]:
                if isinstance(argument, ast.Constant):
                    yield Import(str(argument.value), node.lineno, for_types=False)


def is_module(name: str) -> bool:
    """Whether *name* is a module or package of ours."""
    path = SRC.joinpath(*name.split("."))
    return path.with_suffix(".py").is_file() or path.is_dir()


def relative(path: Path) -> str:
    """*path* from the package, or for tests from the root."""
    return path.relative_to(SRC / "unexpired" if path.is_relative_to(SRC) else ROOT).as_posix()


def within(name: str, allowed: tuple[str, ...]) -> bool:
    """Whether module *name* (without `unexpired.`) is one of *allowed* or inside one."""
    return any(part in ("", name) or name.startswith(f"{part}.") for part in allowed)


def border_violations(file: str, source: str) -> list[str]:
    """Imports in *file* (a path from the package) that go against one of the tables."""
    part = file.partition("/")[0].removesuffix(".py")
    package = ".".join(["unexpired", *file.split("/")[:-1]])
    own = "" if part == "__init__" else part
    wrong = []
    for found in imports(ast.parse(source), package):
        root, _, rest = found.name.partition(".")
        if root == "unexpired":
            if not within(rest, (*MAY_IMPORT.get(part, ()), *([own] if own else []))):
                wrong.append(f"{file}:{found.line}: {part} may not import unexpired.{rest}")
        elif part == "_core" and not within(found.name, (*CORE_MAY_IMPORT, *CORE_WAIVERS.get(file, ()))):
            wrong.append(f"{file}:{found.line}: the core is pure and may not import {found.name}")
        elif root in MAY_LOAD and not found.for_types and not re.fullmatch(MAY_LOAD[root], file):
            wrong.append(f"{file}:{found.line}: {root} is not loaded from here")
    return wrong


def impurities(file: str, source: str) -> list[str]:
    """What a pure module may not contain: awaiting, and calls that look at the world."""
    wrong = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.AsyncFunctionDef | ast.Await | ast.AsyncFor | ast.AsyncWith):
            wrong.append(f"{file}:{node.lineno}: the core does not await")
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func).rpartition(".")[2]
            if called in CORE_MAY_NOT_CALL:
                wrong.append(f"{file}:{node.lineno}: the core does not call {called}()")
    return wrong


def lengths(file: str, source: str, limit: int) -> dict[str, str]:
    """What of *file* is too long, by its name in `WAIVERS`."""
    tall = {}
    if (lines := len(source.splitlines())) > limit:
        tall[file] = f"{file} has {lines} lines, more than {limit}"

    def visit(node: ast.AST, prefix: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = prefix
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                name = f"{prefix}.{child.name}" if prefix else child.name
                lines = (child.end_lineno or child.lineno) - child.lineno + 1
                if not isinstance(child, ast.ClassDef) and lines > FUNCTION_LINES:
                    tall[f"{file}::{name}"] = f"{file}::{name} has {lines} lines, more than {FUNCTION_LINES}"
            visit(child, name)

    visit(ast.parse(source), "")
    return tall


def all_lengths() -> dict[str, str]:
    """Everything in the repository that is too long, waived or not."""
    tall: dict[str, str] = {}
    for paths, limit in ((SOURCES, SOURCE_LINES), (TESTS, TEST_LINES)):
        for path in paths:
            tall |= lengths(relative(path), path.read_text("utf-8"), limit)
    return tall


def test_every_part_of_the_package_has_its_place_in_the_table() -> None:
    """A new module or package at the top says what it may import before it can be added."""
    parts = {relative(path).split("/")[0].removesuffix(".py") for path in SOURCES}
    assert parts
    assert parts - set(MAY_IMPORT) == set()


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_imports_point_one_way(path: Path) -> None:
    """Each module imports only what stands below it, and only a client's module loads that client."""
    assert border_violations(relative(path), path.read_text("utf-8")) == []


@pytest.mark.parametrize("path", [path for path in SOURCES if "_core" in path.parts], ids=relative)
def test_the_core_is_pure(path: Path) -> None:
    """Nothing in the core awaits, opens, prints or asks for the time."""
    assert impurities(relative(path), path.read_text("utf-8")) == []


def test_files_and_functions_stay_short() -> None:
    """Source files stay within 300 lines, tests within 400, functions within 60, or have a waiver."""
    assert [text for name, text in all_lengths().items() if name not in WAIVERS] == []


def test_no_waiver_outlives_its_reason() -> None:
    """Every waiver has a reason and names something that is still too long."""
    assert set(WAIVERS) - set(all_lengths()) == set()
    assert all(reason.strip() for reason in WAIVERS.values())


@pytest.mark.parametrize("path", SOURCES, ids=relative)
def test_no_unfinished_work_in_the_source(path: Path) -> None:
    """The source holds no notes of work still to be done."""
    assert re.findall(r"\b(?:TODO|FIXME|XXX|HACK)\b|NotImplementedError", path.read_text("utf-8")) == []


@pytest.mark.parametrize(
    ("file", "source"),
    [
        ("_core/session.py", "import time"),
        ("_core/token.py", "def f():\n    from random import random"),
        ("_core/token.py", "from urllib import request"),
        ("_core/token.py", "from unexpired.stores import MemoryStore"),
        ("_core/token.py", "from ..manager import TokenManager"),
        ("_core/token.py", "from .. import manager"),
        ("stores/file.py", "from unexpired._core.flight import fly"),
        ("stores/file.py", "from unexpired import TokenManager"),
        ("clients/httpx2.py", "if TYPE_CHECKING:\n    from unexpired.stores import MemoryStore"),
        ("clients/httpx2.py", "import httpx"),
        ("clients/httpx.py", "import httpx2"),
        ("grants/refresh.py", "import httpx2"),
        ("manager.py", "def f():\n    import httpx2"),
        ("manager.py", "if not TYPE_CHECKING:\n    import httpx2"),
        ("manager.py", "importlib.import_module('httpx2')"),
        ("errors.py", "import unexpired.events"),
        ("unknown.py", "import unexpired.events"),
    ],
)
def test_a_forbidden_import_is_found(file: str, source: str) -> None:
    """An import that the table forbids is found in every form Python knows for it."""
    assert len(border_violations(file, source)) == 1


@pytest.mark.parametrize(
    ("file", "source"),
    [
        (
            "_core/flight.py",
            "from .token import Token\nfrom collections.abc import Mapping\nimport urllib.parse",
        ),
        ("clients/_httpx2_body.py", "import httpx2\nfrom unexpired.manager import TokenManager"),
        (
            "grants/refresh.py",
            "if TYPE_CHECKING:\n    import httpx2\nfrom unexpired._core.token import Token",
        ),
        ("cli/demo.py", "from unexpired import TokenManager\nimport rich.table"),
    ],
)
def test_an_allowed_import_is_let_through(file: str, source: str) -> None:
    """What the table allows is not reported."""
    assert border_violations(file, source) == []


@pytest.mark.parametrize("source", ["async def f(): ...", "open('x')", "datetime.datetime.now()"])
def test_an_impurity_is_found(source: str) -> None:
    """Awaiting, opening a file or reading the clock is found in the core."""
    assert len(impurities("_core/token.py", source)) == 1


def test_what_is_too_long_is_found() -> None:
    """A file or a method one line over its bound is reported by its name, and one at the bound is not."""
    method = "class A:\n    def f(self):\n" + "        pass\n" * (FUNCTION_LINES - 1)
    assert lengths("a.py", method, FUNCTION_LINES + 1) == {}
    assert set(lengths("a.py", method + "        pass\n", FUNCTION_LINES + 1)) == {"a.py", "a.py::A.f"}
