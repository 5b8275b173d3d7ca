"""``python -m tests.fuzz``: drive each target by coverage (libFuzzer, through Atheris) for some minutes each."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_RUNS = re.compile(r"stat::number_of_executed_units:\s*(\d+)")
_COVERED = re.compile(r"cov: (\d+) ft: (\d+)")


def fuzz(name: str, arguments: Sequence[str]) -> None:
    """Run one target in this process until libFuzzer ends it."""
    atheris: Any = importlib.import_module("atheris")  # an extra of its own, without types

    with atheris.instrument_imports(include=["unexpired", "json", "email"]):
        from tests.fuzz.targets import TARGETS

    atheris.Setup([sys.argv[0], *arguments], TARGETS[name])
    atheris.Fuzz()


def _one(name: str, seconds: int, home: Path) -> bool:
    """Run one target in a process of its own, and print one line of figures; whether it held."""
    from tests.fuzz.targets import SEEDS

    corpus = home / name
    corpus.mkdir(parents=True, exist_ok=True)
    for number, seed in enumerate(SEEDS[name]):
        (corpus / f"seed-{number}").write_bytes(seed)
    options = [f"-max_total_time={seconds}", "-timeout=10", "-rss_limit_mb=1024", "-max_len=4096"]
    command = [sys.executable, "-m", "tests.fuzz", "--target", name, "--", *options, "-print_final_stats=1"]
    done = subprocess.run(
        [*command, f"-artifact_prefix={home}/{name}-", str(corpus)],
        stderr=subprocess.STDOUT,
        stdout=subprocess.PIPE,
        text=True,
        errors="replace",
        check=False,
        env={**os.environ, "PYTHONWARNINGS": "error::RuntimeWarning"},
    )
    (home / f"{name}.log").write_text(done.stdout)
    runs, covered = _RUNS.findall(done.stdout), _COVERED.findall(done.stdout)
    points = covered[-1][0] if covered else "0"
    verdict = "held" if done.returncode == 0 else f"FAILED: see {home}/{name}.log"
    sys.stdout.write(f"{name:>14}  {int(runs[-1]) if runs else 0:>10,} inputs  {points:>6} branches  {verdict}\n")
    sys.stdout.flush()
    return done.returncode == 0


def main() -> int:
    """Run all targets, or the one that is named."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0, help="for each target")
    parser.add_argument("--only", action="append", help="a target; may be repeated")
    parser.add_argument("--home", type=Path, help="where inputs are kept from run to run")
    parser.add_argument("--target", help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    if chosen.target:
        fuzz(chosen.target, chosen.rest)
        return 0
    from tests.fuzz.targets import TARGETS

    home = chosen.home or Path(tempfile.mkdtemp(prefix="unexpired-fuzz-"))
    held = [_one(name, max(1, int(chosen.minutes * 60)), home) for name in chosen.only or TARGETS]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
