"""`python -m benchmarks [--json PATH] [PART …]`: prints the table, and writes it as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import bursts, clients, front, nginx, processes, redis_store, waiters, warm

PARTS = {
    "warm": warm.rows,
    "clients": clients.rows,
    "front": front.rows,
    "bursts": bursts.rows,
    "nginx": nginx.rows,
    "waiters": waiters.rows,
    "processes": processes.rows,
    "redis": redis_store.rows,
}


def main() -> None:
    """Run the parts asked for, all by default."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"any of: {', '.join(PARTS)} (default: all)")
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here, too")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}; medians of interleaved rounds\n\n")
    found = []
    for name in options.parts or PARTS:
        for row in PARTS[name]():
            found.append(asdict(row))
            mark = "✓" if row.met else "✗"
            sys.stdout.write(
                f"{mark} {row.name:<64} {row.value:9.2f} {row.unit:<10} target {row.target:<18} {row.note}\n"
            )
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
