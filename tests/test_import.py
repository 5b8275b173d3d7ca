"""What `import unexpired` costs, counted in modules; the benchmarks report it in milliseconds."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from tests.test_public_api import module_names

HEAVY = {
    "aiohttp",
    "anyio",
    "asyncio",
    "click",
    "concurrent.futures",
    "cryptography",
    "email",
    "filelock",
    "http.client",
    "httpcore",
    "httpcore2",
    "httpx",
    "httpx2",
    "importlib.metadata",
    "keyring",
    "logging.config",
    "multiprocessing",
    "niquests",
    "platformdirs",
    "psycopg",
    "redis",
    "requests",
    "rich",
    "sniffio",
    "socket",
    "sqlite3",
    "ssl",
    "subprocess",
    "trio",
    "truststore",
    "urllib.request",
    "urllib3",
    "uvicorn",
}


def run(code: str) -> str:
    """The output of *code* in a Python of its own, unmeasured: coverage would load modules there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def loaded(code: str) -> set[str]:
    """The modules that *code* leaves loaded in a fresh interpreter."""
    names: list[str] = json.loads(run(f"import json, sys\n{code}\nprint(json.dumps(sorted(sys.modules)))"))
    return set(names)


def test_import_unexpired_is_light() -> None:
    """`import unexpired` loads no HTTP client, event loop, server, terminal or storage package."""
    added = loaded("import unexpired") - loaded("")
    assert "unexpired" in added
    assert added & HEAVY == set()


def test_the_light_import_test_can_see_heavy_modules() -> None:
    """A module that does load one of the heavy ones is noticed by the same measure."""
    assert "asyncio" in (loaded("import asyncio") - loaded("")) & HEAVY


@pytest.mark.parametrize("module", module_names())
def test_each_public_module_can_be_the_first_import(module: str) -> None:
    """Every public module can be imported alone, before all others, without a warning or a circle."""
    assert module in loaded(f"import {module}")
