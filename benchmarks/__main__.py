"""`python -m benchmarks [--json PATH] [PART …]`: prints the table, and writes it as JSON."""

from __future__ import annotations

import argparse
import json
import platform
import sys
from dataclasses import asdict
from pathlib import Path

from benchmarks import (
    bursts,
    clients,
    fleet_release,
    front,
    many_sessions,
    nginx,
    postgres_store,
    processes,
    redis_store,
    stores,
    waiters,
    warm,
)

PARTS = {
    "warm": warm.rows,
    "clients": clients.rows,
    "front": front.rows,
    "bursts": bursts.rows,
    "nginx": nginx.rows,
    "waiters": waiters.rows,
    "processes": processes.rows,
    "stores": stores.rows,
    "redis": redis_store.rows,
    "postgres": postgres_store.rows,
    "release": fleet_release.rows,
    "many-memory": many_sessions.in_memory,
    "many-redis": many_sessions.in_redis,
    "many-postgres": many_sessions.in_postgres,
}
ON_REQUEST = frozenset({"many-postgres"})
"""A minute each; one such minute is enough for everybody."""
HELP = f"any of: {', '.join(PARTS)} (default: all but {', '.join(ON_REQUEST)})"


def main() -> None:
    """Run the parts asked for; by default all but those that take another minute."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=HELP)
    parser.add_argument("--json", type=Path, metavar="PATH", help="write the rows here, too")
    options = parser.parse_args()
    unknown = set(options.parts) - set(PARTS)
    if unknown:
        parser.error(f"there is no part {min(unknown)!r}: choose from {', '.join(PARTS)}")
    sys.stdout.write(f"Python {platform.python_version()}, {platform.machine()}; medians of interleaved rounds\n\n")
    found = []
    for name in options.parts or [one for one in PARTS if one not in ON_REQUEST]:
        for row in PARTS[name]():
            found.append(asdict(row))
            mark = "✓ met    " if row.met else "✗ not met"
            sys.stdout.write(
                f"{mark} {row.name:<64} {row.value:9.2f} {row.unit:<10} target {row.target:<18} {row.note}\n"
            )
            sys.stdout.flush()
    if options.json:
        options.json.write_text(json.dumps(found, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
