"""Which urllib3 a run is about: niquests puts urllib3-future in its place, for the whole environment."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec

import urllib3

EXPECTED = os.environ.get("UNEXPIRED_TESTS_URLLIB3", "urllib3")


def test_which_urllib3_this_run_is_about() -> None:
    """The run is over the urllib3 that it was started for, and has niquests only where that is urllib3-future."""
    version: str = vars(urllib3)["__version__"]
    future = int(version.rpartition(".")[2]) >= 900
    assert ("urllib3-future" if future else "urllib3") == EXPECTED, f"this is {version}"
    assert (find_spec("niquests") is not None) == future


def test_niquests_is_not_installed() -> None:
    """Without niquests, importing its adapter says in one sentence which extra brings it."""
    program = (
        "import sys; sys.modules['niquests'] = None\n"
        "try:\n    import unexpired.clients.niquests\n"
        "except ModuleNotFoundError as error:\n    print(error, error.name, error.__cause__ is None)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=50)
    assert done.stdout == (
        "unexpired.clients.niquests needs niquests, which is not installed: "
        "pip install 'unexpired[niquests]' niquests True\n"
    )
